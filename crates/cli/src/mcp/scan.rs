//! Finds the id in a line that cannot be parsed, or is too long to hold, while it streams by.

use vkey::json::Json;

use super::id::Id;
use super::names::{OF_MESSAGE, resembled};

/// The longest name or value that is examined, as JSON text.
const MAX_TEXT_BYTES: usize = 2048;

/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 65_536;

/// Scans the members of one JSON object, piece by piece. Input that is not an object yields nothing, and
/// never fails. Values need not be valid JSON, as long as their ends are clear.
#[derive(Default)]
pub(super) struct Scan {
    /// The closing brackets of what is open.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// The text of the object itself since the last comma or colon.
    text: Vec<u8>,
    /// Whether the value is a list or an object.
    nested: bool,
    /// The name of the member whose value is being read.
    name: Option<Json>,
    id: Option<Id>,
    /// How many there are of these members, in any case.
    ids: usize,
    methods: usize,
    outcomes: usize,
    /// The object has ended.
    ended: bool,
    /// Readers may differ about the id.
    unclear: bool,
}

impl Scan {
    /// Scans a whole line.
    pub(super) fn of(line: &[u8]) -> Self {
        let mut scan = Self::default();
        scan.feed(line);
        scan
    }

    /// Scans a piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            self.step(*byte);
        }
    }

    /// The id of the request that the object is, if certain.
    pub(super) fn request(&self) -> Option<&Id> {
        self.certain_id().filter(|_| self.methods > 0 && self.outcomes == 0)
    }

    /// The id of the request that the object responds to, if certain.
    pub(super) fn answered(&self) -> Option<&Id> {
        self.certain_id().filter(|_| self.methods == 0 && self.outcomes > 0)
    }

    fn certain_id(&self) -> Option<&Id> {
        self.id.as_ref().filter(|_| self.ids == 1 && self.ended && !self.unclear)
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return self.keep(byte);
        }
        self.in_string = byte == b'"';
        // Nothing but white space may precede or follow the object.
        self.unclear |= self.open.is_empty() && byte != b'{' && !byte.is_ascii_whitespace();
        match byte {
            b'{' => self.enter(b'}'),
            b'[' => self.enter(b']'),
            b'}' | b']' => self.leave(byte),
            b',' if self.open.len() == 1 => self.end_value(),
            b':' if self.open.len() == 1 => {
                self.unclear |= self.name.is_some();
                self.name = self.take();
                self.unclear |= self.name.as_ref().and_then(Json::as_str).is_none();
            }
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.open.len() == 1 && self.text.len() < MAX_TEXT_BYTES {
            self.text.push(byte);
        }
    }

    fn enter(&mut self, closes: u8) {
        self.unclear |= self.ended || self.open.len() >= MAX_DEPTH;
        self.nested |= self.open.len() == 1;
        if self.open.len() < MAX_DEPTH {
            self.open.push(closes);
        }
    }

    fn leave(&mut self, byte: u8) {
        if self.open.len() == 1 {
            self.end_value();
            self.ended = true;
        }
        self.unclear |= self.open.pop() != Some(byte);
    }

    fn end_value(&mut self) {
        let value = self.take();
        let Some(name) = self.name.take() else {
            return;
        };
        let name = name.as_str().unwrap_or_default();
        let lookalike = resembled(name, &OF_MESSAGE);
        self.unclear |= lookalike == Some("id");
        let count = match lookalike.unwrap_or(name) {
            "id" => {
                self.id = value.as_ref().and_then(Id::new);
                &mut self.ids
            }
            "method" => &mut self.methods,
            "result" | "error" => &mut self.outcomes,
            _ => return,
        };
        *count = count.saturating_add(1);
    }

    /// Takes the string or number that was read; `None` for anything else.
    fn take(&mut self) -> Option<Json> {
        let text = std::mem::take(&mut self.text);
        let nested = std::mem::take(&mut self.nested);
        Json::parse(&text).ok().filter(|_| !nested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of the request that a text is, and of the one that it responds to.
    fn ids(text: &[u8]) -> (Option<String>, Option<String>) {
        let mut scan = Scan::default();
        text.chunks(1).for_each(|piece| scan.feed(piece));
        let of =
            |scan: &Scan| (scan.request().map(Id::to_string), scan.answered().map(Id::to_string));
        assert_eq!(of(&scan), of(&Scan::of(text)));
        of(&scan)
    }

    fn found(text: &str) -> Option<String> {
        ids(text.as_bytes()).1
    }

    #[test]
    fn the_id_is_found_at_any_position() {
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

    #[test]
    fn errors_elsewhere_do_not_hide_the_id() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let requests: [&[u8]; 10] = [
            b"{\"id\":7,\"method\":\"a\",\"params\":{\"x\":\"\xff\"}}",
            b"{\"method\":\"a\",\"params\":{\"x\":NaN,\"y\":1e999},\"id\":7}\r\n",
            b"{\"id\":7,\"method\":\"a\",\"params\":{\"x\":\"\t\"}}",
            b"{\"id\":7,\"method\":\"a\",\"params\":\r{}}",
            b"{\"id\":7,\"method\":8,\"jsonrpc\":\"1.0\"}",
            b"{\"id\":7,\"method\":\"a\",\"params\":{},\"params\":{}}",
            b"{\"id\":7,\"method\":\"a\",\"method\":\"b\",\"Method\":\"c\"}",
            b"{\"id\":7,\"Method\":\"a\"}",
            br#"{"id":7,"method":"\ud800"}"#,
            &format!(r#"{{"id":7,"method":"a","params":{deep}}}"#).into_bytes(),
        ];
        for line in requests {
            let text = String::from_utf8_lossy(line);
            assert_eq!(ids(line), (Some("7".to_owned()), None), "{text}");
        }
        let answer = br#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}"#;
        assert_eq!(ids(answer), (None, Some("7".to_owned())));
    }

    #[test]
    fn an_id_that_readers_may_differ_about_is_ignored() {
        for line in [
            r#"{"id":7,"id":7,"method":"a"}"#,
            r#"{"id":7,"ID":8,"method":"a"}"#,
            r#"{"id":7,"method":"a","result":1}"#,
            r#"{"id":7,"method":"a","Result":1}"#,
            r#"{"id":7}"#,
            r#"{"id":null,"method":"a"}"#,
            r#"{"id":[7],"method":"a"}"#,
            r#"{"id":7[1],"method":"a"}"#,
            r#"{"id":"\ud800","method":"a"}"#,
            r#"{"id":7:8,"method":"a"}"#,
            r#"{"id":7,"method":"a""#,
            r#"{"id":7,"method":"a"}{}"#,
            r#"{"id":7,"method":"a"}x"#,
            r#"x{"id":7,"method":"a"}"#,
            r#"{"id":7,"method":"a","params":{"x":"}}"#,
            r#"{"id":7,"method":"a","params":[1},"x":[2}]}"#,
            r#"{"id":7,"method":"a",x:1}"#,
            r#"[{"id":7,"method":"a"}]"#,
        ] {
            assert_eq!(ids(line.as_bytes()), (None, None), "{line}");
        }
    }
}
