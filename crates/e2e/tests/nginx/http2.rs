//! One request over HTTP/2 without TLS: as much of RFC 9113 and RFC 7541 as asks nginx a question.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A status, if the stream got one, and the answer's header block and body as they came.
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    pub(crate) block: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Sends one request of these fields, pseudo-headers first.
pub(crate) fn send(address: SocketAddr, fields: &[(&str, &str)]) -> io::Result<Answer> {
    send_with(address, fields, None)
}

/// Sends one request of these fields, and a body where there is one, of which no field need tell.
pub(crate) fn send_with(
    address: SocketAddr,
    fields: &[(&str, &str)],
    body: Option<&[u8]>,
) -> io::Result<Answer> {
    let parts: Vec<&[u8]> = body.into_iter().collect();
    send_parts(address, fields, &parts, &[])
}

/// Sends one request of these fields, a body in these parts, and trailers.
pub(crate) fn send_parts(
    address: SocketAddr,
    fields: &[(&str, &str)],
    body: &[&[u8]],
    trailers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let block = |fields: &[(&str, &str)]| -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
    };
    let end = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let mut frames = vec![
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(
            HEADERS,
            end(body.is_empty() && trailers.is_empty()) | END_HEADERS,
            1,
            &block(fields),
        ),
    ];
    for (number, part) in body.iter().enumerate() {
        let is_last = number + 1 == body.len() && trailers.is_empty();
        frames.push(frame(DATA, end(is_last), 1, part));
    }
    if !trailers.is_empty() {
        frames.push(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(trailers)));
    }
    stream.write_all(&frames.concat())?;
    let mut answer = Answer { status: None, block: Vec::new(), body: Vec::new() };
    loop {
        let (kind, flags, payload) = read(&mut stream)?;
        match kind {
            DATA => answer.body.extend(payload),
            HEADERS => {
                answer.status = status(&payload);
                answer.block = payload;
            }
            RST_STREAM | GOAWAY => return Ok(answer),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Ok(answer);
        }
    }
}

/// A field without index and without Huffman code.
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0], &*length(name), name.as_bytes(), &*length(value), value.as_bytes()].concat()
}

/// The length of a text (RFC 7541, section 5.1, with a prefix of seven bits).
fn length(text: &str) -> Vec<u8> {
    let Some(mut rest) = text.len().checked_sub(0x7f) else {
        return vec![u8::try_from(text.len()).expect("less than 127")];
    };
    let mut bytes = vec![0x7f];
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest % 0x80).expect("seven bits") | 0x80);
        rest /= 0x80;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

/// `:status` is the first field: an entry of the static table, or text under index 8.
fn status(block: &[u8]) -> Option<u16> {
    match block {
        [first @ 0x88..=0x8e, ..] => {
            Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)])
        }
        [0x08 | 0x48, 3, text @ ..] => std::str::from_utf8(text.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn read(stream: &mut TcpStream) -> io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
    stream.read_exact(&mut payload)?;
    Ok((head[3], head[4], payload))
}
