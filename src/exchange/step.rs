//! The next step with a request whose key was verified: decide on it, or reply with usage.

use crate::access::{Access, AmbiguousPath};
use crate::decision::{Decision, DenyReason, Mode};
use crate::engine::{BodyRefusal, Engine, Question, RefusedModels, Stage};
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
        /// The model that is refused, as an index into those of the request.
        model: Option<usize>,
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
            let refused = refused_models(question, stage, reason);
            let message = refused.map(RefusedModels::message).or_else(|| stage.message(reason));
            let model = match refused {
                Some(RefusedModels::One(index)) => Some(index),
                _ => None,
            };
            return Self::Decide { decision, message, model };
        }
        let asks_for_usage =
            question.access.as_ref().is_ok_and(|access| engine.asks_for_usage(access));
        match asks_for_usage.then(|| engine.usage_subject(question.key, question.head)) {
            None => Self::decide(Decision::Allow, None),
            Some(Ok(subject)) => Self::ShowUsage(subject),
            Some(Err(reason)) => Self::decide(Decision::Deny(reason), None),
        }
    }
}

impl Step {
    /// The same step, unless a later check refuses what it would forward.
    #[must_use]
    pub fn and(self, engine: &Engine, checked: Result<(), BodyRefusal>) -> Self {
        match (self, checked) {
            (Self::Decide { decision, .. }, Err((reason, message))) if decision.forwards() => {
                Self::decide(Decision::refused(reason, engine.settings().mode), message)
            }
            (step, _) => step,
        }
    }

    fn decide(decision: Decision, message: Option<&'static str>) -> Self {
        Self::Decide { decision, message, model: None }
    }
}

/// Why a stage refuses the models of a request, if it does.
fn refused_models<'a, F>(
    question: &Question<'a, F>,
    stage: Stage,
    reason: DenyReason,
) -> Option<RefusedModels>
where
    F: FnOnce() -> Result<Access<'a>, AmbiguousPath>,
{
    let rule = stage.rule().filter(|_| reason == DenyReason::Model)?;
    let access = question.access.as_ref().ok()?;
    Some(RefusedModels::of(question.key, rule, access))
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
