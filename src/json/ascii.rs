//! JSON in ASCII, so that untrusted text cannot control a terminal.

use std::fmt::Write as _;

use super::Json;

/// Indented JSON in ASCII, so that untrusted text cannot control the terminal.
pub fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).map_or_else(|_| ascii(json), |text| escape(&text))
}

/// JSON on one line, in ASCII.
pub fn ascii(json: &Json) -> String {
    escape(&json.to_string())
}

/// Escapes all that is not ASCII in JSON text. It occurs only in strings (RFC 8259, section 2).
pub fn escape(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~' | '\n') {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_json_is_ascii_and_parses_to_the_same_value() {
        let json = Json::parse("{\"a\":\"\\u001f\u{7f}\u{9b}é\u{202e}😀\\n\"}".as_bytes()).unwrap();
        for text in [pretty(&json), ascii(&json)] {
            assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
            assert_eq!(Json::parse(text.as_bytes()).unwrap(), json);
        }
    }
}
