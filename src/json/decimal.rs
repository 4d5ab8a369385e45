//! Decimal numbers in texts that are written for every request.

/// Appends a number in decimal digits. Formatting it the usual way takes several times as long.
pub(crate) fn push_decimal(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}
