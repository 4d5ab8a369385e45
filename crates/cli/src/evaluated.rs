//! A request that `vkey explain` evaluates, and why its models are refused.

use std::borrow::Cow;
use std::cell::LazyCell;

use vkey::access::{Access, AmbiguousPath, Mcp, Models};
use vkey::body::request::RequestFacts;
use vkey::decision::DenyReason;
use vkey::engine::{Engine, KnownKey, Question, Reading, Stage, StageResult};
use vkey::headers::RequestHead;

use super::text::escape_word;

/// A request with a verified key, and what it asks for apart from models.
pub(super) struct Evaluated<'e, 'a> {
    pub(super) engine: &'e Engine,
    pub(super) key: &'e KnownKey,
    pub(super) validity: StageResult,
    pub(super) head: &'e RequestHead<'e>,
    pub(super) access: Asked<'a>,
}

/// What a request asks for, if its path is not ambiguous.
pub(super) type Asked<'a> = Result<Access<'a>, AmbiguousPath>;

const OPEN_ENDED: &str =
    "the request lets the server choose a model besides those that it names; name each of them";

const TOGETHER: &str =
    "no alternative allows all models of the request together; send one request for each";

impl Evaluated<'_, '_> {
    /// What of the body the decision depends on.
    pub(super) fn reading(&self) -> Reading {
        let reading = |access: &Access<'_>| self.engine.reading(self.key, self.head, &access.path);
        self.access.as_ref().map(reading).unwrap_or_default()
    }

    /// The question whether a request that names these models is allowed. `mcp`: its MCP call, unless the access has it.
    pub(super) fn question<'m>(
        &'m self,
        models: Models<'m>,
        mcp: Mcp<'m>,
    ) -> Question<'m, impl FnOnce() -> Asked<'m>> {
        let Evaluated { key, validity, head, .. } = *self;
        let access = move || {
            let access = self.access.clone()?;
            let mcp = if access.mcp == Mcp::None { mcp } else { access.mcp };
            Ok(Access { models, mcp, ..access })
        };
        Question { key, validity, head, access: LazyCell::new(access) }
    }
}

/// Why the models of a body are not allowed.
pub(super) fn refused_model(
    request: &Evaluated<'_, '_>,
    stage: Stage,
    facts: Option<&RequestFacts>,
) -> Cow<'static, str> {
    let names = facts.map(|facts| &*facts.models).unwrap_or_default();
    let is_refused = |names: &[Box<str>]| {
        let models = Models::Named { names, open_ended: false };
        let question = request.question(models, Mcp::None);
        let mut stages = request.engine.stages(&question);
        stages.any(|(other, verdict)| other == stage && verdict == Err(DenyReason::Model))
    };
    match names.iter().find(|name| is_refused(std::slice::from_ref(*name))) {
        Some(name) => format!("the key may not use the model {}", escape_word(name)).into(),
        None if names.is_empty() => "the request names no model; name one".into(),
        None if facts.is_some_and(|facts| facts.open_ended) => OPEN_ENDED.into(),
        None => TOGETHER.into(),
    }
}
