//! The reader of requests.

use crate::body::json::{Limits, Names, Reader, Scanner, Span, Spot, Text, Unreadable, Value};
use crate::body::{Declared, Format};

use super::facts::RequestFacts;
use super::findings::Findings;
use super::places::{document, place};
use super::target::Target;

/// Reads the body of a request, piece by piece. How it is cut makes no difference. A body of [`Format::Other`] is not
/// read: nothing is known of it.
#[derive(Debug)]
pub struct RequestReader {
    scanner: Scanner,
    places: Places,
}

/// Tells the findings what stands where.
#[derive(Debug)]
struct Places {
    document: Spot,
    findings: Findings,
    /// The known member whose value comes next, or cannot be read.
    member: Option<&'static str>,
}

// === impl RequestReader ===

impl RequestReader {
    /// A reader for the body of a request.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Encoded`] or [`Unreadable::UndeclaredType`] if the headers do not declare plain JSON.
    pub fn new(target: Target, declared: Declared, limits: Limits) -> Result<Self, Unreadable> {
        if target.format != Format::Other {
            declared.check()?;
        }
        let document = document(target.format);
        let findings = Findings::new(target)?;
        Ok(Self {
            scanner: Scanner::new(limits),
            places: Places { document, findings, member: None },
        })
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    ///
    /// Why the body cannot be read, or what it asks for is not known for certain.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if self.is_read() { self.scanner.feed(bytes, &mut self.places) } else { Ok(()) }
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// As [`RequestReader::feed`], and if the body has not ended.
    pub fn finish(mut self) -> Result<RequestFacts, Unreadable> {
        if self.is_read() {
            self.scanner.finish(&mut self.places)?;
        }
        self.places.findings.into_facts(self.scanner.text_tokens())
    }

    /// The name of the known member at which the body cannot be read, if it is one.
    pub fn member(&self) -> Option<&'static str> {
        self.places.member
    }

    fn is_read(&self) -> bool {
        self.places.findings.format() != Format::Other
    }
}

// === impl Places ===

impl Places {
    /// The place of the whole document depends on its format.
    fn spot(&self, at: Spot) -> Spot {
        if at == Spot::ROOT { self.document } else { at }
    }
}

impl Reader for Places {
    fn names(&self, at: Spot) -> &'static Names {
        &place(self.spot(at)).names
    }

    fn member(&mut self, at: Spot, name: &Text<'_>) -> Option<Spot> {
        let known = self.names(at).member(name.bytes);
        self.member = known.map(|(name, _)| *name);
        known.map(|(_, spot)| *spot)
    }

    fn items(&self, at: Spot) -> Spot {
        place(self.spot(at)).items
    }

    fn value(&mut self, at: Spot, value: Value<'_>, span: Span) -> Result<(), Unreadable> {
        if at == Spot::ROOT && !matches!(value, Value::OpenObject | Value::CloseObject) {
            return Err(Unreadable::WrongType);
        }
        self.findings.value(self.spot(at), value, span)?;
        if at == Spot::ROOT && value == Value::OpenObject {
            self.findings.begin(span);
        }
        self.member = None;
        Ok(())
    }
}
