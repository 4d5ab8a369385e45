//! Hashes of names (FNV-1a).

/// The hash of an empty name.
pub(super) const HASH_OF_NOTHING: u64 = 0xCBF2_9CE4_8422_2325;

const HASH_FACTOR: u64 = 0x0000_0100_0000_01B3;

/// Adds bytes to a hash.
#[inline(never)]
pub(super) fn hash(hash: u64, bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(HASH_FACTOR);
    bytes.iter().fold(hash, add)
}
