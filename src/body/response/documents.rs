//! The JSON documents of a response, one after the other.

use super::layout::Layout;
use super::reading::Reading;
use crate::body::json::{Limits, Scanner};
use crate::body::sse::{Events, Part};

/// Reads documents, and goes on after one that is not readable: what it has reported so far counts.
pub(super) struct Documents {
    scanner: Scanner,
    pub(super) reading: Reading,
    /// Whether a document was not read to its end.
    pub(super) is_flawed: bool,
    /// The length of all documents that are not readable.
    pub(super) unread_bytes: u64,
    /// The length of the document so far.
    document_bytes: u64,
    /// Whether the document is readable so far.
    is_readable: bool,
    /// Whether they are the events of a stream.
    pub(super) is_stream: bool,
}

/// How deep objects and arrays are read: the arguments of a tool may be nested more deeply than any request.
const MAX_DEPTH: u16 = 1024;

// === impl Documents ===

impl Documents {
    pub(super) fn new(layout: &'static Layout) -> Self {
        Self {
            scanner: Scanner::tolerant(Limits { max_depth: MAX_DEPTH, ..Limits::default() }),
            reading: Reading::new(layout),
            is_flawed: false,
            unread_bytes: 0,
            document_bytes: 0,
            is_readable: true,
            is_stream: false,
        }
    }

    /// Reads more of a document. Returns whether it is readable so far.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.document_bytes = self.document_bytes.saturating_add(bytes.len() as u64);
        self.is_readable = self.scanner.feed(bytes, &mut self.reading).is_ok();
        self.is_readable
    }

    /// Reads more of a body of JSON: one document, or one a line, each of which may take several lines.
    pub(super) fn json(&mut self, bytes: &[u8]) {
        if !self.reading.layout.is_lines {
            self.is_flawed |= !self.feed(bytes);
            self.reading.is_final = self.scanner.is_complete();
            return;
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_readable = self.feed(line);
            self.is_flawed |= !is_readable;
            if line.ends_with(b"\n") && (self.scanner.is_complete() || !is_readable) {
                self.end();
            }
        }
    }

    /// Reads more of a body of server-sent events. The data of each is a document.
    pub(super) fn events(&mut self, events: &mut Events, mut bytes: &[u8]) {
        while let Some(part) = events.next(&mut bytes) {
            match part {
                Part::Begin => {}
                Part::Data(data) => {
                    self.feed(data);
                }
                Part::End => self.end_event(events),
            }
        }
    }

    /// Whether the document reports the usage of a stream of OpenAI and nothing else.
    pub(super) fn is_usage(&self) -> bool {
        self.scanner.is_complete() && self.reading.signs.are_of_usage()
    }

    /// Ends such a body. The last event may lack its empty line.
    pub(super) fn end_events(&mut self, events: &mut Events) {
        if events.finish().is_some() {
            self.end_event(events);
        }
    }

    /// Ends a document. What is not an object, e.g. `[DONE]`, need not be readable.
    pub(super) fn end(&mut self) {
        self.is_flawed |= !self.reading.end_document();
        let bytes = std::mem::take(&mut self.document_bytes);
        if !std::mem::replace(&mut self.is_readable, true) {
            self.unread_bytes = self.unread_bytes.saturating_add(bytes);
        }
        self.scanner.reset();
    }

    /// Ends the document of an event.
    pub(super) fn end_event(&mut self, events: &Events) {
        self.is_stream |= events.has_data();
        self.reading.is_final |= events.is_done();
        self.end();
    }
}
