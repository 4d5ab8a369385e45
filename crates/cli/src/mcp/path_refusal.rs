//! Why the module refuses the path of `--path`, for the operator.

use std::fmt;

use vkey::decision::DenyReason;
use vkey::engine::KnownKey;
use vkey::limits::Origin;

use super::super::text::{escape_sentence, escape_word};

/// Why the path of a session is refused.
#[derive(Debug)]
pub(super) struct PathRefusal {
    /// The reason of the module.
    pub(super) reason: DenyReason,
    /// The path of `--path`.
    pub(super) path: String,
    /// The rule that refuses it, if one does.
    pub(super) rule: Option<Rule>,
}

/// A rule about paths, by who sets it.
#[derive(Debug)]
pub(super) enum Rule {
    /// The configuration: the tier or the tenant of this name.
    Configured(&'static str, String),
    /// The claims of the key.
    Only,
    /// A caveat of the key, counted from 1.
    Caveat(usize),
}

impl Rule {
    /// The rule of an origin, for a key.
    pub(super) fn new(origin: Origin, key: &KnownKey) -> Self {
        match origin {
            Origin::Tier => Self::Configured("tier", key.tier().to_owned()),
            Origin::Tenant => Self::Configured("tenant", key.tenant().to_owned()),
            Origin::Only => Self::Only,
            Origin::Caveat(number) => Self::Caveat(number),
        }
    }
}

impl fmt::Display for PathRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, path, rule } = self;
        let path = escape_sentence(path);
        write!(f, "the key is refused: {reason}: {}; ", reason.message())?;
        match rule {
            Some(Rule::Configured(whose, name)) => write!(
                f,
                "{whose} {} does not allow the path of --path ({path}): add it to the paths in its only, or \
                 name an allowed path with --path",
                escape_word(name)
            ),
            Some(Rule::Only) => write!(
                f,
                "only of its claims does not allow the path of --path ({path}): mint another key, or name an \
                 allowed path with --path"
            ),
            Some(Rule::Caveat(number)) => write!(
                f,
                "caveat {number} does not allow the path of --path ({path}): use a key without it, or name an \
                 allowed path with --path"
            ),
            None => write!(f, "name another path than {path} with --path"),
        }
    }
}
