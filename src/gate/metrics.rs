//! Metrics: what is counted for operators, under names that the configuration bounds.
//!
//! A name contains its labels, e.g. `vkey_requests_total.decision.deny.reason.rate.tenant.acme`; the proxy's
//! configuration extracts them (Envoy: `stats_tags`). Clients choose no part of a name: tenants are those that the
//! configuration lists.

mod series;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use crate::body::{Format, TokenUsage};
use crate::config::Settings;
use crate::decision::{Decision, DenyClass, DenyReason, UNSEEN};
use crate::exchange::Outcome;
use crate::host::{Host, MetricKind};
use crate::upstream_tls::Verdict;
use crate::usage::Totals;

use series::{Named, Series, Tenant, kinds, label, upstream_name};

/// The metrics of one root context. Each is defined once, when it is first needed.
#[derive(Default)]
pub(super) struct Metrics {
    /// The listed tenants, sorted.
    tenants: Box<[String]>,
    /// The host's metric ids; `None` if the host refused to define one.
    numbers: RefCell<BTreeMap<Series, Option<u32>>>,
    /// The same for metrics with other labels, by name.
    by_name: RefCell<BTreeMap<String, Option<u32>>>,
    /// The gauge of upstream gates, which is read for requests.
    gates: OnceCell<Option<u32>>,
}

/// The gauge that says whether a cluster of the process has an upstream gate.
const UPSTREAM_GATES: &str = "vkey_upstream_gates";

impl Metrics {
    /// The metrics under a configuration.
    pub(super) fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.keys().cloned().collect();
        Self { tenants, ..Self::default() }
    }

    /// Counts a request whose decision is final.
    #[inline(never)] // once, not for each way in which a decision becomes final
    pub(super) fn count(&self, host: &impl Host, outcome: &Outcome<'_>) {
        let tenant = self.tenant(outcome.tenant);
        let word = outcome.decision.map_or(UNSEEN, Decision::word);
        let reason = outcome.decision.and_then(Decision::reason);
        self.add(host, Series::Requests(word, reason, tenant), 1);
        let limited = reason.is_some_and(|reason| reason.class() == DenyClass::Limited);
        if let Some(exhausted) = outcome.exhausted.filter(|_| limited) {
            self.add(host, Series::LimitHits(label(exhausted), tenant), 1);
        }
        if let (Some(class), Some(decision)) = (outcome.mcp, outcome.decision) {
            self.add(host, Series::McpCalls(class, decision.word(), tenant), 1);
        }
        if outcome.is_local {
            self.add(host, Series::LocalBudgets(tenant), 1);
        }
        if let Some(anomaly) = outcome.anomaly {
            self.add(host, Series::Anomalies(anomaly, tenant), 1);
        }
    }

    /// The requests of a listed tenant by decision, as all workers have counted them; `None` for another tenant, and on
    /// a host whose metrics cannot be read. The host knows only series that are defined, so this defines them.
    #[cold]
    pub(super) fn totals(&self, host: &impl Host, tenant: &str) -> Option<Totals> {
        let tenant = self.tenant(Some(tenant));
        if !matches!(tenant, Tenant::Listed(_)) {
            return None;
        }
        let count = |decision: Decision| {
            let series = Series::Requests(decision.word(), decision.reason(), tenant);
            host.metric(self.number(host, series)?).ok()
        };
        let mut totals = Totals { allowed: count(Decision::Allow)?, ..Totals::default() };
        for (class, denied) in DenyClass::ALL.into_iter().zip(&mut totals.denied) {
            for reason in DenyReason::ALL.iter().filter(|reason| reason.class() == class) {
                *denied = denied.saturating_add(count(Decision::Deny(*reason))?);
                // Shadow mode records these, and forwards the request.
                if reason.is_recorded() {
                    let shadowed = count(Decision::Shadow(*reason))?;
                    totals.allowed = totals.allowed.saturating_add(shadowed);
                }
            }
        }
        Some(totals)
    }

    /// Counts the tokens and the money that a request was charged.
    #[cold]
    pub(super) fn count_usage(
        &self,
        host: &impl Host,
        tenant: &str,
        usage: &TokenUsage,
        cost_micro_usd: Option<u64>,
    ) {
        let tenant = self.tenant(Some(tenant));
        for (kind, count) in kinds(usage) {
            self.add_all(host, Series::Tokens(kind, tenant), count);
        }
        self.add_all(host, Series::CostMicroUsd(tenant), cost_micro_usd.unwrap_or(0));
    }

    /// Counts a response that should have reported its usage and did not.
    #[cold]
    pub(super) fn count_missing_usage(&self, host: &impl Host, format: Format) {
        self.add(host, Series::UsageMissing(format), 1);
    }

    /// Counts a list of an MCP server that was withheld, because it could not be read.
    #[cold]
    pub(super) fn count_blocked_list(&self, host: &impl Host) {
        self.add(host, Series::BlockedLists, 1);
    }

    /// Counts a call to the ledger, and shows whether it has responded.
    pub(super) fn count_ledger_call(&self, host: &impl Host, is_ok: bool) {
        self.add(host, Series::LedgerCalls, 1);
        if !is_ok {
            self.add(host, Series::LedgerFailures, 1);
        }
        if let Some(number) = self.number(host, Series::LedgerUp) {
            // A host that lost its metric cannot show it.
            _ = host.record_metric(number, u64::from(is_ok));
        }
    }

    /// Counts a source from which too many failed authentications came.
    pub(super) fn count_auth_alert(&self, host: &impl Host) {
        self.add(host, Series::AuthAlerts, 1);
    }

    /// Counts how often a write was retried because another worker wrote first.
    pub(super) fn count_retries(&self, host: &impl Host, retries: u64) {
        if retries > 0 {
            let retries = u32::try_from(retries).unwrap_or(u32::MAX);
            self.add(host, Series::ContentionRetries, retries);
        }
    }

    /// Counts a start of the module with a configuration, and shows whether it can serve requests.
    pub(super) fn show_start(&self, host: &impl Host, is_ready: bool) {
        self.add(host, Series::Started, 1);
        self.show_ready(host, is_ready);
    }

    /// Shows whether keys can be accepted.
    pub(super) fn show_ready(&self, host: &impl Host, is_ready: bool) {
        self.set(host, "vkey_ready".to_owned(), u64::from(is_ready));
    }

    /// Shows which rings have their secrets.
    pub(super) fn show_rings<'a>(
        &self,
        host: &impl Host,
        rings: impl Iterator<Item = (&'a str, bool)>,
    ) {
        for (name, is_ready) in rings {
            self.set(host, ["vkey_ring_ready.ring.", name].concat(), u64::from(is_ready));
        }
    }

    /// Shows since when the counts in shared data count, Unix seconds.
    pub(super) fn show_counts_since(&self, host: &impl Host, since_secs: u64) {
        self.set(host, "vkey_counts_since_seconds".to_owned(), since_secs);
    }

    /// Shows which list of revocations is in force.
    pub(super) fn show_revocations(&self, host: &impl Host, version: u64) {
        if let Some(number) = self.number(host, Series::RevocationsVersion) {
            // A host that lost its metric cannot show it.
            _ = host.record_metric(number, version);
        }
    }

    /// Shows the highest version of revocations that the proxy has seen.
    pub(super) fn show_newest_revocations(&self, host: &impl Host, version: u64) {
        if let Some(number) = self.number(host, Series::NewestRevocationsVersion) {
            _ = host.record_metric(number, version);
        }
    }

    /// Counts a request that was decided under older revocations than the newest.
    pub(super) fn count_outdated(&self, host: &impl Host) {
        self.add(host, Series::OutdatedRevocations, 1);
    }

    /// Shows which upstream-TLS policy is in force.
    pub(super) fn show_policy(&self, host: &impl Host, digest: &str) {
        self.set(host, format!("vkey_upstream_tls_policy_info.digest.{digest}"), 1);
    }

    /// Shows that a cluster has an upstream gate. Workers with the module share the gauge, and nobody takes it back.
    pub(super) fn show_upstream_gate(&self, host: &impl Host) {
        self.set(host, UPSTREAM_GATES.to_owned(), 1);
    }

    /// Whether a cluster may have an upstream gate: also true if the host cannot say. Reading a number costs a tenth
    /// of reading shared data.
    pub(super) fn may_have_upstream_gates(&self, host: &impl Host) -> bool {
        let number = match self.gates.get() {
            Some(number) => *number,
            // The host is not called inside the cell's own initialisation: it may call back.
            None => {
                let number = host.define_metric(MetricKind::Gauge, UPSTREAM_GATES).ok();
                *self.gates.get_or_init(|| number)
            }
        };
        number.and_then(|number| host.metric(number).ok()).is_none_or(|gates| gates > 0)
    }

    /// Counts a verdict on the connection to a cluster.
    pub(super) fn count_verdict(&self, host: &impl Host, verdict: Verdict, cluster: &str) {
        let name = upstream_name("vkey_upstream_tls_total", Some(verdict), cluster);
        if let Some(number) = self.number_named(host, MetricKind::Counter, name) {
            _ = host.increment_metric(number, 1);
        }
    }

    /// Shows the verdict on a cluster, and since when it holds. The verdict before no longer holds.
    pub(super) fn show_verdict(
        &self,
        host: &impl Host,
        verdict: Verdict,
        before: Option<Verdict>,
        cluster: &str,
        since_secs: u64,
    ) {
        let name =
            |verdict| upstream_name("vkey_upstream_tls_since_seconds", Some(verdict), cluster);
        if let Some(before) = before.filter(|before| *before != verdict) {
            self.set(host, name(before), 0);
        }
        self.set(host, name(verdict), since_secs);
    }

    /// Shows until when a cluster is not verified.
    pub(super) fn show_skip(&self, host: &impl Host, cluster: &str, until_secs: u64) {
        self.set(
            host,
            upstream_name("vkey_upstream_tls_skip_until_seconds", None, cluster),
            until_secs,
        );
    }

    fn set(&self, host: &impl Host, name: String, value: u64) {
        if let Some(number) = self.number_named(host, MetricKind::Gauge, name) {
            _ = host.record_metric(number, value);
        }
    }

    /// As [`Metrics::number`]. The names come from the configurations of the proxy and of the gate.
    fn number_named(&self, host: &impl Host, kind: MetricKind, name: String) -> Option<u32> {
        let known = self.by_name.try_borrow().ok()?.get(&name).copied();
        if let Some(number) = known {
            return number;
        }
        let number = host.define_metric(kind, &name).ok();
        self.by_name.try_borrow_mut().ok()?.insert(name, number);
        number
    }

    fn add(&self, host: &impl Host, series: Series, by: u32) {
        if let Some(number) = self.number(host, series) {
            _ = host.increment_metric(number, by);
        }
    }

    /// Adds a count of any size. The host takes 32 bits at a time.
    fn add_all(&self, host: &impl Host, series: Series, mut count: u64) {
        while count > 0 {
            let by = u32::try_from(count).unwrap_or(u32::MAX);
            self.add(host, series, by);
            count = count.saturating_sub(by.into());
        }
    }

    /// The map must not be borrowed while the host is called: it may call back.
    fn number(&self, host: &impl Host, series: Series) -> Option<u32> {
        let known = self.numbers.try_borrow().ok()?.get(&series).copied();
        if let Some(number) = known {
            return number;
        }
        let named = Named { series, tenants: &self.tenants };
        let number = host.define_metric(series.kind(), &named.to_string()).ok();
        self.numbers.try_borrow_mut().ok()?.insert(series, number);
        number
    }

    fn tenant(&self, tenant: Option<&str>) -> Tenant {
        let Some(tenant) = tenant else {
            return Tenant::None;
        };
        let found = self.tenants.binary_search_by(|listed| listed.as_str().cmp(tenant));
        found.map_or(Tenant::Unlisted, Tenant::Listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::anomaly::Anomaly;
    use crate::config::Config;
    use crate::host::Rules;
    use crate::host::{MemoryHost, MemoryStore};
    use crate::limits::Kind;
    use crate::limits::tally::Exhausted;
    use crate::limits::{LimitName, Origin};

    fn metrics() -> Metrics {
        let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}],
                          "tenants": {"globex": {}, "acme": {}, "a-b_c": {}}}"#;
        Metrics::new(Config::parse(config).unwrap().settings())
    }

    fn outcome(decision: Decision, tenant: &str) -> Outcome<'_> {
        Outcome { decision: Some(decision), tenant: Some(tenant), ..Outcome::default() }
    }

    #[test]
    fn each_name_is_made_known_once_and_each_request_counted() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let metrics = metrics();
        let tenants = ["acme", "globex", "initech", "hooli", "a-b_c", "acme"];
        for tenant in tenants {
            metrics.count(&host, &outcome(Decision::Allow, tenant));
        }
        metrics.count(&host, &Outcome::default());
        let of = |tenant| format!("vkey_requests_total.decision.allow.reason.none.tenant.{tenant}");
        let mut names: Vec<String> = ["acme", "globex", "other", "a-b_c"].map(of).into();
        names.push("vkey_requests_total.decision.unseen.reason.none.tenant.none".to_owned());
        assert_eq!(*host.defined.borrow(), names);
        let values = names.iter().map(|name| host.store().metric(name).unwrap());
        assert_eq!(values.collect::<Vec<_>>(), [2, 1, 2, 1, 1]);
    }

    #[test]
    fn what_a_request_came_to_has_metrics_of_its_own() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let metrics = metrics();
        let limit = |number| LimitName { origin: Origin::Caveat(number), kind: Kind::Rate };
        let limited = Decision::Deny(DenyReason::ChildRate);
        let limits = [limit(3), limit(7)].map(Exhausted::Limit);
        for exhausted in limits.into_iter().chain([Exhausted::ChildLimits]) {
            let exhausted = Some(exhausted);
            metrics.count(&host, &Outcome { exhausted, ..outcome(limited, "acme") });
        }
        let anomaly = Some(Anomaly::Source);
        metrics.count(&host, &Outcome { anomaly, ..outcome(Decision::Allow, "acme") });
        metrics.count(&host, &outcome(Decision::Deny(DenyReason::KeyExpired), "acme"));
        metrics.count_auth_alert(&host);
        metrics.count_retries(&host, 0);
        metrics.count_retries(&host, 5);
        metrics.show_revocations(&host, 7);
        let all = host.store().metrics();
        let rest: Vec<_> =
            all.iter().filter(|(name, _)| !name.contains("requests_total")).collect();
        let expected = [
            ("vkey_anomalies_total.anomaly.source.tenant.acme", 1),
            ("vkey_auth_alerts_total", 1),
            ("vkey_contention_retries_total", 5),
            ("vkey_limit_hits_total.limit.caveat_rate.tenant.acme", 2),
            ("vkey_limit_hits_total.limit.children_full.tenant.acme", 1),
            ("vkey_revocations_version", 7),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(rest, expected.iter().map(|(n, v)| (n, v)).collect::<Vec<_>>());
    }

    #[test]
    fn tokens_are_counted_by_kind_and_their_sum_is_what_was_charged() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let metrics = metrics();
        let usage = TokenUsage {
            input: 100,
            cached_input: 60,
            cache_write: 10,
            cache_write_1h: 4,
            output: 50,
            reasoning: 20,
            total: 157,
        };
        metrics.count_usage(&host, "acme", &usage, Some(9));
        let reserved = TokenUsage { total: 1_000, ..TokenUsage::default() };
        metrics.count_usage(&host, "acme", &reserved, None);
        let inconsistent = TokenUsage { input: 5, cached_input: 9, total: 5, ..usage };
        metrics.count_usage(&host, "globex", &inconsistent, None);
        metrics.count_usage(&host, "a-b_c", &TokenUsage::default(), Some(1 << 40));
        metrics.count_missing_usage(&host, Format::OpenAiChat);
        let all = host.store().metrics();
        let tokens = |name: &str| all.get(&format!("vkey_tokens_total.kind.{name}")).copied();
        assert_eq!(tokens("input.tenant.acme"), Some(30));
        assert_eq!(tokens("cached_input.tenant.acme"), Some(60));
        assert_eq!(tokens("cache_write.tenant.acme"), Some(10));
        assert_eq!(tokens("output.tenant.acme"), Some(30));
        assert_eq!(tokens("reasoning.tenant.acme"), Some(20));
        assert_eq!(tokens("other.tenant.acme"), Some(1_007));
        let of_globex = all.iter().filter(|(name, _)| name.ends_with("globex"));
        assert_eq!(of_globex.map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!(all["vkey_cost_microusd_total.tenant.acme"], 9);
        assert_eq!(all["vkey_cost_microusd_total.tenant.a-b_c"], 1 << 40);
        assert_eq!(all["vkey_usage_missing_total.format.openai_chat"], 1);
    }

    #[test]
    fn the_totals_of_a_listed_tenant_are_those_of_all_workers() {
        let store = MemoryStore::new(Rules::Envoy);
        let workers = [0, 1].map(|_| (MemoryHost::new(store.clone()), metrics()));
        for (host, metrics) in &workers {
            let decisions = DenyReason::ALL.iter().flat_map(|reason| {
                let shadow = reason.is_recorded().then_some(Decision::Shadow(*reason));
                [Decision::Allow, Decision::Deny(*reason)].into_iter().chain(shadow)
            });
            for decision in decisions {
                metrics.count(host, &outcome(decision, "acme"));
            }
            metrics.count(host, &outcome(Decision::Allow, "initech"));
        }
        let of = |class| DenyReason::ALL.iter().filter(|reason| reason.class() == class).count();
        let denied = DenyClass::ALL.map(|class| 2 * of(class) as u64);
        let shadowed = of(DenyClass::Forbidden) + of(DenyClass::Limited) + 1;
        let allowed = 2 * (DenyReason::ALL.len() + shadowed) as u64;
        for (host, metrics) in &workers {
            assert_eq!(metrics.totals(host, "acme"), Some(Totals { allowed, denied }));
            assert_eq!(metrics.totals(host, "globex"), Some(Totals::default()));
            assert_eq!(metrics.totals(host, "initech"), None);
        }
        let bare = MemoryHost::new(MemoryStore::new(Rules::Bare));
        assert_eq!(metrics().totals(&bare, "acme"), None);
    }

    #[test]
    fn a_host_without_metrics_is_asked_once() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Bare));
        let metrics = metrics();
        metrics.count(&host, &Outcome::default());
        metrics.count(&host, &Outcome::default());
        assert_eq!(host.defined.borrow().len(), 1);
    }
}
