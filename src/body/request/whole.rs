//! Whole numbers in JSON.

use crate::body::json::Unreadable;

/// The largest integer up to which all are exact in a double, which is how most readers take numbers.
const MAX: u64 = 1 << 53;

/// Numbers with as many digits are not read on.
const MAX_DIGITS: u64 = 1_000_000_000_000_000_000;

/// A number as it is written in JSON, without its sign, and whether it has one. `512.0` and `1e3` are whole.
///
/// # Errors
///
/// [`Unreadable::OutOfRange`] if it is not whole, or above 2^53.
pub(super) fn whole(text: &[u8]) -> Result<(u64, bool), Unreadable> {
    let digits = text.strip_prefix(b"-");
    let number = magnitude(digits.unwrap_or(text)).filter(|number| *number <= MAX);
    Ok((number.ok_or(Unreadable::OutOfRange)?, digits.is_some()))
}

/// `None` if it is not whole or too large. `power`: the power of ten by which the digits so far are to be multiplied.
fn magnitude(text: &[u8]) -> Option<u64> {
    let (mut number, mut power, mut is_fraction) = (0_u64, 0_i32, false);
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'0'..=b'9' if number < MAX_DIGITS => {
                number = number * 10 + u64::from(byte - b'0');
                power -= i32::from(is_fraction);
            }
            b'.' => is_fraction = true,
            b'e' | b'E' => {
                power = power.saturating_add(exponent(rest));
                break;
            }
            _ => return None,
        }
    }
    while power < 0 && number != 0 && number.is_multiple_of(10) {
        (number, power) = (number / 10, power + 1);
    }
    while power > 0 && number != 0 && number <= MAX {
        (number, power) = (number * 10, power - 1);
    }
    (power == 0 || number == 0).then_some(number)
}

/// A number with a sign or not.
fn exponent(text: &[u8]) -> i32 {
    let mut number = 0_i32;
    for digit in text.iter().filter(|byte| byte.is_ascii_digit()) {
        number = number.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
    }
    if text.first() == Some(&b'-') { -number } else { number }
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
