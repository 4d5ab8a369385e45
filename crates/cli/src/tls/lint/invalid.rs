//! Why a configuration cannot be checked.

use super::graph::BudgetExhausted;

/// Why a configuration cannot be checked.
pub(super) enum InvalidConfig {
    /// The input at this position is not an Envoy configuration.
    NotEnvoy(usize),
    /// It has neither a cluster nor a listener with the module.
    Empty,
    /// It exceeds the limits of this command.
    TooMuch,
}

impl From<BudgetExhausted> for InvalidConfig {
    fn from(_: BudgetExhausted) -> Self {
        Self::TooMuch
    }
}
