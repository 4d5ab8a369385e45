//! Escapes untrusted text, so that it cannot control a terminal.

pub(super) use vkey::json::{ascii, pretty};

use vkey::json::{Json, escape};

/// The longest untrusted text on a line, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// The longest sentence, in characters; it may list hosts and pins.
const MAX_SENTENCE_CHARS: usize = 2000;

/// A name, which is data, as a JSON string.
pub(super) fn quoted(name: &str) -> String {
    ascii(&Json::from(name))
}

/// Untrusted text on one line, in ASCII, escaped like in a JSON string; long text is cut.
pub(super) fn escape_line(text: &str) -> String {
    let mut start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    let string = ascii(&Json::String(start));
    let inner = string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

/// A line of JSON in ASCII. Only text in its strings can be anything else.
pub(super) fn ascii_line(json: &str) -> String {
    escape(json).replace('\n', "\\n")
}

/// A sentence that quotes untrusted text, on one line, in ASCII; a very long one is cut.
pub(super) fn escape_sentence(text: &str) -> String {
    let start: String = text.chars().take(MAX_SENTENCE_CHARS).collect();
    let cut = if start.len() < text.len() { "..." } else { "" };
    ascii_line(&start) + cut
}

/// An untrusted name as one word of a line, in quotes if it could be mistaken for something else.
pub(super) fn escape_word(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_word = !matches!(name, "" | "-") && name.bytes().all(plain);
    if is_word { escape_line(name) } else { format!("\"{}\"", escape_line(name)) }
}

/// A number of things: `1 key`, `2 keys`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_one_short_line() {
        assert_eq!(escape_line("a \"b\"\n\u{1b}[2J\u{202e}"), r#"a \"b\"\n\u001b[2J\u202e"#);
        assert_eq!(escape_line(&"é".repeat(200)), r"\u00e9".repeat(200));
        assert_eq!(escape_line(&"a".repeat(201)), "a".repeat(200) + "...");
    }

    #[test]
    fn a_sentence_is_one_line_in_ascii() {
        assert_eq!(
            escape_sentence("write {\"a\": \u{1b}}\nmore\u{202e}"),
            "write {\"a\": \\u001b}\\nmore\\u202e"
        );
        assert_eq!(escape_sentence(&"a".repeat(3000)), "a".repeat(2000) + "...");
    }

    #[test]
    fn a_name_that_is_not_a_word_is_quoted() {
        assert_eq!(escape_word("k_zXl3-W.n"), "k_zXl3-W.n");
        for (name, quoted) in [("", "\"\""), ("-", "\"-\""), ("a b", "\"a b\""), ("\"", r#""\"""#)]
        {
            assert_eq!(escape_word(name), quoted);
        }
    }
}
