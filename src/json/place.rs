//! Finds the line of a member in a JSON text.

use std::fmt::Write as _;

use super::Invalid;

/// Finds a member in valid JSON by its path, as [`Invalid`] names it.
struct Finder<'a> {
    text: &'a [u8],
    position: usize,
    wanted: &'a str,
    /// The longest prefix of the path that was found, and its position.
    found: (usize, usize),
}

/// The line of the invalid member, counted from 1. If the member is missing, it is the line of its object.
/// A syntax error has its own line.
pub fn line(text: &[u8], invalid: &Invalid) -> usize {
    if let Some(line) = invalid.syntax_line() {
        return line;
    }
    let root = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    let mut finder = Finder { text, position: root, wanted: invalid.path(), found: (0, root) };
    finder.value("");
    let (_, position) = finder.found;
    let before = text.get(..position).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

impl Finder<'_> {
    fn value(&mut self, path: &str) {
        self.space();
        self.meet(path, self.position);
        match self.peek() {
            Some(b'{') => self.object(path),
            Some(b'[') => self.list(path),
            Some(b'"') => _ = self.string(),
            _ => self.plain(),
        }
    }

    fn object(&mut self, path: &str) {
        self.position += 1;
        loop {
            self.space();
            let start = self.position;
            if self.peek() != Some(b'"') {
                break;
            }
            let name = self.string();
            let separator = if path.is_empty() { "" } else { "." };
            let member = format!("{path}{separator}{}", name.escape_debug());
            self.meet(&member, start);
            self.space();
            self.position += 1;
            self.value(&member);
            self.space();
            if self.peek() != Some(b',') {
                break;
            }
            self.position += 1;
        }
        self.position += 1;
    }

    fn list(&mut self, path: &str) {
        self.position += 1;
        for index in 0.. {
            self.space();
            if matches!(self.peek(), None | Some(b']')) {
                break;
            }
            let mut item = path.to_owned();
            _ = write!(item, "[{index}]");
            self.value(&item);
            self.space();
            if self.peek() != Some(b',') {
                break;
            }
            self.position += 1;
        }
        self.position += 1;
    }

    /// Reads a string and resolves its escapes.
    fn string(&mut self) -> String {
        let start = self.position;
        self.position += 1;
        while let Some(byte) = self.peek() {
            self.position += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let quoted = self.text.get(start..self.position).unwrap_or_default();
        serde_json::from_slice(quoted).unwrap_or_default()
    }

    fn plain(&mut self) {
        while self.peek().is_some_and(|byte| !b",]} \t\r\n".contains(&byte)) {
            self.position += 1;
        }
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.position += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    /// Records the position if the path is the wanted one or a prefix of it. A member is met twice, at its
    /// name and at its value: the name counts.
    fn meet(&mut self, path: &str, position: usize) {
        let rest = self.wanted.strip_prefix(path);
        let inside = rest
            .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']));
        if inside && path.len() > self.found.0 {
            self.found = (path.len(), position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Integers, Json};

    const TEXT: &str = r#"{
  "a": [1,
    {"b\n": {},
     "c": "x \" ]"}
  ],
  "a2": true
}"#;

    fn line_of(path: &str) -> usize {
        line(TEXT.as_bytes(), &Invalid::at(path))
    }

    #[test]
    fn a_member_is_found_by_its_path() {
        assert_eq!(line_of("a"), 2);
        assert_eq!(line_of("a[0]"), 2);
        assert_eq!(line_of("a[1]"), 3);
        assert_eq!(line_of("a[1].b\\n"), 3);
        assert_eq!(line_of("a[1].c"), 4);
        assert_eq!(line_of("a2"), 6);
    }

    #[test]
    fn a_missing_member_is_reported_at_its_object() {
        assert_eq!(line_of("a[1].missing"), 3);
        assert_eq!(line_of("missing"), 1);
        assert_eq!(line_of(""), 1);
        assert_eq!(line(b"\n\n{\"a\":\n1}", &Invalid::at("missing")), 3);
        assert_eq!(line(b"\n", &Invalid::at("missing")), 1);
    }

    #[test]
    fn a_syntax_error_names_its_own_line() {
        let invalid = Json::parse(b"{\n\n\"a\" 1}").unwrap_err();
        assert_eq!(line(b"", &invalid), 3);
        assert!(Json::parse(TEXT.as_bytes()).unwrap().root(Integers::Digits).string().is_err());
    }
}
