//! The keyring: rings, their secrets, and which epochs of a ring are good at a given time.
//!
//! A rotating ring changes its signing key every `interval`, at the same second on every proxy and
//! every minter, because the epoch is a function of the time alone. A key lives at least
//! `max_age - interval` (minted in the last second of its epoch) and at most `max_age` (minted in the
//! first).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::decision::DenyReason;
use crate::key::mac::{RootKey, SigningKey};
use crate::key::token::{Kid, is_ring_name};

/// The shortest text secret, in characters.
pub const MIN_SECRET_CHARS: usize = 16;

/// The shortest `base64:` secret, in bytes: as long as what HMAC-SHA256 puts out (RFC 2104,
/// section 3).
pub const MIN_SECRET_BYTES: usize = 32;

/// The least number of different bytes in a secret, and of different steps from byte to byte.
pub const MIN_DISTINCT_BYTES: usize = 8;

/// The longest period in which a secret is looked through for repetition. A longer unit is as hard to
/// guess as a secret of that length.
const MAX_PERIOD: usize = 64;

/// What counts as a special character of a text secret.
const SPECIAL: &str = "!@#$%^&*()_+-=[]{}|;:,.<>?";

/// Secrets that stand in files anyone can read. A configuration never accepts them.
const SAMPLE_SECRETS: [&str; 4] = [
    "Abc123!@#Xyz789!@#",
    "Sample-Secret-1-never-deploy",
    "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "base64:c2FtcGxlIHNlY3JldCAyLCBuZXZlciBkZXBsb3kgaXQ=",
];

/// A ring's secret. It has no `Debug` and is wiped when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a text cannot be a ring's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSecret {
    /// Not the base64 its prefix promises.
    Base64,
    /// A control character, most often the line end of a file.
    ControlCharacter,
    /// This character, which nobody sees: a byte order mark, something of no width, a space that is none
    /// in ASCII.
    Invisible(char),
    /// Fewer different bytes than [`MIN_DISTINCT_BYTES`], a repetition, or a sequence.
    Regular,
    /// Printed in a file.
    Sample,
    /// Shorter than [`MIN_SECRET_CHARS`] or [`MIN_SECRET_BYTES`].
    Short,
    /// A space at its beginning or its end.
    Space,
    /// Characters of fewer than three kinds.
    Uniform,
}

/// What a ring is still good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingState {
    /// Mints and verifies.
    Active,
    /// Verifies.
    Retiring,
    /// Identifies the keys it signed, and refuses them.
    Revoked,
}

/// How a ring's signing key changes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    interval_secs: u64,
    max_age_secs: u64,
    keep_expired: bool,
}

/// Why a rotation makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRotation {
    /// The interval is zero.
    Interval,
    /// A key would be refused before its ring's next epoch.
    MaxAge,
}

/// A named secret and its rule of rotation.
pub struct Ring {
    name: Box<str>,
    root: RootKey,
    state: RingState,
    rotation: Option<Rotation>,
    tenants: Option<Box<[String]>>,
}

/// The rings of a configuration.
#[derive(Default)]
pub struct Keyring {
    rings: Vec<Ring>,
    clock_skew_secs: u64,
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
        let bytes = match text.strip_prefix("base64:") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?,
            None => text.as_bytes().to_vec(),
        };
        let secret = Self(Zeroizing::new(bytes));
        if text.starts_with("base64:") {
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
    /// [`InvalidSecret`], among them [`InvalidSecret::Sample`] for secrets that stand in this project's
    /// files and [`InvalidSecret::Regular`].
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

// === impl Rotation ===

impl Rotation {
    /// A rotation every `interval_secs`, each signing key accepted for `max_age_secs` from the start
    /// of its epoch. With `keep_expired`, keys past their life are still identified when refused.
    ///
    /// # Errors
    ///
    /// [`InvalidRotation`] for an interval of zero or longer than the age.
    pub fn new(
        interval_secs: u64,
        max_age_secs: u64,
        keep_expired: bool,
    ) -> Result<Self, InvalidRotation> {
        if interval_secs == 0 {
            Err(InvalidRotation::Interval)
        } else if interval_secs > max_age_secs {
            Err(InvalidRotation::MaxAge)
        } else {
            Ok(Self { interval_secs, max_age_secs, keep_expired })
        }
    }

    /// How often the signing key changes.
    pub fn interval_secs(&self) -> u64 {
        self.interval_secs
    }

    /// How long the signing key of an epoch is accepted, from the start of the epoch.
    pub fn max_age_secs(&self) -> u64 {
        self.max_age_secs
    }

    /// The epoch of a time.
    pub fn epoch_at(&self, now_secs: u64) -> u32 {
        let epoch = now_secs.checked_div(self.interval_secs).unwrap_or(0);
        u32::try_from(epoch).unwrap_or(u32::MAX)
    }

    /// The first second of an epoch.
    pub fn start_of(&self, epoch: u32) -> u64 {
        u64::from(epoch).saturating_mul(self.interval_secs)
    }

    /// The first second at which keys of an epoch are refused.
    pub fn end_of(&self, epoch: u32) -> u64 {
        self.start_of(epoch).saturating_add(self.max_age_secs)
    }
}

impl fmt::Display for InvalidRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => "the interval must be at least 1s",
            Self::MaxAge => "max_age must not be shorter than the interval",
        })
    }
}

impl std::error::Error for InvalidRotation {}

// === impl Ring ===

impl Ring {
    /// A ring; `None` when its name is not `[a-z0-9][a-z0-9-]{0,31}`.
    pub fn new(
        name: &str,
        secret: &Secret,
        state: RingState,
        rotation: Option<Rotation>,
    ) -> Option<Self> {
        let root = RootKey::extract(&secret.0);
        is_ring_name(name).then(|| Self { name: name.into(), root, state, rotation, tenants: None })
    }

    /// The ring, which signs for these tenants alone where there are some named.
    #[must_use]
    pub fn with_tenants(self, tenants: Option<Box<[String]>>) -> Self {
        Self { tenants, ..self }
    }

    /// Whether it signs keys of a tenant.
    pub fn signs_for(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|name| name == tenant))
    }

    /// The name, the first part of its keys' kids.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the ring is still good for.
    pub fn state(&self) -> RingState {
        self.state
    }

    /// Whether a key past its life may still be identified: always in a ring that does not rotate.
    pub fn keeps_expired(&self) -> bool {
        self.rotation.is_none_or(|rotation| rotation.keep_expired)
    }

    /// The kid to mint under at a time.
    pub fn kid_at(&self, now_secs: u64) -> Option<Kid> {
        let epoch = self.rotation.map_or(0, |rotation| rotation.epoch_at(now_secs));
        Kid::new(&self.name, epoch)
    }

    /// The first second at which keys minted at a time are refused whatever they claim; `None` when
    /// the ring does not rotate.
    pub fn end_of_life(&self, now_secs: u64) -> Option<u64> {
        self.rotation.map(|rotation| rotation.end_of(rotation.epoch_at(now_secs)))
    }

    /// Derives the signing key of an epoch.
    pub fn signing_key(&self, kid: &Kid) -> SigningKey {
        self.root.derive(kid.as_str())
    }
}

// === impl Keyring ===

impl Keyring {
    /// A keyring. Of two rings with one name the first is found.
    pub fn new(rings: Vec<Ring>, clock_skew_secs: u64) -> Self {
        Self { rings, clock_skew_secs }
    }

    /// The ring that signs under a kid.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyUnknown`] when there is none, or the ring does not have such an epoch.
    pub fn ring(&self, kid: &Kid) -> Result<&Ring, DenyReason> {
        let named = self.rings.iter().find(|ring| &*ring.name == kid.ring());
        let ring = named.ok_or(DenyReason::KeyUnknown)?;
        if ring.rotation.is_none() && kid.epoch() != 0 {
            return Err(DenyReason::KeyUnknown);
        }
        Ok(ring)
    }

    /// Whether a kid's epoch is good at a time.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyNotYetValid`] before the epoch starts, [`DenyReason::KeyRetired`] once it has
    /// aged out, and as [`Keyring::ring`].
    pub fn check_epoch(&self, kid: &Kid, now_secs: u64) -> Result<(), DenyReason> {
        let Some(rotation) = self.ring(kid)?.rotation else {
            return Ok(());
        };
        if now_secs.saturating_add(self.clock_skew_secs) < rotation.start_of(kid.epoch()) {
            Err(DenyReason::KeyNotYetValid)
        } else if now_secs >= rotation.end_of(kid.epoch()) {
            Err(DenyReason::KeyRetired)
        } else {
            Ok(())
        }
    }

    /// How far another machine's clock may be ahead of this one.
    pub fn clock_skew_secs(&self) -> u64 {
        self.clock_skew_secs
    }
}

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

    #[test]
    fn epochs_follow_the_clock() {
        let rotation = Rotation::new(10, 25, true).unwrap();
        assert_eq!((rotation.epoch_at(0), rotation.epoch_at(9), rotation.epoch_at(10)), (0, 0, 1));
        assert_eq!((rotation.start_of(3), rotation.end_of(3)), (30, 55));
        assert_eq!(rotation.epoch_at(u64::MAX), u32::MAX);
        assert_eq!(Rotation::new(0, 1, true), Err(InvalidRotation::Interval));
        assert_eq!(Rotation::new(11, 10, true), Err(InvalidRotation::MaxAge));
        assert!(Rotation::new(10, 10, true).is_ok());
    }

    #[test]
    fn an_epoch_is_judged_to_the_second() {
        let secret = Secret::parse(SAMPLE_SECRETS[0]).unwrap();
        let rotation = Rotation::new(10, 25, true).unwrap();
        let ring = Ring::new("main", &secret, RingState::Active, Some(rotation)).unwrap();
        let keyring = Keyring::new(vec![ring], 5);
        let kid = Kid::new("main", 3).unwrap();
        let check = |now| keyring.check_epoch(&kid, now);
        assert_eq!(check(24), Err(DenyReason::KeyNotYetValid));
        assert_eq!(check(25), Ok(()));
        assert_eq!(check(54), Ok(()));
        assert_eq!(check(55), Err(DenyReason::KeyRetired));
    }
}
