//! HMAC-SHA256 (RFC 2104) and HKDF-SHA256 (RFC 5869) as keys use them, and nothing else.
//!
//! No type here shows its bytes in `Debug`; each wipes them when dropped and compares in constant
//! time.

use ctutils::CtEq;
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a tag and of a signing key.
pub const TAG_BYTES: usize = 32;

/// Bytes of a block of SHA-256 (FIPS 180-4): `B` in RFC 2104.
const BLOCK_BYTES: usize = 64;

/// The salt of every derivation: one version of the format, one family of keys.
const SALT: &[u8] = b"vkey.v1";

/// The pseudorandom key that a ring's secret is extracted to, once.
pub struct RootKey(SigningKey);

/// The key that signs under one kid, with its padded blocks already absorbed.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// An authentication tag. The tag of a key is itself what signs the next caveat, so it is handled
/// as a secret.
#[derive(Clone)]
pub struct Tag(CtOutput<Hmac<Sha256>>);

/// More than 255 blocks were asked of HKDF (RFC 5869, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputTooLong(());

impl RootKey {
    /// Extracts a root key from a ring's secret.
    pub fn extract(secret: &[u8]) -> Self {
        Self(extract(SALT, secret))
    }

    /// The signing key of a kid: `HKDF-SHA256(secret, salt = "vkey.v1", info = kid, L = 32)`, which
    /// is the first block of the expansion.
    pub fn derive(&self, kid: &str) -> SigningKey {
        self.derive_bytes(kid).into_key()
    }

    /// The signing key of a kid as its bytes.
    pub(crate) fn derive_bytes(&self, kid: &str) -> Tag {
        self.0.sign(&[kid.as_bytes(), &[1]])
    }
}

impl SigningKey {
    /// A signing key from its bytes, of any length: a longer one than a block is hashed, a shorter
    /// one padded with zeros (RFC 2104, section 2).
    pub fn new(key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0; BLOCK_BYTES]);
        match block.get_mut(..key.len()) {
            Some(head) => head.copy_from_slice(key),
            None => {
                let mut digest = Sha256::digest(key);
                block.iter_mut().zip(&digest).for_each(|(to, from)| *to = *from);
                digest.zeroize();
            }
        }
        Self(Hmac::new((&*block).into()))
    }

    /// The tag over the parts, read as one message.
    pub fn sign(&self, parts: &[&[u8]]) -> Tag {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        Tag(mac.finalize())
    }
}

impl Tag {
    /// A tag as it stands in a token.
    pub fn from_bytes(bytes: [u8; TAG_BYTES]) -> Self {
        Self(CtOutput::new(bytes.into()))
    }

    /// The next tag of the chain, in which this one signs `caveat`.
    pub fn extend(&self, caveat: &[u8]) -> Self {
        SigningKey::new(self.expose()).sign(&[caveat])
    }

    /// Whether two tags are the same, in time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// The bytes, for the one writer of tokens.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn into_key(self) -> SigningKey {
        SigningKey::new(self.expose())
    }
}

/// HKDF-SHA256: fills `okm` from input keying material.
///
/// # Errors
///
/// [`OutputTooLong`] over 255 blocks, 8160 bytes.
pub fn hkdf_sha256(
    salt: &[u8],
    ikm: &[u8],
    info: &[u8],
    okm: &mut [u8],
) -> Result<(), OutputTooLong> {
    let prk = extract(salt, ikm);
    let mut previous: Option<Tag> = None;
    for (index, chunk) in okm.chunks_mut(TAG_BYTES).enumerate() {
        let counter = u8::try_from(index + 1).map_err(|_| OutputTooLong(()))?;
        let block = prk.sign(&[previous.as_ref().map_or(&[], Tag::expose), info, &[counter]]);
        chunk.iter_mut().zip(block.expose()).for_each(|(to, from)| *to = *from);
        previous = Some(block);
    }
    Ok(())
}

/// Whether two texts of tags are the same, in time that does not depend on where they differ.
pub(crate) fn same_tag_text(text: &[u8], other: &[u8]) -> bool {
    text.ct_eq(other).to_bool()
}

fn extract(salt: &[u8], ikm: &[u8]) -> SigningKey {
    SigningKey::new(salt).sign(&[ikm]).into_key()
}
