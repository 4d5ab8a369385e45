//! How hard the secret of a ring is to guess.
//!
//! Whoever has one key can try guesses on a machine of their own, as fast as that computes HMACs. The
//! module refuses what has an obvious order ([`Secret::parse_unguessable`]). The command has room for
//! dictionaries, and finds words, names, dates and keyboard runs too.

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

/// The least estimate that a secret is taken with, in bits.
const MIN_BITS: u32 = 80;

/// The most characters that are estimated at once: zxcvbn counts guesses in 64 bits, and takes 10 for
/// each character that it knows nothing of.
const MAX_PIECE_CHARS: usize = 19;

/// How much of a secret is looked at. What is estimated to be this long has enough bits in any case
/// that matters, and the time grows with it.
const MAX_CHARS: usize = 64;

/// How much of a secret is searched for repetitions.
const MAX_SEARCHED_CHARS: usize = 1024;

/// The shortest passage that counts once only.
const MIN_REPEATED_CHARS: usize = 4;

/// A secret can be guessed.
#[derive(Debug)]
pub(super) struct Guessable {
    /// The estimate.
    pub(super) bits: u32,
}

/// The secret of a ring can be guessed.
#[derive(Debug)]
pub(super) struct GuessableSecret {
    /// Where it comes from.
    pub(super) origin: Origin,
    /// The estimate, bits.
    pub(super) bits: u32,
}

/// Makes sure that the secrets of rings cannot be guessed. A secret that is missing or refused by the
/// module is found when the rings are compiled, and a revoked ring lets no key in.
pub(super) fn check_rings<'a>(
    rings: impl IntoIterator<Item = &'a RingConfig>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(), GuessableSecret> {
    for ring in rings.into_iter().filter(|ring| ring.state() != RingState::Revoked) {
        let name = ring.variable();
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

/// Makes sure that a secret cannot be guessed.
pub(super) fn check(secret: &str) -> Result<(), Guessable> {
    let Some(text) = guessable_text(secret) else {
        return Ok(());
    };
    match bits(&text) {
        bits if bits < f64::from(MIN_BITS) => Err(Guessable { bits: floor(bits) }),
        _ => Ok(()),
    }
}

/// What a person could have made up: the text of a secret, also where it is written in base64.
fn guessable_text(secret: &str) -> Option<Zeroizing<String>> {
    let Some(encoded) = secret.strip_prefix("base64:") else {
        return Some(Zeroizing::new(secret.to_owned()));
    };
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let text = str::from_utf8(&bytes).ok()?.trim_end();
    let is_plain = !text.chars().any(char::is_control);
    is_plain.then(|| Zeroizing::new(text.to_owned()))
}

/// The estimate: the least sum over all ways to cut the text into pieces. A word that is cut in two is
/// harder to guess than as a whole, so that the least sum has words in one piece.
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

/// The characters without those of passages that stand before in the same text.
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

/// How many characters two texts begin with in common.
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
             needed, since one key is enough to try guesses offline; `vkey secret new` makes one"
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
    fn secrets_that_people_make_up_are_refused() {
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
            // The same behind base64, with and without the line end of a file.
            for end in ["", "\n"] {
                let encoded = format!("base64:{}", STANDARD.encode(format!("{secret}{end}")));
                assert_eq!(estimate(&encoded), Some(bits), "{secret}");
            }
        }
    }

    #[test]
    fn what_stands_twice_counts_once() {
        let (once, twice) = ("aB3kD9xQ2mZ7pL5w", "aB3kD9xQ2mZ7pL5w-aB3kD9xQ2mZ7pL5w");
        let bits = estimate(once).unwrap();
        assert!((bits..bits + 5).contains(&estimate(twice).unwrap()));
        assert!(estimate(&"Tr0ub4dor&3x".repeat(80)).unwrap() < 60);
        assert!(bits < 60 && estimate("aB3kD9xQ2mZ7pL5wT8rN4vG6y").is_none());
    }

    #[test]
    fn random_secrets_are_taken() {
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
