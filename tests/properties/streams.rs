//! Streams of events and of messages, and base64, whole and damaged, in any pieces.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use base64::engine::general_purpose::STANDARD;
use vkey::body::base64::Decoder;
use vkey::body::eventstream::{self, Frames};
use vkey::body::sse::{self, Events, MAX_NAME_BYTES};

use super::documents::pieces;
use super::*;

/// An event: the beginning of its name, its data if it has any, and whether this is the end mark.
pub(crate) type Event = (Vec<u8>, String, bool);

/// A stream that often has what decides.
pub(crate) fn stream() -> impl Strategy<Value = String> {
    let parts = &[
        "data:", "data: ", "data", "event:", "event: ", "id: 1", ":", "\n", "\n", "\n\n", "\r\n",
        "\r\n\r\n", "\r", "x", " ", "[DONE]", "{\"a\":1}", "\u{feff}", "\u{2028}", "\u{85}",
        "\u{e9}",
    ][..];
    vec(select(parts), 0..30).prop_map(|parts| parts.concat())
}

/// The events of a stream, as the standard reads them.
pub(crate) fn expected_events(stream: &str) -> Vec<Event> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut name, mut lines, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Vec::from_iter(text.split('\n'));
    // An event at the end needs no empty line if it has data. A line at the end may be cut off in its name.
    let last = all.pop().unwrap_or_default();
    all.extend(last.contains(':').then_some(last));
    let count = all.len();
    for (index, line) in all.into_iter().enumerate() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => lines.push(value),
            "event" => name = value.bytes().take(MAX_NAME_BYTES).collect(),
            _ => {}
        }
        if line.is_empty() || index + 1 == count && !lines.is_empty() {
            let data = std::mem::take(&mut lines).join("\n");
            let is_done = data.starts_with("[DONE]");
            events.push((std::mem::take(&mut name), data, is_done));
        }
    }
    events
}

fn found_events(pieces: &[&[u8]]) -> Vec<(Event, Vec<u8>)> {
    let mut events = Events::new();
    let (mut data, mut own, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let mut end = |events: &Events, data: &mut Vec<u8>, own: &mut Vec<u8>| {
        let text = String::from_utf8(std::mem::take(data)).unwrap();
        let event = (events.name().to_vec(), text, events.is_done());
        assert_eq!(events.has_data(), !event.1.is_empty());
        found.push((event, std::mem::take(own)));
    };
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let before = rest;
            let part = events.next(&mut rest);
            own.extend_from_slice(&before[..before.len() - rest.len()]);
            match part {
                Some(sse::Part::Begin) => {}
                Some(sse::Part::Data(piece)) => data.extend_from_slice(piece),
                Some(sse::Part::End) => end(&events, &mut data, &mut own),
                None => break,
            }
        }
    }
    if events.finish().is_some() {
        end(&events, &mut data, &mut own);
    }
    found
}

fn events_alone(found: &[(Event, Vec<u8>)]) -> Vec<Event> {
    found.iter().map(|(event, _)| event.clone()).collect()
}

/// Messages with any headers of strings and any payload.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let name = select(&[":event-type", ":message-type", ":exception-type", "x", ""][..]);
    let header = (name, ".{0,80}").prop_map(|(name, value)| {
        let len = u16::try_from(value.len()).unwrap().to_be_bytes();
        let name_len = [u8::try_from(name.len()).unwrap()];
        [&name_len, name.as_bytes(), &[7], &len, value.as_bytes()].concat()
    });
    let message = (vec(header, 0..4), vec(any::<u8>(), 0..40)).prop_map(|(headers, payload)| {
        let headers = headers.concat();
        let be = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let mut message = [be(16 + headers.len() + payload.len()), be(headers.len())].concat();
        message.extend(crc32(&message).to_be_bytes());
        message.extend([headers, payload].concat());
        message.extend(crc32(&message).to_be_bytes());
        message
    });
    vec(message, 0..4).prop_map(|messages| messages.concat())
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// The payloads and the headers of all messages, and whether the stream may end after them.
type Messages = (Vec<(Vec<u8>, [Vec<u8>; 3])>, Result<bool, eventstream::Broken>);

fn found_messages(pieces: &[&[u8]]) -> Messages {
    let mut frames = Frames::default();
    let (mut payload, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match frames.next(&mut rest) {
                Ok(Some(eventstream::Part::Payload(piece))) => payload.extend_from_slice(piece),
                Ok(Some(eventstream::Part::End)) => {
                    let headers =
                        [frames.message_type(), frames.event_type(), frames.exception_type()];
                    found.push((std::mem::take(&mut payload), headers.map(<[u8]>::to_vec)));
                }
                Ok(None) => break,
                Err(broken) => return (found, Err(broken)),
            }
        }
    }
    (found, Ok(frames.is_complete()))
}

fn decoded(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::default();
    let mut bytes = Vec::new();
    pieces.iter().try_for_each(|piece| decoder.decode(piece, &mut bytes)).ok()?;
    decoder.is_complete().then_some(bytes)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn events_are_those_of_the_standard(stream in stream(), cuts in vec(any::<Index>(), 0..20)) {
        let whole = found_events(&[stream.as_bytes()]);
        prop_assert_eq!(events_alone(&whole), expected_events(&stream), "{:?}", stream);
        let bytes = stream.as_bytes();
        prop_assert_eq!(&found_events(&pieces(bytes, &cuts)), &whole, "{:?}", stream);
        prop_assert_eq!(&found_events(&Vec::from_iter(bytes.chunks(1))), &whole, "{:?}", stream);
    }

    /// An event without its neighbours is the same event, so one can be removed.
    #[test]
    fn each_event_has_its_own_bytes(stream in stream()) {
        let found = found_events(&[stream.as_bytes()]);
        let own = Vec::from_iter(found.iter().flat_map(|(_, own)| own.clone()));
        prop_assert!(stream.as_bytes().starts_with(&own));
        let is_alone = |own: &[u8]| !own.starts_with("\u{feff}".as_bytes());
        for (event, own) in found.iter().filter(|(_, own)| is_alone(own)) {
            prop_assert_eq!(events_alone(&found_events(&[own])), vec![event.clone()], "{:?}", stream);
        }
    }

    #[test]
    fn how_messages_are_cut_makes_no_difference(stream in messages(), cuts in vec(any::<Index>(), 0..20)) {
        let whole = found_messages(&[&stream]);
        prop_assert_eq!(&whole.1, &Ok(true));
        prop_assert_eq!(&found_messages(&pieces(&stream, &cuts)), &whole);
        prop_assert_eq!(&found_messages(&Vec::from_iter(stream.chunks(1))), &whole);
    }

    #[test]
    fn a_message_with_a_changed_bit_never_ends(stream in messages(), at in any::<Index>(), bit in 0..8_u32) {
        if stream.is_empty() {
            return Ok(());
        }
        let (whole, _) = found_messages(&[&stream]);
        let mut changed = stream.clone();
        changed[at.index(stream.len())] ^= 1 << bit;
        let (found, result) = found_messages(&[&changed]);
        prop_assert!(found.len() < whole.len() && whole.starts_with(&found));
        prop_assert_ne!(result, Ok(true));
        prop_assert_eq!(found_messages(&Vec::from_iter(changed.chunks(1))), (found, result));
    }

    #[test]
    fn base64_is_decoded_like_by_another_decoder(
        bytes in vec(any::<u8>(), 0..40),
        change in of((any::<Index>(), select(&b"A=+/-_ \n\x80"[..]))),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let mut text = STANDARD.encode(&bytes).into_bytes();
        if let Some((at, character)) = change && !text.is_empty() {
            let at = at.index(text.len());
            text[at] = character;
        }
        // The bits of the last character that belong to no byte are not looked at.
        let lenient = base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
        let lenient = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
        let expected = lenient.decode(&text).ok();
        prop_assert_eq!(&decoded(&[&text]), &expected);
        prop_assert_eq!(&decoded(&pieces(&text, &cuts)), &expected);
    }
}
