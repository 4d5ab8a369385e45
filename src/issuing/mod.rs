//! Minting, narrowing and showing keys away from a gate: what the command and the library for JavaScript share.

mod flaw;
mod inspection;
mod minting;
mod names;
mod narrowing;
mod review;

pub use flaw::KeyFlaw;
pub use inspection::Inspection;
pub use minting::{CannotMint, expiry, mint, valid};
pub use names::{Names, OPTIONS};
pub use narrowing::{CannotNarrow, check_restriction, narrow, restrictions};
pub use review::{NOTHING, PAIRED, Review, only_of, without_mcp};
