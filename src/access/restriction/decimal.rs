//! Decimal numbers of any size, compared exactly.

use std::cmp::Ordering;

use crate::json::decimal::push_decimal;

/// A number: 0.DIGITS × 10^`point`. Neither the first nor the last digit is 0, so that equal numbers have one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    digits: Box<[u8]>,
    point: i64,
}

/// The most digits of an exponent. Numbers with a longer one are not compared, unless they are zero.
const MAX_EXPONENT_DIGITS: usize = 18;

/// Doubles are read as decimal numbers of at most 15 digits times a power of ten, up to this one. Each of those has a
/// double of its own, so it is read as it was written.
const MAX_DOUBLE_POWER: i64 = 22;
const MAX_INTEGER: f64 = 1e15;

// === impl Decimal ===

impl Decimal {
    /// Reads a JSON number (RFC 8259, section 6). `None` if the text is none, or its exponent is too long.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (significand, exponent) = match text.split_once(['e', 'E']) {
            Some((significand, exponent)) => (significand, Some(exponent)),
            None => (text, None),
        };
        let (whole, fraction) = match significand.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (significand, None),
        };
        if !is_digits(whole) || !fraction.is_none_or(is_digits) {
            return None;
        }
        let digits = [whole, fraction.unwrap_or_default()].concat();
        Self::new(is_negative, digits.as_bytes(), whole.len(), exponent)
    }

    /// The number that a JSON reader keeps. A number that is neither an `i64` nor a `u64` is kept as a double, which is
    /// read as the decimal number of at most 15 digits that it stands for; `None` if it stands for none.
    pub(super) fn of(number: &serde_json::Number) -> Option<Self> {
        if let Some(number) = number.as_i64() {
            return Self::of_parts(number < 0, number.unsigned_abs(), 0);
        }
        match number.as_u64() {
            Some(number) => Self::of_parts(false, number, 0),
            None => Self::of_double(number.as_f64()?),
        }
    }

    /// The quotient or the product of two integers that doubles represent is rounded like the text of that number (IEEE
    /// 754-2019, sections 4.3 and 5.12).
    fn of_double(double: f64) -> Option<Self> {
        let magnitude = double.abs();
        let mut scale = 1.0;
        for power in 0..=MAX_DOUBLE_POWER {
            let (small, large) = ((magnitude * scale).round(), (magnitude / scale).round());
            if small < MAX_INTEGER && small / scale == magnitude {
                return Self::of_parts(double < 0.0, integer(small), -power);
            }
            if large < MAX_INTEGER && large * scale == magnitude {
                return Self::of_parts(double < 0.0, integer(large), power);
            }
            scale *= 10.0;
        }
        None
    }

    /// `number` × 10^`power`.
    fn of_parts(is_negative: bool, number: u64, power: i64) -> Option<Self> {
        let mut digits = String::new();
        push_decimal(&mut digits, number);
        let mut decimal = Self::new(is_negative, digits.as_bytes(), digits.len(), None)?;
        if !decimal.digits.is_empty() {
            decimal.point += power;
        }
        Some(decimal)
    }

    /// `whole`: how many of the digits stand before the point.
    fn new(is_negative: bool, digits: &[u8], whole: usize, exponent: Option<&str>) -> Option<Self> {
        let exponent = exponent.map(Exponent::parse);
        let is_zero = |digit: &u8| *digit == b'0';
        let Some(first) = digits.iter().position(|digit| !is_zero(digit)) else {
            let is_number = !matches!(exponent, Some(Exponent::Invalid));
            return is_number.then(|| Self {
                is_negative: false,
                digits: Box::default(),
                point: 0,
            });
        };
        let last = digits.iter().rposition(|digit| !is_zero(digit))?;
        let exponent = match exponent {
            None => 0,
            Some(Exponent::Known(exponent)) => exponent,
            Some(Exponent::TooLong | Exponent::Invalid) => return None,
        };
        // Texts have fewer than 2^62 digits, and exponents are below 10^18.
        let point = exponent + i64::try_from(whole).ok()? - i64::try_from(first).ok()?;
        Some(Self { is_negative, digits: digits.get(first..=last)?.into(), point })
    }

    /// Memory on the heap, in bytes.
    pub(super) fn footprint(&self) -> usize {
        self.digits.len()
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    fn cmp_magnitude(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.point.cmp(&other.point).then(self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

enum Exponent {
    Known(i64),
    TooLong,
    Invalid,
}

impl Exponent {
    fn parse(text: &str) -> Self {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !is_digits(digits) {
            return Self::Invalid;
        }
        let digits = digits.trim_start_matches('0');
        if digits.len() > MAX_EXPONENT_DIGITS {
            return Self::TooLong;
        }
        let add = |value: i64, byte: u8| value * 10 + i64::from(byte - b'0');
        let value = digits.bytes().fold(0, add);
        Self::Known(if text.starts_with('-') { -value } else { value })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole double from 0 to 10^15 as an integer.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
fn integer(double: f64) -> u64 {
    double as u64
}

#[cfg(test)]
mod tests;
