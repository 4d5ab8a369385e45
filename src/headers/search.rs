//! The search for keys in texts that should not hold one.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::key::token::MAX_JWT_HEADER_BYTES;

/// What a user and a password start with.
const BASIC: &[u8] = b"basic ";

/// What every JWT starts with: base64url of `{"`.
const JWT_START: &[u8] = b"eyJ";

/// How long the header of a JWT is that names a ring, in base64url.
const JWT_HEADER_BYTES: RangeInclusive<usize> = 36..=MAX_JWT_HEADER_BYTES;

/// The length of a tag in base64url.
const TAG_TEXT_BYTES: usize = 43;

/// Shorter than any key, and than a tag.
pub(super) const MIN_KEY_BYTES: usize = 40;

/// Whether a text holds a key: the tag of this one, which is the part that makes it a key, or what begins
/// like a key or has the form of a JWT, and `is_key` takes for one. Escapes are resolved once, as a server
/// behind would do.
#[inline(never)]
pub(super) fn holds_key(text: &[u8], tag: Option<&[u8]>, is_key: &dyn Fn(&[u8]) -> bool) -> bool {
    // Shorter than any tag, as nearly every header is.
    if text.len() < MIN_KEY_BYTES {
        return false;
    }
    let text = percent_decoded(text);
    let starts_key = |window: &[u8]| {
        window.strip_prefix(b"vk1.").is_some_and(|rest| rest.iter().copied().all(is_key_byte))
    };
    let mut windows = text.windows(MIN_KEY_BYTES).enumerate();
    windows.any(|(start, window)| starts_key(window) && text.get(start..).is_some_and(is_key))
        || tag.is_some_and(|tag| contains(&text, tag))
        || jwts(&text).any(is_key)
}

/// A user and a password that are long enough for a key (RFC 7617): clients send keys as passwords.
pub(super) fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked(BASIC.len())?;
    if value.len() < MIN_KEY_BYTES || !scheme.eq_ignore_ascii_case(BASIC) {
        return None;
    }
    let plain = |byte: &u8| match byte {
        b'+' => b'-',
        b'/' => b'_',
        byte => *byte,
    };
    let padding = |byte: &&u8| **byte != b'=';
    let encoded: Vec<u8> = encoded.trim_ascii().iter().take_while(padding).map(plain).collect();
    URL_SAFE_NO_PAD.decode(encoded).ok()
}

/// What has the form of a JWT that could be a key, whatever stands before and after it: a header of a
/// length that keys have, claims, and a tag.
fn jwts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = text.windows(JWT_START.len()).enumerate().filter(|(_, w)| *w == JWT_START);
    starts.filter_map(|(start, _)| {
        let rest = text.get(start..)?;
        let dot = |from: usize| Some(from + rest.get(from..)?.iter().position(|b| *b == b'.')?);
        let header_end = dot(0).filter(|end| JWT_HEADER_BYTES.contains(end))?;
        let claims_end = dot(header_end + 1)?;
        rest.get(..claims_end + 1 + TAG_TEXT_BYTES)
    })
}

/// Whether a text holds another one. Comparing first bytes first spares nearly all comparisons.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    let is_part = |window: &[u8]| window.first() == part.first() && window == part;
    text.windows(part.len().max(1)).any(is_part)
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Resolves escapes (RFC 3986, section 2.1). An invalid escape is left unchanged.
pub(crate) fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|byte| *byte == b'%') else {
        return Cow::Borrowed(text);
    };
    let (plain, mut rest) = text.split_at_checked(first).unwrap_or((text, &[]));
    let mut decoded = plain.to_vec();
    while let Some((byte, behind)) = rest.split_first() {
        let escape = behind.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escape.and_then(|(digits, after)| Some((hex(digits)?, after)));
        let (byte, after) = escaped.unwrap_or((*byte, behind));
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u8::from_str_radix(text, 16).ok()
}
