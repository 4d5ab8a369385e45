//! The series of the metrics, and their names.

use std::fmt;

use crate::alerts::anomaly::Anomaly;
use crate::body::mcp::MethodClass;
use crate::body::{Format, TokenUsage};
use crate::decision::DenyReason;
use crate::host::MetricKind;
use crate::limits::tally::Exhausted;
use crate::limits::{LimitName, Origin};
use crate::upstream_tls::Verdict;

/// The longest name of a cluster in the name of a metric.
const MAX_CLUSTER_BYTES: usize = 128;

/// One series of a metric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    Anomalies(Anomaly, Tenant),
    AuthAlerts,
    BlockedLists,
    ContentionRetries,
    CostMicroUsd(Tenant),
    LedgerCalls,
    LedgerFailures,
    LedgerUp,
    LimitHits(Exhausted, Tenant),
    LocalBudgets(Tenant),
    McpCalls(MethodClass, &'static str, Tenant),
    NewestRevocationsVersion,
    OutdatedRevocations,
    Requests(&'static str, Option<DenyReason>, Tenant),
    RevocationsVersion,
    Started,
    Tokens(TokenKind, Tenant),
    UsageMissing(Format),
}

/// What tokens were. The kinds do not overlap: their sum is what was charged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TokenKind {
    /// Of the prompt, neither read from a cache nor written to one.
    Input,
    CachedInput,
    CacheWrite,
    /// Generated, apart from reasoning.
    Output,
    Reasoning,
    /// Charged without being reported as one of the others.
    Other,
}

/// A tenant that the configuration lists, by its index, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tenant {
    Listed(usize),
    None,
    Unlisted,
}

/// A series with the names of its tenants.
pub(super) struct Named<'a> {
    pub(super) series: Series,
    pub(super) tenants: &'a [String],
}

impl Series {
    pub(super) fn kind(self) -> MetricKind {
        match self {
            Self::LedgerUp | Self::RevocationsVersion | Self::NewestRevocationsVersion => {
                MetricKind::Gauge
            }
            _ => MetricKind::Counter,
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = |tenant| match tenant {
            Tenant::Listed(index) => self.tenants.get(index).map_or("", String::as_str),
            Tenant::None => "none",
            Tenant::Unlisted => "other",
        };
        match self.series {
            Series::Anomalies(anomaly, of) => {
                let (anomaly, tenant) = (anomaly.word(), tenant(of));
                write!(f, "vkey_anomalies_total.anomaly.{anomaly}.tenant.{tenant}")
            }
            Series::AuthAlerts => f.write_str("vkey_auth_alerts_total"),
            Series::BlockedLists => f.write_str("vkey_mcp_lists_blocked_total"),
            Series::ContentionRetries => f.write_str("vkey_contention_retries_total"),
            Series::CostMicroUsd(of) => {
                write!(f, "vkey_cost_microusd_total.tenant.{}", tenant(of))
            }
            Series::LedgerCalls => f.write_str("vkey_ledger_calls_total"),
            Series::LedgerFailures => f.write_str("vkey_ledger_failures_total"),
            Series::LedgerUp => f.write_str("vkey_ledger_up"),
            Series::LimitHits(exhausted, of) => {
                f.write_str("vkey_limit_hits_total.limit.")?;
                match exhausted {
                    Exhausted::ChildLimits => f.write_str("children_full")?,
                    Exhausted::Limit(name) => name.fmt(f)?,
                }
                write!(f, ".tenant.{}", tenant(of))
            }
            Series::LocalBudgets(of) => {
                write!(f, "vkey_budget_local_total.tenant.{}", tenant(of))
            }
            Series::McpCalls(class, decision, of) => {
                let (class, tenant) = (class.word(), tenant(of));
                write!(f, "vkey_mcp_calls_total.class.{class}.decision.{decision}.tenant.{tenant}")
            }
            Series::Requests(decision, reason, of) => {
                let reason = reason.map_or("none", DenyReason::code);
                let tenant = tenant(of);
                write!(f, "vkey_requests_total.decision.{decision}.reason.{reason}.tenant.{tenant}")
            }
            Series::NewestRevocationsVersion => f.write_str("vkey_revocations_newest_version"),
            Series::OutdatedRevocations => f.write_str("vkey_revocations_outdated_total"),
            Series::RevocationsVersion => f.write_str("vkey_revocations_version"),
            Series::Started => f.write_str("vkey_started_total"),
            Series::Tokens(kind, of) => {
                write!(f, "vkey_tokens_total.kind.{}.tenant.{}", kind.word(), tenant(of))
            }
            // A dot ends a label.
            Series::UsageMissing(format) => {
                write!(f, "vkey_usage_missing_total.format.{}", format.name().replace('.', "_"))
            }
        }
    }
}

impl TokenKind {
    fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::CacheWrite => "cache_write",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::Other => "other",
        }
    }
}

/// The tokens of a usage by kind. Their sum is its total.
pub(super) fn kinds(usage: &TokenUsage) -> [(TokenKind, u64); 6] {
    let TokenUsage { input, cached_input, cache_write, output, reasoning, total, .. } = *usage;
    let mut rest = total;
    let mut take = |count: u64| {
        let taken = count.min(rest);
        rest = rest.saturating_sub(taken);
        taken
    };
    let [cached, written, thought] = [cached_input, cache_write, reasoning].map(&mut take);
    let plain = take(input.saturating_sub(cached_input).saturating_sub(cache_write));
    let spoken = take(output.saturating_sub(reasoning));
    [
        (TokenKind::Input, plain),
        (TokenKind::CachedInput, cached),
        (TokenKind::CacheWrite, written),
        (TokenKind::Output, spoken),
        (TokenKind::Reasoning, thought),
        (TokenKind::Other, rest),
    ]
}

/// A metric of an upstream. The cluster is last, because its name may contain dots.
pub(super) fn upstream_name(metric: &str, verdict: Option<Verdict>, cluster: &str) -> String {
    let verdict = verdict.map(|verdict| [".verdict.", verdict.word()].concat());
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let cluster: String = cluster.chars().take(MAX_CLUSTER_BYTES).map(plain).collect();
    [metric, verdict.as_deref().unwrap_or_default(), ".upstream.", &cluster].concat()
}

/// All caveats share a label, because clients decide how many caveats there are.
pub(super) fn label(exhausted: Exhausted) -> Exhausted {
    match exhausted {
        Exhausted::Limit(LimitName { origin: Origin::Caveat(_), kind }) => {
            Exhausted::Limit(LimitName { origin: Origin::Caveat(0), kind })
        }
        Exhausted::ChildLimits | Exhausted::Limit(_) => exhausted,
    }
}
