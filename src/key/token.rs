//! The token: the wire form of a key, `vk1.<kid>.<claims>(.<caveat>)*.<tag>`, or a JWT.
//!
//! [`Unverified`] knows only the shape of a token. [`Unverified::verify`] is the only way to
//! [`Verified`], whose bytes may be parsed. Nothing else in this library accepts unverified bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Integers, Json, Node};
use crate::key::mac::{SigningKey, TAG_BYTES, Tag};

/// The longest token, in bytes. It bounds the work that an unauthenticated client can cause, and
/// fits the smallest header limit of common servers (8 KiB) with room for other headers.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// The most caveats of one key.
pub const MAX_CAVEATS: usize = 16;

/// The longest name of a ring, in bytes.
pub const MAX_RING_NAME_BYTES: usize = 32;

/// The longest JWT header, as base64url text: `alg`, `typ` and the longest kid need 124.
pub(crate) const MAX_JWT_HEADER_BYTES: usize = 160;

/// The characters of a tag: 32 bytes in base64url without padding.
pub(crate) const TAG_CHARS: usize = (TAG_BYTES * 8).div_ceil(6);

const VERSION: &str = "vk1";

/// Names the signing key of a token: `<ring>-<epoch>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kid {
    text: Box<str>,
    ring_len: usize,
    epoch: u32,
}

/// The bytes are not a token. The error gives no position: it would help only an attacker, and
/// operators have `vkey inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(());

/// The tag does not belong to the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature(());

/// Why a caveat cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotAttenuate {
    /// A JWT carries no caveats.
    Jwt,
    /// The token would exceed [`MAX_TOKEN_BYTES`].
    TooLong,
    /// The key has [`MAX_CAVEATS`] already.
    TooManyCaveats,
}

/// A token with a valid shape whose tag was not verified. It has no `Debug`.
pub struct Unverified<'a> {
    kid: Kid,
    /// What `tag_0` is computed over.
    signed: &'a [u8],
    claims: Vec<u8>,
    caveats: Vec<Caveat<'a>>,
    tag: Tag,
    jwt: bool,
}

/// The content of a token whose tag was verified. It has no `Debug`.
pub struct Verified {
    kid: Kid,
    claims: Vec<u8>,
    caveats: Vec<Vec<u8>>,
}

struct Caveat<'a> {
    /// base64url, which is what the chain signs.
    text: &'a [u8],
    json: Vec<u8>,
}

// === impl Kid ===

impl Kid {
    /// The kid of a ring's epoch; `None` when the ring's name breaks the rule of [`Kid::parse`].
    pub fn new(ring: &str, epoch: u32) -> Option<Self> {
        let text = || format!("{ring}-{epoch}").into();
        is_ring_name(ring).then(|| Self { text: text(), ring_len: ring.len(), epoch })
    }

    /// Reads `<ring>-<epoch>`: the ring `[a-z0-9][a-z0-9-]{0,31}`, the epoch what follows the last
    /// `-`, a decimal u32 without leading zeros.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything else.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed(()))?;
        let (ring, digits) = text.rsplit_once('-').ok_or(Malformed(()))?;
        let epoch = digits.parse().map_err(|_| Malformed(()))?;
        // One spelling only: no leading zeros, no sign.
        let is_plain = digits == "0"
            || digits.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
        let kid = || Self { text: text.into(), ring_len: ring.len(), epoch };
        (is_plain && is_ring_name(ring)).then(kid).ok_or(Malformed(()))
    }

    /// The kid as in a token.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the ring.
    pub fn ring(&self) -> &str {
        self.text.get(..self.ring_len).unwrap_or_default()
    }

    /// The epoch; 0 for a ring that does not rotate.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `name` can name a ring: `[a-z0-9][a-z0-9-]{0,31}`.
pub fn is_ring_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_RING_NAME_BYTES
        && name.bytes().next().is_some_and(|first| first != b'-')
        && name.bytes().all(allowed)
}

// === impl Unverified ===

impl<'a> Unverified<'a> {
    /// Reads the shape of a token: its segments, their alphabet and canonical spelling, its size.
    /// Of the content, only the header of a JWT is parsed.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything that is not a token.
    pub fn parse(token: &'a [u8]) -> Result<Self, Malformed> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Malformed(()));
        }
        let (body, tag) = cut_tag(token).ok_or(Malformed(()))?;
        let body = std::str::from_utf8(body).map_err(|_| Malformed(()))?;
        let (head, rest) = body.split_once('.').ok_or(Malformed(()))?;
        if head == VERSION {
            Self::parse_vk1(body, rest, tag)
        } else {
            Self::parse_jwt(body, head, rest, tag)
        }
    }

    /// Names the signing key to verify with.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// How many caveats the token claims to carry.
    pub fn caveats_len(&self) -> usize {
        self.caveats.len()
    }

    /// Checks the whole chain of tags, in constant time. The only way to the content.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] if any byte of the token differs from what was signed.
    pub fn verify(self, key: &SigningKey) -> Result<Verified, BadSignature> {
        let first = key.sign(&[self.signed]);
        let expected = self.caveats.iter().fold(first, |tag, caveat| tag.extend(caveat.text));
        if !expected.matches(&self.tag) {
            return Err(BadSignature(()));
        }
        let caveats = self.caveats.into_iter().map(|caveat| caveat.json).collect();
        Ok(Verified { kid: self.kid, claims: self.claims, caveats })
    }

    /// The token with another caveat. Needs no secret: the tag signs the caveat, and the result
    /// replaces the tag.
    ///
    /// # Errors
    ///
    /// [`CannotAttenuate`] for a JWT, or if the result would exceed a bound of the format.
    pub fn attenuate(&self, caveat: &[u8]) -> Result<String, CannotAttenuate> {
        if self.jwt {
            return Err(CannotAttenuate::Jwt);
        }
        if self.caveats.len() >= MAX_CAVEATS {
            return Err(CannotAttenuate::TooManyCaveats);
        }
        let mut token = String::from_utf8_lossy(self.signed).into_owned();
        for earlier in &self.caveats {
            token.push('.');
            token.push_str(&String::from_utf8_lossy(earlier.text));
        }
        let text = URL_SAFE_NO_PAD.encode(caveat);
        token.push('.');
        token.push_str(&text);
        push_tag(&mut token, &self.tag.extend(text.as_bytes()));
        if token.len() > MAX_TOKEN_BYTES { Err(CannotAttenuate::TooLong) } else { Ok(token) }
    }

    /// The decoded claims and caveats, to show to a person. They are unverified, so no access may
    /// be decided by them.
    pub fn untrusted_content(&self) -> (&[u8], impl Iterator<Item = &[u8]>) {
        (&self.claims, self.caveats.iter().map(|caveat| caveat.json.as_slice()))
    }

    fn parse_vk1(body: &'a str, rest: &'a str, tag: &[u8]) -> Result<Self, Malformed> {
        let mut segments = rest.split('.');
        let kid = segments.next().ok_or(Malformed(()))?;
        let claims = segments.next().ok_or(Malformed(()))?;
        let signed_len = VERSION.len() + 1 + kid.len() + 1 + claims.len();
        let caveats: Vec<_> = segments.map(Caveat::parse).collect::<Result<_, _>>()?;
        if caveats.len() > MAX_CAVEATS {
            return Err(Malformed(()));
        }
        Ok(Self {
            kid: Kid::parse(kid.as_bytes())?,
            signed: body.as_bytes().get(..signed_len).ok_or(Malformed(()))?,
            claims: decode(claims.as_bytes())?,
            caveats,
            tag: parse_tag(tag)?,
            jwt: false,
        })
    }

    fn parse_jwt(body: &'a str, header: &str, claims: &str, tag: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            kid: parse_jwt_header(header.as_bytes())?,
            signed: body.as_bytes(),
            claims: decode(claims.as_bytes())?,
            caveats: Vec::new(),
            tag: parse_tag(tag)?,
            jwt: true,
        })
    }
}

impl<'a> Caveat<'a> {
    fn parse(text: &'a str) -> Result<Self, Malformed> {
        Ok(Self { text: text.as_bytes(), json: decode(text.as_bytes())? })
    }
}

// === impl Verified ===

impl Verified {
    /// Names the signing key that the tag was made with.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The claims, JSON text.
    pub fn claims(&self) -> &[u8] {
        &self.claims
    }

    /// The caveats in their order, JSON texts.
    pub fn caveats(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.caveats.iter().map(Vec::as_slice)
    }
}

impl fmt::Display for CannotAttenuate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwt => f.write_str("a JWT carries no caveats; mint a vk1 key instead"),
            Self::TooLong => write!(f, "the key would be longer than {MAX_TOKEN_BYTES} bytes"),
            Self::TooManyCaveats => write!(f, "the key has {MAX_CAVEATS} caveats already"),
        }
    }
}

impl std::error::Error for CannotAttenuate {}

/// Signs claims (JSON text) under a kid. The caller has checked that they are claims.
pub fn mint(key: &SigningKey, kid: &Kid, claims: &[u8]) -> String {
    let mut token = format!("{VERSION}.{kid}.{}", URL_SAFE_NO_PAD.encode(claims));
    let tag = key.sign(&[token.as_bytes()]);
    push_tag(&mut token, &tag);
    token
}

/// Splits what may be a token into the part before its last dot, and the text of its tag.
pub(crate) fn split_tag(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = token.iter().rposition(|byte| *byte == b'.')?;
    Some((token.get(..dot)?, token.get(dot + 1..)?))
}

/// Splits a token into the part before its tag, and the text of the tag, whose length is fixed.
fn cut_tag(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, tag) = token.split_at_checked(token.len().checked_sub(TAG_CHARS)?)?;
    Some((body.strip_suffix(b".")?, tag))
}

/// Reads the text of a tag.
fn parse_tag(text: &[u8]) -> Result<Tag, Malformed> {
    let mut bytes = [0; TAG_BYTES];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(TAG_BYTES) => Ok(Tag::from_bytes(bytes)),
        _ => Err(Malformed(())),
    }
}

fn push_tag(token: &mut String, tag: &Tag) {
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag.expose(), token);
}

fn split_first(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = body.iter().position(|byte| *byte == b'.')?;
    Some((body.get(..dot)?, body.get(dot + 1..)?))
}

/// Decodes canonical base64url (RFC 4648, section 5): no padding, no stray trailing bits, not
/// empty.
fn decode(text: &[u8]) -> Result<Vec<u8>, Malformed> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(Malformed(())),
    }
}

/// Reads the header of a JWT (RFC 7515, section 4): `alg` is HS256, `kid` names the signing key,
/// `typ` may say JWT, and there is nothing else (`crit` in particular). It is the only text that is
/// parsed before it is verified, and therefore short.
fn parse_jwt_header(text: &[u8]) -> Result<Kid, Malformed> {
    if text.len() > MAX_JWT_HEADER_BYTES {
        return Err(Malformed(()));
    }
    let header = Json::parse(&decode(text)?).map_err(|_| Malformed(()))?;
    let root = header.root(Integers::Digits);
    let members = root.members(&["alg", "kid", "typ"]).map_err(|_| Malformed(()))?;
    let member = |name| members.read(name, Node::string).map_err(|_| Malformed(()));
    match (member("alg")?, member("kid")?, member("typ")?) {
        (Some("HS256"), Some(kid), None | Some("JWT")) => Kid::parse(kid.as_bytes()),
        _ => Err(Malformed(())),
    }
}

/// The kid in the header of a JWT; other members and the rest of the token are ignored. A header
/// longer than that of any key is not read.
#[cold]
pub(crate) fn jwt_kid(text: &[u8]) -> Option<Kid> {
    let (header, _) =
        split_first(text).filter(|(header, _)| header.len() <= MAX_JWT_HEADER_BYTES)?;
    let header = Json::parse(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    Kid::parse(header.get("kid").and_then(Json::as_str)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::new(b"a signing key of the tests")
    }

    fn token(claims: &[u8]) -> String {
        mint(&key(), &Kid::new("main", 0).unwrap(), claims)
    }

    #[test]
    fn a_kid_has_one_spelling() {
        let kid = Kid::parse(b"eu-west-1-42").unwrap();
        assert_eq!((kid.ring(), kid.epoch()), ("eu-west-1", 42));
        assert_eq!(Kid::parse(b"0-4294967295").unwrap().epoch(), u32::MAX);
        for wrong in ["", "-", "main", "main-", "main-00", "main-+1", "-1-1", "Main-0", "a_b-0"] {
            assert!(Kid::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Kid::parse(b"main-4294967296").is_err());
        assert!(Kid::parse(format!("{}-0", "a".repeat(33)).as_bytes()).is_err());
        assert!(Kid::parse(b"m\xffin-0").is_err());
    }

    #[test]
    fn what_is_minted_verifies_and_says_the_same() {
        let token = token(b"{}");
        let verified = Unverified::parse(token.as_bytes()).unwrap().verify(&key()).ok().unwrap();
        assert_eq!(verified.claims(), b"{}");
        assert_eq!(verified.kid().to_string(), "main-0");
    }

    #[test]
    fn caveats_are_signed_in_their_order() {
        let one = Unverified::parse(token(b"{}").as_bytes()).unwrap().attenuate(b"1").unwrap();
        let two = Unverified::parse(one.as_bytes()).unwrap().attenuate(b"2").unwrap();
        let verified = Unverified::parse(two.as_bytes()).unwrap().verify(&key()).ok().unwrap();
        assert_eq!(verified.caveats().collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn bounds_of_the_format_stop_attenuation() {
        let mut token = token(b"{}");
        for _ in 0..MAX_CAVEATS {
            token = Unverified::parse(token.as_bytes()).unwrap().attenuate(b"{}").unwrap();
        }
        let full = Unverified::parse(token.as_bytes()).unwrap();
        assert_eq!(full.attenuate(b"{}").unwrap_err(), CannotAttenuate::TooManyCaveats);
        let long = self::token(&[b'a'; 3000]);
        let long = Unverified::parse(long.as_bytes()).unwrap();
        assert_eq!(long.attenuate(&[b'a'; 100]).unwrap_err(), CannotAttenuate::TooLong);
    }

    #[test]
    fn a_token_of_4097_bytes_is_malformed() {
        let token = token(&[b'a'; 2900]);
        assert!(Unverified::parse(token.as_bytes()).is_ok());
        let padded = format!("{token}{}", "A".repeat(4097 - token.len()));
        assert!(Unverified::parse(padded.as_bytes()).is_err());
    }
}
