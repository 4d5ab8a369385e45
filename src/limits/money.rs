//! Money: text with decimals in dollars, integers of micro-USD inside, because a double cannot hold a cent.

use crate::json::{Invalid, Node};

/// The most decimals of an amount: a millionth is whole.
const DECIMALS: usize = 6;

/// Micro-USD of a dollar, and millionths of one.
pub(crate) const MICROS: u64 = 1_000_000;

/// Reads an amount as text, e.g. `"250.00"`, and returns its millionths: of dollars the micro-USD.
///
/// # Errors
///
/// [`Invalid`] for a number, for more than six decimals, and for anything else that is not such a text.
pub(super) fn micros(node: &Node<'_>) -> Result<u64, Invalid> {
    let expected =
        || node.expected("an amount as text, e.g. \"250.00\", with at most six decimals");
    let text = node.value().as_str().ok_or_else(expected)?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > DECIMALS {
        return Err(expected());
    }
    let micros = format!("{decimals:0<DECIMALS$}").parse::<u64>().ok();
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(MICROS));
    whole.zip(micros).and_then(|(whole, micros)| whole.checked_add(micros)).ok_or_else(expected)
}
