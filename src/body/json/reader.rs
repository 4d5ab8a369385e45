//! What a scanner reports, and to whom.

use std::ops::Range;

use super::Unreadable;
use super::hash::{HASH_OF_NOTHING, hash};
use super::words::is_ascii_without_nul;

/// A place in a document that a reader wants to know about. What a number means is the reader's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot(pub u8);

/// The members of an object that are of interest.
#[derive(Debug)]
pub struct Names {
    pub(in crate::body) named: &'static [(&'static str, Spot)],
    pub(super) others: Spot,
    /// The sum of the [signs](sign) of the names. With it, most others are told apart without comparing them.
    signs: u32,
}

/// Receives the values of a document.
pub trait Reader {
    /// The members of interest of an object at `at`, which opens. It is never asked for [`Spot::IGNORED`].
    fn names(&self, at: Spot) -> &'static Names;

    /// The spot of a member of an object at `at`, if the reader looks for names that are not known before it runs;
    /// `None` leaves the member to [`Self::names`]. Members that lead to the same spot are the same. A tolerant scanner
    /// does not ask.
    fn member(&mut self, _at: Spot, _name: &Text<'_>) -> Option<Spot> {
        None
    }

    /// The spot of the elements of an array at `at`. It is never asked for [`Spot::IGNORED`].
    fn items(&self, at: Spot) -> Spot;

    /// Whether strings at `at` are received in pieces too.
    fn streams(&self, _at: Spot) -> bool {
        false
    }

    /// Receives more of the text of a string at a spot where strings are [streamed](Self::streams), decoded. How a text
    /// is cut into pieces means nothing. The value follows.
    ///
    /// # Errors
    ///
    /// Like those of [`Self::value`].
    fn piece(&mut self, _at: Spot, _text: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }

    /// Receives a value at a spot that is not ignored, in the order of the document. Containers come twice: when they
    /// open and when they close. An object of more than 32 members may have one twice until it closes.
    ///
    /// # Errors
    ///
    /// Whatever makes the document unreadable for this reader. The scanner stops with it.
    fn value(&mut self, at: Spot, value: Value<'_>, span: Span) -> Result<(), Unreadable>;
}

/// A value of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written, at most [`MAX_NUMBER_BYTES`] long.
    Number(&'a [u8]),
    /// A string.
    Text(Text<'a>),
    /// `{`.
    OpenObject,
    /// `}`.
    CloseObject,
    /// `[`.
    OpenArray,
    /// `]`.
    CloseArray,
}

/// A number that a reader receives is at most that long; a longer one is [`Unreadable::TooLong`].
pub const MAX_NUMBER_BYTES: usize = 64;

/// The value of a string, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// UTF-8, cut off after [`MAX_TEXT_BYTES`], even inside of a character. Half a surrogate pair is U+FFFD.
    pub bytes: &'a [u8],
    /// Whether something was cut off.
    pub is_cut: bool,
    /// Whether the text contains NUL or half a surrogate pair, before or after the cut.
    pub is_flawed: bool,
    /// The length of the whole text, in bytes.
    pub len: u64,
}

/// A text that a reader receives is cut off after that many bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// The bytes of a value in its document: from its first to behind its last, with the quotes of a string. `end` is
/// `start` while a container opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte.
    pub end: u64,
}

// === impl Spot ===

impl Spot {
    /// Nothing at this place or below is of interest.
    pub const IGNORED: Self = Self(0);
    /// The whole document.
    pub const ROOT: Self = Self(1);
}

// === impl Names ===

impl Names {
    /// `named`: names, which are ASCII, and the spots of their values. Names are compared after unescaping, exactly. If
    /// two of them lead to the same spot, an object that has both has a member twice. `others`: the spot of every other
    /// member's value.
    pub const fn new(named: &'static [(&'static str, Spot)], others: Spot) -> Self {
        let (mut signs, mut rest) = (0, named);
        while let [(name, _), after @ ..] = rest {
            assert!(name.is_ascii(), "names are told from similar ones by it");
            signs |= sign(name.as_bytes());
            rest = after;
        }
        Self { named, others, signs }
    }

    /// The spot of the member with exactly that name.
    pub(in crate::body) fn spot(&self, name: &[u8]) -> Spot {
        self.named(name).unwrap_or(self.others)
    }

    /// The spot of a member if it is named.
    ///
    /// # Errors
    ///
    /// [`Unreadable::SimilarMember`] if it is not, but a reader that folds the case of names could take it for one
    /// that is.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Spot>, Unreadable> {
        let named = self.named(name);
        if named.is_some() || self.named.is_empty() {
            return Ok(named);
        }
        // Of what is ASCII, only the case is folded.
        let is_ascii = is_ascii_without_nul(name);
        let is_similar = |(known, _): &(&str, _)| match is_ascii {
            true => known.as_bytes().eq_ignore_ascii_case(name),
            false => is_similar(name, known.as_bytes()),
        };
        if self.named.iter().any(is_similar) { Err(Unreadable::SimilarMember) } else { Ok(None) }
    }

    #[inline]
    fn named(&self, name: &[u8]) -> Option<Spot> {
        self.member(name).map(|(_, spot)| *spot)
    }

    /// The member with exactly that name, if it is one of those with a spot of their own.
    #[inline]
    pub(in crate::body) fn member(&self, name: &[u8]) -> Option<&'static (&'static str, Spot)> {
        let may_be_named = self.signs & sign(name) != 0;
        may_be_named.then(|| self.compared(name)).flatten()
    }

    #[inline(never)]
    fn compared(&self, name: &[u8]) -> Option<&'static (&'static str, Spot)> {
        self.named.iter().find(|(known, _)| known.as_bytes() == name)
    }
}

/// One bit for a name, by its length and its last byte.
const fn sign(name: &[u8]) -> u32 {
    let last = if let [.., last] = name { *last } else { 0 };
    1 << ((last as usize + 3 * name.len()) % 32)
}

/// Whether names are the same for a reader that folds them.
fn is_similar(mut name: &[u8], mut known: &[u8]) -> bool {
    loop {
        match (next_folded(&mut name), next_folded(&mut known)) {
            (None, None) => return true,
            (first, other) if first != other => return false,
            _ => {}
        }
    }
}

/// The hash of a name for a reader that folds names: it is the same for similar ones.
pub(in crate::body) fn folded_hash(mut name: &[u8]) -> u64 {
    let mut sum = HASH_OF_NOTHING;
    while let Some(byte) = next_folded(&mut name) {
        sum = hash(sum, &[byte]);
    }
    sum
}

/// Stands for every character of an alphabet, other than that of ASCII, that has upper and lower case. Tables of their
/// cases are not worth their size: names that differ in such characters only are taken for similar.
const CASED: u8 = 0x80;

/// Removes and returns the first character of a name for a reader that folds the case of letters, `ſ` (U+017F) to `s`,
/// `K` (U+212A) to `k`, `İ` (U+0130) and `ı` (U+0131) to `i`, and NUL and U+FFFD to nothing. Of characters without case it
/// returns the bytes, one by one.
fn next_folded(name: &mut &[u8]) -> Option<u8> {
    loop {
        let (first, rest) = match *name {
            [0, rest @ ..] | [0xEF, 0xBF, 0xBD, rest @ ..] => (None, rest),
            [0xC5, 0xBF, rest @ ..] => (Some(b's'), rest),
            [0xE2, 0x84, 0xAA, rest @ ..] => (Some(b'k'), rest),
            [0xC4, 0xB0 | 0xB1, rest @ ..] => (Some(b'i'), rest),
            // Up to U+05BF, and the blocks of U+1000, U+2000, U+A000, U+F000 and U+10000: all that have case.
            [0xC2..=0xD6, _, rest @ ..]
            | [0xE1 | 0xE2 | 0xEA | 0xEF, _, _, rest @ ..]
            | [0xF0, _, _, _, rest @ ..] => (Some(CASED), rest),
            [first, rest @ ..] => (Some(first.to_ascii_lowercase()), rest),
            [] => return None,
        };
        *name = rest;
        if first.is_some() {
            return first;
        }
    }
}

// === impl Text ===

impl<'a> Text<'a> {
    /// The text, if it is whole and not flawed.
    ///
    /// # Errors
    ///
    /// [`Unreadable::TooLong`] or [`Unreadable::FlawedText`].
    pub fn exact(&self) -> Result<&'a str, Unreadable> {
        if self.is_flawed {
            return Err(Unreadable::FlawedText);
        }
        if self.is_cut {
            return Err(Unreadable::TooLong);
        }
        str::from_utf8(self.bytes).map_err(|_| Unreadable::NotUtf8)
    }
}

// === impl Span ===

impl Span {
    /// The bytes as a range.
    pub fn range(self) -> Range<u64> {
        self.start..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_same_hash_if_they_are_similar() {
        let names = [
            "task", "TASK", "ta\u{17f}k", "tas\u{212a}", "t\0ask", "task\u{fffd}", "tasks", "ta",
            "tisk", "t\u{131}sk", "T\u{130}SK", "größe", "GRÖßE", "天気", "場所", "",
        ];
        for (one, other) in names.iter().flat_map(|one| names.map(|other| (*one, other))) {
            let (one, other) = (one.as_bytes(), other.as_bytes());
            let is_same = folded_hash(one) == folded_hash(other);
            assert_eq!(is_same, is_similar(one, other), "{one:?} {other:?}");
        }
        assert_ne!(folded_hash(b"task"), folded_hash(b"tisk"));
    }
}
