//! Limits of the whole cluster, which Envoy's rate-limit filter enforces behind the seal with a service of its own.
//!
//! That filter asks its service after the module has counted a request, and only the response says what came of it. So
//! a request that it refused is withdrawn when the response comes: it is charged to nobody.

use crate::decision::DenyReason;
use crate::exchange::{Forwarded, Refund};
use crate::host::{FilterState, Host, HostError, Level, Property};
use crate::json::decimal::push_decimal;
use crate::reply::{Refusal, reply};

use super::Gate;
use super::response::Withheld;

/// Envoy's `ResponseCodeDetails` of a request for which the service has no room.
const NO_ROOM: &[u8] = b"request_rate_limited";

/// That of a request for which the service has no answer.
const NO_ANSWER: &[u8] = b"rate_limiter_error";

/// The seconds until the fullest limit begins anew (draft-ietf-httpapi-ratelimit-headers-03), if the filter is told to say so.
const RESET: &[u8] = b"x-ratelimit-reset";

/// When a client may try again if nothing says when, in seconds.
const RETRY_SECS: u64 = 1;

impl Gate {
    /// Why a response is withheld that the proxy made because of a limit of the whole cluster. Nothing of the request has
    /// left.
    pub(super) fn refused_by_cluster(
        &self,
        host: &impl Host,
        request: &Forwarded,
    ) -> Option<Withheld> {
        if !self.has_cluster_limits {
            return None;
        }
        let reason = match host.property(Property::ResponseCodeDetails)?.as_slice() {
            NO_ROOM => DenyReason::ClusterRate,
            NO_ANSWER => DenyReason::ClusterUnknown,
            _ => return None,
        };
        let wait_secs = wait_secs(host);
        let refusal = Refusal {
            retry_after_secs: Some(wait_secs),
            wait_ms: Some(wait_secs.saturating_mul(1000)),
            ..request.decided().seen().refusal()
        };
        let reply = Some(reply(reason, refusal));
        Some(Withheld { reason, refund: Refund::Everything, reply })
    }

    /// Tells the filter what a request used. It counts nothing of a request of which it is told nothing.
    pub(super) fn report_to_cluster(&self, host: &impl Host, tokens: u64) {
        if !self.has_cluster_limits || tokens == 0 {
            return;
        }
        let mut digits = String::new();
        push_decimal(&mut digits, tokens);
        let key = FilterState::Tokens.key();
        if let Err(HostError(status)) = host.set_filter_state(key, &digits) {
            let text = format!("vkey: could not set filter state {key}: host status {status}");
            host.log(Level::Error, &text);
        }
    }
}

/// When a client may try again, in seconds.
fn wait_secs(host: &impl Host) -> u64 {
    let shown = host.response_header(RESET);
    let secs = shown.and_then(|value| str::from_utf8(&value).ok()?.parse().ok());
    secs.unwrap_or(RETRY_SECS).max(RETRY_SECS)
}
