//! The collector's metrics, the rules for Prometheus that use them, and the page that lists both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vkey_server::alerts::{AlertKind, Thresholds};
use vkey_server::metrics;
use vkey_server::store::Measures;

use crate::text;

const RULES: &str = "filters/vkey/deploy/prometheus/vkey-audit.rules.yaml";

/// What begins the name of each metric of the collector.
const PREFIX: &str = "vkey_audit_";

/// What the collector shows: a store with one request, so that every metric has a series.
fn rendered() -> String {
    let counters = BTreeMap::from([("requests.none".to_owned(), 1)]);
    metrics::render(&Measures { counters, ..Measures::default() }, None)
}

/// The names and the labels of the series, e.g. `vkey_audit_alerts_total` and `kind="chain"`.
fn series(rendered: &str) -> BTreeSet<(String, String)> {
    let lines = rendered.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap().0);
    let parts = series.map(|series| series.split_once('{').unwrap_or((series, "}")));
    parts.map(|(name, labels)| (name.to_owned(), labels.replace('}', ""))).collect()
}

/// The names of metrics of the collector in a text, each with what follows it.
fn named(text: &str) -> Vec<(String, &str)> {
    let found = text.match_indices(PREFIX).map(|(at, _)| {
        let is_part = |char: char| char == '_' || char.is_ascii_alphanumeric();
        let rest = &text[at..];
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        (rest[..end].to_owned(), &rest[end..])
    });
    found.collect()
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&text(RULES)).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_metric_of_a_rule_is_there() {
    let series = series(&rendered());
    let mut count = 0;
    for rule in rules() {
        let expr = rule["expr"].as_str().unwrap();
        let metrics = named(expr);
        assert!(!metrics.is_empty(), "{expr}");
        for (name, rest) in metrics {
            count += 1;
            assert!(series.iter().any(|(known, _)| *known == name), "{name}");
            let Some((label, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            else {
                continue;
            };
            let (label, values) = label.split_once('=').unwrap();
            for value in values.trim_matches(['~', '"']).split('|') {
                let labels = format!("{label}=\"{value}\"");
                assert!(series.contains(&(name.clone(), labels)), "{name} {label} {value}");
            }
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn every_kind_of_alert_has_a_rule() {
    let rules = text(RULES);
    for kind in AlertKind::ALL {
        // What does not verify has a metric of its own.
        let is_named = rules.contains("vkey_audit_findings_total") && kind == AlertKind::Chain;
        let word = kind.word();
        let mut ends =
            [format!("\"{word}\""), format!("\"{word}|"), format!("|{word}\"")].into_iter();
        assert!(is_named || ends.any(|end| rules.contains(&end)), "{word}");
    }
}

#[test]
fn every_rule_says_how_bad_it_is_and_what_it_is() {
    let rules = rules();
    let names = BTreeSet::from_iter(rules.iter().map(|rule| rule["alert"].as_str().unwrap()));
    assert_eq!(names.len(), rules.len());
    for rule in rules {
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{severity}");
        for annotation in ["summary", "description"] {
            let text = rule["annotations"][annotation].as_str().unwrap();
            assert!(text.len() > 20, "{text}");
        }
    }
}

#[test]
fn the_page_lists_every_metric_and_every_rule() {
    let page = text("docs/alerts.md");
    let rows = page.lines().filter(|line| line.starts_with("| `vkey_audit_"));
    let listed: Vec<String> = rows.map(|row| named(row).remove(0).0).collect();
    let names = series(&rendered()).into_iter().map(|(name, _)| name);
    assert_eq!(BTreeSet::from_iter(listed.iter().cloned()), BTreeSet::from_iter(names));
    assert_eq!(listed.len(), BTreeSet::from_iter(&listed).len(), "listed twice");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_page_lists_every_threshold_with_its_default() {
    let page = text("docs/alerts.md");
    let defaults = Thresholds::default();
    let minutes = |secs: u64| format!("{}m", secs / 60);
    for (name, default) in Thresholds::NAMES.into_iter().zip([
        defaults.authentication.to_string(),
        defaults.refusals.to_string(),
        defaults.errors.to_string(),
        minutes(defaults.window_secs),
        minutes(defaults.repeat_secs),
        minutes(defaults.missing_secs),
    ]) {
        let row = format!("| `{name}` | `{default}` |");
        assert!(page.contains(&row), "{row}");
        Thresholds::default().set(&format!("{name}={default}")).unwrap();
    }
    for kind in AlertKind::ALL {
        assert!(page.contains(&format!("| `{}` |", kind.word())), "{}", kind.word());
    }
}
