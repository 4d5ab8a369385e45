//! Finds parts of a key's tag in text that a client wrote. The tag is the secret part of a key. A client
//! may put it in a member that is logged: whole or in pieces, escaped, or in base64 with the rest of the
//! key.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::headers::percent_decoded;

/// A text with this many consecutive characters of a tag is never logged.
pub const HIDDEN_CHARS: usize = 12;

/// The length of the blocks that are searched for. [`HIDDEN_CHARS`] consecutive characters contain a whole
/// block that begins at a multiple of this length. Their base64 contains two groups of four characters,
/// which encode as many.
const BLOCK_CHARS: usize = 6;

/// The base64 of a block.
const ENCODED_CHARS: usize = BLOCK_CHARS / 3 * 4;

/// The longest tag that is searched for. The tag of a key has 43 characters.
const MAX_TAG_BYTES: usize = 64;

/// The value of each base64url character; [`OTHER`] for all other bytes.
static SEXTETS: [u8; 256] = sextets();

const OTHER: u8 = 0xFF;

/// The tags that must not be logged for a request.
pub(crate) struct Tags<'a> {
    tags: [&'a [u8]; 2],
    /// The set of characters in the tags, one bit for each value. It is about half of the alphabet, so few
    /// other texts contain several of them in a row.
    characters: OnceCell<u64>,
    /// Every block of them, as a number.
    blocks: OnceCell<Vec<u64>>,
}

impl<'a> Tags<'a> {
    /// The tags of the credentials in a request. At most two are known.
    pub(crate) fn new(mut tags: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut next = || {
            let tag = tags.next().unwrap_or_default();
            tag.get(tag.len().saturating_sub(MAX_TAG_BYTES)..).unwrap_or_default()
        };
        Self { tags: [next(), next()], characters: OnceCell::new(), blocks: OnceCell::new() }
    }

    /// Whether a text contains [`HIDDEN_CHARS`] consecutive characters of a tag. It may also be true for
    /// fewer.
    pub(crate) fn are_shown_by(&self, text: &[u8]) -> bool {
        if self.tags.iter().all(|tag| tag.is_empty()) || !has_run(text) {
            return false;
        }
        let escaped = text.contains(&b'%');
        let text = if escaped { percent_decoded(text) } else { Cow::Borrowed(text) };
        runs(&text).any(|run| {
            run.as_chunks().0.iter().any(|block| self.hold(*block))
                || run.array_windows().filter_map(decoded).any(|block| self.hold(block))
        })
    }

    fn hold(&self, block: [u8; BLOCK_CHARS]) -> bool {
        let characters = *self.characters.get_or_init(|| {
            self.tags.iter().copied().flatten().fold(0, |characters, byte| characters | bit(*byte))
        });
        if block.iter().any(|byte| characters & bit(*byte) == 0) {
            return false;
        }
        let blocks = self.blocks.get_or_init(|| {
            let of_tag = |tag: &&'a [u8]| tag.array_windows().map(|block| number(*block));
            self.tags.iter().flat_map(of_tag).collect()
        });
        blocks.contains(&number(block))
    }
}

fn bit(byte: u8) -> u64 {
    1_u64.checked_shl(sextet(byte).into()).unwrap_or(0)
}

fn number([a, b, c, d, e, f]: [u8; BLOCK_CHARS]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// Cheap first test, which few texts pass: [`HIDDEN_CHARS`] consecutive base64url characters, perhaps
/// escaped. A tag has no others, nor does the base64 of a key: its bytes never encode to `+` or `/`.
fn has_run(text: &[u8]) -> bool {
    let mut len = 0;
    text.iter().any(|byte| {
        len = if sextet(*byte) == OTHER && *byte != b'%' { 0 } else { len + 1 };
        len == HIDDEN_CHARS
    })
}

fn runs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let runs = text.split(|byte| sextet(*byte) == OTHER);
    runs.filter(|run| run.len() >= HIDDEN_CHARS)
}

/// Decodes a block if the result could be part of a tag. Characters of a tag are from 0x2D to 0x7A, which
/// limits the first three of every four encoded characters, so most texts fail before decoding.
fn decoded(encoded: &[u8; ENCODED_CHARS]) -> Option<[u8; BLOCK_CHARS]> {
    let [a, b, c, _, e, f, g, _] = *encoded;
    let is_first = |byte: u8| (0x2D / 4..=0x7A / 4).contains(&sextet(byte));
    let are_next =
        |second: u8, third: u8| sextet(second) & 0b1000 == 0 && sextet(third) & 0b10 == 0;
    if !(is_first(a) && is_first(e) && are_next(b, c) && are_next(f, g)) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = encoded.map(sextet);
    Some([
        a << 2 | b >> 4,
        b << 4 | c >> 2,
        c << 6 | d,
        e << 2 | f >> 4,
        f << 4 | g >> 2,
        g << 6 | h,
    ])
}

fn sextet(byte: u8) -> u8 {
    SEXTETS.get(usize::from(byte)).copied().unwrap_or(OTHER)
}

const fn sextets() -> [u8; 256] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut sextets = [OTHER; 256];
    let mut sextet = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while sextet < 64 {
        sextets[ALPHABET[sextet as usize] as usize] = sextet;
        sextet += 1;
    }
    sextets
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const TAG: &str = "q7Yc-0fTzLk_3WmXoBv9RdPNsE2uJ5gHaKi8Zt1CyQw";

    fn shows_tag(text: &str) -> bool {
        Tags::new([TAG.as_bytes()].into_iter()).are_shown_by(text.as_bytes())
    }

    #[test]
    fn every_part_is_found_at_any_position() {
        for start in 0..=TAG.len() - HIDDEN_CHARS {
            let part = TAG.get(start..start + HIDDEN_CHARS).unwrap();
            for before in 0..8 {
                let around = |text: &str| format!("/v1/{}{text}z/x", "x".repeat(before));
                assert!(shows_tag(&around(part)), "{part} after {before}");
                let escaped: String = part.bytes().map(|byte| format!("%{byte:02X}")).collect();
                assert!(shows_tag(&around(&escaped)), "{escaped} after {before}");
            }
        }
    }

    #[test]
    fn every_part_is_found_in_base64_of_the_key() {
        for head in ["", "v", "vk", "vk1.main-0.e30.", "user:vk1.main-0.e30.", "x:vk1.main-0.e30."]
        {
            for start in 0..=TAG.len() - HIDDEN_CHARS {
                let key = [head, TAG.get(start..start + HIDDEN_CHARS).unwrap()].concat();
                for encoded in [STANDARD.encode(&key), URL_SAFE.encode(&key)] {
                    assert!(shows_tag(&format!("/basic/{encoded}")), "{key}");
                }
            }
            // Cut at both ends, at any position.
            let encoded = STANDARD.encode([head, TAG].concat());
            let part = encoded.len() - 30;
            assert!(shows_tag(encoded.get(part - 4..part + 12).unwrap()), "{head}");
        }
    }

    #[test]
    fn other_texts_are_not_hidden() {
        for text in [
            "/v1/chat/completions",
            "5f0c2a57-4f0e-4f6c-9c5b-0a3a5b0f2a11",
            "api.openai.com",
            "/v1/projects/some-project-name/locations/us-central1/publishers/google/models/gemini",
            "q7Yc-0fTz",
            "/q7Yc-0fTzLk/_3WmXoBv9Rd",
            "",
        ] {
            assert!(!shows_tag(text), "{text}");
        }
        assert!(!Tags::new(std::iter::empty()).are_shown_by(TAG.as_bytes()));
        assert!(!Tags::new([b"".as_slice(), b"x"].into_iter()).are_shown_by(TAG.as_bytes()));
    }
}
