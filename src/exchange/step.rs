//! The next step with a request whose key was verified: decide on it, or reply with usage.

use crate::access::{Access, AmbiguousPath};
use crate::decision::{Decision, DenyReason, Mode};
use crate::engine::{BodyRefusal, Engine, Question, Stage};
use crate::usage::Subject;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Count this decision and act on it.
    Decide {
        /// The decision, apart from limits.
        decision: Decision,
        /// The message for a person, if it differs from that of the reason.
        message: Option<&'static str>,
    },
    /// Reply with usage, and count nothing.
    ShowUsage(Subject),
}

impl Step {
    /// The first stage that refuses decides.
    pub fn of<'a, F>(engine: &Engine, question: &Question<'a, F>) -> Self
    where
        F: FnOnce() -> Result<Access<'a>, AmbiguousPath>,
    {
        let mut stages = engine.stages(question);
        if let Some((stage, reason)) = stages.find_map(|(stage, v)| Some((stage, v.err()?))) {
            let decision = refuse(stage, reason, engine.settings().mode);
            return Self::Decide { decision, message: stage.message(reason) };
        }
        let asks_for_usage =
            question.access.as_ref().is_ok_and(|access| engine.asks_for_usage(access));
        match asks_for_usage.then(|| engine.usage_subject(question.key, question.head)) {
            None => Self::Decide { decision: Decision::Allow, message: None },
            Some(Ok(subject)) => Self::ShowUsage(subject),
            Some(Err(reason)) => Self::Decide { decision: Decision::Deny(reason), message: None },
        }
    }
}

impl Step {
    /// The same step, unless a later check refuses what it would forward.
    #[must_use]
    pub fn and(self, engine: &Engine, checked: Result<(), BodyRefusal>) -> Self {
        match (self, checked) {
            (Self::Decide { decision, .. }, Err((reason, message))) if decision.forwards() => {
                let decision = Decision::refused(reason, engine.settings().mode);
                Self::Decide { decision, message }
            }
            (step, _) => step,
        }
    }
}

/// Shadow mode only records what a valid key may not do. It still refuses requests that cannot be evaluated, and keys
/// that are no longer valid.
fn refuse(stage: Stage, reason: DenyReason, mode: Mode) -> Decision {
    if matches!(stage, Stage::Rule(_)) {
        Decision::refused(reason, mode)
    } else {
        Decision::Deny(reason)
    }
}
