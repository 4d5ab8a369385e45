//! A request that `vkey explain` evaluates.

use std::cell::LazyCell;

use vkey::access::{Access, AmbiguousPath, Mcp, Models};
use vkey::engine::{Engine, KnownKey, Question, Reading, StageResult};
use vkey::headers::RequestHead;

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
