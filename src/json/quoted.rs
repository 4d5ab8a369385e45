//! Writes JSON strings.

/// Writes a JSON string in ASCII. All other characters are escaped (RFC 8259, section 7).
pub fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    // Nearly every value is plain, and is copied as a whole.
    if is_plain(value.as_bytes()) {
        text.push_str(value);
    } else {
        value.chars().for_each(|c| push_escaped(text, c));
    }
    text.push('"');
}

/// Whether the text needs no escapes. Checks eight bytes at a time, the last eight perhaps again: a byte that is not
/// plain sets its highest bit in one of the five words.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let plain = |word: u64| {
        let control = word.wrapping_sub(0x20 * ONES);
        let delete_or_above = word.wrapping_add(ONES);
        let quote = is_zero(word ^ (u64::from(b'"') * ONES));
        let backslash = is_zero(word ^ (u64::from(b'\\') * ONES));
        (word | control | delete_or_above | quote | backslash) & HIGH == 0
    };
    match text.last_chunk::<8>() {
        Some(last) => {
            let (words, _) = text.as_chunks();
            words.iter().all(|word| plain(u64::from_le_bytes(*word)))
                && plain(u64::from_le_bytes(*last))
        }
        None => {
            text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        }
    }
}

fn push_escaped(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        ' '..='~' => text.push(c),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn every_byte_at_every_position_is_plain_or_escaped() {
        for byte in 0..=u8::MAX {
            let plain = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
            for (len, place) in (1..18).flat_map(|len| (0..len).map(move |place| (len, place))) {
                for around in [b'~', b' '] {
                    let mut text = vec![around; len];
                    text[place] = byte;
                    assert_eq!(is_plain(&text), plain, "{byte:#x} at {place} of {len}");
                }
            }
        }
        assert!(is_plain(b"") && is_plain(b"seven77") && is_plain(b"eight888"));
    }
}
