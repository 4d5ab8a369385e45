//! The models of a request.

use crate::body::request::RequestFacts;

/// The models that one request can make run, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Models<'a> {
    /// The request names no model, so no restriction of models holds.
    #[default]
    None,
    /// The body that may name some is not read yet: every restriction of models is taken as holding. What is refused
    /// now is refused whatever the body says. What is not must be decided again with the body.
    Unread,
    /// All models that the request names.
    Named {
        /// Their names. Every one must be allowed. Without any, the request names no model.
        names: &'a [Box<str>],
        /// Whether others may run that nothing names, e.g. one that the server chooses. No restriction of models holds
        /// then.
        open_ended: bool,
    },
    /// Restrictions of models do not apply: the configuration says that the path costs nothing.
    Exempt,
}

// === impl Models ===

impl<'a> Models<'a> {
    /// Those of a request that was read.
    pub fn of(facts: &'a RequestFacts) -> Self {
        Self::Named { names: &facts.models, open_ended: facts.open_ended }
    }

    /// Whether a restriction to the models that `is_allowed` accepts holds.
    pub fn are_all(self, is_allowed: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Unread | Self::Exempt => true,
            Self::None => false,
            Self::Named { names, open_ended } => {
                !open_ended && !names.is_empty() && names.iter().all(|name| is_allowed(name))
            }
        }
    }

    /// The bytes of all names together.
    pub fn bytes(self) -> usize {
        match self {
            Self::Named { names, .. } => names.iter().map(|name| name.len()).sum(),
            Self::None | Self::Unread | Self::Exempt => 0,
        }
    }
}
