//! Which model of a request is refused, and why.

use crate::access::{Access, Models};
use crate::decision::DenyReason;

use super::{AccessRule, KnownKey};

/// Why a rule does not hold for the models of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedModels {
    /// The key may not use the model with this index.
    One(usize),
    /// The request names none.
    Unnamed,
    /// The key may use all that it names, and the server may choose others.
    OpenEnded,
    /// Each is allowed by an alternative, and no alternative allows them all.
    Together,
}

impl RefusedModels {
    /// Why `rule` refuses an access for its models.
    #[cold]
    pub fn of(key: &KnownKey, rule: AccessRule, access: &Access<'_>) -> Self {
        let Models::Named { names, open_ended } = access.models else { return Self::Unnamed };
        let are_refused = |names: &[Box<str>]| {
            let models = Models::Named { names, open_ended: false };
            let access = Access { models, ..access.clone() };
            key.restrictions().any(|(origin, restriction)| {
                rule == AccessRule::Restriction(origin)
                    && restriction.prohibits(&access) == Some(DenyReason::Model)
            })
        };
        match names.iter().position(|name| are_refused(std::slice::from_ref(name))) {
            Some(index) => Self::One(index),
            None if names.is_empty() => Self::Unnamed,
            None if open_ended => Self::OpenEnded,
            None => Self::Together,
        }
    }

    /// The message for people. The name of a single model goes after it.
    pub fn message(self) -> &'static str {
        match self {
            Self::One(_) => DenyReason::Model.message(),
            Self::Unnamed => "the key may use some models only, and the request names none",
            Self::OpenEnded => {
                "the request lets the server choose a model besides those that it names; name each of them"
            }
            Self::Together => {
                "no alternative allows all models of the request together; send one request for each"
            }
        }
    }
}
