//! The chain of a gate's audit records, and its anchors.

use std::cell::RefCell;

use crate::audit::{Amounts, AnchorContext, AuditKey, Chain};
use crate::host::{Host, Level};

use super::Gate;

/// An anchor is rare and must be kept, so it is logged at least at this level: many proxies show no lower one.
const ANCHOR_LEVEL: Level = Level::Warn;

/// The chain of a gate in one worker, which begins with the first record.
pub(super) struct Trail {
    key: AuditKey,
    anchor_every: u64,
    chain: RefCell<Option<Chain>>,
}

impl Trail {
    pub(super) fn new(key: AuditKey, anchor_every: u64) -> Self {
        Self { key, anchor_every, chain: RefCell::new(None) }
    }

    /// Whether an anchor is due after the last record.
    fn is_anchor_due(&self) -> bool {
        let chain = self.chain.try_borrow();
        let len = chain.ok().and_then(|chain| chain.as_ref().map(Chain::len));
        len.is_some_and(|len| len.is_multiple_of(self.anchor_every))
    }

    /// Begins the chain, once. `host_members`: what tells this proxy from others whose randomness is poor.
    fn begin(&self, host: &impl Host, host_members: &str) {
        if self.chain.try_borrow().is_ok_and(|chain| chain.is_some()) {
            return;
        }
        let random = host.random().unwrap_or_default();
        let now_ns = host.now_ns().unwrap_or(0).to_le_bytes();
        let seed = [random.as_slice(), &now_ns, host_members.as_bytes()];
        if let Ok(mut chain) = self.chain.try_borrow_mut() {
            *chain = Some(Chain::new(self.key.clone(), &seed));
        }
    }
}

impl Gate {
    /// Gives the gate an audit key, so that its records form a chain.
    pub(super) fn set_audit_key(&mut self, key: Option<AuditKey>) {
        self.trail = key.map(|key| Trail::new(key, self.audit.anchor_every));
    }

    /// Whether the records form a chain. A record is then shown only once, at the end of its request: what is in the
    /// chain cannot be taken back.
    pub(super) fn has_chain(&self) -> bool {
        self.trail.is_some()
    }

    /// Appends a written record to the chain, if there is one. Each record that is linked must be shown.
    pub(super) fn link(&self, host: &impl Host, record: &mut String, amounts: Amounts) {
        let Some(trail) = &self.trail else { return };
        trail.begin(host, self.host_members(host));
        if let Ok(mut chain) = trail.chain.try_borrow_mut()
            && let Some(chain) = chain.as_mut()
        {
            chain.link(record, amounts);
        }
    }

    /// Logs an anchor if one is due.
    pub(super) fn anchor_if_due(&self, host: &impl Host) {
        if self.trail.as_ref().is_some_and(Trail::is_anchor_due) {
            self.log_anchor(host, false);
        }
    }

    /// Ends the chain: logs its last anchor. Hosts call this when a worker or a configuration ends.
    pub fn on_delete(&self, host: &impl Host) {
        self.log_anchor(host, true);
    }

    #[cold]
    fn log_anchor(&self, host: &impl Host, is_end: bool) {
        let Some(trail) = &self.trail else { return };
        let at = AnchorContext {
            ts_micros: host.now_ns().unwrap_or(0) / 1000,
            host_members: self.host_members(host),
            plan: &self.plan,
            is_end,
        };
        let chain = trail.chain.try_borrow().ok();
        let line = chain.and_then(|chain| Some(chain.as_ref()?.anchor(&at)));
        if let Some(line) = line {
            host.log(self.audit.level.max(ANCHOR_LEVEL), &line);
        }
    }
}
