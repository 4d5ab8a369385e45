//! The state of upstreams, from the metrics of a proxy.

use std::collections::BTreeMap;

use serde_json::Value;

use vkey::json::Json;
use vkey::upstream_tls::Verdict;

use super::super::text::escape_word;
use super::super::time::rfc3339;
use super::document::{get, items, text};

/// What all names have; Envoy puts `wasmcustom.` before the metrics of modules, and before 1.39 the name of
/// a cluster before that.
const METRICS: &str = "wasmcustom.vkey_upstream_tls_";

/// The state of one upstream.
#[derive(Default)]
pub(super) struct UpstreamState {
    /// The number of requests, by verdict.
    requests: BTreeMap<String, u64>,
    /// The current verdict, and since when.
    verdict: Option<(Verdict, u64)>,
    /// The end of the exception in Unix seconds; 0 if there is none.
    skip_until_secs: u64,
}

/// The state of every upstream that was checked.
#[derive(Default)]
pub(super) struct UpstreamStates {
    upstreams: BTreeMap<String, UpstreamState>,
    /// The policies in force; several while a proxy changes its policy.
    policies: Vec<String>,
}

impl UpstreamStates {
    /// Parses the response of `/stats?format=json`; `None` if it is something else.
    pub(super) fn read(response: &Value) -> Option<Self> {
        get(response, "stats").and_then(Value::as_array)?;
        let mut states = Self::default();
        for stat in items(response, "stats") {
            let named = text(stat, "name").zip(get(stat, "value").and_then(Value::as_u64));
            if let Some((name, value)) = named {
                states.add(name, value);
            }
        }
        Some(states)
    }

    /// Adds one metric. Unknown names may come from a newer module.
    fn add(&mut self, name: &str, value: u64) {
        let Some((_, name)) = name.split_once(METRICS) else { return };
        if let Some(digest) = name.strip_prefix("policy_info.digest.") {
            if value > 0 {
                self.policies.push(digest.to_owned());
            }
        } else if let Some(upstream) = name.strip_prefix("skip_until_seconds.upstream.") {
            self.upstream(upstream).skip_until_secs = value;
        } else if let Some((word, upstream)) = labels(name, "total.verdict.") {
            if value > 0 {
                self.upstream(upstream).requests.insert(word.to_owned(), value);
            }
        } else if let Some((word, upstream)) = labels(name, "since_seconds.verdict.") {
            self.upstream(upstream).stands(Verdict::from_word(word), value);
        }
    }

    fn upstream(&mut self, name: &str) -> &mut UpstreamState {
        self.upstreams.entry(name.to_owned()).or_default()
    }

    /// Whether no upstream was checked.
    pub(super) fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// Whether an upstream is failing.
    pub(super) fn is_any_failing(&self) -> bool {
        self.upstreams.values().any(UpstreamState::is_failing)
    }

    /// A line for each upstream, and one for the policy.
    pub(super) fn lines(&self, now_secs: u64) -> Vec<String> {
        let upstream = |(name, state): (&String, &UpstreamState)| {
            format!("{}: {}; {}", escape_word(name), state.state(now_secs), state.counts())
        };
        let mut lines = Vec::from_iter(self.upstreams.iter().map(upstream));
        lines.extend(self.policies.iter().map(|digest| format!("policy {}", escape_word(digest))));
        lines
    }

    /// The states as JSON.
    pub(super) fn to_json(&self) -> Json {
        let upstreams = self.upstreams.iter().map(|(name, state)| state.to_json(name));
        let policies = self.policies.iter().map(|digest| digest.as_str().into());
        Json::object([
            ("upstreams", Json::Array(upstreams.collect())),
            ("policies", Json::Array(policies.collect())),
        ])
    }
}

/// The verdict and the upstream in a metric's name. The word of a verdict has no dot.
fn labels<'a>(name: &'a str, metric: &str) -> Option<(&'a str, &'a str)> {
    name.strip_prefix(metric)?.split_once(".upstream.")
}

impl UpstreamState {
    /// Records since when a verdict is current; 0 if it no longer is.
    fn stands(&mut self, verdict: Option<Verdict>, since_secs: u64) {
        let is_later = self.verdict.is_none_or(|(_, earlier)| since_secs > earlier);
        if let Some(verdict) = verdict.filter(|_| since_secs > 0 && is_later) {
            self.verdict = Some((verdict, since_secs));
        }
    }

    fn is_failing(&self) -> bool {
        self.verdict.is_some_and(|(verdict, _)| verdict.refusal().is_some())
    }

    fn state(&self, now_secs: u64) -> String {
        let Some((verdict, since_secs)) = self.verdict else {
            return "not checked yet".to_owned();
        };
        let since = rfc3339(since_secs);
        match verdict {
            Verdict::Refused(reason) => {
                format!("failing since {since}, {reason}: {}", reason.message())
            }
            Verdict::Plaintext => format!(
                "plaintext since {since}, which a credential allows until {}",
                rfc3339(self.skip_until_secs)
            ),
            Verdict::Skip if self.skip_until_secs > now_secs => {
                format!("skipped until {}", rfc3339(self.skip_until_secs))
            }
            Verdict::Skip => format!("skipped since {since}; the exception is over by now"),
            Verdict::Stamped => format!("verified since {since}, in part by its stamp"),
            Verdict::Unlisted => format!("unlisted since {since}, so not verified"),
            Verdict::Verified => format!("verified since {since}"),
        }
    }

    fn counts(&self) -> String {
        let counts = self
            .requests
            .iter()
            .map(|(verdict, count)| format!("{} {count}", escape_word(verdict)));
        let counts = Vec::from_iter(counts);
        if counts.is_empty() { "no requests".to_owned() } else { counts.join(", ") }
    }

    fn to_json(&self, name: &str) -> Json {
        let verdict = self.verdict.map_or(Json::Null, |(verdict, _)| verdict.word().into());
        let since = self.verdict.map_or(Json::Null, |(_, since_secs)| since_secs.into());
        let until = Some(self.skip_until_secs).filter(|secs| *secs > 0);
        let requests = self.requests.iter().map(|(word, count)| (word.clone(), Json::from(*count)));
        Json::object([
            ("upstream", name.into()),
            ("verdict", verdict),
            ("since_secs", since),
            ("skip_until_secs", until.map_or(Json::Null, Json::from)),
            ("failing", Json::Bool(self.is_failing())),
            ("requests", Json::Object(requests.collect())),
        ])
    }
}
