//! Characters that some readers treat as line ends, unlike JSON.

use std::borrow::Cow;

/// A character and its escape.
#[derive(Clone, Copy)]
struct LineEnd(&'static str, &'static str);

/// `Scanner.nextLine` of Java ends lines at these.
const LINE_ENDS: [LineEnd; 3] =
    [LineEnd("\u{85}", r"\u0085"), LineEnd("\u{2028}", r"\u2028"), LineEnd("\u{2029}", r"\u2029")];

/// The message with these characters escaped, which is equivalent JSON: they occur only in strings (RFC 8259,
/// section 2). Unescaped, they could make a server see a message within a message.
pub(super) fn escaped(message: &[u8]) -> Cow<'_, [u8]> {
    let (mut whole, mut rest) = (Vec::new(), message);
    while let Some((before, LineEnd(end, escape))) = next(rest) {
        whole.extend_from_slice(rest.get(..before).unwrap_or_default());
        whole.extend_from_slice(escape.as_bytes());
        rest = rest.get(before + end.len()..).unwrap_or_default();
    }
    if rest.len() == message.len() {
        return Cow::Borrowed(message);
    }
    whole.extend_from_slice(rest);
    Cow::Owned(whole)
}

/// The first of these characters, and its position.
fn next(text: &[u8]) -> Option<(usize, LineEnd)> {
    // All of them are non-ASCII.
    let not_ascii = text.iter().enumerate().filter(|(_, byte)| !byte.is_ascii());
    not_ascii.map(|(at, _)| at).find_map(|at| {
        let here = text.get(at..).unwrap_or_default();
        let mut ends = LINE_ENDS.into_iter();
        ends.find(|LineEnd(end, _)| here.starts_with(end.as_bytes())).map(|found| (at, found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_line_ends_of_other_readers_are_escaped() {
        for (text, expected) in [
            ("", ""),
            ("{\"a\":\"é\u{2027}\u{202a}\u{84}\u{86}😀\"}\r\n", ""),
            ("\u{85}", r"\u0085"),
            ("\"a\u{2028}\u{2029}é\u{85}\"\n", "\"a\\u2028\\u2029é\\u0085\"\n"),
        ] {
            let expected = if expected.is_empty() { text } else { expected };
            let kept = escaped(text.as_bytes());
            assert_eq!(kept, expected.as_bytes(), "{text:?}");
            assert_eq!(matches!(kept, Cow::Borrowed(_)), text == expected);
        }
    }
}
