//! Token counts in one normal form, whatever the provider calls them.

/// The tokens that one response used. `input` contains `cached_input` and `cache_write`, and `output` contains
/// `reasoning`. Providers that count caches apart from the input are normalised when their response is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// All tokens of the prompt.
    pub input: u64,
    /// Those of the prompt that were read from a cache.
    pub cached_input: u64,
    /// Those of the prompt that were written to a cache, for whatever time.
    pub cache_write: u64,
    /// Those of `cache_write` that were written for an hour, which costs more.
    pub cache_write_1h: u64,
    /// All generated tokens.
    pub output: u64,
    /// Those of the output that were spent on reasoning.
    pub reasoning: u64,
    /// The larger of `input` + `output` and the total that the provider reported.
    pub total: u64,
}

// === impl TokenUsage ===

impl TokenUsage {
    /// Both together. Counts stop at the largest number.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// The larger of both, count by count.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        self.each(other, u64::max)
    }

    #[inline(never)]
    fn each(&self, other: &Self, of: fn(u64, u64) -> u64) -> Self {
        Self {
            input: of(self.input, other.input),
            cached_input: of(self.cached_input, other.cached_input),
            cache_write: of(self.cache_write, other.cache_write),
            cache_write_1h: of(self.cache_write_1h, other.cache_write_1h),
            output: of(self.output, other.output),
            reasoning: of(self.reasoning, other.reasoning),
            total: of(self.total, other.total),
        }
    }
}

/// The integer that a JSON number is, if it is whole, not negative and has at most 18 digits, with those that only an
/// exponent makes: `12`, `12.0` and `1.2e1` are 12.
pub(super) fn whole_number(text: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    // The number is to be multiplied by 10 to the power of `exponent` - `decimals`.
    let (mut exponent, mut decimals): (i32, i32) = (0, 0);
    let mut is_small = false;
    let mut part = b'0';
    for byte in text {
        match (part, byte) {
            (b'e', b'0'..=b'9') => exponent = (exponent * 10 + i32::from(byte - b'0')).min(1_000),
            (_, b'0'..=b'9') => {
                number = times_ten(number)? + u64::from(byte - b'0');
                decimals += i32::from(part == b'.');
            }
            (b'0', b'.') => part = b'.',
            (b'0' | b'.', b'e' | b'E') => part = b'e',
            (b'e', b'+' | b'-') => is_small = *byte == b'-',
            _ => return None,
        }
    }
    let power = if is_small { -exponent } else { exponent } - decimals;
    for _ in 0..power.unsigned_abs() {
        number = if power > 0 { times_ten(number)? } else { tenth(number)? };
    }
    Some(number)
}

fn times_ten(number: u64) -> Option<u64> {
    (number < 100_000_000_000_000_000).then_some(number * 10)
}

fn tenth(number: u64) -> Option<u64> {
    number.is_multiple_of(10).then_some(number / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        for (text, number) in [
            ("0", 0),
            ("12", 12),
            ("1200", 1200),
            ("12.0", 12),
            ("3e0", 3),
            ("1.2e1", 12),
            ("1.25E+2", 125),
            ("1200e-2", 12),
            ("0.0", 0),
            ("0e99", 0),
            ("999999999999999999", 999_999_999_999_999_999),
            ("1e17", 100_000_000_000_000_000),
        ] {
            assert_eq!(whole_number(text.as_bytes()), Some(number), "{text}");
        }
    }

    #[test]
    fn no_other_number_is_whole() {
        for text in [
            "-5",
            "-0",
            "0.5",
            "12.5",
            "1e-1",
            "125e-2",
            "1e20",
            "1000000000000000000",
            "18446744073709551617",
            "100e18",
            "1e99999999999",
            "1e2147483647",
        ] {
            assert_eq!(whole_number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn counts_are_added_and_compared_one_by_one() {
        let one = TokenUsage { input: 3, output: 4, total: 7, ..TokenUsage::default() };
        let other = TokenUsage { input: 5, reasoning: 1, total: u64::MAX, ..one };
        let sum = TokenUsage { input: 8, output: 8, reasoning: 1, total: u64::MAX, ..one };
        assert_eq!(one.plus(&other), sum);
        assert_eq!(one.max(&other), other);
    }
}
