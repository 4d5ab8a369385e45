//! Faults that the tests build into the module to see what a host makes of them. The environment
//! variable `VKEY_FAULT` names one:
//!
//! - `configure_false`, `configure_trap`: the first configuration, which Envoy tries on its main
//!   thread, succeeds; those on the workers return false, or trap.
//! - `create_cas_zero`: cells are created with the compare-and-swap value 0.
//! - `write_cas_zero`: all is written with the compare-and-swap value 0, which compares nothing.
//! - `reply_fails`: the module sends no reply.
//! - `reply_traps`: replying to a request for `/trap` traps, after it was counted.

use vkey::headers::RequestHead;
use vkey::host::{Host, HostError, SharedData, probe_name};

use crate::hostcalls::{ProxyHost, environment};

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
        Some("reply_fails") => Err(HostError::UNIMPLEMENTED),
        Some("reply_traps") if is_for_trap() => std::process::abort(),
        _ => Ok(()),
    }
}

fn is_for_trap() -> bool {
    let headers = ProxyHost.request_headers().unwrap_or_default();
    RequestHead::read(&headers, &[]).target == Some(b"/trap")
}

/// The compare-and-swap value to write with. What the rules of the host are found by is left alone: it would say
/// that the host compares nothing.
pub(crate) fn cas(name: &str, cas: u32) -> u32 {
    if name == probe_name().as_str() {
        return cas;
    }
    match environment("VKEY_FAULT").as_deref() {
        Some("create_cas_zero") if cas == u32::MAX => 0,
        Some("write_cas_zero") => 0,
        _ => cas,
    }
}
