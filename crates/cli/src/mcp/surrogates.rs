//! Lone surrogates in JSON strings.

use std::borrow::Cow;

/// What most parsers replace a lone surrogate with.
pub(super) const REPLACEMENT: char = '\u{FFFD}';

/// The line with [`REPLACEMENT`] for each lone surrogate. The JSON grammar allows them (RFC 8259, section
/// 8.2), but they are not Unicode text. Escapes occur only in strings, so every escape is checked.
pub(super) fn replace_lone_surrogates(line: &[u8]) -> Cow<'_, [u8]> {
    let (mut whole, mut rest, mut kept) = (Vec::new(), line, line);
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = rest.get(at..).unwrap_or_default();
        let length = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                let before = kept.len().saturating_sub(escape.len());
                whole.extend_from_slice(kept.get(..before).unwrap_or_default());
                whole.extend_from_slice(b"\\ufffd");
                kept = escape.get(6..).unwrap_or_default();
                6
            }
            _ => 2,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    if kept.len() == line.len() {
        return Cow::Borrowed(line);
    }
    whole.extend_from_slice(kept);
    Cow::Owned(whole)
}

/// The UTF-16 code unit of a `\u` escape at the start of the text.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        let replaced =
            |line: &str| String::from_utf8(replace_lone_surrogates(line.as_bytes()).into_owned());
        for (line, expected) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""a\uDFFFb\uD83Dc""#, r#""a\ufffdb\ufffdc""#),
            (r#""\ud83d\ud83d\ude00\ude00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud800 \\\ud800""#, r#""\\ud800 \\\ufffd""#),
            (r#""\ud80" "\ud8"#, r#""\ud80" "\ud8"#),
            (r#""\u+800\""#, r#""\u+800\""#),
        ] {
            assert_eq!(replaced(line).as_deref(), Ok(expected), "{line}");
            assert_eq!(
                matches!(replace_lone_surrogates(line.as_bytes()), Cow::Borrowed(_)),
                line == expected
            );
        }
    }
}
