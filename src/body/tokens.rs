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

/// The integer that a JSON number is, if it is whole and not negative: `12`, `12.0` and `1.2e1` are 12.
pub(super) fn whole_number(text: &[u8]) -> Option<u64> {
    let (digits, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (text.get(..at)?, std::str::from_utf8(text.get(at + 1..)?).ok()?),
        None => (text, "0"),
    };
    let mut power: i32 = power.parse().ok()?;
    let mut number: u64 = 0;
    // The zeros since the last other digit: `12.0` has none that counts.
    let mut zeros: i32 = 0;
    let mut is_fraction = false;
    for byte in digits {
        match byte {
            b'.' => is_fraction = true,
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                number = shifted(number, zeros + 1)?.checked_add(u64::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
        if is_fraction && *byte != b'.' {
            power = power.checked_sub(1)?;
        }
    }
    shifted(number, power.checked_add(zeros)?)
}

/// A number times a power of ten; `None` if it is too large. A number that does not end in 0 has no power below zero.
fn shifted(number: u64, power: i32) -> Option<u64> {
    match number {
        0 => Some(0),
        _ => number.checked_mul(10_u64.checked_pow(u32::try_from(power).ok()?)?),
    }
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
            ("12.000000000000000000000000000000000000", 12),
            ("3e0", 3),
            ("1.2e1", 12),
            ("1.25E+2", 125),
            ("1200e-2", 12),
            ("0.0", 0),
            ("0e99", 0),
            ("100e18", 100_000_000_000_000_000_000_u128),
            ("18446744073709551615", u128::from(u64::MAX)),
        ] {
            let expected = u64::try_from(number).ok();
            assert_eq!(whole_number(text.as_bytes()), expected, "{text}");
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
            "18446744073709551616",
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
