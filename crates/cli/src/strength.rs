//! Estimates how hard a ring's secret is to guess.
//!
//! Anyone with one key can test guesses offline, as fast as their hardware computes HMACs. The module rejects
//! secrets with an obvious pattern ([`Secret::parse_unguessable`]). The command has room for dictionaries,
//! and also finds words, names, dates and keyboard patterns.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;
use zxcvbn::zxcvbn;

use vkey::config::RingConfig;
use vkey::key::keyring::{RingState, Secret};

use super::error::Failure;
use super::exit::Exit;
use super::input::Origin;

/// The lowest accepted estimate, in bits.
const MIN_BITS: u32 = 80;

/// The most characters in one estimate: zxcvbn counts guesses in 64 bits, and assumes 10 per unknown
/// character.
const MAX_PIECE_CHARS: usize = 19;

/// How much of a secret is estimated. A secret of this length has enough bits in every case that matters, and
/// the time grows with the length.
const MAX_CHARS: usize = 64;

/// How much of a secret is searched for repetitions.
const MAX_SEARCHED_CHARS: usize = 1024;

/// The shortest repetition that is counted only once.
const MIN_REPEATED_CHARS: usize = 4;

/// A secret can be guessed.
#[derive(Debug)]
pub(super) struct Guessable {
    /// The estimate, in bits.
    pub(super) bits: u32,
}

/// The secret of a ring can be guessed.
#[derive(Debug)]
pub(super) struct GuessableSecret {
    /// Where the secret comes from.
    pub(super) origin: Origin,
    /// The estimate, in bits.
    pub(super) bits: u32,
}

/// Checks that the secrets of rings cannot be guessed. Missing secrets and those that the module rejects are
/// found when the rings are compiled; revoked rings are not checked, because they allow no key.
pub(super) fn check_rings<'a>(
    rings: impl IntoIterator<Item = &'a RingConfig>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(), GuessableSecret> {
    let rings = rings.into_iter().filter(|ring| ring.state() != RingState::Revoked);
    for name in rings.flat_map(RingConfig::sources) {
        let text = environment(name).map(Zeroizing::new);
        let text = text.filter(|text| Secret::parse_unguessable(text).is_ok());
        let checked = text.map_or(Ok(()), |text| check(&text));
        checked.map_err(|Guessable { bits }| GuessableSecret {
            origin: Origin::Configured(name.to_owned()),
            bits,
        })?;
    }
    Ok(())
}

/// Checks that a secret cannot be guessed.
pub(super) fn check(secret: &str) -> Result<(), Guessable> {
    let Some(text) = guessable_text(secret) else {
        return Ok(());
    };
    match bits(&text) {
        bits if bits < f64::from(MIN_BITS) => Err(Guessable { bits: floor(bits) }),
        _ => Ok(()),
    }
}

/// The part that a person may have made up: the text of a secret, even if it is in base64.
fn guessable_text(secret: &str) -> Option<Zeroizing<String>> {
    let Some(encoded) = secret.strip_prefix("base64:") else {
        return Some(Zeroizing::new(secret.to_owned()));
    };
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let text = str::from_utf8(&bytes).ok()?.trim_end();
    let is_plain = !text.chars().any(char::is_control);
    is_plain.then(|| Zeroizing::new(text.to_owned()))
}

/// The estimate: the lowest sum over all ways to split the text. A split word is harder to guess than a whole
/// one, so the lowest sum keeps words whole.
fn bits(text: &str) -> f64 {
    let chars = without_repetition(text);
    let mut least = vec![0.0];
    for end in 1..=chars.len().min(MAX_CHARS) {
        let starts = end.saturating_sub(MAX_PIECE_CHARS)..end;
        let sums = starts.filter_map(|start| {
            let piece = Zeroizing::new(String::from_iter(chars.get(start..end)?));
            let guesses = zxcvbn(&piece, &[]).guesses_log10();
            Some(least.get(start)? + guesses.max(0.0) * std::f64::consts::LOG2_10)
        });
        let sum = sums.fold(f64::INFINITY, f64::min);
        least.push(sum);
    }
    least.last().copied().unwrap_or_default()
}

/// The characters without passages that occur earlier in the text.
fn without_repetition(text: &str) -> Zeroizing<Vec<char>> {
    let chars = Zeroizing::new(Vec::from_iter(text.chars().take(MAX_SEARCHED_CHARS)));
    let mut kept = Zeroizing::new(Vec::with_capacity(chars.len()));
    let mut position = 0;
    while let Some(rest) = chars.get(position..).filter(|rest| !rest.is_empty()) {
        let before = chars.get(..position).unwrap_or_default();
        let repeated = (0..before.len()).map(|start| shared_len(before.get(start..), rest)).max();
        match repeated.unwrap_or_default() {
            repeated if repeated >= MIN_REPEATED_CHARS => position += repeated,
            _ => {
                kept.extend(rest.first());
                position += 1;
            }
        }
    }
    kept
}

/// The length of the common prefix.
fn shared_len(one: Option<&[char]>, other: &[char]) -> usize {
    one.unwrap_or_default().iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than MIN_BITS")]
fn floor(bits: f64) -> u32 {
    bits.max(0.0) as u32
}

impl Failure for GuessableSecret {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for GuessableSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, bits } = self;
        write!(
            f,
            "{origin} holds a secret that can be guessed: an estimate of {bits} bits, and {MIN_BITS} are \
             required, because one key is enough to try guesses offline; `vkey secret new` makes one"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkey::digest::sha256_hex;

    fn estimate(secret: &str) -> Option<u32> {
        match check(secret) {
            Err(Guessable { bits }) => Some(bits),
            Ok(()) => None,
        }
    }

    #[test]
    fn secrets_that_people_make_up_are_rejected() {
        for (secret, most) in [
            ("Qwertyuiop123456", 20),
            ("Password12345678", 20),
            ("Company-Production-Secret-2026", 50),
            ("Monday-January-Summer-2024!Password", 60),
            ("Sample-Secret-1-never-deploy", 79),
            ("correct horse battery staple 1A", 79),
            ("aB3kD9xQ2mZ7pL5w", 79),
        ] {
            let bits = estimate(secret).unwrap_or(u32::MAX);
            assert!(bits <= most, "{secret}: {bits}");
            // The same in base64, with and without a line end.
            for end in ["", "\n"] {
                let encoded = format!("base64:{}", STANDARD.encode(format!("{secret}{end}")));
                assert_eq!(estimate(&encoded), Some(bits), "{secret}");
            }
        }
    }

    #[test]
    fn repetitions_count_once() {
        let (once, twice) = ("aB3kD9xQ2mZ7pL5w", "aB3kD9xQ2mZ7pL5w-aB3kD9xQ2mZ7pL5w");
        let bits = estimate(once).unwrap();
        assert!((bits..bits + 5).contains(&estimate(twice).unwrap()));
        assert!(estimate(&"Tr0ub4dor&3x".repeat(80)).unwrap() < 60);
        assert!(bits < 60 && estimate("aB3kD9xQ2mZ7pL5wT8rN4vG6y").is_none());
    }

    #[test]
    fn random_secrets_are_accepted() {
        let hex = sha256_hex(b"a secret of the tests");
        let base64 = |bytes: &[u8]| format!("base64:{}", STANDARD.encode(bytes));
        let bytes = Vec::from_iter(hex.bytes().map(|digit| digit.wrapping_mul(151)));
        let text = format!("A-{}", hex.get(..32).unwrap());
        for secret in
            ["xK7#mQ2$vL9@pR4!nW6%tY1^z8", &text, &base64(&bytes), &base64(text.as_bytes())]
        {
            assert_eq!(estimate(secret), None, "{secret}");
        }
    }
}
