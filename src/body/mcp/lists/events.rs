//! Filters the messages of a stream of server-sent events.

use super::blocked::Cause;
use super::document::Document;
use super::edit::Edit;
use super::reading::Allows;
use crate::body::json::words::line_bytes;
use crate::body::sse::{Events, Part};

/// Holds each event from its first data to its end. The lines before and all other bytes pass.
///
/// An event that is too large to be held passes as long as it has no list.
pub(super) struct Stream {
    events: Events,
    max_bytes: usize,
    /// What is held of the event.
    held: Vec<u8>,
    /// The data in what is held.
    data: Vec<u8>,
    kind: Kind,
    /// Whether the event is too large to be held.
    is_passing: bool,
    /// What goes on to the client, until it is taken.
    pub(super) passed: Vec<u8>,
}

/// What the data of an event are, by their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// There are none.
    Nothing,
    /// White space so far.
    Blank,
    /// What may be a message.
    Message,
    /// What is no message, e.g. the path in an event `endpoint`.
    Other,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

// === impl Stream ===

impl Stream {
    /// Reads a stream from its start, and holds that many bytes of an event.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            events: Events::new(),
            max_bytes,
            held: Vec::new(),
            data: Vec::new(),
            kind: Kind::Nothing,
            is_passing: false,
            passed: Vec::new(),
        }
    }

    /// Whether a part of the data of the present event has passed.
    pub(super) fn is_torn(&self) -> bool {
        self.is_passing && self.kind != Kind::Nothing
    }

    /// The memory that is allocated for what is held, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.held.capacity() + self.data.capacity()
    }

    /// Reads the next bytes.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        document: &mut Document,
        allows: Allows<'_>,
    ) -> Result<(), Cause> {
        loop {
            let before = bytes;
            let part = self.events.next(&mut bytes);
            let len = before.len().saturating_sub(bytes.len());
            self.add(before.get(..len).unwrap_or_default());
            if let Some(Part::Data(data)) = part {
                self.data(data, document, allows)?;
            }
            self.bound(document)?;
            match part {
                Some(Part::End) => self.end(document, allows)?,
                Some(Part::Begin | Part::Data(_)) => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Ends the stream. Its last event may lack its empty line.
    pub(super) fn finish(
        &mut self,
        document: &mut Document,
        allows: Allows<'_>,
    ) -> Result<(), Cause> {
        if self.events.finish().is_some() {
            self.end(document, allows)?;
        }
        self.passed.append(&mut self.held);
        Ok(())
    }

    /// Adds bytes to the event. Lines before its data pass.
    fn add(&mut self, mut own: &[u8]) {
        if self.kind == Kind::Nothing
            && let Some(end) = own.iter().rposition(|byte| matches!(byte, b'\r' | b'\n'))
            && let Some((lines, after)) = own.split_at_checked(end.saturating_add(1))
        {
            self.passed.append(&mut self.held);
            self.passed.extend_from_slice(lines);
            own = after;
            // A line that was too large to be held had no data.
            self.is_passing = false;
        }
        self.held.extend_from_slice(own);
    }

    /// Reads data of the event.
    fn data(
        &mut self,
        data: &[u8],
        document: &mut Document,
        allows: Allows<'_>,
    ) -> Result<(), Cause> {
        if self.kind == Kind::Nothing {
            self.kind = Kind::Blank;
        }
        if self.kind == Kind::Blank {
            self.kind = kind(data);
        }
        if self.kind == Kind::Other {
            return Ok(());
        }
        if !self.is_passing {
            self.data.extend_from_slice(data);
        }
        Ok(document.feed(data, allows)?)
    }

    /// Passes on what has been read of an event that is too large to be held.
    fn bound(&mut self, document: &Document) -> Result<(), Cause> {
        if !self.is_passing && self.held.len() <= self.max_bytes {
            return Ok(());
        }
        let reading = &document.reading;
        if reading.is_list || !reading.edits.is_empty() {
            return Err(Cause::TooLarge);
        }
        self.is_passing = true;
        self.passed.append(&mut self.held);
        self.data.clear();
        Ok(())
    }

    /// Ends an event.
    fn end(&mut self, document: &mut Document, allows: Allows<'_>) -> Result<(), Cause> {
        let edits = match self.kind {
            Kind::Message => document.finish(allows)?,
            Kind::Nothing | Kind::Blank | Kind::Other => Vec::new(),
        };
        if edits.is_empty() {
            self.passed.append(&mut self.held);
        } else {
            self.rewrite(&edits);
        }
        self.held.clear();
        self.data.clear();
        self.kind = Kind::Nothing;
        self.is_passing = false;
        document.reset();
        Ok(())
    }

    /// Passes on the event with its data changed, in one line. All its other lines stay.
    fn rewrite(&mut self, edits: &[Edit]) {
        let mut data = Some(Edit::apply(edits, &self.data));
        let mut rest = self.held.as_slice();
        while !rest.is_empty() {
            let (line, end, after) = cut_line(rest);
            rest = after;
            if !is_data(line) {
                self.passed.extend_from_slice(line);
                self.passed.extend_from_slice(end);
            } else if let Some(data) = data.take() {
                self.passed.extend_from_slice(b"data: ");
                // In JSON, a line feed can only be white space.
                let spaced = data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte });
                self.passed.extend(spaced);
                self.passed.extend_from_slice(end);
            }
        }
    }
}

/// What data are that begin so. Some readers take what begins with NUL or a byte order mark for JSON.
fn kind(data: &[u8]) -> Kind {
    match data.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n')) {
        None => Kind::Blank,
        Some(b'{' | b'[' | ..b' ' | 0x7F..) => Kind::Message,
        Some(_) => Kind::Other,
    }
}

/// The first line, its end, and what follows.
fn cut_line(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (line, after) = bytes.split_at_checked(line_bytes(bytes)).unwrap_or((bytes, b""));
    let len = if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) };
    let (end, after) = after.split_at_checked(len).unwrap_or((after, b""));
    (line, end, after)
}

/// Whether a line has data. One that begins with a byte order mark may be the first of the stream.
fn is_data(line: &[u8]) -> bool {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    line.strip_prefix(b"data").is_some_and(|rest| matches!(rest, [] | [b':', ..]))
}
