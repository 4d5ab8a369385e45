//! A request that `vkey explain` evaluates, and why its models or its call are refused.

use std::borrow::Cow;
use std::cell::LazyCell;

use vkey::access::{Access, AmbiguousPath, Mcp, McpCall, Models};
use vkey::body::mcp::Arguments;
use vkey::body::request::RequestFacts;
use vkey::decision::DenyReason;
use vkey::engine::{
    BodyRefusal, Engine, KnownKey, McpTarget, Question, Reading, Stage, StageResult,
};
use vkey::headers::RequestHead;

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
    /// What its body asks for, if it is that of an AI request and was read.
    pub(super) facts: Option<&'a RequestFacts>,
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

const OPEN_ENDED: &str =
    "the request lets the server choose a model besides those that it names; name each of them";

const TOGETHER: &str =
    "no alternative allows all models of the request together; send one request for each";

const ARGUMENTS: &str = "the key may call this tool, but not with these arguments";

/// A name that no condition allows.
const NO_NAME: &str = "\0";

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
            facts,
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
        match (reason, self.facts, self.mcp) {
            (DenyReason::Model, Some(facts), _) => Some(refused_model(request, stage, facts)),
            (DenyReason::McpCall, _, Mcp::Call(call)) => {
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
        Question { key, validity, head, access: LazyCell::new(access) }
    }

    /// The results of all stages for a call.
    pub(super) fn verdicts(&self, mcp: Mcp<'_>) -> Vec<(Stage, StageResult)> {
        self.engine.stages(&self.question(Models::None, mcp)).collect()
    }

    /// What the arguments of a call mean for its decision; `None` if they mean nothing.
    pub(super) fn conditions(&self, call: McpCall<'_>) -> Option<Conditions> {
        let with = |arguments| self.verdicts(Mcp::Call(McpCall { arguments, ..call }));
        // Nothing was found in them, so no condition holds, and their one name is not in any `only_args`.
        let unmet = Arguments::new(Vec::new(), vec![NO_NAME.into()]);
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

/// Why the models of a body are not allowed.
fn refused_model(
    request: &Evaluated<'_, '_>,
    stage: Stage,
    facts: &RequestFacts,
) -> Cow<'static, str> {
    let names = &*facts.models;
    let is_refused = |names: &[Box<str>]| {
        let models = Models::Named { names, open_ended: false };
        let question = request.question(models, Mcp::None);
        let mut stages = request.engine.stages(&question);
        stages.any(|(other, verdict)| other == stage && verdict == Err(DenyReason::Model))
    };
    match names.iter().find(|name| is_refused(std::slice::from_ref(*name))) {
        Some(name) => format!("the key may not use the model {}", escape_word(name)).into(),
        None if names.is_empty() => "the request names no model; name one".into(),
        None if facts.open_ended => OPEN_ENDED.into(),
        None => TOGETHER.into(),
    }
}
