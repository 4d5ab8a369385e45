//! The cost of the globs of restrictions.

use crate::access::Access;

/// The most steps that the globs of a key, in its claims and all its caveats, may take for one
/// request: see [`GlobWords::steps`]. With more, refusing a request could cost more than serving
/// one.
pub const MAX_GLOB_STEPS: usize = 4096;

/// How many steps globs take for each byte of what they are matched against: see [`crate::glob::Globs::words`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobWords {
    pub(super) paths: usize,
    pub(super) models: usize,
    pub(super) mcp: usize,
}

impl GlobWords {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            paths: self.paths + other.paths,
            models: self.models + other.models,
            mcp: self.mcp + other.mcp,
        }
    }

    /// The most steps for one access. Every model that it names is matched.
    pub fn steps(&self, access: &Access<'_>) -> usize {
        let len = |text: Option<&str>| text.map_or(0, str::len);
        let mcp = access
            .mcp
            .as_ref()
            .map_or(0, |call| call.method.len().max(len(call.server)).max(len(call.name)));
        let steps = |words: usize, bytes: usize| words.saturating_mul(bytes);
        steps(self.paths, access.path.as_str().len())
            .saturating_add(steps(self.models, access.models.bytes()))
            .saturating_add(steps(self.mcp, mcp))
    }
}
