//! Globs of restrictions: `*` inside one segment and `**` across segments of a path, `*` over any
//! characters of a name.

/// A compiled glob: literals, and between them the places where a star may take more.
///
/// It is matched as an automaton whose states are "this many literals are matched", one bit each, all
/// of them moved at once for every byte of the text. So the work is bounded by
/// `text × (literals / 64 + 1)` steps, whatever the pattern: keys come with patterns of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    literals: Box<[u8]>,
    /// States that may take any byte.
    across: Box<[u64]>,
    /// States that may take any byte but `/`.
    within: Box<[u64]>,
    /// How many literals stand before the first star, where there is one.
    prefix_len: Option<usize>,
}

const WORD_BITS: usize = 64;

impl Glob {
    /// A glob over names (models, tools): `*` stands for any characters, none included.
    pub fn name(pattern: &str) -> Self {
        Self::compile(pattern.as_bytes(), |_| true)
    }

    /// A glob over canonical paths: `*` stands for any characters but `/`, `**` for any characters.
    /// So `/v1/**` matches what lies below `/v1/`, and not `/v1` itself.
    pub fn path(pattern: &str) -> Self {
        Self::compile(pattern.as_bytes(), |stars| stars > 1)
    }

    /// Whether there is a path, which starts with `/`, that could match.
    pub fn can_match_path(&self) -> bool {
        self.literals.first() == Some(&b'/')
            || self.across.first().is_some_and(|word| word & 1 == 1)
    }

    /// How many bytes the glob takes in memory.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.literals.len() + 2 * size_of_val(&*self.across)
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let Some(prefix_len) = self.prefix_len else {
            return text == &*self.literals;
        };
        // Nearly every glob has its one star at the end.
        let rest = self.literals.get(..prefix_len).and_then(|prefix| text.strip_prefix(prefix));
        match (rest, &*self.across, &*self.within) {
            (None, ..) => false,
            (Some(rest), ..) if prefix_len == self.literals.len() => {
                is_set(&self.across, prefix_len) || !rest.contains(&b'/')
            }
            (Some(rest), [across], [within]) => {
                self.matches_in_one_word(prefix_len, rest, *across, *within)
            }
            (Some(rest), ..) => self.matches_in_words(prefix_len, rest),
        }
    }

    /// The automaton of few literals: it takes no memory, and finding a byte among them takes no time.
    fn matches_in_one_word(&self, state: usize, text: &[u8], across: u64, within: u64) -> bool {
        let mut states = 1 << state;
        for byte in text {
            let bit = |literal: &u8| u64::from(literal == byte);
            let mask = self.literals.iter().rev().fold(0, |mask, literal| mask << 1 | bit(literal));
            let stay = if *byte == b'/' { across } else { within };
            states = (states & mask) << 1 | (states & stay);
            if states == 0 {
                return false;
            }
        }
        is_set(&[states], self.literals.len())
    }

    fn matches_in_words(&self, state: usize, text: &[u8]) -> bool {
        let words = self.across.len();
        let mut states = vec![0; words];
        set(&mut states, state);
        let mut masks = Masks::default();
        for byte in text {
            let stay = if *byte == b'/' { &self.across } else { &self.within };
            let mut carry = 0;
            let mut alive = 0;
            let mask = masks.of(*byte, &self.literals, words);
            for ((state, mask), stay) in states.iter_mut().zip(mask).zip(stay) {
                let moved = *state & mask;
                *state = (moved << 1) | carry | (*state & stay);
                carry = moved >> (WORD_BITS - 1);
                alive |= *state;
            }
            if alive == 0 {
                return false;
            }
        }
        is_set(&states, self.literals.len())
    }

    fn compile(pattern: &[u8], is_across: impl Fn(usize) -> bool) -> Self {
        let literals: Box<[u8]> = pattern.iter().copied().filter(|byte| *byte != b'*').collect();
        let words = literals.len() / WORD_BITS + 1;
        let (mut across, mut within) = (vec![0; words], vec![0; words]);
        let mut state = 0;
        let mut prefix_len = None;
        for run in pattern.chunk_by(|a, b| (*a == b'*') == (*b == b'*')) {
            if run.first() != Some(&b'*') {
                state += run.len();
                continue;
            }
            prefix_len.get_or_insert(state);
            // What may take any byte may take any byte but one.
            set(&mut within, state);
            if is_across(run.len()) {
                set(&mut across, state);
            }
        }
        Self { literals, across: across.into(), within: within.into(), prefix_len }
    }
}

/// Where each byte of a text stands among the literals, found once for each that occurs.
#[derive(Default)]
struct Masks {
    words: Vec<u64>,
    /// The bytes whose masks stand in `words`, in their order.
    bytes: Vec<u8>,
}

impl Masks {
    fn of(&mut self, byte: u8, literals: &[u8], words: usize) -> &[u64] {
        let index = self.bytes.iter().position(|known| *known == byte).unwrap_or_else(|| {
            self.bytes.push(byte);
            let mut mask = vec![0; words];
            let places = literals.iter().enumerate().filter(|(_, literal)| **literal == byte);
            places.for_each(|(place, _)| set(&mut mask, place));
            self.words.extend(mask);
            self.bytes.len() - 1
        });
        self.words.get(index * words..(index + 1) * words).unwrap_or_default()
    }
}

fn set(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / WORD_BITS) {
        *word |= 1 << (bit % WORD_BITS);
    }
}

fn is_set(words: &[u64], bit: usize) -> bool {
    words.get(bit / WORD_BITS).is_some_and(|word| word >> (bit % WORD_BITS) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in as many steps as it likes.
    #[cfg(not(target_arch = "wasm32"))]
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => {
                let rest = &rest[rest.iter().take_while(|b| **b == b'*').count()..];
                (0..=text.len()).any(|n| reference(rest, &text[n..]))
            }
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|n| !text[..*n].contains(&b'/'))
                .any(|n| reference(rest, &text[n..])),
            [byte, rest @ ..] => text.first() == Some(byte) && reference(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_stays_inside_its_segment() {
        assert!(Glob::path("/v1/*").matches("/v1/models"));
        assert!(!Glob::path("/v1/*").matches("/v1/chat/completions"));
        assert!(Glob::path("/v1/**").matches("/v1/chat/completions"));
        assert!(Glob::path("/v1/*/completions").matches("/v1/chat/completions"));
        assert!(!Glob::path("/v1/**").matches("/v1"));
        assert!(!Glob::path("/v1/**").matches("/v10/x"));
        assert!(!Glob::path("").matches("/"));
    }

    #[test]
    fn a_star_of_a_name_takes_slashes_too() {
        assert!(Glob::name("gpt-4o*").matches("gpt-4o-mini"));
        assert!(Glob::name("meta/*").matches("meta/llama/3"));
        assert!(!Glob::name("gpt-4o").matches("gpt-4o-mini"));
    }

    #[test]
    fn no_pattern_takes_a_long_time() {
        let text = format!("/v1/{}", "a".repeat(4_090));
        for pattern in ["/**a*a", "/v1/**a*", "*a", "**a*"].map(|unit| unit.repeat(500)) {
            assert!(!Glob::path(&format!("{pattern}{}b", "a".repeat(1_000))).matches(&text));
        }
    }

    #[test]
    fn patterns_longer_than_a_word_match_as_well() {
        let long = format!("/{}*{}", "a".repeat(100), "b".repeat(100));
        let glob = Glob::path(&long);
        assert!(glob.matches(&long.replace('*', "xyz")) && glob.matches(&long.replace('*', "")));
        assert!(
            !glob.matches(&long.replace('*', "/")) && !glob.matches(long.trim_start_matches('/'))
        );
    }

    #[cfg(not(target_arch = "wasm32"))]
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]
        #[test]
        fn agrees_with_the_definition(pattern in "[ab/*]{0,9}", text in "[ab/]{0,9}", pad in 0..2_usize) {
            // A common beginning moves the rest to the next word.
            let pad = "x".repeat(pad * 62);
            let (pattern, text) = (pad.clone() + &pattern, pad + &text);
            proptest::prop_assert_eq!(
                Glob::path(&pattern).matches(&text),
                reference(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
