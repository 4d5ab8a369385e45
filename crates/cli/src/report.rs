//! The report of `vkey explain`: the result of each stage, and the decision.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::fmt;
use std::rc::Rc;

use vkey::access::{Access, AmbiguousPath};
use vkey::config::Hindrance;
use vkey::decision::{Decision, DenyReason};
use vkey::engine::{Engine, Identity, KnownKey, Question, StageResult};
use vkey::exchange::Step;
use vkey::headers::RequestHead;
use vkey::host::Dialect;
use vkey::json::Json;
use vkey::limits::Charge;

use super::key_flaw::KeyFlaw;
use super::text::ascii;
use super::{limits, time};

/// The stages of one decision. The engine decides; the stages show why.
pub(super) struct Report {
    /// The decision.
    pub(super) decision: Decision,
    now_secs: u64,
    key: Option<Rc<KnownKey>>,
    stages: Vec<Line>,
    /// The limits that the request would be charged to, or denied for on a host without shared data. Only the
    /// gate knows what remains of them.
    limits: Vec<Charge>,
    /// Whether the reply would be counts.
    pub(super) usage: bool,
    /// What else the gate does, or would do.
    notes: Vec<String>,
}

/// A stage with its result.
struct Line {
    name: String,
    verdict: StageResult,
    message: Cow<'static, str>,
}

impl Report {
    /// Evaluates one request. `access` returns what the request asks for, given the rules for its key; `upstream`, why
    /// its upstream is refused whatever its route and its connection.
    pub(super) fn new<'a>(
        engine: &mut Engine,
        head: &RequestHead<'_>,
        access: impl FnOnce(&KnownKey) -> Result<Access<'a>, AmbiguousPath>,
        upstream: impl FnOnce(&Engine) -> Option<DenyReason>,
        now_secs: u64,
    ) -> Self {
        let mut report = Self::empty(Decision::Allow, now_secs);
        match engine.identify_sender(head, now_secs) {
            Identity::Stranger(reason) => {
                report.push("key", Err(reason), reason.message());
                report.decision = Decision::Deny(reason);
            }
            Identity::Known { key, validity } => {
                report.push("key", Ok(()), "");
                let access = LazyCell::new(|| access(&key));
                report.add_stages(engine, &Question { key: &key, validity, head, access });
                report.conclude(engine, &key, upstream);
                report.key = Some(Rc::clone(&key));
            }
        }
        report
    }

    /// A request that needs no key. `upstream`: why its upstream is refused.
    pub(super) fn without_key(note: &str, upstream: Option<DenyReason>, now_secs: u64) -> Self {
        let mut report =
            Self { notes: vec![note.to_owned()], ..Self::empty(Decision::Public, now_secs) };
        if let Some(reason) = upstream {
            report.push("upstream", Err(reason), reason.message());
            report.decision = Decision::Deny(reason);
        }
        report
    }

    fn empty(decision: Decision, now_secs: u64) -> Self {
        Self {
            decision,
            now_secs,
            key: None,
            stages: Vec::new(),
            limits: Vec::new(),
            usage: false,
            notes: Vec::new(),
        }
    }

    /// Evaluates every stage, even after one has decided.
    fn add_stages<'a, F>(&mut self, engine: &Engine, question: &Question<'a, F>)
    where
        F: FnOnce() -> Result<Access<'a>, AmbiguousPath>,
    {
        for (stage, verdict) in engine.stages(question) {
            match verdict {
                Ok(()) if !stage.is_shown() => {}
                Ok(()) => self.push(stage, verdict, ""),
                Err(reason) => {
                    let message = stage.message(reason).unwrap_or_else(|| reason.message());
                    self.push(stage, verdict, message);
                }
            }
        }
        match Step::of(engine, question) {
            Step::Decide { decision, .. } => self.decision = decision,
            Step::ShowUsage(_) => self.usage = true,
        }
    }

    /// Adds what the gate checks after the stages: the upstream, and then the limits.
    fn conclude(
        &mut self,
        engine: &Engine,
        key: &KnownKey,
        upstream: impl FnOnce(&Engine) -> Option<DenyReason>,
    ) {
        let goes_on = self.decision.forwards() && !self.usage;
        if goes_on {
            self.limits = [key.charges(), key.tenant_charges()].concat();
        }
        if let Some(reason) = goes_on.then(|| upstream(engine)).flatten() {
            self.push("upstream", Err(reason), reason.message());
            self.decision = Decision::Deny(reason);
            self.limits.clear();
        }
        if engine.settings().dialect == Dialect::Bare {
            self.decide_without_counts();
        }
    }

    /// Without shared data, requests that need counts are denied: those with limits, and those for counts.
    fn decide_without_counts(&mut self) {
        let decision = self.decision.without_counts(self.usage || !self.limits.is_empty());
        if decision != self.decision {
            self.push("counts", Err(DenyReason::NotReady), DenyReason::NotReady.message());
            self.decision = decision;
            self.usage = false;
        }
    }

    /// Adds what hinders the provider credentials of the request, if it goes on.
    pub(super) fn add_notes(&mut self, hindrances: &[Hindrance]) {
        if self.decision.forwards() && !self.usage {
            self.notes.extend(hindrances.iter().map(ToString::to_string));
        }
    }

    /// Notes that the request would be allowed if its body were read. `read`: the report as if it were.
    pub(super) fn compare_with_body(&mut self, read: &Self) {
        if read.decision == Decision::Allow {
            self.notes.push(UNREAD.to_owned());
        }
    }

    /// Adds a stage. `message` explains a denial.
    fn push(&mut self, name: impl fmt::Display, verdict: StageResult, message: &'static str) {
        self.stages.push(Line { name: name.to_string(), verdict, message: message.into() });
    }

    /// Says what no gate accepts in the credential, if it was denied for its form. `find` looks for that.
    pub(super) fn name_flaw(&mut self, find: impl FnOnce() -> Option<KeyFlaw>) {
        let malformed = Err(DenyReason::KeyMalformed);
        let line = self.stages.iter_mut().find(|line| line.verdict == malformed);
        if let Some((line, flaw)) = line.and_then(|line| Some((line, find()?))) {
            line.message = flaw.to_string().into();
        }
    }

    /// The report as JSON.
    pub(super) fn to_json(&self) -> String {
        let reason = self.decision.reason();
        let json = Json::object([
            ("now", self.now_secs.into()),
            ("key", self.key.as_ref().map_or(Json::Null, |key| describe(key))),
            ("stages", Json::Array(self.stages.iter().map(Line::to_json).collect())),
            ("limits", Json::Array(self.limits.iter().map(limits::to_json).collect())),
            ("decision", self.decision.word().into()),
            ("reason", reason.map_or(Json::Null, |reason| reason.code().into())),
            ("usage", Json::Bool(self.usage)),
            ("notes", Json::Array(self.notes.iter().map(|note| note.as_str().into()).collect())),
        ]);
        ascii(&json)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            writeln!(f, "{:<12}{}", "verified", ascii(&describe(key)))?;
        }
        writeln!(f, "{:<12}{}", "time", time::rfc3339(self.now_secs))?;
        for Line { name, verdict, message } in &self.stages {
            match verdict {
                Ok(()) => writeln!(f, "{name:<12}ok")?,
                Err(reason) => writeln!(f, "{name:<12}{reason}: {message}")?,
            }
        }
        for charge in &self.limits {
            writeln!(f, "{:<12}{}: {}", "limit", charge.name(), limits::text(&charge.limit))?;
        }
        if !self.limits.is_empty() && self.decision.forwards() {
            writeln!(f, "{:<12}{UNCOUNTED}", "note")?;
        }
        for note in &self.notes {
            writeln!(f, "{:<12}{note}", "note")?;
        }
        let word = self.decision.word();
        match self.decision.reason() {
            Some(reason) => writeln!(f, "{:<12}{word} {reason}", "decision"),
            None if self.usage => {
                writeln!(f, "{:<12}{word}, with counts", "decision")
            }
            None => writeln!(f, "{:<12}{word}", "decision"),
        }
    }
}

impl Line {
    fn to_json(&self) -> Json {
        let (verdict, message) = match self.verdict {
            Ok(()) => ("ok", Json::Null),
            Err(reason) => (reason.code(), Json::from(&*self.message)),
        };
        Json::object([
            ("stage", self.name.as_str().into()),
            ("verdict", verdict.into()),
            ("message", message),
        ])
    }
}

const UNCOUNTED: &str = "nothing is counted here: only the gate knows what is left of these limits";

const UNREAD: &str = "this release does not read bodies, so the gate sees neither a model nor an MCP call; it \
    would allow the request once bodies are read";

/// What audit lines say of a key.
fn describe(key: &KnownKey) -> Json {
    Json::object([
        ("kid", key.kid().to_string().as_str().into()),
        ("jti", key.jti().into()),
        ("tenant", key.tenant().into()),
        ("sub", key.sub().map_or(Json::Null, Json::from)),
        ("tier", key.tier().into()),
        ("caveats", u64::from(key.caveats_len()).into()),
    ])
}
