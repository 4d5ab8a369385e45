//! A scanner for JSON: reports the few values that decide something, and checks all the rest.
//!
//! It is strict (RFC 8259, UTF-8) and refuses what readers understand in different ways: an object that has a member
//! twice, at any depth, and members whose names differ from known ones in case only. It takes a document in any pieces,
//! keeps no copy of it, does not recurse, and its memory is bounded by its [`Limits`].

mod atom;
mod hash;
mod members;
mod reader;
mod scanner;
mod skip;
mod string;
mod unreadable;
pub(super) mod words;

#[cfg(test)]
mod tests;

pub(super) use reader::folded_hash;
pub use reader::{MAX_NUMBER_BYTES, MAX_TEXT_BYTES, Names, Reader, Span, Spot, Text, Value};
pub use scanner::{Limits, Scanner};
pub use unreadable::Unreadable;
