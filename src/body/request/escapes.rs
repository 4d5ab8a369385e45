//! Escapes in paths and queries.

/// Appends a text with its escapes resolved (RFC 3986, section 2.1). Returns whether all of them are valid.
pub(super) fn decode(text: &[u8], plus: u8, decoded: &mut Vec<u8>) -> bool {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
                digit(*high) << 4 | digit(*low)
            }
            (b'%', _) => return false,
            (b'+', _) => plus,
            (byte, _) => *byte,
        });
    }
    true
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { byte - b'0' } else { (byte | 0x20) - b'a' + 10 }
}
