//! The messages of Amazon Bedrock's streams, and the events inside of them.

use super::counts::Counts;
use super::documents::Documents;
use crate::body::base64::Decoder;
use crate::body::eventstream::{Frames, Part};
use crate::body::json::{Limits, Names, Reader, Scanner, Span, Spot, Unreadable, Value};

/// Reads the documents in the messages of a stream. A message counts once its checksum has turned out right.
pub(super) struct Messages {
    frames: Frames,
    /// The counts up to the last whole message.
    checked: Counts,
    /// Whether the payload is an object with the event of a model in base64 (InvokeModel).
    has_envelopes: bool,
    envelope: Scanner,
    decoder: Decoder,
}

/// Receives an object `{"bytes": BASE64, "p": PADDING}`.
struct Envelope<'a> {
    decoder: &'a mut Decoder,
    documents: &'a mut Documents,
}

const BYTES: Spot = Spot(2);

static ENVELOPE_NAMES: Names = Names::new(&[("bytes", BYTES)], Spot::IGNORED);

/// So many characters of base64 are decoded at a time.
const DECODED_AT_A_TIME: usize = 1024;

// === impl Messages ===

impl Messages {
    /// Reads a stream. `has_envelopes` says whether the payload of a message contains the event in base64, and `checked`
    /// is what was counted before.
    pub(super) fn new(has_envelopes: bool, checked: Counts) -> Self {
        Self {
            frames: Frames::default(),
            checked,
            has_envelopes,
            envelope: Scanner::tolerant(Limits::default()),
            decoder: Decoder::default(),
        }
    }

    /// Reads more of the stream. Nothing is read after an error.
    pub(super) fn feed(&mut self, mut bytes: &[u8], documents: &mut Documents) {
        while let Ok(Some(part)) = self.frames.next(&mut bytes) {
            match part {
                Part::Payload(payload) if self.is_event() => self.payload(payload, documents),
                Part::Payload(_) => {}
                Part::End => self.end(documents),
            }
        }
    }

    /// Ends the stream. A message that is broken, or of which something is missing, does not count.
    pub(super) fn finish(&self, documents: &mut Documents) {
        if !self.frames.is_complete() {
            documents.reading.counts = self.checked;
            documents.is_flawed = true;
        }
    }

    fn is_event(&self) -> bool {
        self.frames.message_type() == b"event"
    }

    fn payload(&mut self, payload: &[u8], documents: &mut Documents) {
        if !self.has_envelopes {
            documents.feed(payload);
            return;
        }
        let mut reader = Envelope { decoder: &mut self.decoder, documents };
        let is_readable = self.envelope.feed(payload, &mut reader).is_ok();
        documents.is_flawed |= !is_readable;
    }

    fn end(&mut self, documents: &mut Documents) {
        documents.end();
        documents.is_stream = true;
        // Exceptions and errors come as messages too.
        documents.reading.is_broken |= !self.is_event();
        self.checked = documents.reading.counts;
        self.decoder = Decoder::default();
        self.envelope.reset();
    }
}

// === impl Envelope ===

impl Reader for Envelope<'_> {
    fn names(&self, _: Spot) -> &'static Names {
        &ENVELOPE_NAMES
    }

    fn items(&self, _: Spot) -> Spot {
        Spot::IGNORED
    }

    fn streams(&self, at: Spot) -> bool {
        at == BYTES
    }

    fn piece(&mut self, _: Spot, text: &[u8]) -> Result<(), Unreadable> {
        let mut bytes = Vec::new();
        for text in text.chunks(DECODED_AT_A_TIME) {
            bytes.clear();
            let decoded = self.decoder.decode(text, &mut bytes);
            self.documents.feed(&bytes);
            decoded.map_err(|_| Unreadable::NotJson)?;
        }
        Ok(())
    }

    fn value(&mut self, _: Spot, _: Value<'_>, _: Span) -> Result<(), Unreadable> {
        Ok(())
    }
}
