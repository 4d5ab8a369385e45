//! The record of a request, once it is final, and the end of a request.
//!
//! Where access loggers print the record, it is set and the request counted as soon as nothing can be added. For most
//! requests that is the callback that decided on them, and their end costs nothing. Where the module writes the line
//! itself, it does so at the end.

use std::borrow::Cow;

use crate::audit::{self, AuditRecord, LINK_BYTES, Line, Prepared};
use crate::config::{AuditSettings, Sink};
use crate::decision::DenyReason;
use crate::exchange::{Decided, Exchange, Forwarded, Held, Outcome};
use crate::host::{FilterState, Host, Property, Rules, number_property, text_property};
use crate::time::secs;

use super::{Gate, observe};

/// The status with which a proxy refuses a body that is longer than what it holds.
const TOO_LARGE: u64 = 413;

/// What all records of a gate have in common.
pub(super) struct Common {
    /// The id of the proxy's node.
    node: Option<String>,
    /// Members in their final bytes.
    host: String,
    policy: String,
    plan: String,
}

impl Gate {
    /// Sets a record to which nothing can be added, and counts the request. If the access loggers cannot get it, the
    /// line is written at the end.
    ///
    /// The record of a request that was refused after its record was final is set again. Its metrics stay: it was
    /// counted as allowed, and counters cannot be taken back. Nor can a record that is in a chain, so with a chain
    /// every record is set at the end.
    #[inline(never)] // once, not in each callback
    pub(super) fn settle(&self, host: &impl Host, exchange: &mut Exchange) {
        let Some(decided) = exchange.decided() else { return };
        let is_counted = decided.is_recorded();
        let is_settled = self.prints_records(host)
            && (self.has_chain() || self.show(host, &self.written_record(host, decided)));
        if is_settled && !is_counted {
            self.metrics.count(host, &decided.outcome());
            exchange.set_recorded();
        }
    }

    /// Whether nothing can be added to the record of a forwarded request: neither a verdict is to come, nor is the
    /// request one that is followed to its end.
    pub(super) fn is_final(&self, host: &impl Host, request: &Forwarded) -> bool {
        if request.route().awaits_verdict || self.has_gates(host) {
            return false;
        }
        let seen = request.decided().seen();
        let (authority, path) = (seen.authority().unwrap_or(""), seen.path().unwrap_or(""));
        let follows = self.followed.is_due(authority, path, secs(seen.at_ns()));
        if follows {
            // On Envoy before 1.39, the gauge of a gate in another VM is another one.
            self.has_gates.set(self.upstreams.knows_gate(host));
        }
        !follows
    }

    /// Whether a cluster may have an upstream gate, as far as this VM knows. Gates that are removed are not forgotten.
    fn has_gates(&self, host: &impl Host) -> bool {
        if !self.has_gates.get() && self.metrics.may_have_upstream_gates(host) {
            self.has_gates.set(true);
        }
        self.has_gates.get()
    }

    /// Ends a request, once: writes its audit line or sets its record, and counts it, unless that is done. Hosts also
    /// end requests that they never showed.
    pub fn on_log(&self, host: &impl Host, exchange: &mut Exchange) {
        let ended = std::mem::replace(exchange, Exchange::Done);
        let host = &self.view(host);
        if ended.is_recorded() {
            if let Some(decided) = ended.decided().filter(|_| self.has_chain()) {
                self.write_line(host, decided, &|| upstream_address(host));
            }
            return;
        }
        match ended {
            Exchange::Unseen => self.end_unseen(host),
            Exchange::Held(held) => self.end_unread(host, *held),
            Exchange::Waiting(waiting) => {
                let is_too_large = host.response_status() == Some(TOO_LARGE);
                let reason =
                    if is_too_large { DenyReason::BodyTooLarge } else { DenyReason::LeaseSpent };
                let decided = self.count_held(host, waiting.asked, reason);
                self.end(host, &decided, &|| None);
            }
            // What was refused before it had an upstream has none.
            Exchange::Decided(decided) => {
                let upstream = || decided.verdict().and_then(|_| upstream_address(host));
                self.end(host, &decided, &upstream);
            }
            Exchange::Forwarded(mut request, pending) => {
                if let Some(metering) = pending.metering {
                    self.settle_ended(host, &mut request, *metering);
                }
                self.end_forwarded(host, request, false);
            }
            Exchange::Metered(mut request, metering) => {
                self.settle_ended(host, &mut request, *metering);
                self.end_forwarded(host, request, true);
            }
            Exchange::Responded(request) | Exchange::Filtered(request, _) => {
                self.end_forwarded(host, request, true);
            }
            Exchange::Done => {}
        }
    }

    /// Ends a request whose body has not come to its end: the client left, or the proxy refused it.
    #[cold]
    fn end_unread(&self, host: &impl Host, held: Held) {
        let is_too_large = host.response_status() == Some(TOO_LARGE);
        let reason =
            if is_too_large { DenyReason::BodyTooLarge } else { DenyReason::BodyUnreadable };
        let decided = self.count_held(host, held.give_up(), reason);
        self.end(host, &decided, &|| None);
    }

    /// `has_response`: a response came before the end.
    fn end_forwarded(&self, host: &impl Host, mut request: Forwarded, has_response: bool) {
        if request.decided().verdict().is_some() {
            return self.end(host, request.decided(), &|| upstream_address(host));
        }
        let upstream = upstream_address(host);
        // Without an upstream there is nothing to check. Of hosts without shared data it is not known whether
        // they show one.
        if upstream.is_some() || host.rules() == Rules::Bare {
            self.check_late(host, &mut request, has_response);
        }
        self.end(host, request.decided(), &|| upstream.clone());
    }

    fn end(&self, host: &impl Host, decided: &Decided, upstream: &dyn Fn() -> Option<String>) {
        self.metrics.count(host, &decided.outcome());
        self.write_line(host, decided, upstream);
    }

    /// Gives the access loggers the record of a request. If they cannot get it, logs the line: it is not lost.
    #[inline(never)]
    fn write_line(
        &self,
        host: &impl Host,
        decided: &Decided,
        upstream: &dyn Fn() -> Option<String>,
    ) {
        let outcome = || audit::Outcome {
            upstream: upstream().map(Cow::Owned),
            ..outcome(host, decided.seen().outcome(host.now_ns()))
        };
        if self.prints_records(host) {
            let mut record = self.written_record(host, decided);
            self.link(host, &mut record, decided.amounts());
            if !self.show(host, &record) {
                self.log(host, &record, &outcome());
            }
            self.anchor_if_due(host);
        } else {
            self.log_line(host, decided.record(), outcome());
        }
    }

    /// The access loggers print requests without a record too.
    fn end_unseen(&self, host: &impl Host) {
        self.metrics.count(host, &Outcome::default());
        if self.prints_records(host) && !self.lacks_filter_state.get() {
            return;
        }
        let seen = observe(host);
        let seen_outcome = audit::Outcome { bytes_in: None, ..seen.outcome(host.now_ns()) };
        self.log_line(host, seen.record(), outcome(host, seen_outcome));
    }

    /// Whether the access loggers are to print records. nginx has none that could.
    pub(super) fn prints_records(&self, host: &impl Host) -> bool {
        match self.audit.sink {
            Sink::AccessLog => !host.is_nginx(),
            Sink::Log => false,
        }
    }

    fn written_record(&self, host: &impl Host, decided: &Decided) -> String {
        decided.written_record(self.common(host).prepared(), &self.audit.mask)
    }

    /// Gives the access loggers the record of a request. Returns whether they have it.
    fn show(&self, host: &impl Host, record: &str) -> bool {
        let is_shown = host.set_filter_state(FilterState::Audit.key(), record).is_ok();
        self.lacks_filter_state.set(!is_shown);
        is_shown
    }

    /// What all records have in common.
    fn common(&self, host: &impl Host) -> &Common {
        // The host is not called inside the cell's own initialisation: it may call back.
        let is_known = self.common.get().is_some();
        let node = if is_known { None } else { text_property(host, Property::NodeId) };
        let digest = self.upstreams.digest();
        self.common.get_or_init(|| Common::new(node, digest, &self.plan, &self.audit))
    }

    /// Writes the line of a request that no access logger prints.
    #[inline(never)]
    fn log_line(&self, host: &impl Host, record: AuditRecord<'_>, outcome: audit::Outcome<'_>) {
        let (mask, link_bytes) = (&self.audit.mask, if self.has_chain() { LINK_BYTES } else { 0 });
        let mut line = Line { record: Some(self.complete(host, record)), outcome };
        if let Some(max_bytes) = host.max_line_bytes() {
            line = line.within(mask, max_bytes.saturating_sub(link_bytes));
        }
        let Some(record) = line.record.as_ref().filter(|_| self.has_chain()) else {
            return host.log(self.audit.level, &line.write(mask));
        };
        let mut text = record.write(mask);
        self.link(host, &mut text, record.amounts());
        self.log(host, &text, &line.outcome);
        self.anchor_if_due(host);
    }

    fn log(&self, host: &impl Host, record: &str, outcome: &audit::Outcome<'_>) {
        host.log(self.audit.level, &Line::splice(record, outcome, &self.audit.mask));
    }

    /// The member `host` of every record, in its final bytes.
    pub(super) fn host_members(&self, host: &impl Host) -> &str {
        &self.common(host).host
    }

    /// The record, with what does not depend on the request.
    #[inline(never)]
    fn complete<'a>(&'a self, host: &impl Host, record: AuditRecord<'a>) -> AuditRecord<'a> {
        AuditRecord {
            host: self.common(host).node.as_deref().map(Cow::Borrowed),
            tls_policy: Some(Cow::Borrowed(self.upstreams.digest())),
            ..record
        }
    }
}

// === impl Common ===

impl Common {
    fn new(node: Option<String>, policy: &str, plan: &str, audit: &AuditSettings) -> Self {
        let record = AuditRecord {
            host: node.as_deref().map(Cow::Borrowed),
            tls_policy: Some(Cow::Borrowed(policy)),
            plan: Some(Cow::Borrowed(plan)),
            ..AuditRecord::default()
        };
        let (host, policy, plan) = (
            record.host_members(&audit.mask),
            record.policy_members(&audit.mask),
            record.plan_members(&audit.mask),
        );
        Self { node, host, policy, plan }
    }

    fn prepared(&self) -> Prepared<'_> {
        Prepared { host: &self.host, key: None, policy: &self.policy, plan: &self.plan }
    }
}

/// The outcome, with what the host knows of it.
fn outcome<'a>(host: &impl Host, seen: audit::Outcome<'a>) -> audit::Outcome<'a> {
    audit::Outcome {
        status: host.response_status(),
        bytes_out: number_property(host, Property::ResponseSize),
        ..seen
    }
}

fn upstream_address(host: &impl Host) -> Option<String> {
    text_property(host, Property::UpstreamAddress)
}
