//! Globs of restrictions: `*` inside one segment and `**` across segments of a path, `*` over any
//! characters of a name.
//!
//! Clients choose the patterns of their keys, so the work has a bound that a caller can check
//! first. A pattern with one star or none is compared at its two ends. All other patterns of a list
//! form one automaton, whose states are "this many literals of this pattern are matched", one bit
//! each. Every byte of a text moves 64 of them at once: that is a step, and [`Globs::words`] says
//! how many of them a byte takes.

use std::cell::LazyCell;

/// A list of globs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globs {
    exact: Box<[Box<[u8]>]>,
    single_stars: Box<[SingleStar]>,
    automaton: Option<Box<Automaton>>,
}

/// A pattern with one star.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SingleStar {
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
    star: Star,
}

/// What a star matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Star {
    /// Any bytes.
    Across,
    /// Any bytes but `/`.
    Within,
}

/// The patterns with several stars, one after the other. Each has a state more than it has literals.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Automaton {
    words: Box<[Word]>,
    /// The bytes that occur as literals.
    bytes: Box<[u8]>,
    /// The states that a byte moves on, a word each: nothing for bytes that do not occur, then those of
    /// each of `bytes`.
    masks: Box<[u64]>,
}

/// Sets of 64 states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word {
    /// Those in which nothing of a pattern is matched yet.
    start: u64,
    /// Those in which all of a pattern is matched.
    accept: u64,
    /// Those that may take any byte.
    across: u64,
    /// Those that may take any byte but `/`.
    within: u64,
}

const WORD_BITS: usize = 64;

/// For each byte the number of its masks: 0 where it does not occur.
struct Classes([u8; 256]);

// === impl Globs ===

impl Globs {
    /// Globs over canonical paths: `*` stands for any characters but `/`, `**` for any characters. So
    /// `/v1/**` matches what lies below `/v1/`, and not `/v1` itself.
    pub fn paths(patterns: &[&str]) -> Self {
        Self::compile(patterns, |stars| if stars > 1 { Star::Across } else { Star::Within })
    }

    /// Globs over names (models, tools): `*` stands for any characters, none included.
    pub fn names(patterns: &[&str]) -> Self {
        Self::compile(patterns, |_| Star::Across)
    }

    /// Whether the whole of `text` matches one of the globs.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let slashes = LazyCell::new(|| {
            work::spend(text.len());
            count_slashes(text)
        });
        self.exact.iter().any(|exact| **exact == *text)
            || self.single_stars.iter().any(|glob| glob.matches(text, &slashes))
            || self.automaton.as_ref().is_some_and(|automaton| automaton.matches(text))
    }

    /// The most steps per byte of a text.
    pub fn words(&self) -> usize {
        let within = self.single_stars.iter().any(|glob| glob.star == Star::Within);
        let words = self.automaton.as_ref().map_or(0, |automaton| automaton.words.len());
        // Counting the slashes of the text, once for all globs, is one step for each byte.
        words.max(within.into())
    }

    /// Memory of the globs, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let single_stars = self.single_stars.iter();
        let single_stars = single_stars.map(|glob| glob.prefix.len() + glob.suffix.len());
        size_of_val(&*self.exact)
            + self.exact.iter().map(|exact| exact.len()).sum::<usize>()
            + size_of_val(&*self.single_stars)
            + single_stars.sum::<usize>()
            + self.automaton.as_ref().map_or(0, |automaton| automaton.footprint())
    }

    fn compile(patterns: &[&str], star: fn(usize) -> Star) -> Self {
        let (mut exact, mut single_stars, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in patterns {
            let pattern = pattern.as_bytes();
            match split_at_star(pattern) {
                None => exact.push(pattern.into()),
                Some((prefix, stars, suffix)) if stars.iter().all(|byte| *byte == b'*') => {
                    let (prefix, suffix) = (prefix.into(), suffix.into());
                    single_stars.push(SingleStar { prefix, suffix, star: star(stars.len()) });
                }
                Some(_) => others.push(pattern),
            }
        }
        Self {
            exact: exact.into(),
            single_stars: single_stars.into(),
            automaton: (!others.is_empty()).then(|| Box::new(Automaton::compile(&others, star))),
        }
    }
}

// === impl SingleStar ===

impl SingleStar {
    /// `slashes`: their number in the text.
    fn matches(&self, text: &[u8], slashes: &LazyCell<usize, impl FnOnce() -> usize>) -> bool {
        let rest = text.strip_prefix(&*self.prefix);
        if rest.and_then(|rest| rest.strip_suffix(&*self.suffix)).is_none() {
            return false;
        }
        // Where the ends have all slashes of the text, the star has none. Looking for one between them
        // would take as long for each glob as counting takes for all.
        self.star == Star::Across
            || count_slashes(&self.prefix) + count_slashes(&self.suffix) == **slashes
    }
}

// === impl Automaton ===

impl Automaton {
    fn compile(patterns: &[&[u8]], star: fn(usize) -> Star) -> Self {
        let literals = || patterns.iter().copied().flatten().copied().filter(|b| *b != b'*');
        let words = (literals().count() + patterns.len()).div_ceil(WORD_BITS);
        let (mut bytes, mut classes) = (Vec::new(), Classes::default());
        for byte in literals() {
            if classes.of(byte) == 0 {
                bytes.push(byte);
                classes.set(byte, bytes.len());
            }
        }
        let mut automaton = Self {
            words: vec![Word::default(); words].into(),
            masks: vec![0; (bytes.len() + 1) * words].into(),
            bytes: bytes.into(),
        };
        let mut state = 0;
        for pattern in patterns {
            state = automaton.add(pattern, state, &classes, star);
        }
        automaton
    }

    /// Adds a pattern whose first state this is. Returns the first state after it.
    fn add(
        &mut self,
        pattern: &[u8],
        first: usize,
        classes: &Classes,
        star: fn(usize) -> Star,
    ) -> usize {
        let mut state = first;
        self.set(state, |word| &mut word.start);
        for run in pattern.chunk_by(|a, b| (*a == b'*') == (*b == b'*')) {
            if run.first() == Some(&b'*') {
                // What may take any byte may take any byte but one.
                self.set(state, |word| &mut word.within);
                if star(run.len()) == Star::Across {
                    self.set(state, |word| &mut word.across);
                }
                continue;
            }
            for byte in run {
                let mask = classes.of(*byte) * self.words.len();
                if let Some(word) = self.masks.get_mut(mask + state / WORD_BITS) {
                    *word |= bit(state);
                }
                state += 1;
            }
        }
        self.set(state, |word| &mut word.accept);
        state + 1
    }

    fn set(&mut self, state: usize, states: fn(&mut Word) -> &mut u64) {
        if let Some(word) = self.words.get_mut(state / WORD_BITS) {
            *states(word) |= bit(state);
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let classes = self.classes();
        match &*self.words {
            [word] => self.run_in_one_word(&classes, text, *word) & word.accept != 0,
            words => {
                let states = self.run_in_words(&classes, text);
                words.iter().zip(states).any(|(word, states)| word.accept & states != 0)
            }
        }
    }

    /// The states after a text; none at all as soon as nothing can match any more.
    fn run_in_one_word(&self, classes: &Classes, text: &[u8], word: Word) -> u64 {
        let mut states = word.start;
        for byte in text {
            work::spend(1);
            let mask = self.masks.get(classes.of(*byte));
            let stay = if *byte == b'/' { word.across } else { word.within };
            states = (states & mask.copied().unwrap_or_default()) << 1 | (states & stay);
            if states == 0 {
                break;
            }
        }
        states
    }

    /// As [`Automaton::run_in_one_word`]. The last state of a pattern moves nowhere, so none moves into
    /// the pattern after it.
    fn run_in_words(&self, classes: &Classes, text: &[u8]) -> Vec<u64> {
        let mut states: Vec<u64> = self.words.iter().map(|word| word.start).collect();
        for byte in text {
            work::spend(states.len());
            let start = classes.of(*byte) * states.len();
            let masks = self.masks.get(start..start + states.len()).unwrap_or_default();
            let (mut carry, mut alive) = (0, 0);
            for ((states, mask), word) in states.iter_mut().zip(masks).zip(&self.words) {
                let moved = *states & mask;
                let stay = if *byte == b'/' { word.across } else { word.within };
                *states = (moved << 1) | carry | (*states & stay);
                carry = moved >> (WORD_BITS - 1);
                alive |= *states;
            }
            if alive == 0 {
                break;
            }
        }
        states
    }

    fn classes(&self) -> Classes {
        let mut classes = Classes::default();
        (1..).zip(&self.bytes).for_each(|(class, byte)| classes.set(*byte, class));
        classes
    }

    fn footprint(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words) + self.bytes.len() + size_of_val(&*self.masks)
    }
}

// === impl Classes ===

impl Classes {
    fn of(&self, byte: u8) -> usize {
        self.0.get(usize::from(byte)).copied().unwrap_or_default().into()
    }

    /// There are fewer classes than bytes, since a star is no literal.
    fn set(&mut self, byte: u8, class: usize) {
        if let Some(place) = self.0.get_mut(usize::from(byte)) {
            *place = u8::try_from(class).unwrap_or_default();
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self([0; 256])
    }
}

fn bit(state: usize) -> u64 {
    1 << (state % WORD_BITS)
}

/// Splits a pattern into what stands before its first star, what reaches from there to its last one, and
/// what stands after that; `None` without a star.
fn split_at_star(pattern: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let is_star = |byte: &u8| *byte == b'*';
    let (first, last) = (pattern.iter().position(is_star)?, pattern.iter().rposition(is_star)?);
    Some((pattern.get(..first)?, pattern.get(first..=last)?, pattern.get(last + 1..)?))
}

fn count_slashes(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'/').count()
}

/// The steps that were taken, for tests.
pub(crate) mod work {
    #[cfg(test)]
    thread_local! {
        static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[cfg(test)]
    pub(crate) fn spend(steps: usize) {
        STEPS.set(STEPS.get() + steps);
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub(crate) fn spend(_: usize) {}

    #[cfg(test)]
    pub(crate) fn take() -> usize {
        STEPS.take()
    }
}

#[cfg(test)]
mod tests;
