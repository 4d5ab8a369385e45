//! The cost of the globs of restrictions.

use crate::access::{Access, Mcp};
use crate::body::mcp::Arguments;

/// The most steps that the globs of a key, in its claims and all its caveats, may take for one
/// request: see [`GlobWords::steps`]. With more, refusing a request could cost more than serving
/// one.
pub const MAX_GLOB_STEPS: usize = 4096;

/// How many comparisons of a value or a name, or looks at a byte, take as long as a step.
const COMPARISONS_PER_STEP: usize = 16;

/// How many steps globs take for each byte of what they are matched against: see [`crate::glob::Globs::words`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobWords {
    pub(super) paths: usize,
    pub(super) models: usize,
    pub(super) mcp: usize,
    /// Of the globs for arguments.
    pub(super) args: usize,
    /// How many values and names each argument is compared with.
    pub(super) compared: usize,
    /// How often each byte of arguments and objects is only looked at.
    pub(super) looks: usize,
}

impl GlobWords {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            paths: self.paths + other.paths,
            models: self.models + other.models,
            mcp: self.mcp + other.mcp,
            args: self.args + other.args,
            compared: self.compared + other.compared,
            looks: self.looks + other.looks,
        }
    }

    /// The most steps for one access. Every model and every object that it names is matched.
    pub fn steps(&self, access: &Access<'_>) -> usize {
        let steps = |words: usize, bytes: usize| words.saturating_mul(bytes);
        steps(self.paths, access.path.as_str().len())
            .saturating_add(steps(self.models, access.models.bytes()))
            .saturating_add(self.mcp_steps(access.mcp))
    }

    fn mcp_steps(&self, mcp: Mcp<'_>) -> usize {
        let Mcp::Call(call) = mcp else { return 0 };
        let names = call.names().iter().map(|name| name.len()).sum::<usize>();
        let longest = call.method.len().max(call.server.map_or(0, str::len)).max(names);
        let (items, bytes) = call.arguments.map_or((0, 0), Arguments::most_at_once);
        let compared = self.compared.saturating_mul(items);
        let compared = compared.saturating_add(self.looks.saturating_mul(longest.max(bytes)));
        let compared = compared / COMPARISONS_PER_STEP;
        let steps = self.mcp.saturating_mul(longest).saturating_add(compared);
        steps.saturating_add(self.args.saturating_mul(bytes))
    }
}
