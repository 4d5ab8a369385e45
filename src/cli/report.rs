//! What `vkey explain` finds: each stage with its verdict, and the decision.

use std::fmt;
use std::rc::Rc;

use crate::access::{Access, AmbiguousPath};
use crate::config::Dialect;
use crate::decision::{Decision, DenyReason};
use crate::engine::{Engine, Identity};
use crate::exchange::{Course, asks_for_usage, decide, judge_head};
use crate::headers::RequestHead;
use crate::json::Json;
use crate::key::Key;
use crate::limit::Charge;

use super::output::ascii;
use super::{limits, time};

/// The stages of one decision. The decision is the engine's; the stages show where it comes from.
pub(super) struct Report {
    /// The decision.
    pub(super) decision: Decision,
    now_secs: u64,
    key: Option<Rc<Key>>,
    stages: Vec<Stage>,
    /// The limits that the request would be charged to, or is refused for where nothing is counted.
    /// What is left of them only the gate knows.
    limits: Vec<Charge>,
    /// The answer would be counts.
    pub(super) usage: bool,
}

struct Stage {
    name: String,
    verdict: Result<(), DenyReason>,
}

impl Report {
    /// Puts one access to the engine. `head`: the request that asks for it.
    pub(super) fn new(
        engine: &mut Engine,
        head: &RequestHead<'_>,
        access: Result<&Access<'_>, &AmbiguousPath>,
        now_secs: u64,
    ) -> Self {
        let access = access.map_err(|ambiguous| *ambiguous);
        let Identity { key, verdict } = match head.credential() {
            Ok(credential) => engine.identify(credential, now_secs),
            Err(reason) => Identity { key: None, verdict: Err(reason) },
        };
        let mut report = Self {
            // Without a key there is no verdict but a denial.
            decision: Decision::Deny(verdict.err().unwrap_or(DenyReason::NotReady)),
            now_secs,
            key: key.clone(),
            stages: Vec::new(),
            limits: Vec::new(),
            usage: false,
        };
        let Some(key) = key else {
            report.push("key", verdict);
            return report;
        };
        report.push("key", Ok(()));
        report.push("validity", verdict);
        let carried = judge_head(engine, head);
        if carried.is_err() {
            report.push("head", carried);
        }
        report.judge(engine, &key, access, head.upgrades);
        match verdict.and(carried) {
            Ok(()) => report.decide(engine, &key, access, head),
            Err(reason) => report.decision = Decision::Deny(reason),
        }
        report
    }

    /// Every stage after the key's own, whether or not an earlier one has decided.
    fn judge(
        &mut self,
        engine: &Engine,
        key: &Key,
        access: Result<&Access<'_>, AmbiguousPath>,
        upgrades: bool,
    ) {
        let Ok(access) = access else {
            return self.push("path", Err(DenyReason::PathAmbiguous));
        };
        if asks_for_usage(engine, access) {
            let verdicts = engine.usage_verdicts(key, access);
            return verdicts.for_each(|(rule, verdict)| self.push(rule, verdict));
        }
        if upgrades {
            let enabled = engine.settings().upgrades;
            self.push("upgrade", if enabled { Ok(()) } else { Err(DenyReason::Method) });
        }
        let verdicts = engine.verdicts(key, access);
        verdicts.for_each(|(rule, verdict)| self.push(rule, verdict));
    }

    fn decide(
        &mut self,
        engine: &Engine,
        key: &Key,
        access: Result<&Access<'_>, AmbiguousPath>,
        head: &RequestHead<'_>,
    ) {
        let target = head.target.unwrap_or_default();
        let verdict = decide(engine, key, access, target, head.upgrades);
        self.usage = matches!(verdict, Course::ShowUsage(_));
        self.decision = match verdict {
            Course::Decide(decision) => decision,
            Course::ShowUsage(_) => Decision::Allow,
        };
        if self.decision.forwards() && !self.usage {
            self.limits = engine.key_charges(key);
            self.limits.extend(engine.tenant_charges(&key.claims().tenant));
        }
        if engine.settings().dialect == Dialect::Bare {
            self.decide_without_counts();
        }
    }

    /// What needs counts is refused: limits, and an answer that would show some.
    fn decide_without_counts(&mut self) {
        let decision = self.decision.without_counts(self.usage || !self.limits.is_empty());
        if decision != self.decision {
            self.push("counts", Err(DenyReason::NotReady));
            self.decision = decision;
            self.usage = false;
        }
    }

    fn push(&mut self, name: impl fmt::Display, verdict: Result<(), DenyReason>) {
        self.stages.push(Stage { name: name.to_string(), verdict });
    }

    /// The report for programs.
    pub(super) fn to_json(&self) -> String {
        let reason = self.decision.reason();
        let json = Json::object([
            ("now", self.now_secs.into()),
            ("key", self.key.as_ref().map_or(Json::Null, |key| describe(key))),
            ("stages", Json::Array(self.stages.iter().map(Stage::to_json).collect())),
            ("limits", Json::Array(self.limits.iter().map(limits::to_json).collect())),
            ("decision", self.decision.word().into()),
            ("reason", reason.map_or(Json::Null, |reason| reason.code().into())),
            ("usage", Json::Bool(self.usage)),
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
        for Stage { name, verdict } in &self.stages {
            match verdict {
                Ok(()) => writeln!(f, "{name:<12}ok")?,
                Err(reason) => writeln!(f, "{name:<12}{reason}: {}", reason.message())?,
            }
        }
        for charge in &self.limits {
            writeln!(f, "{:<12}{}: {}", "limit", charge.name(), limits::text(&charge.limit))?;
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

impl Stage {
    fn to_json(&self) -> Json {
        let (verdict, message) = match self.verdict {
            Ok(()) => ("ok", Json::Null),
            Err(reason) => (reason.code(), reason.message().into()),
        };
        Json::object([
            ("stage", self.name.as_str().into()),
            ("verdict", verdict.into()),
            ("message", message),
        ])
    }
}

/// What an audit line says of a key.
fn describe(key: &Key) -> Json {
    let claims = key.claims();
    let sub = claims.sub.as_deref();
    Json::object([
        ("kid", key.kid().to_string().as_str().into()),
        ("jti", claims.jti.as_str().into()),
        ("tenant", claims.tenant.as_str().into()),
        ("sub", sub.map_or(Json::Null, Json::from)),
        ("tier", claims.tier().into()),
        ("caveats", u64::try_from(key.caveats_len()).map_or(Json::Null, Json::from)),
    ])
}
