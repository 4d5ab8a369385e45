//! Values that are neither strings nor containers: `null`, `true`, `false` and numbers.

use super::Unreadable;
use super::reader::Value;

/// The number of bytes at the front that may belong to such a value.
pub(super) fn atom_bytes(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_atom(*byte)).unwrap_or(bytes.len())
}

/// Whether a byte may belong to such a value.
pub(super) const fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Reads such a value.
pub(super) fn atom(text: &[u8]) -> Result<Value<'_>, Unreadable> {
    match text {
        b"null" => Ok(Value::Null),
        b"true" => Ok(Value::Bool(true)),
        b"false" => Ok(Value::Bool(false)),
        _ if is_number(text) => Ok(Value::Number(text)),
        _ => Err(Unreadable::NotJson),
    }
}

/// Whether a text is a number (RFC 8259, section 6).
fn is_number(text: &[u8]) -> bool {
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let begins_with_zero = rest.first() == Some(&b'0');
    let digits = skip_digits(&mut rest);
    if digits == 0 || digits > 1 && begins_with_zero {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        if skip_digits(&mut rest) == 0 {
            return false;
        }
    }
    let ([b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..]) = rest else {
        return rest.is_empty();
    };
    rest = exponent;
    skip_digits(&mut rest) > 0 && rest.is_empty()
}

/// Removes the digits at the front and returns their number.
#[inline(never)] // once, not four times
fn skip_digits(text: &mut &[u8]) -> usize {
    let mut digits = 0;
    while let [b'0'..=b'9', rest @ ..] = text {
        *text = rest;
        digits += 1;
    }
    digits
}
