//! Writes a JSON object member by member.

use super::quoted::push_quoted;
use crate::json::decimal::push_decimal;

/// A JSON object that is being appended to a text.
pub struct Object<'a> {
    text: &'a mut String,
    /// The character before the next member: `{` or `,`.
    separator: char,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn open(text: &'a mut String) -> Self {
        Self { text, separator: '{' }
    }

    /// Appends a member that is a string, escaped to ASCII, or `null`.
    pub fn text(&mut self, name: &str, value: Option<&str>) {
        let text = self.member(name);
        match value {
            Some(value) => push_quoted(text, value),
            None => text.push_str("null"),
        }
    }

    /// Appends a member that is a number, or `null`.
    pub fn number(&mut self, name: &str, value: Option<u64>) {
        let text = self.member(name);
        match value {
            Some(value) => push_decimal(text, value),
            None => text.push_str("null"),
        }
    }

    /// Appends the name of a member, and returns the text to which its value must be appended.
    pub fn member(&mut self, name: &str) -> &mut String {
        self.text.push(self.separator);
        self.separator = ',';
        push_quoted(self.text, name);
        self.text.push(':');
        self.text
    }

    /// Ends the object.
    pub fn close(self) {
        self.text.push_str(if self.separator == '{' { "{}" } else { "}" });
    }
}
