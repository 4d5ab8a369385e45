//! Texts of strangers, written so that no character of them acts on a terminal.

use std::fmt::Write as _;

use vkey::json::Json;

/// How much of a stranger's text is shown on a line.
const MAX_SHOWN_CHARS: usize = 200;

/// How much of a sentence is shown, in which lists of hosts and pins may stand.
const MAX_SENTENCE_CHARS: usize = 2000;

/// Indented JSON in ASCII, so that no character of a stranger's text acts on the terminal.
pub(super) fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).map_or_else(|_| ascii(json), |text| escape(&text))
}

/// JSON on one line, in ASCII.
pub(super) fn ascii(json: &Json) -> String {
    escape(&json.to_string())
}

/// A stranger's text in ASCII on one line, escaped as in a JSON string; a long one is cut.
pub(super) fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    let string = ascii(&Json::String(start));
    let inner = string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

/// A sentence that quotes a stranger's text, in ASCII on one line; a very long one is cut.
pub(super) fn sentence(text: &str) -> String {
    let start: String = text.chars().take(MAX_SENTENCE_CHARS).collect();
    let cut = if start.len() < text.len() { "..." } else { "" };
    escape(&start).replace('\n', "\\n") + cut
}

/// A stranger's name as a word of a line; in quotes where it could be taken for anything else.
pub(super) fn word(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_word = !matches!(name, "" | "-") && name.bytes().all(plain);
    if is_word { shown(name) } else { format!("\"{}\"", shown(name)) }
}

/// Escapes what is not ASCII in JSON text. It stands in strings only (RFC 8259, section 2).
fn escape(json: &str) -> String {
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
    fn what_is_shown_is_ascii_and_the_same_json() {
        let json = Json::parse("{\"a\":\"\\u001f\u{7f}\u{9b}é\u{202e}😀\\n\"}".as_bytes()).unwrap();
        for text in [pretty(&json), ascii(&json)] {
            assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
            assert_eq!(Json::parse(text.as_bytes()).unwrap(), json);
        }
    }

    #[test]
    fn a_strangers_text_is_one_short_line() {
        assert_eq!(shown("a \"b\"\n\u{1b}[2J\u{202e}"), r#"a \"b\"\n\u001b[2J\u202e"#);
        assert_eq!(shown(&"é".repeat(200)), r"\u00e9".repeat(200));
        assert_eq!(shown(&"a".repeat(201)), "a".repeat(200) + "...");
    }

    #[test]
    fn a_sentence_is_one_line_in_ascii() {
        assert_eq!(
            sentence("write {\"a\": \u{1b}}\nmore\u{202e}"),
            "write {\"a\": \\u001b}\\nmore\\u202e"
        );
        assert_eq!(sentence(&"a".repeat(3000)), "a".repeat(2000) + "...");
    }

    #[test]
    fn what_is_no_word_is_quoted() {
        assert_eq!(word("k_zXl3-W.n"), "k_zXl3-W.n");
        for (name, quoted) in [("", "\"\""), ("-", "\"-\""), ("a b", "\"a b\""), ("\"", r#""\"""#)]
        {
            assert_eq!(word(name), quoted);
        }
    }
}
