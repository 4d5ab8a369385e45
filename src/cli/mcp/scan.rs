//! The id in a line that is too long to be held: found while the line passes by.

use crate::json::Json;

use super::message::Id;

/// The longest name or value that is looked at, as JSON text.
const MAX_TEXT_BYTES: usize = 2048;

/// Looks at the members of one JSON object, in pieces of its text. What is no JSON object gives
/// something or nothing, and never fails.
#[derive(Default)]
pub(super) struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The text since the last comma or colon of the object itself.
    text: Vec<u8>,
    /// The name before the value that is being read.
    name: Option<Json>,
    id: Option<Json>,
    has_method: bool,
}

impl Scan {
    /// Looks at a piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            self.step(*byte);
        }
    }

    /// The id of the request that the object answers, as far as that can be told.
    pub(super) fn answered(&self) -> Option<Id> {
        self.id.as_ref().filter(|_| !self.has_method).and_then(Id::new)
    }

    fn step(&mut self, byte: u8) {
        let structural = !self.in_string;
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
        } else {
            self.in_string = byte == b'"';
        }
        match byte {
            b'{' | b'[' if structural => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if structural => {
                if self.depth == 1 {
                    self.end_value();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if structural && self.depth == 1 => self.end_value(),
            b':' if structural && self.depth == 1 => self.name = self.take(),
            _ if self.depth == 1 && self.text.len() < MAX_TEXT_BYTES => self.text.push(byte),
            _ => {}
        }
    }

    fn end_value(&mut self) {
        let value = self.take();
        match self.name.take().as_ref().and_then(Json::as_str) {
            Some("id") => self.id = value,
            Some("method") => self.has_method = true,
            _ => {}
        }
    }

    fn take(&mut self) -> Option<Json> {
        Json::parse(&std::mem::take(&mut self.text)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        let mut whole = Scan::default();
        whole.feed(text.as_bytes());
        let mut scan = Scan::default();
        text.as_bytes().chunks(1).for_each(|piece| scan.feed(piece));
        assert_eq!(whole.answered(), scan.answered());
        scan.answered().map(|id| id.to_string())
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        let long = "x".repeat(3 * MAX_TEXT_BYTES);
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(found(&format!(r#"{{"jsonrpc":"2.0","id":3,"result":"{long}"}}"#)), some("3"));
        assert_eq!(
            found(&format!(r#" {{"result":["{long}"], "id" : "a\"}}" }} "#)),
            some(r#""a\"}""#)
        );
        let nested =
            r#"{"result":{"id":1,"x":[{"id":2}],"t":"\"id\":4"},"i\u0064":5,"jsonrpc":"2.0"}"#;
        assert_eq!(found(nested), some("5"));
        assert_eq!(found(r#"{"id":3,"method":"ping","params":{}}"#), None);
        assert_eq!(found(r#"{"result":{"id":1}}"#), None);
        assert_eq!(found(r#"[{"id":1}]"#), None);
        assert_eq!(found("}}}{{\"id\":1"), None);
    }
}
