//! The course of a request whose key is good: on, back, or to its counts.

use crate::access::{Access, AmbiguousPath};
use crate::config::Mode;
use crate::decision::{Decision, DenyClass, DenyReason};
use crate::engine::Engine;
use crate::headers::RequestHead;
use crate::key::Key;
use crate::usage::{Subject, SubjectQuery};

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Count this decision and act on it.
    Decide(Decision),
    /// Answer with counts, and count nothing.
    ShowUsage(Subject),
}

/// Judges what the request of a good key carries besides it: no key where it cannot be removed without a
/// trace or a change of the route, no identity but the key's own, and no second spelling of a host that a
/// credential depends on.
///
/// # Errors
///
/// The reason for which the request is refused.
pub fn judge_head(engine: &Engine, head: &RequestHead<'_>) -> Result<(), DenyReason> {
    let is_key = |text: &[u8]| engine.may_be_key(text);
    if head.line_holds_key(&is_key) {
        Err(DenyReason::Path)
    } else if head.holds_stray_key(&is_key) {
        Err(DenyReason::KeyConflict)
    } else if head.claims_identity {
        Err(DenyReason::HeaderMismatch)
    } else if engine.misspells_host(head.authority) {
        Err(DenyReason::Host)
    } else {
        Ok(())
    }
}

/// What a person is told where a request is refused for what it carries, or for an upgrade, and not for what the
/// key may do, as the reason alone would say.
pub(super) fn plain_words(reason: DenyReason) -> Option<&'static str> {
    match reason {
        DenyReason::Method => Some(
            "the gateway lets no connection be upgraded, and no CONNECT pass; its operator would set upgrades to true",
        ),
        DenyReason::Path => Some("the request line holds a key; send a key in a header alone"),
        DenyReason::Host => Some(
            "the host is not in its plain form: lower case, without a port and without a dot at its end",
        ),
        _ => None,
    }
}

/// Decides on what a good key asks for, apart from counting and limits. `target`: the path with its
/// query. `upgrades`: it asks for another protocol.
pub fn decide(
    engine: &Engine,
    key: &Key,
    access: Result<&Access<'_>, AmbiguousPath>,
    target: &[u8],
    upgrades: bool,
) -> Course {
    let Ok(access) = access else {
        return Course::Decide(Decision::Deny(DenyReason::PathAmbiguous));
    };
    if asks_for_usage(engine, access) {
        let subject = engine.authorize_usage(key, access);
        let subject = subject.and_then(|()| usage_subject(engine, key, target));
        return match subject {
            Ok(subject) => Course::ShowUsage(subject),
            Err(reason) => Course::Decide(Decision::Deny(reason)),
        };
    }
    if !is_method(access.method) || (upgrades && !engine.settings().upgrades) {
        return Course::Decide(Decision::Deny(DenyReason::Method));
    }
    Course::Decide(match engine.authorize(key, access) {
        Ok(()) => Decision::Allow,
        Err(reason) => refuse(reason, engine.settings().mode),
    })
}

/// Whether a key asks for counts, its own or those of others.
pub fn asks_for_usage(engine: &Engine, access: &Access<'_>) -> bool {
    access.method == "GET" && access.path.resource() == engine.settings().usage_path
}

/// Whose usage a key asks for, where it may.
fn usage_subject(engine: &Engine, key: &Key, target: &[u8]) -> Result<Subject, DenyReason> {
    let query = SubjectQuery::parse(target).map_err(|_| DenyReason::PathAmbiguous)?;
    let subject = query.subject(key.claims());
    if subject == Ok(Subject::Own) || engine.sees_others(key) {
        subject.map_err(|_| DenyReason::PathAmbiguous)
    } else {
        Err(DenyReason::Path)
    }
}

/// The shadow mode only writes down what a good key may not do. It lets nothing pass that cannot be
/// judged, and no key that is no longer good.
fn refuse(reason: DenyReason, mode: Mode) -> Decision {
    match mode {
        Mode::Shadow if reason.class() == DenyClass::Forbidden => Decision::Shadow(reason),
        Mode::Enforce | Mode::Shadow => Decision::Deny(reason),
    }
}

/// RFC 9110, section 9.1.
fn is_method(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}
