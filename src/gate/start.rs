//! The start of a gate: what its configuration gives, what all workers learn, and since when the proxy counts.

use std::cell::Cell;

use crate::config::{AuditSettings, Config, NotReady};
use crate::host::{Host, Level, RecordStore};
use crate::key::revocations::RevocationList;
use crate::record::{Name, Record, Writer, take};
use crate::time::secs;
use crate::upstream_tls::Policy;

use super::Gate;
use super::metrics::Metrics;
use super::revocations::Revocations;
use super::upstream::verdicts::now_secs;

/// When the counts of this proxy began, as one root context knows it.
#[derive(Default)]
pub(super) struct Start {
    since_secs: Cell<Option<u64>>,
    is_asked: Cell<bool>,
}

/// What the workers share. It lives as long as the counts: until the proxy ends, or the module gets another `vm_id`.
#[derive(Clone, Copy)]
struct Shared {
    /// Unix seconds; 0 if no worker has asked.
    since_secs: u64,
}

// === impl Gate ===

impl Gate {
    /// A gate for a configuration and the compiled-in policy. A ring whose secret is missing or unusable refuses its
    /// keys with [`DenyReason::NotReady`](crate::decision::DenyReason::NotReady). If no ring is ready, or a credential or the audit secret
    /// is missing, the gate denies everything with that reason.
    pub fn configure(
        config: Config,
        policy: Policy,
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Self {
        let audit_key = match config.audit_key(&environment) {
            Ok(audit_key) => audit_key,
            Err(not_ready) => {
                log_not_ready(host, "every request is", &not_ready);
                return Self::not_ready(host, config.audit().clone(), policy);
            }
        };
        let mut gate = Self::with_rings(config, policy, environment, host);
        gate.set_audit_key(audit_key);
        gate
    }

    /// A gate for a configuration whose audit secret is usable.
    fn with_rings(
        config: Config,
        policy: Policy,
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Self {
        let audit = config.audit().clone();
        let hindrances = config.hindrances(&policy, now_secs(host.now_ns()));
        match config.compile(environment) {
            Ok(plan) => {
                for ring in plan.unready.iter().filter(|ring| !ring.is_filter_state()) {
                    log_not_ready(host, "the keys that it signs are", ring);
                }
                Metrics::default().show_rings(host, plan.keyring.rings());
                if !plan.keyring.is_ready() && plan.filter_states.is_empty() {
                    host.log(Level::Error, "vkey: no ring is ready, every request is refused");
                    return Self::not_ready(host, audit, policy);
                }
                host.log(Level::Info, &format!("vkey: plan {} is in force", plan.id));
                let list = RevocationList::new(&plan.settings.revoked);
                let is_ready = plan.keyring.accepts_keys(now_secs(host.now_ns()));
                let gate = Self::open(plan, policy);
                gate.begin(host, &list, is_ready);
                gate.upstreams.warn_of(&gate.view(host), &hindrances);
                gate
            }
            Err(not_ready) => {
                log_not_ready(host, "every request is", &not_ready);
                Self::not_ready(host, audit, policy)
            }
        }
    }

    /// A gate that denies everything, because secrets are missing.
    fn not_ready(host: &impl Host, audit: AuditSettings, policy: Policy) -> Self {
        let gate = Self::closed(audit, policy);
        gate.metrics.show_start(host, false);
        gate
    }

    /// Shares with all workers what they need to know, and shows what is in force.
    fn begin(&self, host: &impl Host, list: &RevocationList, is_ready: bool) {
        let is_nginx = self.rules.names_nginx() || self.view(host).is_nginx();
        // nginx starts gates in a process that serves no requests, where shared data may not work yet.
        let looks = !is_nginx || list.version() > 0;
        let rules = if looks { self.rules.at_start(host) } else { Ok(None) };
        self.metrics.show_start(host, is_ready && rules.is_ok());
        self.metrics.show_revocations(host, list.version());
        self.metrics.show_policy(host, self.upstreams.digest());
        let host = self.view(host);
        Revocations::publish(&host, list);
        self.show_counts_since(&host, host.now_ns());
        self.upstreams.explain(&host, is_nginx);
    }

    /// Shows since when the proxy counts, once it is known: some hosts have no clock or no shared data at the start.
    pub(super) fn show_counts_since(&self, host: &impl Host, now_ns: Option<u64>) {
        let Some(now_secs) = now_ns.map(secs).filter(|_| self.start.is_unasked()) else {
            return;
        };
        let store = RecordStore::new(host, host.rules());
        if let Some(since_secs) = self.start.since_secs(&store, now_secs) {
            self.metrics.show_counts_since(host, since_secs);
        }
        self.resets.report(host, &store);
    }
}

/// Says what is refused because of a variable.
fn log_not_ready(host: &impl Host, what: &str, not_ready: &NotReady) {
    let text = format!(
        "vkey: not ready, {what} refused: {not_ready}; variables reach the module through the proxy \
         (Envoy: host_env_keys)"
    );
    host.log(Level::Error, &text);
}

// === impl Start ===

impl Start {
    /// Whether nobody has asked when the counts began.
    pub(super) fn is_unasked(&self) -> bool {
        !self.is_asked.get()
    }

    /// When the counts began, Unix seconds. The first worker that asks writes it. `None` if nothing is counted.
    pub(super) fn since_secs<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        now_secs: u64,
    ) -> Option<u64> {
        if self.since_secs.get().is_none() && store.is_available() {
            self.is_asked.set(true);
            let begin = |shared: &mut Shared| {
                if shared.since_secs == 0 {
                    shared.since_secs = now_secs;
                }
                shared.since_secs
            };
            self.since_secs.set(store.update(&name(), begin).ok());
        }
        self.since_secs.get()
    }
}

fn name() -> Name {
    Name::new("h", "start")
}

impl Record for Shared {
    const VERSION: u8 = 16;

    fn fresh() -> Self {
        Self { since_secs: 0 }
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put(self.since_secs.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let since_secs = take(bytes).map(u64::from_le_bytes)?;
        Some(Self { since_secs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    #[test]
    fn all_workers_share_the_beginning() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let store = RecordStore::new(&host, Rules::Envoy);
        assert_eq!(Start::default().since_secs(&store, 7), Some(7));
        assert_eq!(Start::default().since_secs(&store, 9), Some(7));
        let bare = RecordStore::new(&host, Rules::Bare);
        assert_eq!(Start::default().since_secs(&bare, 9), None);
    }
}
