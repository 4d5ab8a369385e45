//! The metrics of the collector, as Prometheus reads them.
//!
//! Labels are of few values, none of which a client or a line chooses: no key, no tenant, no path.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ledger::LedgerMeasures;
use crate::store::{AlertKind, Measures, REQUESTS};

/// The `Content-Type` of what [`render`] returns.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

const MICROS_PER_SEC: u64 = 1_000_000;

/// The counters that are metrics as they are: the counter, the metric without `_total`, and the help without its dot.
const COUNTERS: [(&str, &str, &str); 13] = [
    ("records", "vkey_audit_records", "Records that were stored"),
    ("doubled", "vkey_audit_doubled", "Records that came again, and were not stored again"),
    (
        "pruned",
        "vkey_audit_pruned",
        "Records that were deleted because they were too many or too old",
    ),
    ("anchors", "vkey_audit_anchors", "Anchors of chains that were stored"),
    ("too_long", "vkey_audit_too_long", "Lines that were too long to be read"),
    ("refused", "vkey_audit_refused", "Requests that were refused"),
    ("failed", "vkey_audit_failed", "Requests that were refused, or whose response is an error"),
    ("tokens", "vkey_audit_tokens", "Tokens that were charged"),
    ("tokens_in", "vkey_audit_input_tokens", "Tokens that requests sent"),
    ("tokens_out", "vkey_audit_output_tokens", "Tokens that requests got"),
    ("cost", "vkey_audit_cost_microusd", "What the tokens cost, in micro-USD"),
    ("alerts_delivered", "vkey_audit_alerts_delivered", "Alerts that the receiver of alerts took"),
    (
        "alert_deliveries_failed",
        "vkey_audit_alert_deliveries_failed",
        "Attempts to deliver an alert that failed",
    ),
];

/// The counters of findings, which have the kind in their name.
const FINDINGS: [&str; 4] = ["changed", "contradiction", "unlinked", "unreadable"];

/// A counter for each value of one label.
type Labelled = Family<[(&'static str, String); 1], Counter>;

/// The metrics in the text format of Prometheus, version 0.0.4.
pub fn render(measures: &Measures, ledger: Option<&LedgerMeasures>) -> String {
    let mut registry = Registry::default();
    let counted = |name: &str| measures.counters.get(name).copied().unwrap_or(0);
    for (counter, name, help) in COUNTERS {
        let metric = Counter::<u64, AtomicU64>::default();
        metric.inc_by(counted(counter));
        registry.register(name, help, metric);
    }
    let by_reason = measures.counters.iter().filter_map(|(name, count)| {
        name.strip_prefix(REQUESTS).map(|reason| (reason.to_owned(), *count))
    });
    let help = "Requests by the reason of their refusal, none without one";
    registry.register("vkey_audit_requests", help, labelled("reason", by_reason));
    let findings = FINDINGS.map(|kind| (kind.to_owned(), counted(&format!("findings.{kind}"))));
    let help = "What does not verify, by kind";
    registry.register("vkey_audit_findings", help, labelled("kind", findings));
    let alerts = AlertKind::ALL.map(|kind| (kind.word().to_owned(), counted(&kind.counter())));
    let help = "Alerts that were raised, by kind";
    registry.register("vkey_audit_alerts", help, labelled("kind", alerts));
    for (name, help, value) in gauges(measures) {
        let metric = Gauge::<u64, AtomicU64>::default();
        metric.set(value);
        registry.register(name, help, metric);
    }
    if let Some(ledger) = ledger {
        add_ledger(&mut registry, ledger);
    }
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// Adds what the ledger counted since the server has started.
fn add_ledger(registry: &mut Registry, ledger: &LedgerMeasures) {
    let counters = [
        ("vkey_ledger_orders", "Orders that got a receipt", ledger.orders),
        ("vkey_ledger_unmet_orders", "Orders that wanted something and got nothing", ledger.unmet),
    ];
    for (name, help, value) in counters {
        let metric = Counter::<u64, AtomicU64>::default();
        metric.inc_by(value);
        registry.register(name, help, metric);
    }
    let owned = |(name, count): (&&str, &u64)| ((*name).to_owned(), *count);
    let granted = labelled("unit", ledger.granted.iter().map(owned));
    registry.register("vkey_ledger_granted", "What was granted to proxies, by unit", granted);
    let errors = labelled("code", ledger.errors.iter().map(owned));
    let help = "Requests with orders that got no receipts, by the code of the error";
    registry.register("vkey_ledger_errors", help, errors);
}

fn gauges(measures: &Measures) -> [(&'static str, &'static str, u64); 4] {
    let latest = measures.latest_micros.unwrap_or(0) / MICROS_PER_SEC;
    [
        ("vkey_audit_missing_records", "Records that are missing in chains", measures.missing),
        ("vkey_audit_open_chains", "Chains that no anchor has ended", measures.open_chains),
        (
            "vkey_audit_last_record_timestamp_seconds",
            "When the latest request began, Unix time, 0 without a request",
            latest,
        ),
        (
            "vkey_audit_alerts_undelivered",
            "Alerts of the last day that the receiver of alerts has yet to take",
            measures.undelivered,
        ),
    ]
}

fn labelled(label: &'static str, counts: impl IntoIterator<Item = (String, u64)>) -> Labelled {
    let family = Labelled::default();
    for (value, count) in counts {
        family.get_or_create(&[(label, value)]).inc_by(count);
    }
    family
}

#[cfg(test)]
mod tests;
