//! Cutting bytes in two. Written out once: the searches of the standard library are as long each time they are used.

/// What is before the first of a byte, and what is after it: nothing if there is none.
#[inline(never)]
pub(super) fn cut(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    at(text, text.iter().position(|other| *other == byte)).unwrap_or((text, b""))
}

/// What is before the last of a byte, nothing if there is none, and what is after it.
#[inline(never)]
pub(super) fn cut_last(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    at(text, text.iter().rposition(|other| *other == byte)).unwrap_or((b"", text))
}

fn at(text: &[u8], index: Option<usize>) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(index?)?;
    Some((before, after.get(1..)?))
}
