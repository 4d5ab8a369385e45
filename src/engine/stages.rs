//! The stages of a decision, in their order, with their results. The order is defined only here:
//! the gate takes the first refusal, `vkey explain` prints all stages.
//!
//! Stages are evaluated lazily, so nothing after a refusal costs anything.

use std::cell::LazyCell;
use std::fmt;
use std::iter::{once, once_with};

use crate::access::{Access, AmbiguousPath, CanonicalPath};
use crate::decision::DenyReason;
use crate::headers::RequestHead;
use crate::usage::{Subject, SubjectQuery};

use super::{AccessRule, Engine, KnownKey};

/// The result of a stage: allowed, or the reason of the refusal.
pub type StageResult = Result<(), DenyReason>;

/// A request with a verified key.
pub struct Question<'a, F> {
    /// The key.
    pub key: &'a KnownKey,
    /// Whether the key is valid now.
    pub validity: StageResult,
    /// The headers of the request.
    pub head: &'a RequestHead<'a>,
    /// Whether an earlier look at the same headers under the same plan has passed [`Stage::Head`]. It depends on nothing
    /// else.
    pub allows_headers: bool,
    /// The access that it requests. It is parsed when a stage needs it.
    pub access: LazyCell<Result<Access<'a>, AmbiguousPath>, F>,
}

/// A stage of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The times, the audience and the revocation of the key.
    Validity,
    /// Headers besides the key.
    Head,
    /// The path is unambiguous.
    Path,
    /// Upgrades and CONNECT.
    Upgrade,
    /// The method is a token (RFC 9110, section 9.1).
    Method,
    /// A rule about what the key may access.
    Rule(AccessRule),
    /// A rule about who may see the counts of a key.
    UsageRule(AccessRule),
    /// Whose counts are requested.
    UsageSubject,
}

impl Engine {
    /// The stages of a request, in order. If the path is ambiguous, no stage follows that of the path.
    pub fn stages<'q, 'a: 'q, F>(
        &'q self,
        question: &'q Question<'a, F>,
    ) -> impl Iterator<Item = (Stage, StageResult)>
    where
        F: FnOnce() -> Result<Access<'a>, AmbiguousPath>,
    {
        let Question { validity, head, allows_headers, .. } = question;
        let check_head = || if *allows_headers { Ok(()) } else { self.check_head(head) };
        let access = || question.access.as_ref().map_err(|_| DenyReason::PathAmbiguous);
        let of_access = once_with(move || access().ok()).flatten();
        once((Stage::Validity, *validity))
            .chain(once_with(move || (Stage::Head, check_head())))
            .chain(once_with(move || (Stage::Path, access().map(|_| ()))))
            .chain(of_access.flat_map(|access| self.access_stages(question.key, head, access)))
    }

    /// The stages that depend on the access: a request for usage, or any other.
    fn access_stages<'a>(
        &'a self,
        key: &'a KnownKey,
        head: &'a RequestHead<'a>,
        access: &'a Access<'a>,
    ) -> impl Iterator<Item = (Stage, StageResult)> + 'a {
        let asks_for_usage = self.asks_for_usage(access);
        let usage = asks_for_usage.then(|| {
            let rules = self.usage_verdicts(key, access);
            let rules = rules.map(|(rule, verdict)| (Stage::UsageRule(rule), verdict));
            let subject = || (Stage::UsageSubject, self.usage_subject(key, head).map(drop));
            rules.chain(once_with(subject))
        });
        let other = (!asks_for_usage).then(|| {
            let upgrade = head.upgrades.then(|| (Stage::Upgrade, self.check_upgrade()));
            let method = once_with(|| (Stage::Method, check_method(access.method)));
            let rules = self.verdicts(key, access);
            let rules = rules.map(|(rule, verdict)| (Stage::Rule(rule), verdict));
            upgrade.into_iter().chain(method).chain(rules)
        });
        usage.into_iter().flatten().chain(other.into_iter().flatten())
    }

    /// Whether the request is for the usage of a key, to which the gate replies itself.
    pub fn asks_for_usage(&self, access: &Access<'_>) -> bool {
        access.method == "GET" && access.path.resource() == self.settings().usage_path
    }

    /// Whether the request asks whether the gate is ready, to which the gate replies itself, without a key.
    pub fn asks_for_readiness(&self, head: &RequestHead<'_>, path: &CanonicalPath<'_>) -> bool {
        head.method == Some(b"GET") && path.resource() == self.settings().ready_path
    }

    /// Whose counts a request for usage asks for.
    ///
    /// # Errors
    ///
    /// The reason why the key may not see them.
    pub fn usage_subject(
        &self,
        key: &KnownKey,
        head: &RequestHead<'_>,
    ) -> Result<Subject, DenyReason> {
        let target = head.target.unwrap_or_default();
        let query = SubjectQuery::parse(target).map_err(|_| DenyReason::PathAmbiguous)?;
        let subject = query.subject(key.tenant(), key.jti());
        if subject == Ok(Subject::Own) || key.sees_others() {
            subject.map_err(|_| DenyReason::PathAmbiguous)
        } else {
            Err(DenyReason::Path)
        }
    }

    /// Refuses a key in the request line, which cannot be removed; a key in a header that is not a key
    /// source, because removing it could change the route; identity headers from the client; and a host
    /// that a credential depends on but that is not in canonical form.
    fn check_head(&self, head: &RequestHead<'_>) -> StageResult {
        let is_key = |text: &[u8]| self.may_be_key(text);
        if head.line_holds_key(&is_key) {
            Err(DenyReason::KeyInUrl)
        } else if head.holds_stray_key(&is_key) {
            Err(DenyReason::KeyConflict)
        } else if head.claims_identity {
            Err(DenyReason::HeaderMismatch)
        } else if self.misspells_host(head.authority) {
            Err(DenyReason::Host)
        } else {
            Ok(())
        }
    }

    fn check_upgrade(&self) -> StageResult {
        if self.settings().upgrades { Ok(()) } else { Err(DenyReason::Method) }
    }
}

/// Checks that a method is a token.
///
/// # Errors
///
/// [`DenyReason::Method`]
pub fn check_method(method: &str) -> StageResult {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !method.is_empty() && method.bytes().all(is_token) {
        Ok(())
    } else {
        Err(DenyReason::Method)
    }
}

impl Stage {
    /// Whether `vkey explain` shows the stage if it does not refuse.
    pub fn is_shown(self) -> bool {
        match self {
            Self::Validity | Self::Upgrade | Self::Rule(_) | Self::UsageRule(_) => true,
            Self::Head | Self::Path | Self::Method | Self::UsageSubject => false,
        }
    }

    /// The rule about what the key may access.
    pub fn rule(self) -> Option<AccessRule> {
        match self {
            Self::Rule(rule) => Some(rule),
            _ => None,
        }
    }

    /// The explanation of a refusal, if the reason alone would suggest that the key is at fault.
    pub fn message(self, reason: DenyReason) -> Option<&'static str> {
        match (self, reason) {
            (Self::Upgrade, _) => Some(
                "the gate lets no connection be upgraded, and no CONNECT pass; its operator would set upgrades to true",
            ),
            (Self::Head, DenyReason::Host) => Some(
                "the host is not in its plain form: lower case, without a port and without a dot at its end",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Validity => f.write_str("validity"),
            Self::Head => f.write_str("head"),
            Self::Path => f.write_str("path"),
            Self::Upgrade => f.write_str("upgrade"),
            Self::Method => f.write_str("method"),
            Self::Rule(rule) | Self::UsageRule(rule) => rule.fmt(f),
            Self::UsageSubject => f.write_str("subject"),
        }
    }
}
