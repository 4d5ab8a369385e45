//! Faults that the tests build into the module to see what a host makes of them. The environment
//! variable `VKEY_FAULT` names one:
//!
//! - `configure_false`, `configure_trap`: the first configuration, which Envoy tries on its main
//!   thread, succeeds; those on the workers answer false, or trap.
//! - `create_cas_zero`: cells are created with the compare-and-swap value 0.
//! - `reply_fails`: no answer of the module's own is sent.

use vkey::host::{HostError, SharedData};

use crate::host::{ProxyHost, environment};

/// Counts configurations over all VMs.
const CONFIGURED: &str = "vkey/faults/configured";

/// Whether the configuration may go on.
pub(crate) fn configure() -> bool {
    let first = matches!(ProxyHost.shared_data(CONFIGURED), Ok(None));
    _ = ProxyHost.set_shared_data(CONFIGURED, b"1", 0);
    match environment("VKEY_FAULT").as_deref() {
        Some("configure_false") => first,
        Some("configure_trap") if !first => std::process::abort(),
        _ => true,
    }
}

/// Whether a reply may be sent.
///
/// # Errors
///
/// `Unimplemented`, as a host that has no such call.
pub(crate) fn reply() -> Result<(), HostError> {
    match environment("VKEY_FAULT").as_deref() {
        Some("reply_fails") => Err(HostError(12)),
        _ => Ok(()),
    }
}

/// The compare-and-swap value to write with.
pub(crate) fn cas(cas: u32) -> u32 {
    let zero = environment("VKEY_FAULT").as_deref() == Some("create_cas_zero");
    if zero && cas == u32::MAX { 0 } else { cas }
}
