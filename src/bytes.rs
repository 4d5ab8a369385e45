//! Bytes, compared fast.

/// Whether two texts are the same. Eight bytes are compared at a time: compiled to wasm, `==` compares one.
pub(crate) fn same_bytes(text: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) =
        (text.as_chunks::<8>(), other.as_chunks::<8>());
    let mut pairs = words.iter().zip(other_words);
    text.len() == other.len()
        && pairs.all(|(word, other)| u64::from_le_bytes(*word) == u64::from_le_bytes(*other))
        && rest == other_rest
}
