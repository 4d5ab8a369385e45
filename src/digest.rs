//! Digests: SHA-256, as bytes and as text.

use sha2::{Digest as _, Sha256};

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    sha256(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` is a SHA-256 in hexadecimal digits.
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 2 * DIGEST_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
