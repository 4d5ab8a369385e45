//! What a command does about what gates will refuse of a key.

use std::fmt;

use vkey::config::Settings;
use vkey::issuing::Review;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::output::Output;

/// Every request with the key would be refused.
#[derive(Debug)]
struct SurelyRefused(Vec<String>);

/// A review of a key for a gate.
pub(super) fn review_for(settings: Option<&Settings>) -> Review {
    let is_unpriced = settings.is_some_and(|settings| settings.llm.prices.is_empty());
    let is_without_mcp = settings.is_some_and(|settings| settings.mcp.is_empty());
    Review { is_unpriced, is_without_mcp, ..Review::default() }
}

/// Fails if every request with the key would be refused, unless `force` is set.
pub(super) fn check(review: &mut Review, force: bool) -> Result<(), Error> {
    if force {
        review.warnings.splice(0..0, review.refusals.drain(..));
    }
    match review.refusals.is_empty() {
        true => Ok(()),
        false => Err(SurelyRefused(std::mem::take(&mut review.refusals)).into()),
    }
}

/// Writes the warnings to standard error.
pub(super) fn print(review: &Review, out: &mut Output) {
    for warning in &review.warnings {
        out.note(format_args!("warning: {warning}"));
    }
}

impl Failure for SurelyRefused {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for SurelyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reasons) = self;
        write!(f, "the key would be refused, and is not printed: {}", reasons.join("; "))?;
        f.write_str("; --force prints it all the same")
    }
}
