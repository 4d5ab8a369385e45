//! The secret of a ring, and the checks that refuse weak ones.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::key::mac::RootKey;

/// The shortest text secret, in characters.
pub const MIN_SECRET_CHARS: usize = 16;

/// The shortest `base64:` secret, in bytes: as long as what HMAC-SHA256 puts out (RFC 2104,
/// section 3).
pub const MIN_SECRET_BYTES: usize = 32;

/// What stands before bytes in base64.
pub(super) const BASE64: &str = "base64:";

/// The least number of different bytes in a secret, and of different steps from byte to byte.
pub const MIN_DISTINCT_BYTES: usize = 8;

/// The longest period in which a secret is looked through for repetition. A longer unit is as hard to
/// guess as a secret of that length.
const MAX_PERIOD: usize = 64;

/// What counts as a special character of a text secret.
const SPECIAL: &str = "!@#$%^&*()_+-=[]{}|;:,.<>?";

/// Secrets in files that anyone can read. A configuration never accepts them.
pub(super) const SAMPLE_SECRETS: [&str; 4] = [
    "Abc123!@#Xyz789!@#",
    "Sample-Secret-1-never-deploy",
    "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "base64:c2FtcGxlIHNlY3JldCAyLCBuZXZlciBkZXBsb3kgaXQ=",
];

/// A ring's secret. It has no `Debug` and is wiped when dropped.
pub struct Secret(pub(super) Zeroizing<Vec<u8>>);

/// Why a text cannot be a ring's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSecret {
    /// Not the base64 its prefix promises.
    Base64,
    /// A control character, most often the line end of a file.
    ControlCharacter,
    /// An invisible character, e.g. a byte order mark, a zero-width space or a no-break space.
    Invisible(char),
    /// Fewer different bytes than [`MIN_DISTINCT_BYTES`], a repetition, or a sequence.
    Regular,
    /// Printed in a file.
    Sample,
    /// Shorter than [`MIN_SECRET_CHARS`] or [`MIN_SECRET_BYTES`].
    Short,
    /// Not a signing key: text, or more than 32 bytes.
    SigningKey,
    /// A space at its beginning or its end.
    Space,
    /// Characters of fewer than three kinds.
    Uniform,
}

// === impl Secret ===

impl Secret {
    /// Reads a secret: text, or `base64:` and the bytes in base64.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`] when it is too short or too uniform to sign keys.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        check_characters(text)?;
        let bytes = match text.strip_prefix(BASE64) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?,
            None => text.as_bytes().to_vec(),
        };
        let secret = Self(Zeroizing::new(bytes));
        if text.starts_with(BASE64) {
            let long = secret.0.len() >= MIN_SECRET_BYTES;
            return if long { Ok(secret) } else { Err(InvalidSecret::Short) };
        }
        check_text(text).map(|()| secret)
    }

    /// Reads a secret as [`Secret::parse`] does, and refuses those that anybody can guess: what
    /// configurations are compiled with. One key is all that guesses need to be tried against.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`], among them [`InvalidSecret::Sample`] for secrets in this project's
    /// files and [`InvalidSecret::Regular`].
    #[inline(never)]
    pub fn parse_unguessable(text: &str) -> Result<Self, InvalidSecret> {
        let secret = Self::parse(text)?;
        let published = |sample| Self::parse(sample).is_ok_and(|sample| sample.0 == secret.0);
        if SAMPLE_SECRETS.into_iter().any(published) {
            Err(InvalidSecret::Sample)
        } else if is_regular(&secret.0) {
            Err(InvalidSecret::Regular)
        } else {
            Ok(secret)
        }
    }

    /// What keys are derived from.
    pub(crate) fn extract(&self) -> RootKey {
        RootKey::extract(&self.0)
    }
}

/// Whether the bytes have few values, repeat themselves or count, none of which random bytes do. In
/// bytes that repeat or count, the differences between those at some distance have few values.
fn is_regular(bytes: &[u8]) -> bool {
    // Few differences cannot have many values.
    let least = |distance: usize| MIN_DISTINCT_BYTES.min(bytes.len().saturating_sub(distance) / 3);
    let mut distances = 1..=MAX_PERIOD.min(bytes.len() / 2);
    distinct(bytes, 0) < MIN_DISTINCT_BYTES || distances.any(|d| distinct(bytes, d) < least(d))
}

/// How many different values the differences between bytes at a distance have; at the distance 0, the
/// bytes themselves.
#[inline(never)]
fn distinct(bytes: &[u8], distance: usize) -> usize {
    let mut seen = [false; 256];
    for (index, byte) in bytes.iter().enumerate().skip(distance) {
        let earlier = bytes.get(index - distance).filter(|_| distance > 0).unwrap_or(&0);
        if let Some(seen) = seen.get_mut(usize::from(byte.wrapping_sub(*earlier))) {
            *seen = true;
        }
    }
    seen.iter().filter(|seen| **seen).count()
}

/// Refuses what comes along when a secret is copied, and is not meant.
fn check_characters(text: &str) -> Result<(), InvalidSecret> {
    if text.chars().any(char::is_control) {
        Err(InvalidSecret::ControlCharacter)
    } else if let Some(invisible) = text.chars().find(|c| is_invisible(*c)) {
        Err(InvalidSecret::Invisible(invisible))
    } else if text.starts_with(' ') || text.ends_with(' ') {
        Err(InvalidSecret::Space)
    } else {
        Ok(())
    }
}

/// Whether a character beyond ASCII is white space (`White_Space`), or is not to be shown at all
/// (`Default_Ignorable_Code_Point`): Unicode 17.0, PropList.txt and DerivedCoreProperties.txt.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    ) || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn check_text(text: &str) -> Result<(), InvalidSecret> {
    if text.chars().count() < MIN_SECRET_CHARS {
        return Err(InvalidSecret::Short);
    }
    let kinds: [fn(char) -> bool; 4] = [
        |c| c.is_ascii_uppercase(),
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| SPECIAL.contains(c),
    ];
    let present = kinds.into_iter().filter(|kind| text.contains(*kind)).count();
    if present < 3 { Err(InvalidSecret::Uniform) } else { Ok(()) }
}

impl fmt::Display for InvalidSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invisible(c) => {
                return write!(
                    f,
                    "the secret holds U+{:04X}, a character that cannot be seen; remove it, or make a new \
                     secret with `vkey secret new`",
                    u32::from(*c)
                );
            }
            Self::Base64 => "the secret is not valid base64 after base64:",
            Self::ControlCharacter => {
                "the secret holds a control character, most often a line end copied from a file"
            }
            Self::Regular => {
                "the secret can be guessed: it has fewer than 8 different bytes, repeats itself or is \
                 a sequence; `vkey secret new` makes one"
            }
            Self::Sample => "the secret is a published sample; make one with `vkey secret new`",
            Self::SigningKey => {
                "a signing key is base64: and exactly 32 bytes, as `vkey secret derive` writes it"
            }
            Self::Space => {
                "the secret begins or ends with a space, most often copied along with it; remove it"
            }
            Self::Short => {
                "the secret is too short: at least 16 characters, or 32 bytes after base64:; \
                 `vkey secret new` makes one"
            }
            Self::Uniform => {
                "the secret needs at least three of upper case, lower case, digits and special \
                 characters; `vkey secret new` makes one"
            }
        })
    }
}

impl std::error::Error for InvalidSecret {}

#[cfg(test)]
mod tests {
    use super::*;

    /// No white space is left out, whatever the version of Unicode.
    #[test]
    fn white_space_beyond_ascii_is_invisible() {
        let others = ('\u{80}'..=char::MAX).filter(|c| !c.is_control());
        for c in others {
            assert!(!c.is_whitespace() || is_invisible(c), "{c:?}");
            assert!(
                !is_invisible(c)
                    || !c.is_alphanumeric()
                    || "\u{115f}\u{1160}\u{3164}\u{ffa0}".contains(c),
                "{c:?}"
            );
        }
    }

    #[test]
    fn weak_secrets_are_refused() {
        let error = |text: &str| Secret::parse(text).err();
        assert_eq!(error("Abc123!@#Xyz789!@#"), None);
        assert_eq!(error("Abc123!@#Xyz789"), Some(InvalidSecret::Short));
        assert_eq!(error("abcdefghijklmnop1"), Some(InvalidSecret::Uniform));
        assert_eq!(error("Abc123!@#Xyz789!@#\n"), Some(InvalidSecret::ControlCharacter));
        assert_eq!(error("base64:AAAA"), Some(InvalidSecret::Short));
        for invisible in
            ['\u{feff}', '\u{200b}', '\u{a0}', '\u{2029}', '\u{3000}', '\u{ad}', '\u{e0001}']
        {
            let refused = Some(InvalidSecret::Invisible(invisible));
            for text in ["Abc123!@#Xyz789!@#".to_owned(), base64(&random(32))] {
                assert_eq!(error(&format!("{invisible}{text}")), refused);
                assert_eq!(error(&format!("{text}{invisible}")), refused);
                let (start, end) = text.split_at(9);
                assert_eq!(error(&format!("{start}{invisible}{end}")), refused);
            }
        }
        for text in ["Abc123!@#Xyz789!@#".to_owned(), base64(&random(32))] {
            assert_eq!(error(&format!(" {text}")), Some(InvalidSecret::Space));
            assert_eq!(error(&format!("{text} ")), Some(InvalidSecret::Space));
            assert_eq!(error(&format!("\t{text}")), Some(InvalidSecret::ControlCharacter));
        }
        assert_eq!(error("Abc123!@# Xyz789!@#"), None);
        assert_eq!(error("Äpfel und Birnen 12"), None);
        assert_eq!(error("base64:%%%"), Some(InvalidSecret::Base64));
        assert_eq!(error(&base64(&random(32))), None);
        assert_eq!(error(&base64(&random(31))), Some(InvalidSecret::Short));
    }

    fn base64(bytes: &[u8]) -> String {
        format!("base64:{}", STANDARD.encode(bytes))
    }

    /// Bytes without any order, the same each time.
    fn random(len: usize) -> Vec<u8> {
        use sha2::{Digest as _, Sha256};
        let blocks = (0_u32..).flat_map(|n| Sha256::digest(n.to_be_bytes()));
        blocks.take(len).collect()
    }

    #[test]
    fn secrets_with_an_order_are_refused() {
        let unit = random(16);
        let bytes: [Vec<u8>; 12] = [
            vec![7; 32],
            vec![0; 100_000],
            (1..33).collect(),
            (0..=255).rev().collect(),
            (0..32).map(|n: u8| n.wrapping_mul(37)).collect(),
            (0..32).map(|n| n / 2).collect(),
            (0..32).map(|n: u8| if n.is_multiple_of(2) { n } else { n.wrapping_neg() }).collect(),
            unit.repeat(2),
            unit.repeat(5).get(..70).unwrap().to_vec(),
            [unit.repeat(3), b"tail".to_vec()].concat(),
            random(64).repeat(2),
            b"0123012301230123456776543210".repeat(2),
        ];
        for bytes in bytes {
            let refused = Secret::parse_unguessable(&base64(&bytes)).err();
            assert_eq!(refused, Some(InvalidSecret::Regular), "{bytes:?}");
        }
        for text in [
            "Aa1!Aa1!Aa1!Aa1!",
            "Passw0rd!Passw0rd!",
            "Passw0rd!Passw0rd!1",
            "Abcdefghijklmn12",
            "ABCDEFGHabcdefgh12345678",
        ] {
            assert_eq!(
                Secret::parse_unguessable(text).err(),
                Some(InvalidSecret::Regular),
                "{text}"
            );
        }
    }

    #[test]
    fn random_secrets_are_taken() {
        for len in 32..200 {
            assert!(Secret::parse_unguessable(&base64(&random(len))).is_ok(), "{len}");
        }
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let hex = b"0123456789abcdef";
        let random = random(100_000);
        let written = |bytes: &[u8], letters: &[u8]| -> String {
            bytes
                .iter()
                .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
                .collect()
        };
        for bytes in random.chunks_exact(20) {
            let text = format!("aA1{}", written(bytes, letters));
            assert!(Secret::parse_unguessable(&text).is_ok(), "{text}");
        }
        for bytes in random.chunks_exact(64) {
            let text = format!("A-{}", written(bytes, hex));
            assert!(Secret::parse_unguessable(&text).is_ok(), "{text}");
            assert!(Secret::parse_unguessable(&base64(text.as_bytes())).is_ok(), "{text}");
        }
    }

    #[test]
    fn published_secrets_are_strong_and_refused_all_the_same() {
        for sample in SAMPLE_SECRETS {
            assert!(Secret::parse(sample).is_ok(), "{sample}");
            assert_eq!(Secret::parse_unguessable(sample).err(), Some(InvalidSecret::Sample));
        }
        // The same bytes in the other spelling.
        let text = Secret::parse_unguessable("sample secret 2, never deploy it");
        assert_eq!(text.err(), Some(InvalidSecret::Sample));
    }
}
