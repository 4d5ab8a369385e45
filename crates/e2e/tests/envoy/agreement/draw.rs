//! Random choices that a seed repeats.

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

pub(super) struct Draw(TestRng);

impl Draw {
    /// Streams of one seed are independent of each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&stream.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    /// A number of the range.
    pub(super) fn number(&mut self, range: std::ops::Range<usize>) -> usize {
        self.0.random_range(range)
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.number(0..from.len())]
    }

    /// One of several that are not equally likely.
    pub(super) fn weighted<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut at = self.number(0..from.iter().map(|(weight, _)| weight).sum());
        let mut options = from.iter();
        loop {
            let (weight, option) = options.next().expect("the weights add up");
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *option,
            }
        }
    }

    /// Each item of a list with that chance, in the order of the list.
    pub(super) fn some<T: Copy>(&mut self, percent: u32, from: &[T]) -> Vec<T> {
        from.iter().copied().filter(|_| self.chance(percent)).collect()
    }
}
