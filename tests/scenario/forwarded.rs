//! Checks a forwarded request: its headers, its trailers, and the credentials that the upstream gate may
//! attach.

use vkey::decision::DenyReason;
use vkey::host::HeaderList;
use vkey::json::Json;

use super::Observed;
use super::body::Body;
use super::check::Context;
use super::secrecy::Hidden;
use super::step::{Expect, ExpectFields, Expected, Step};
use super::text::{bytes, from_bytes, member};

const CREDENTIAL_STATE: &str = "vkey.credential";

pub(super) fn check_upstream(
    context: &Context<'_>,
    expect: &Expect,
    observed: &Observed,
) -> Vec<String> {
    let place = "upstream header";
    let mut problems = check_list(context, place, &expect.upstream.headers, &observed.upstream);
    let found = observed.filter_state.get(CREDENTIAL_STATE);
    let expected = &expect.upstream.credentials;
    if found != expected.as_ref() {
        problems.push(format!("the credentials are {found:?}, not {expected:?}"));
    }
    problems.extend(check_identity(context, expect, observed));
    problems
}

/// Checks the body that the upstream has received, and the one of its response that the client has received: unless the
/// step says otherwise, both are unchanged. Nothing of a request that is not forwarded reaches the upstream.
pub(super) fn check_bodies(context: &Context<'_>, step: &Step, observed: &Observed) -> Vec<String> {
    let (expect, bytes) = (&step.expect, |body: &Body| body.bytes(&context.meaning));
    let mut problems = Vec::new();
    let sent = match expect.action.forwards() {
        true => bytes(expect.upstream.body.as_ref().unwrap_or(&step.request.body)),
        false => Vec::new(),
    };
    // What comes of a body whose sizes alone are known is the machine's.
    if expect.action.forwards() && !step.ending.body.is_empty() {
        return problems;
    }
    let is_unfinished = step.request.unfinished && sent.starts_with(&observed.upstream_body);
    if observed.upstream_body != sent && !is_unfinished {
        let found = String::from_utf8_lossy(&observed.upstream_body);
        problems.push(format!("the upstream has received the body {found:?}"));
    }
    let length = values_of(&observed.upstream, "content-length");
    if !sent.is_empty() && length.iter().any(|length| *length != bytes_of(sent.len())) {
        problems.push(format!("content-length {length:?} of a body of {} bytes", sent.len()));
    }
    let passes = matches!(expect.action, Expected::Forward | Expected::Public);
    let shown = bytes(expect.response_body.as_ref().unwrap_or(&step.ending.response));
    if passes && observed.response_body != shown {
        let found = String::from_utf8_lossy(&observed.response_body);
        problems.push(format!("the client has received the body {found:?}"));
    }
    problems
}

fn bytes_of(length: usize) -> Vec<u8> {
    length.to_string().into_bytes()
}

/// Checks the trailers of a request, if it is forwarded.
pub(super) fn check_trailers(
    context: &Context<'_>,
    step: &Step,
    trailers: &HeaderList,
) -> Vec<String> {
    let Expect { action, upstream, .. } = &step.expect;
    // None are sent if the host provides none or the request is not forwarded.
    if !matches!(action, Expected::Forward | Expected::Preflight | Expected::Public) {
        return Vec::new();
    }
    let mut problems = check_list(context, "trailer", &upstream.trailers, trailers);
    problems.extend(Hidden::of(context).check_trailers(trailers));
    let family = trailers.iter().filter(|(name, _)| is_identity(name)).map(|(n, _)| from_bytes(n));
    problems.extend(family.map(|name| format!("trailer {name} claims an identity")));
    problems
}

fn check_list(
    context: &Context<'_>,
    place: &str,
    expected: &ExpectFields,
    list: &HeaderList,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, values) in &expected.present {
        let expected: Vec<Vec<u8>> = match context.meaning.fill_json(values) {
            Json::Array(values) => values.iter().filter_map(Json::as_str).map(bytes).collect(),
            value => value.as_str().map(bytes).into_iter().collect(),
        };
        let found = values_of(list, name);
        if found != expected {
            let found: Vec<String> = found.iter().map(|value| from_bytes(value)).collect();
            problems.push(format!("{place} {name} is {found:?}, not {values}"));
        }
    }
    for name in &expected.absent {
        if !values_of(list, name).is_empty() {
            problems.push(format!("{place} {name} is there"));
        }
    }
    problems
}

/// Only the module sets the identity headers, each of them once.
fn check_identity(context: &Context<'_>, expect: &Expect, observed: &Observed) -> Vec<String> {
    let names = observed.upstream.iter().map(|(name, _)| name);
    let mut names: Vec<String> =
        names.filter(|name| is_identity(name)).map(|name| from_bytes(name)).collect();
    names.retain(|name| name != "x-vkey-sub");
    let wanted =
        member(context.config, &["forward", "identity_headers"]) != Some(&Json::Bool(false));
    // A request without a key has no identity.
    let keyless = matches!(expect.action, Expected::Preflight | Expected::Public);
    let nobodys = keyless || expect.reason == Some(DenyReason::KeyMissing);
    let identified = wanted && !nobodys;
    let expected: &[&str] = if identified { &["x-vkey-key", "x-vkey-tenant"] } else { &[] };
    let subs = values_of(&observed.upstream, "x-vkey-sub").len();
    let wrong = names != expected || subs > usize::from(identified);
    wrong.then(|| format!("identity headers {names:?}, {subs} x-vkey-sub")).into_iter().collect()
}

fn is_identity(name: &[u8]) -> bool {
    from_bytes(name).to_ascii_lowercase().replace('_', "-").starts_with("x-vkey-")
}

fn values_of(list: &HeaderList, name: &str) -> Vec<Vec<u8>> {
    let name = bytes(name);
    let named = |(found, _): &&(Vec<u8>, Vec<u8>)| found.eq_ignore_ascii_case(&name);
    list.iter().filter(named).map(|(_, value)| value.clone()).collect()
}
