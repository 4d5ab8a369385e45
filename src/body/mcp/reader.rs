//! The reader of messages.

use crate::body::Declared;
use crate::body::json::{Limits, Scanner, Span, Unreadable};

use super::Wanted;
use super::message::{MAX_ID_BYTES, Message};
use super::parts::Parts;

/// Reads a message from a client, piece by piece. How it is cut makes no difference.
#[derive(Debug)]
pub struct MessageReader {
    scanner: Scanner,
    parts: Parts,
    id: IdBytes,
}

/// Copies the bytes of the id. The scanner tells where they were only after it has read them.
#[derive(Debug, Default)]
struct IdBytes {
    /// The last bytes that were read, as many as an id may have.
    recent: Vec<u8>,
    /// The number of bytes that were read.
    offset: u64,
    id: Option<Box<[u8]>>,
}

// === impl MessageReader ===

impl MessageReader {
    /// A reader for the body of a request. `wanted`: what to look for in the arguments of a call.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Encoded`] or [`Unreadable::UndeclaredType`] if the headers do not declare plain JSON.
    pub fn new(wanted: Wanted, declared: Declared, limits: Limits) -> Result<Self, Unreadable> {
        declared.check()?;
        let scanner = Scanner::new(limits);
        Ok(Self { scanner, parts: Parts::new(wanted), id: IdBytes::default() })
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    ///
    /// Why the body cannot be read.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.scanner.feed(bytes, &mut self.parts)?;
        self.id.read(bytes, self.parts.id);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// As [`MessageReader::feed`], and if the body has not ended, is not a message, or what it asks for is not known for
    /// certain.
    pub fn finish(mut self) -> Result<Message, Unreadable> {
        self.scanner.finish(&mut self.parts)?;
        self.parts.into_message(self.id.id)
    }
}

// === impl IdBytes ===

impl IdBytes {
    /// `at`: where the id is, once it has ended in `bytes` or right before them.
    fn read(&mut self, bytes: &[u8], at: Option<Span>) {
        if self.id.is_some() {
            return;
        }
        if let Some(span) = at {
            let first = self.offset - self.recent.len() as u64;
            let skipped = usize::try_from(span.start - first).unwrap_or(usize::MAX);
            let len = usize::try_from(span.end - span.start).unwrap_or_default();
            let known = self.recent.iter().chain(bytes);
            self.id = Some(known.skip(skipped).take(len).copied().collect());
            self.recent = Vec::new();
            return;
        }
        let last = bytes.len().saturating_sub(MAX_ID_BYTES);
        let last = bytes.get(last..).unwrap_or_default();
        let excess = (self.recent.len() + last.len()).saturating_sub(MAX_ID_BYTES);
        self.recent.drain(..excess.min(self.recent.len()));
        self.recent.extend_from_slice(last);
        self.offset += bytes.len() as u64;
    }
}
