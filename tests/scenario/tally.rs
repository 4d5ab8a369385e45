//! Adds up the audit lines: the counts of every key and tenant, and the metrics.

use std::collections::BTreeMap;

use vkey::audit::Line;
use vkey::decision::Mode;
use vkey::decision::{Decision, DenyClass, DenyReason};
use vkey::host::{MemoryStore, RecordStore, SharedData};
use vkey::json::Json;
use vkey::limits::cell::{Cell, key_name, tenant_name};
use vkey::limits::sessions::sessions_name;
use vkey::limits::{Amounts, Limits};
use vkey::record::Name;
use vkey::upstream_tls::{UpstreamStatus, Verdict, upstream_status_name};

use super::check::Context;
use super::step::{Expect, Expected};
use super::text::member;
use super::upstream::Upstream;

const REQUESTS: &str = "vkey_requests_total.";
const LIMIT_HITS: &str = "vkey_limit_hits_total.";
const VERDICTS: &str = "vkey_upstream_tls_total.";

/// A request, read from its audit line. Masked values are unknown.
pub(crate) struct Audited {
    decision: Option<Decision>,
    jti: Option<String>,
    tenant: Option<String>,
    /// The tenant's label in metrics.
    label: String,
    /// Whether the tenant has limits, and so a cell.
    limits_tenant: bool,
    /// Whether it was a request for usage, which is not counted.
    is_usage: bool,
    /// The verdict on the upstream, if the request was forwarded.
    verdict: Option<String>,
    withheld: bool,
    /// Whether clusters for hosts that the policy verifies must have an upstream gate.
    needs_gate: bool,
}

/// The sums.
#[derive(Default)]
pub(crate) struct Tally {
    /// By tenant and id.
    keys: BTreeMap<(String, String), Cell>,
    tenants: BTreeMap<String, Cell>,
    /// Metrics of requests and of authentication failures.
    metrics: BTreeMap<String, u64>,
    limited: u64,
    /// The last verdict of this module on each cluster; `None` if it is only known that a response showed
    /// no gate.
    statuses: BTreeMap<String, Option<String>>,
}

impl Audited {
    pub(super) fn read(context: &Context<'_>, expect: &Expect, line: &str) -> Option<Self> {
        let record = Line::parse(line).ok()?.record.unwrap_or_default();
        let label = tenant_label(context, record.tenant.as_deref());
        let limits_tenant =
            record.tenant.as_deref().is_some_and(|tenant| context.limits_tenant(tenant));
        Some(Self {
            decision: record.decision,
            jti: record.jti.filter(|_| !context.masked("jti")).map(Into::into),
            tenant: record.tenant.filter(|_| !context.masked("tenant")).map(Into::into),
            label,
            limits_tenant,
            is_usage: expect.action == Expected::Reply,
            verdict: record.tls_verdict.filter(|_| expect.action.forwards()).map(Into::into),
            withheld: expect.action == Expected::Withhold,
            needs_gate: member(context.config, &["upstream_tls", "require_gate"])
                != Some(&Json::Bool(false)),
        })
    }
}

impl Tally {
    /// Adds a request. `records`: what other modules left in the shared data.
    pub(crate) fn add(&mut self, audited: &Audited, records: &[(String, String)]) {
        self.add_metrics(audited);
        let Some(decision) = audited.decision.filter(|_| !audited.is_usage) else {
            return;
        };
        let tenant = audited.tenant.as_ref().filter(|_| audited.limits_tenant);
        let taken = |tenant: &String| {
            let name = tenant_name(tenant);
            records.iter().any(|(taken, _)| taken == name.as_str())
        };
        // A key is counted before counting its tenant fails.
        let uncounted = decision == Decision::Deny(DenyReason::Contention);
        let by_key = !uncounted || tenant.is_some_and(taken);
        let key = audited.tenant.clone().zip(audited.jti.clone());
        if let Some(key) = key.filter(|_| by_key) {
            count(self.keys.entry(key).or_default(), decision);
        }
        if let Some(tenant) = tenant.filter(|_| !uncounted) {
            count(self.tenants.entry(tenant.clone()).or_default(), decision);
        }
    }

    /// Adds the module's verdict on the upstream of a request. The upstream gate counts its own verdicts,
    /// and verdicts on unlisted hosts are not counted.
    pub(crate) fn add_verdict(&mut self, audited: &Audited, upstream: &Upstream) {
        let verdict = audited.verdict.clone().filter(|verdict| verdict != "unlisted");
        // The verdict on a withheld response is this module's, for any verdict of the upstream gate.
        let Some(verdict) = verdict.filter(|_| audited.withheld || !upstream.is_judged()) else {
            return;
        };
        if let Some(cluster) = upstream.taken_cluster() {
            let name = format!("{VERDICTS}verdict.{verdict}.upstream.{cluster}");
            *self.metrics.entry(name).or_default() += 1;
            self.statuses.insert(cluster.to_owned(), Some(verdict.clone()));
        }
        // If the route was changed, the verdict also counts against the first cluster.
        if let (Some(judged), Some(_)) = (&upstream.cluster, &upstream.taken) {
            if audited.withheld {
                self.statuses.insert(judged.clone(), Some(verdict));
            } else if verdict == "verified" && audited.needs_gate {
                self.statuses.entry(judged.clone()).or_default();
            }
        }
    }

    fn add_metrics(&mut self, audited: &Audited) {
        let word = audited.decision.map_or("unseen", Decision::word);
        let reason = audited.decision.and_then(Decision::reason);
        let code = reason.map_or("none", DenyReason::code);
        let label = &audited.label;
        let requests = format!("{REQUESTS}decision.{word}.reason.{code}.tenant.{label}");
        *self.metrics.entry(requests).or_default() += 1;
        match reason.map(DenyReason::class) {
            // Neither a blocked source nor a limit of the cluster is a limit of a key or a tenant.
            Some(DenyClass::Limited)
                if !matches!(reason, Some(DenyReason::SourceBlocked | DenyReason::ClusterRate)) =>
            {
                self.limited += 1;
            }
            _ => {}
        }
    }

    /// The number of keys with a record of sessions.
    fn sessions(&self, store: &MemoryStore) -> usize {
        let names = self.keys.keys().map(|(tenant, jti)| sessions_name(tenant, jti));
        names.filter(|name| matches!(store.shared_data(name.as_str()), Ok(Some(_)))).count()
    }

    /// Checks that every cell has exactly the sums of the audit lines, and that there are no other records
    /// but `others`.
    pub(crate) fn check_cells(
        &self,
        context: &Context<'_>,
        store: &MemoryStore,
        others: usize,
    ) -> Vec<String> {
        let counts = context.counts();
        let keys = self.keys.iter().map(|((tenant, jti), cell)| (key_name(tenant, jti), cell));
        let tenants = self.tenants.iter().map(|(tenant, cell)| (tenant_name(tenant), cell));
        let cells: Vec<_> = keys.chain(tenants).filter(|_| counts).collect();
        let mut problems: Vec<String> =
            cells.iter().filter_map(|(name, cell)| check_cell(store, name, cell)).collect();
        let masked = context.masked("jti") || context.masked("tenant");
        let statuses = if counts { self.statuses.len() } else { 0 };
        let expected = cells.len() + statuses + self.sessions(store) + others;
        if !masked && store.len() != expected {
            problems.push(format!("{} records in shared data, not {expected}", store.len()));
        }
        problems
    }

    /// Checks the status of each cluster that has a verdict.
    pub(crate) fn check_statuses(&self, context: &Context<'_>, store: &MemoryStore) -> Vec<String> {
        let counts = context.counts();
        let wrong = |(cluster, expected): (&String, &Option<String>)| {
            let store = RecordStore::new(store, store.rules());
            let found = store.read::<UpstreamStatus>(&upstream_status_name(cluster)).ok();
            let found = found.and_then(|status| status.verdict()).map(Verdict::word);
            (found != expected.as_deref())
                .then(|| format!("cluster {cluster} has status {found:?}, not {expected:?}"))
        };
        self.statuses.iter().filter(|_| counts).filter_map(wrong).collect()
    }

    /// Checks that the metrics are exact too.
    pub(crate) fn check_metrics(
        &self,
        context: &Context<'_>,
        store: &MemoryStore,
    ) -> Option<String> {
        if context.nginx {
            // Metrics about the start are defined before the host is known.
            let metrics = store.metrics();
            let counts = metrics.iter().any(|(name, _)| name.starts_with("vkey_requests_total"));
            return counts.then(|| format!("metrics on nginx: {metrics:?}"));
        }
        let mut found = BTreeMap::new();
        let mut hits = 0;
        // A series that was only read is 0.
        for (name, value) in store.metrics().into_iter().filter(|(_, value)| *value > 0) {
            if name.starts_with(LIMIT_HITS) {
                hits += value;
            } else if [REQUESTS, VERDICTS].iter().any(|of| name.starts_with(of)) {
                *found.entry(shown_series(context, name)).or_default() += value;
            }
        }
        // In shadow mode a request may exceed a limit and have another reason.
        let hidden = context.setting("mode") == Some("shadow") && hits > self.limited;
        let agree = found == self.metrics && (hits == self.limited || hidden);
        (!agree).then(|| {
            format!("metrics {found:?}, {hits} hits; not {:?}, {}", self.metrics, self.limited)
        })
    }
}

/// Checks only the counts: audit lines do not show the use of limits.
fn check_cell(store: &MemoryStore, name: &Name, expected: &Cell) -> Option<String> {
    let counts = |cell: &Cell| (cell.seen(), cell.allowed(), cell.denied().collect::<Vec<_>>());
    let found = RecordStore::new(store, store.rules()).read::<Cell>(name);
    let expected = counts(expected);
    let Ok(found) = found.as_ref().map(counts) else {
        return Some(format!("{} cannot be read: {found:?}", name.as_str()));
    };
    let (seen, allowed, denied) = &found;
    let adds_up = *seen == allowed + denied.iter().map(|(_, count)| count).sum::<u64>();
    (found != expected || !adds_up)
        .then(|| format!("{} has {found:?}, not {expected:?}", name.as_str()))
}

fn count(cell: &mut Cell, decision: Decision) {
    cell.count(decision, &[], &Amounts::default(), None, 0, Mode::Enforce);
}

/// The label of a tenant. A masked tenant is unknown.
fn tenant_label(context: &Context<'_>, tenant: Option<&str>) -> String {
    let listed = |tenant: &str| member(context.config, &["tenants", tenant]).is_some();
    match tenant {
        _ if context.masked("tenant") => "*".to_owned(),
        None => "none".to_owned(),
        Some(tenant) if listed(tenant) => tenant.to_owned(),
        Some(_) => "other".to_owned(),
    }
}

fn shown_series(context: &Context<'_>, name: String) -> String {
    match name.split_once(".tenant.") {
        Some((series, _)) if context.masked("tenant") => format!("{series}.tenant.*"),
        _ => name,
    }
}

impl Context<'_> {
    /// A setting that is a string.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        member(self.config, &[name]).and_then(Json::as_str)
    }

    fn limits_tenant(&self, tenant: &str) -> bool {
        let limit = |name| member(self.config, &["tenants", tenant, name]);
        Limits::MEMBERS.into_iter().any(|name| limit(name).is_some())
    }

    /// Which responses have headers about limits, if that is configured.
    pub(super) fn limit_headers(&self) -> Option<&str> {
        member(self.config, &["limits", "headers"]).and_then(Json::as_str)
    }
}
