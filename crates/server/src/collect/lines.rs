//! From audit lines to what is stored of them.

use vkey::audit::{AuditKey, Entry, Line, Mask};

use crate::store::{Item, Record};

/// Reads audit lines: verifies them, and masks what is not to be stored.
#[derive(Clone)]
pub struct LineReader {
    /// The keys of the chains. Without one, no MAC is checked.
    keys: Vec<AuditKey>,
    /// What is masked beside what the gate has masked; `None` to keep lines as they are.
    mask: Option<Mask>,
}

// === impl LineReader ===

impl LineReader {
    /// A reader of lines of chains with any of these keys.
    pub fn new(keys: Vec<AuditKey>, mask: Option<Mask>) -> Self {
        Self { keys, mask }
    }

    /// Reads a line, without what is wrapped around it.
    pub fn read(&self, text: &str) -> Item {
        match Entry::parse(text) {
            Err(invalid) => self.finding("unreadable", &invalid.to_string(), text),
            Ok(Entry::Anchor(anchor)) => match self.is_verified(text) {
                true => Item::Anchor(Box::new(anchor), text.to_owned()),
                false => self.changed(text),
            },
            Ok(Entry::Line(line)) => {
                let is_linked = line.record.as_ref().is_some_and(|record| record.link.is_some());
                if is_linked && !self.is_verified(text) {
                    return self.changed(text);
                }
                self.item(&line, text)
            }
        }
    }

    fn item(&self, line: &Line<'_>, text: &str) -> Item {
        let Some(mask) = &self.mask else {
            return Item::Record(Box::new(Record::new(line, text.to_owned())));
        };
        let masked = line.write(mask);
        // The columns are those of the masked line, so that what it masks is shown nowhere. It has no place in a chain.
        let link = Record::new(line, String::new()).link;
        match Line::parse(&masked) {
            Ok(line) => {
                Item::Record(Box::new(Record { link, ..Record::new(&line, masked.clone()) }))
            }
            Err(invalid) => self.finding("unreadable", &invalid.to_string(), text),
        }
    }

    fn is_verified(&self, text: &str) -> bool {
        let mut keys = self.keys.iter().peekable();
        keys.peek().is_none() || keys.any(|key| key.verifies(text) == Some(true))
    }

    fn changed(&self, text: &str) -> Item {
        self.finding("changed", "the MAC does not match", text)
    }

    /// A finding about a line. A line that is to be masked and cannot be read is not shown.
    fn finding(&self, kind: &'static str, why: &str, text: &str) -> Item {
        match self.mask {
            None => Item::Finding(kind, format!("{why}: {text}")),
            Some(_) => Item::Finding(kind, why.to_owned()),
        }
    }
}
