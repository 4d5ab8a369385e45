//! What is certain about the upstream of a request before its route and its connection are known.

use crate::decision::DenyReason;
use crate::host::Dialect;
use crate::upstream_tls::{Carried, EffectivePolicy, UpstreamHost};

use super::Engine;

impl Engine {
    /// The credential that the listener's gate attaches for an authority, as far as the connection depends on it.
    pub fn attached(&self, authority: Option<&[u8]>) -> Carried {
        let attached = self.credential(authority);
        attached.map_or(Carried::Nothing, |held| Carried::Credential(held.plaintext_until_secs))
    }

    /// Why a request for an authority is refused whatever its route and its connection: no certificate can be for the
    /// host, or the configuration names nginx, which shows nothing of connections and has no upstream gates.
    pub fn upstream_refusal(
        &self,
        policy: &EffectivePolicy,
        authority: Option<&[u8]>,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let is_nginx = self.settings().dialect == Dialect::Nginx;
        let upstream = UpstreamHost::parse(authority.unwrap_or_default());
        let demand = policy.demand(&upstream, now_secs);
        if is_nginx && self.granted(authority).next().is_some() {
            return Some(DenyReason::UpstreamUnproven);
        }
        if demand.is_verified() && upstream == UpstreamHost::Unreadable {
            return Some(DenyReason::UpstreamName);
        }
        let attached = self.attached(authority).elsewhere();
        let unshown = is_nginx && (demand.is_verified() || attached.needs_stamp(&demand, now_secs));
        unshown.then_some(DenyReason::UpstreamUnproven)
    }
}
