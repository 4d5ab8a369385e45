//! Runs of bytes in strings and lines, eight at a time.

const HIGH_BITS: u64 = each(0x80);

/// The number of bytes at the front that are neither control characters nor a quote nor a backslash, and whether these
/// are ASCII.
#[inline]
pub(super) fn plain_bytes(bytes: &[u8]) -> (usize, bool) {
    let (words, rest) = bytes.as_chunks();
    let mut words = words.iter();
    let mut len = 0;
    let mut seen = 0;
    loop {
        // After the last byte, a zero stops.
        let word = words.next().map_or_else(|| filled(rest, 0), |word| u64::from_le_bytes(*word));
        let stops = stops(word);
        if stops != 0 {
            seen |= before(stops) & word;
            return (len + stops.trailing_zeros() as usize / 8, seen & HIGH_BITS == 0);
        }
        seen |= word;
        len += 8;
    }
}

/// The number of bytes before the first CR or LF; all of them if there is none.
pub(in crate::body) fn line_bytes(bytes: &[u8]) -> usize {
    let ends = |word| zeros(word ^ each(b'\r')) | zeros(word ^ each(b'\n'));
    let place = |ends: u64| ends.trailing_zeros() as usize / 8;
    let (words, rest) = bytes.as_chunks();
    let mut len = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // Most words have no control character at all.
        if below(word, 0x20) != 0 && ends(word) != 0 {
            return len + place(ends(word));
        }
        len += 8;
    }
    len + place(ends(filled(rest, b'\n')))
}

/// Whether base64 has all these bytes, in either alphabet, or as padding.
pub(super) fn is_base64(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    words.iter().all(|word| is_base64_word(u64::from_le_bytes(*word)))
        && is_base64_word(filled(rest, b'='))
}

/// Whether all bytes are ASCII, and none of them is NUL.
pub(super) fn is_ascii_without_nul(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    let is_fit = |word| (word & HIGH_BITS) | zeros(word) == 0;
    words.iter().all(|word| is_fit(u64::from_le_bytes(*word))) && is_fit(filled(rest, b' '))
}

/// The high bit of the first byte that is a control character, a quote or a backslash, and of some after it.
fn stops(word: u64) -> u64 {
    // With this bit flipped, a quote comes right after the control characters.
    let flipped = word ^ each(b'"' ^ 0x20);
    below(flipped, 0x21) | zeros(word ^ each(b'\\'))
}

/// The high bit of the first byte that is less than `max`, at most 0x80, and of some after it.
const fn below(word: u64, max: u8) -> u64 {
    word.wrapping_sub(each(max)) & !word & HIGH_BITS
}

/// All bits of the bytes before the first whose high bit is set, and none of those after it.
fn before(stops: u64) -> u64 {
    (stops & stops.wrapping_neg()).wrapping_sub(1) >> 7
}

#[inline(never)] // once, not twice
fn is_base64_word(word: u64) -> bool {
    let letters = between(word | each(0x20), b'a', b'z');
    let digits = between(word, b'/', b'9');
    let others = equal(word, b'+') | equal(word, b'-') | equal(word, b'=') | equal(word, b'_');
    word & HIGH_BITS == 0 && letters | digits | others == HIGH_BITS
}

/// A word of eight bytes of this value.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of the first byte that is zero, and of some after it.
const fn zeros(word: u64) -> u64 {
    below(word, 1)
}

/// The high bit of each byte of that value, if all bytes are ASCII.
const fn equal(word: u64, byte: u8) -> u64 {
    !(word ^ each(byte)).wrapping_add(each(0x7F)) & HIGH_BITS
}

/// The high bit of each byte that is at least `min` and at most `max`, if all bytes are ASCII.
const fn between(word: u64, min: u8, max: u8) -> u64 {
    let word = word | HIGH_BITS;
    word.wrapping_sub(each(min)) & !word.wrapping_sub(each(max + 1)) & HIGH_BITS
}

/// The last bytes of a text, and other bytes up to eight.
#[inline(never)]
fn filled(bytes: &[u8], fill: u8) -> u64 {
    let mut word = [fill; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte at each place, alone and next to bytes that differ from it in one bit.
    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for byte in 0..=u8::MAX {
            let is_plain = !matches!(byte, 0..0x20 | b'"' | b'\\');
            let is_letter = byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
            for (len, at) in (1..=17).flat_map(|len| (0..len).map(move |at| (len, at))) {
                for fill in [b'A', b'!', b'#', 0x7F, 0x80, 0xFF] {
                    let mut bytes = vec![fill; len];
                    bytes[at] = byte;
                    let plain = if is_plain { len } else { at };
                    let is_ascii = bytes[..plain].is_ascii();
                    assert_eq!(plain_bytes(&bytes), (plain, is_ascii), "{bytes:?}");
                    let line = if matches!(byte, b'\r' | b'\n') { at } else { len };
                    assert_eq!(line_bytes(&bytes), line, "{bytes:?}");
                }
                let mut bytes = vec![b'z'; len];
                bytes[at] = byte;
                let is_fit = matches!(byte, 1..0x80);
                assert_eq!(is_ascii_without_nul(&bytes), is_fit, "{bytes:?}");
                assert_eq!(is_base64(&bytes), is_letter, "{bytes:?}");
                bytes[..at].fill(b'+');
                assert_eq!(is_base64(&bytes), is_letter, "{bytes:?}");
            }
        }
    }
}
