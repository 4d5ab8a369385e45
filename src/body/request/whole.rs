//! Whole numbers in JSON.

use crate::body::json::Unreadable;

/// The largest integer up to which all are exact in a double, which is how most readers take numbers.
const MAX: u64 = 1 << 53;

/// A number as it is written in JSON, without its sign, and whether it has one. `512.0` and `1e3` are whole.
///
/// # Errors
///
/// [`Unreadable::OutOfRange`] if it is not whole, or above 2^53.
pub(super) fn whole(text: &[u8]) -> Result<(u64, bool), Unreadable> {
    let digits = text.strip_prefix(b"-");
    let is_negative = digits.is_some();
    let number = magnitude(digits.unwrap_or(text)).filter(|number| *number <= MAX);
    Ok((number.ok_or(Unreadable::OutOfRange)?, is_negative))
}

/// `None` if it is not whole or too large.
fn magnitude(text: &[u8]) -> Option<u64> {
    let (mut number, mut power, mut is_fraction) = (0_u64, 0_i32, false);
    let mut bytes = text.iter();
    for byte in bytes.by_ref() {
        match byte {
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                power -= i32::from(is_fraction);
            }
            b'.' => is_fraction = true,
            _ => break,
        }
    }
    if number == 0 {
        return Some(0);
    }
    // What is left follows the `e`.
    let exponent = std::str::from_utf8(bytes.as_slice()).ok()?;
    if !exponent.is_empty() {
        power = power.checked_add(exponent.parse().ok()?)?;
    }
    while power < 0 && number.is_multiple_of(10) {
        (number, power) = (number / 10, power + 1);
    }
    10_u64.checked_pow(u32::try_from(power).ok()?)?.checked_mul(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_fraction_are_whole() {
        for (text, number) in [
            ("0", 0),
            ("512", 512),
            ("512.0", 512),
            ("512.000", 512),
            ("1e3", 1_000),
            ("1E+3", 1_000),
            ("1.25e2", 125),
            ("5000e-3", 5),
            ("0e999999999999", 0),
            ("0.000e-5", 0),
            ("9007199254740992", MAX),
        ] {
            assert_eq!(whole(text.as_bytes()), Ok((number, false)), "{text}");
            assert_eq!(whole(format!("-{text}").as_bytes()), Ok((number, true)), "{text}");
        }
        for text in [
            "10.5",
            "1e-1",
            "15e-1",
            "9007199254740993",
            "99999999999999999999",
            "1e19",
            "1e99999999999",
            "1e-99999999999",
            "1e2147483647",
        ] {
            assert_eq!(whole(text.as_bytes()), Err(Unreadable::OutOfRange), "{text}");
        }
    }
}
