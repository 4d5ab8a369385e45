//! Fast formatting of decimal numbers, for texts that are written for every request.

/// Appends a number in decimal digits. `write!` takes several times as long.
pub(crate) fn push_decimal(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}
