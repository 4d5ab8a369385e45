//! What of the body of a request a decision depends on.

use crate::access::{CanonicalPath, Models};
use crate::body::Format;
use crate::body::request::Target;
use crate::headers::RequestHead;

use super::{Engine, KnownKey};

/// What of the body of a request the decision on it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: the body is not touched. The request names no model.
    #[default]
    Nothing,
    /// Nothing, because the configuration says that the path uses no model.
    Exempt,
    /// All of it is to be read.
    Body(Box<Target>),
    /// The path is one of AI services, and of no format in which tokens are counted. A key with a limit of tokens or cost
    /// may not use it.
    Uncounted,
    /// Servers could read the model in the path differently.
    Ambiguous,
}

/// Methods whose requests name no model and use no tokens.
const WITHOUT_BODY: [&[u8]; 5] = [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"];

impl Reading {
    /// The models of the request, as far as they are known before its body is read.
    pub fn models(&self) -> Models<'static> {
        match self {
            Self::Nothing | Self::Uncounted | Self::Ambiguous => Models::None,
            Self::Exempt => Models::Exempt,
            Self::Body(_) => Models::Unread,
        }
    }
}

impl Engine {
    /// What of the body a decision on a request of this key depends on. It costs nothing for a key on which no body has
    /// a bearing.
    pub fn reading(
        &self,
        key: &KnownKey,
        head: &RequestHead<'_>,
        path: &CanonicalPath<'_>,
    ) -> Reading {
        let llm = &self.settings().llm;
        if !key.depends_on_bodies() && !llm.audit_tokens {
            return Reading::Nothing;
        }
        self.read_target(key, head, path)
    }

    #[inline(never)]
    fn read_target(
        &self,
        key: &KnownKey,
        head: &RequestHead<'_>,
        path: &CanonicalPath<'_>,
    ) -> Reading {
        let llm = &self.settings().llm;
        if llm.unmetered.matches(path.resource()) {
            return Reading::Exempt;
        }
        let method = head.method.unwrap_or_default();
        let Ok(method_text) = std::str::from_utf8(method) else {
            return Reading::Nothing;
        };
        let Ok(target) = Target::parse(method_text, head.target.unwrap_or_default()) else {
            return Reading::Ambiguous;
        };
        let rules = llm.rules(path.resource());
        let is_known = target.format != Format::Other
            && rules.is_none_or(|rules| rules.formats.contains(target.format));
        if is_known {
            return Reading::Body(Box::new(target));
        }
        let is_closed = rules.is_some() && key.measured().any() && !WITHOUT_BODY.contains(&method);
        if is_closed { Reading::Uncounted } else { Reading::Nothing }
    }
}
