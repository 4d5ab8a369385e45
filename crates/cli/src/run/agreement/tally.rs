//! Counts the decisions, so that no rule goes untested unnoticed.

use std::collections::BTreeMap;
use std::fmt;

use super::CommandDecision;
use super::gates::Gate;

/// The reasons of `vkey explain` that `vkey run` can have too.
const REASONS: [&str; 20] = [
    "body_unreadable", "caveat_unsupported", "client_cert", "host", "key_audience", "key_expired",
    "key_malformed", "key_not_yet_valid", "key_retired", "key_revoked", "key_signature",
    "key_unknown", "mcp_call", "method", "model", "not_ready", "path", "path_ambiguous", "source",
    "tier_unknown",
];

/// The least number of cases.
const LEAST_CASES: usize = 5_000;

/// The least number of cases with each reason.
const ENOUGH: usize = 3;

#[derive(Default)]
pub(super) struct Tally {
    answers: BTreeMap<String, usize>,
    hosts: BTreeMap<&'static str, usize>,
    cases: usize,
    skipped: usize,
}

impl Tally {
    pub(super) fn add(&mut self, answer: &CommandDecision, gate: &Gate) {
        *self.answers.entry(answer.to_string()).or_default() += 1;
        *self.hosts.entry(gate.rules).or_default() += 1;
        self.cases += 1;
    }

    /// Counts a case that is not compared.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Checks that nothing is rare.
    pub(super) fn check(&self) {
        assert!(self.cases >= LEAST_CASES, "{} cases", self.cases);
        for reason in REASONS {
            let denied = self.count(&format!("deny {reason}"));
            assert!(denied >= ENOUGH, "{reason}: {denied} times");
        }
        let of_decision = |word| {
            let answers = self.answers.iter().filter(|(answer, _)| answer.starts_with(word));
            answers.map(|(_, count)| count).sum::<usize>()
        };
        let allowed = of_decision("allow") * 100 / self.cases;
        assert!((15..60).contains(&allowed), "{allowed} % are allowed");
        let (shadow, counts) = (of_decision("shadow"), self.count("allow with counts"));
        assert!(shadow >= 50 && counts >= 30, "{shadow} times shadow, {counts} times counts");
    }

    fn count(&self, answer: &str) -> usize {
        self.answers.get(answer).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} skipped", self.cases, self.skipped)?;
        for (host, count) in &self.hosts {
            writeln!(f, "{count:>7} --host {host}")?;
        }
        for (answer, count) in &self.answers {
            writeln!(f, "{count:>7} {answer}")?;
        }
        Ok(())
    }
}
