//! The seal: the filter state by which a filter after the module knows that the module allowed a request.

use crate::host::{FilterState, Host, HostError, Level};

/// The value of the seal.
const SEAL_VALUE: &str = "allow";

const NO_SEAL_VARIABLE: &str = "vkey: nginx has no variable for the seal, so nothing is let through: add \
    `map '' $vkey_decision { default ''; }` to the http block";

/// Seals a request. A host without filter state has no filter that checks the seal; on any other host that filter
/// refuses requests without it. On nginx the variable is a line of the configuration, which an operator can forget.
///
/// # Errors
///
/// [`HostError`] on nginx if the variable is missing.
pub(super) fn seal(host: &impl Host) -> Result<(), HostError> {
    let set = host.set_filter_state(FilterState::Decision.key(), SEAL_VALUE);
    match set {
        Err(_) if host.is_nginx() => {
            host.log(Level::Error, NO_SEAL_VARIABLE);
            set
        }
        Err(HostError(status)) => {
            let key = FilterState::Decision.key();
            let text = format!("vkey: could not set filter state {key}: host status {status}");
            host.log(Level::Debug, &text);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
