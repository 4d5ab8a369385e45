//! A request that `vkey explain` evaluates, and why its models or its call are refused.

use std::borrow::Cow;
use std::cell::LazyCell;

use vkey::access::{Access, AmbiguousPath, Mcp, McpCall, Models};
use vkey::body::mcp::Arguments;
use vkey::body::request::RequestFacts;
use vkey::decision::DenyReason;
use vkey::engine::{
    AccessRule, BodyRefusal, Engine, KnownKey, McpTarget, Question, Reading, RefusedModels, Stage,
    StageResult,
};
use vkey::headers::RequestHead;

use super::request_body::with_detail;
use super::text::escape_word;

/// A request with a verified key, and what it asks for apart from models and its MCP call.
pub(super) struct Evaluated<'e, 'a> {
    pub(super) engine: &'e Engine,
    pub(super) key: &'e KnownKey,
    pub(super) validity: StageResult,
    pub(super) head: &'e RequestHead<'e>,
    pub(super) access: Asked<'a>,
    /// The MCP server that it is taken to be for, whatever the configuration says.
    pub(super) assumed: Option<McpTarget>,
}

/// What a request asks for, if its path is not ambiguous.
pub(super) type Asked<'a> = Result<Access<'a>, AmbiguousPath>;

/// What is known of a request when it is looked at.
pub(super) struct Known<'a> {
    pub(super) models: Models<'a>,
    pub(super) mcp: Mcp<'a>,
    /// Whether its body was read.
    pub(super) is_read: bool,
    /// What is checked besides the stages.
    pub(super) checked: Result<(), BodyRefusal>,
}

/// What the arguments of an MCP call mean for its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditions {
    /// They meet the conditions of the key.
    Met,
    /// They do not.
    NotMet,
    /// They decide, and are not known.
    Unknown,
}

const ARGUMENTS: &str = "the key may call this tool, but not with these arguments";

impl<'a> Known<'a> {
    /// What is known before the body is read.
    pub(super) fn before_body(request: &Evaluated<'_, '_>, reading: &'a Reading) -> Self {
        Self::of(request, reading, None)
    }

    /// What is known once the body of an AI request is read, or is not read. `facts`: what it asks for.
    pub(super) fn of(
        request: &Evaluated<'_, '_>,
        reading: &'a Reading,
        facts: Option<&'a RequestFacts>,
    ) -> Self {
        Self {
            models: facts.map_or_else(|| reading.models(), Models::of),
            mcp: reading.mcp(),
            is_read: facts.is_some(),
            checked: request.engine.check_body(request.key, reading, facts),
        }
    }

    /// Why a stage refuses the request, if more can be said than the reason.
    pub(super) fn why(
        &self,
        request: &Evaluated<'_, '_>,
        stage: Stage,
        reason: DenyReason,
    ) -> Option<Cow<'static, str>> {
        match (reason, self.mcp) {
            (DenyReason::Model, _) => {
                let access = Access { models: self.models, ..request.access.clone().ok()? };
                Some(models_refused(request.key, stage.rule()?, &access))
            }
            (DenyReason::McpCall, Mcp::Call(call)) => {
                let any = Mcp::Call(McpCall { arguments: None, ..call });
                request.verdicts(any).contains(&(stage, Ok(()))).then_some(ARGUMENTS.into())
            }
            _ => None,
        }
    }
}

impl Evaluated<'_, '_> {
    /// What of the body the decision depends on.
    pub(super) fn reading(&self) -> Reading {
        let reading = |access: &Access<'_>| match &self.assumed {
            Some(target) => Reading::Mcp(Box::new(target.clone())),
            None => self.engine.reading(self.key, self.head, &access.path),
        };
        self.access.as_ref().map(reading).unwrap_or_default()
    }

    /// The question whether a request that names these models and makes this call is allowed.
    pub(super) fn question<'m>(
        &'m self,
        models: Models<'m>,
        mcp: Mcp<'m>,
    ) -> Question<'m, impl FnOnce() -> Asked<'m>> {
        let Evaluated { key, validity, head, .. } = *self;
        let access = move || Ok(Access { models, mcp, ..self.access.clone()? });
        Question { key, validity, head, allows_headers: false, access: LazyCell::new(access) }
    }

    /// The results of all stages for a call.
    pub(super) fn verdicts(&self, mcp: Mcp<'_>) -> Vec<(Stage, StageResult)> {
        self.engine.stages(&self.question(Models::None, mcp)).collect()
    }

    /// What the arguments of a call mean for its decision; `None` if they mean nothing.
    pub(super) fn conditions(&self, call: McpCall<'_>) -> Option<Conditions> {
        let with = |arguments| self.verdicts(Mcp::Call(McpCall { arguments, ..call }));
        // Nothing was looked for in them, so no condition holds.
        let unmet = Arguments::new(Vec::new(), None);
        let any = with(None);
        if any == with(Some(&unmet)) {
            return None;
        }
        Some(match call.arguments {
            None => Conditions::Unknown,
            Some(arguments) if with(Some(arguments)) == any => Conditions::Met,
            Some(_) => Conditions::NotMet,
        })
    }
}

/// Why a rule does not hold for the models of a request.
fn models_refused(key: &KnownKey, rule: AccessRule, access: &Access<'_>) -> Cow<'static, str> {
    let refused = RefusedModels::of(key, rule, access);
    match (refused, access.models) {
        (RefusedModels::One(index), Models::Named { names, .. }) => {
            with_detail(refused.message(), names.get(index).map(|name| escape_word(name)))
        }
        _ => refused.message().into(),
    }
}
