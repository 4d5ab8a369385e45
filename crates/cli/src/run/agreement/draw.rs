//! Reproducible random choices.

use serde_json::{Value, json};

/// A random generator: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014), for which any seed will do.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() >> 32).expect("32 bits") % bound
    }

    /// True with a probability of `percent`.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// The usual value with a probability of `percent`, else one of the others.
    pub(super) fn usual<T: Copy>(&mut self, percent: usize, usual: T, others: &[T]) -> T {
        if self.percent(percent) { usual } else { self.one(others) }
    }

    /// A list that usually contains the usual item and up to two others; sometimes it is empty.
    pub(super) fn list(&mut self, usual: &str, others: &[&str]) -> Value {
        let mut list = Vec::new();
        if self.percent(1) {
            return json!(list);
        }
        for _ in 0..self.below(3) {
            list.push(self.one(others));
        }
        if list.is_empty() || self.percent(75) {
            list.insert(self.below(list.len() + 1), usual);
        }
        json!(list)
    }

    /// A text of these characters.
    pub(super) fn text(&mut self, of: &[char], max_chars: usize) -> String {
        let chars = self.below(max_chars + 1);
        (0..chars).map(|_| self.one(of)).collect()
    }
}
