//! Checks the result of a step: what its file expects, and what must hold for every request.

use vkey::audit::{Line, MASK_VALUE, Mask, NO_RECORD};
use vkey::decision::{Decision, DenyClass, DenyReason};
use vkey::digest::sha256_hex;
use vkey::host::Level;
use vkey::json::Json;
use vkey::reply::{REQUEST_ID, Reply};

use super::fields::{check_fields, check_state};
use super::format::{Configure, Outcome};
use super::forwarded::{check_bodies, check_upstream};
use super::secrecy::Hidden;
use super::step::{Expect, Expected, Step};
use super::tally::Audited;
use super::text::{Meaning, POLICY, member};
use super::times::{untimed, untimed_header};
use super::{Configured, Log, Observed};

const AUDIT_STATE: &str = "vkey.audit";
const SEAL_STATE: &str = "vkey.decision";

/// The start of every audit line, and of no other log line.
const AUDIT_LINE_START: &str = "{\"vkey\":";

/// The same reply for every request without a valid key.
const UNAUTHENTICATED_HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
    ("www-authenticate", "Bearer error=\"invalid_token\""),
    ("x-should-retry", "false"),
];
const UNAUTHENTICATED_BODY: &str = "{\"error\":{\"message\":\"a valid virtual key is required\",\
    \"type\":\"authentication_error\",\"code\":\"invalid_token\"}}";

/// What a step is checked against, besides its own expectations.
pub(crate) struct Context<'a> {
    pub(crate) meaning: Meaning<'a>,
    pub(crate) config: Option<&'a Json>,
    pub(crate) outcome: Outcome,
    /// Whether the host is nginx, which has no filter state.
    pub(crate) nginx: bool,
    /// Whether the clock was at the time of the scenario.
    pub(crate) pinned: bool,
}

// === the configuration ===

pub(crate) fn check_configured(
    context: &Context<'_>,
    expected: &Configure,
    configured: &Configured,
) -> Vec<String> {
    let mut problems = Vec::new();
    if configured.outcome != expected.outcome {
        problems.push(format!("{:?}, not {:?}", configured.outcome, expected.outcome));
    }
    problems.extend(log_lacks(context, &expected.log, &configured.log));
    problems.extend(Hidden::of(context).check_log(&configured.log));
    problems.into_iter().map(|problem| format!("{problem}: {:?}", configured.log)).collect()
}

// === a request ===

/// The problems, and the content of the audit line.
pub(crate) fn check_observed(
    context: &Context<'_>,
    step: &Step,
    observed: &Observed,
) -> (Vec<String>, Option<Audited>) {
    let expect = &step.expect;
    let mut problems = check_action(expect, observed);
    problems.extend(check_reply(context, expect, observed.reply.as_ref()));
    problems.extend(check_response_headers(context, expect, observed));
    problems.extend(check_seal(expect, observed));
    if expect.action.forwards() {
        problems.extend(check_upstream(context, expect, observed));
    }
    problems.extend(check_bodies(context, step, observed));
    problems.extend(log_lacks(context, &expect.log, &observed.log));
    problems.extend(check_silence(context, expect, &observed.log));
    problems.extend(Hidden::of(context).check(expect, observed));
    let mut audited = None;
    match audit_line(context, observed) {
        Err(problem) => problems.push(problem),
        Ok(line) => {
            problems.extend(check_audit(context, expect, observed, &line));
            audited = Audited::read(context, expect, &line);
        }
    }
    (problems, audited)
}

fn check_action(expect: &Expect, observed: &Observed) -> Vec<String> {
    let forwarded = match expect.action {
        action if action.forwards() => Some(true),
        Expected::Abandon | Expected::Reply | Expected::Ready | Expected::Refuse => Some(false),
        _ => None,
    };
    let mut problems = Vec::new();
    if observed.forwarded != forwarded {
        problems.push(format!("forwarded: {:?}, not {forwarded:?}", observed.forwarded));
    }
    if observed.withheld != (expect.action == Expected::Withhold) {
        problems.push(format!("the response was withheld: {}", observed.withheld));
    }
    if observed.replies != u32::from(expect.action.sends_reply()) {
        problems.push(format!("{} local replies: {:?}", observed.replies, observed.reply));
    }
    if observed.wrote_twice {
        problems.push("the end of the request was logged twice".to_owned());
    }
    problems
}

fn check_reply(context: &Context<'_>, expect: &Expect, reply: Option<&Reply>) -> Vec<String> {
    let Some(reply) = reply else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    if Some(u64::from(reply.status)) != expect.status {
        problems.push(format!("status {}, not {:?}", reply.status, expect.status));
    }
    let reply = &with_status_of_error(reply);
    let headers = reply.headers.iter().map(|(name, value)| (&**name, &**value));
    let headers = headers.filter(|(name, _)| *name != REQUEST_ID);
    let anonymous = headers.eq(UNAUTHENTICATED_HEADERS) && reply.body == UNAUTHENTICATED_BODY;
    if (reply.status == 401) != anonymous {
        problems.push(format!("a 401 unlike the others: {reply:?}"));
    }
    for (name, value) in &expect.reply.headers {
        let found = reply_header(reply, name);
        if !context.is_header(name, found, value) {
            problems.push(format!("reply header {name} is {found:?}, not {value}"));
        }
    }
    problems.extend(check_limited(context, reply));
    problems.extend(check_retry(reply));
    // A real Envoy sends it only to gRPC callers.
    let grpc_status = reply.grpc_status.filter(|found| *found != grpc_status(reply.status));
    problems.extend(grpc_status.map(|found| format!("gRPC status {found}")));
    let body = Json::parse(reply.body.as_bytes());
    match (&expect.reply.body, &body) {
        // A notification is refused without a body.
        (None, Err(_)) if reply.body.is_empty() => {}
        (_, Err(invalid)) => problems.push(format!("the reply's body: {invalid}")),
        (Some(expected), Ok(body)) if !context.is_body(body, expected) => {
            problems.push(format!("the reply's body is {body}, not {expected}"));
        }
        _ => {}
    }
    if body.is_ok_and(|body| !adds_up(&body)) {
        problems.push(format!("the counts do not add up: {}", reply.body));
    }
    problems
}

/// A reply with the status that an error of JSON-RPC says, if it is one.
fn with_status_of_error(reply: &Reply) -> Reply {
    let body = Json::parse(reply.body.as_bytes()).ok();
    let code = body.as_ref().filter(|body| body.get("jsonrpc").is_some());
    let code = code.and_then(|body| body.get("error")?.get("code")).map(Json::to_string);
    let status = code.and_then(|code| code.parse().ok()).unwrap_or(reply.status);
    Reply { status, ..reply.clone() }
}

fn reply_header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let found = reply.headers.iter().find(|(found, _)| *found == name);
    found.map(|(_, value)| &**value)
}

/// `google.rpc.Code` of a refusal.
fn grpc_status(status: u16) -> u8 {
    match status {
        400 | 413 => 3,
        401 => 16,
        403 => 7,
        429 => 8,
        _ => 14,
    }
}

/// A refusal must have `x-should-retry: false` if waiting does not help within a minute, and otherwise the
/// wait in milliseconds.
fn check_retry(reply: &Reply) -> Option<String> {
    let fields = ["x-should-retry", "retry-after-ms"].map(|name| reply_header(reply, name));
    let retry_after = reply_header(reply, "retry-after").and_then(|secs| secs.parse::<u64>().ok());
    let right = match (reply.status, retry_after, fields) {
        (200 | 503, None, fields) => fields == [None, None],
        (429, Some(secs), [None, Some(millis)]) => {
            let millis: u64 = millis.parse().unwrap_or(u64::MAX);
            millis < 60_000 && millis.div_ceil(1_000) == secs
        }
        (429, Some(secs), [None, None]) => secs == 60,
        // A total limit does not reset before the key expires.
        (429, Some(_), fields) => fields == [Some("false"), None],
        (_, None, fields) => fields == [Some("false"), None],
        _ => false,
    };
    (!right).then(|| format!("{}: wait {retry_after:?}, {fields:?}", reply.status))
}

/// A 429 says when to retry, unless no wait helps, and what is left of the limits of requests, unless the configuration
/// prevents that. No other reply does.
fn check_limited(context: &Context<'_>, reply: &Reply) -> Option<String> {
    let is_of_requests = !reply.body.contains("the request reserves");
    let is_too_large = reply.body.contains("the request alone is larger than a quota");
    let of_cluster = reply.body.contains(DenyReason::ClusterRate.code());
    let never = context.limit_headers() == Some("never");
    let fields = ["retry-after", "ratelimit-policy", "ratelimit"].map(|n| reply_header(reply, n));
    match (reply.status, fields) {
        (429, [Some(_), ..]) if is_too_large => Some("a wait that never helps".to_owned()),
        (429, [None, None, None]) if is_too_large => None,
        (429, [None, Some(policy), Some(state)]) if is_too_large && !never => {
            check_fields(policy, state)
        }
        // A key with limits of tokens alone has nothing to say about requests, and the limits of a cluster are not the
        // gate's own.
        (429, [Some(secs), None, None])
            if (never || !is_of_requests || of_cluster) && secs != "0" =>
        {
            None
        }
        (429, [Some(secs), Some(policy), Some(state)]) if !never => match secs.parse::<u64>() {
            Ok(1..) => check_fields(policy, state),
            _ => Some(format!("retry-after: {secs}")),
        },
        (429, _) | (_, [Some(_), ..] | [_, Some(_), _] | [.., Some(_)]) => {
            Some(format!("a {} with headers about limits: {fields:?}", reply.status))
        }
        _ => None,
    }
}

/// The response to a forwarded request has `ratelimit`, if the key has limits and the configuration does not prevent it.
fn check_response_headers(
    context: &Context<'_>,
    expect: &Expect,
    observed: &Observed,
) -> Vec<String> {
    let mut problems = Vec::new();
    // That is for lists of MCP, whose tests are by themselves.
    let names = observed.response_headers.keys().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| *name != "cache-control").collect();
    let Some(expected) = &expect.response_headers else {
        let unexpected = !names.is_empty();
        return unexpected.then(|| format!("response headers: {names:?}")).into_iter().collect();
    };
    match observed.response_headers.get("ratelimit") {
        Some(state) if names.len() == 1 => problems.extend(check_state(state)),
        _ => problems.push(format!("response headers: {names:?}")),
    }
    for (name, value) in expected {
        let found = observed.response_headers.get(name).map(String::as_str);
        if !context.is_header(name, found, value) {
            problems.push(format!("response header {name} is {found:?}, not {value}"));
        }
    }
    problems
}

/// Whether `seen = allowed + sum(denied)`, if the body has counts.
fn adds_up(body: &Json) -> bool {
    let number = |name| body.get(name).and_then(Json::as_u64);
    let (Some(seen), Some(allowed), Some(Json::Object(denied))) =
        (number("seen"), number("allowed"), body.get("denied"))
    else {
        return body.get("seen").is_none();
    };
    seen == allowed + denied.iter().filter_map(|(_, count)| count.as_u64()).sum::<u64>()
}

fn check_seal(expect: &Expect, observed: &Observed) -> Option<String> {
    let seal = observed.filter_state.get(SEAL_STATE).map(String::as_str);
    let expected = expect.action.forwards().then_some("allow");
    (seal != expected).then(|| format!("the seal is {seal:?}, not {expected:?}"))
}

// === the log ===

fn log_lacks(context: &Context<'_>, expected: &[String], log: &Log) -> Vec<String> {
    let lacks = |text: &&String| {
        let text = context.meaning.fill(text);
        !log.iter().any(|(_, line)| line.contains(&text))
    };
    expected
        .iter()
        .filter(lacks)
        .map(|text| format!("nothing in the log says {text:?}: {log:?}"))
        .collect()
}

/// An expected success logs no errors.
fn check_silence(context: &Context<'_>, expect: &Expect, log: &Log) -> Vec<String> {
    let loud = |(level, line): &&(Level, String)| {
        let expected = |text: &String| line.contains(&context.meaning.fill(text));
        matches!(level, Level::Error | Level::Critical)
            && !is_audit_line(line)
            && !expect.log.iter().any(expected)
    };
    log.iter().filter(loud).map(|(_, line)| format!("an error in the log: {line}")).collect()
}

// === the audit line ===

pub(crate) fn is_audit_line(line: &str) -> bool {
    line.starts_with(AUDIT_LINE_START)
}

/// The audit line, which must be in its configured sink only, exactly once. The host's access log puts its outcome
/// after the record, or after nothing.
fn audit_line(context: &Context<'_>, observed: &Observed) -> Result<String, String> {
    let is_line = |(_, text): &&(Level, String)| is_audit_line(text);
    let logged: Vec<_> = observed.log.iter().filter(is_line).collect();
    let state = observed.filter_state.get(AUDIT_STATE);
    let sink = context.audit("sink").filter(|_| !context.nginx);
    match (sink, logged.as_slice(), state) {
        (Some("access_log"), [], record) => {
            let record = record.map_or(NO_RECORD, String::as_str);
            Ok(Line::splice(record, &observed.outcome, &Mask::default()))
        }
        (Some("log") | None, [(level, line)], None) => {
            let expected = context.audit("level").unwrap_or("info");
            let found = format!("{level:?}").to_lowercase();
            if found == expected {
                Ok(line.clone())
            } else {
                Err(format!("an audit line of level {found}, not {expected}"))
            }
        }
        (sink, logged, state) => Err(format!("sink {sink:?}, logged {logged:?}, state {state:?}")),
    }
}

fn check_audit(
    context: &Context<'_>,
    expect: &Expect,
    observed: &Observed,
    line: &str,
) -> Vec<String> {
    let mut problems = Vec::new();
    if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        problems.push("not one line of ASCII".to_owned());
    }
    let decision = match (expect.action, expect.reason) {
        (Expected::Forward | Expected::Reply, None) => Some(Decision::Allow),
        (Expected::Forward, Some(reason)) => Some(Decision::Shadow(reason)),
        (Expected::Preflight, None) => Some(Decision::Preflight),
        (Expected::Public | Expected::Ready, None) => Some(Decision::Public),
        (_, reason) => reason.map(Decision::Deny),
    };
    match Line::parse(line) {
        Err(invalid) => problems.push(invalid.to_string()),
        Ok(Line { record, outcome }) => {
            let record = record.unwrap_or_default();
            if record.decision != decision {
                problems.push(format!("{:?}, not {decision:?}", record.decision));
            }
            if let Some(reply) = &observed.reply {
                if outcome.status != Some(u64::from(reply.status)) {
                    problems.push(format!("status {:?}, not {}", outcome.status, reply.status));
                }
                let shown = record.req.as_deref().filter(|id| *id != MASK_VALUE);
                if !context.masked("req") && reply_header(reply, REQUEST_ID) != shown {
                    problems.push(format!("the reply has another request id: {reply:?}"));
                }
            }
        }
    }
    let line_json = Json::parse(line.as_bytes()).ok();
    problems.extend(check_verdict(expect, line_json.as_ref()));
    for (name, expected) in &expect.audit {
        let found = member(line_json.as_ref(), &[name]);
        if !found.is_some_and(|found| is_meant(found, &context.meaning.fill_json(expected))) {
            problems.push(format!("{name} is {found:?}, not {expected}"));
        }
    }
    problems.into_iter().map(|problem| format!("audit line: {problem}: {line}")).collect()
}

/// Every record names the policy. If the request is refused because of the upstream, the reason is the
/// verdict; if it is not forwarded for another reason, there is no verdict.
fn check_verdict(expect: &Expect, line: Option<&Json>) -> Vec<String> {
    let mut problems = Vec::new();
    let text = |name| member(line, &[name]).and_then(Json::as_str);
    let (policy, verdict) = (text("tls_policy"), text("tls_verdict"));
    let has_record = text("vkey") != Some(NO_RECORD);
    if has_record && policy != Some(&sha256_hex(POLICY)) {
        problems.push(format!("tls_policy is {policy:?}"));
    }
    let of_upstream = |reason: &DenyReason| reason.class() == DenyClass::Upstream;
    let expected = expect.reason.filter(of_upstream).map(DenyReason::code);
    let judged = expected.is_some() || !expect.action.forwards();
    if judged && verdict != expected {
        problems.push(format!("tls_verdict is {verdict:?}, not {expected:?}"));
    }
    problems
}

/// Whether a value is the expected one, or contains the text of `{"contains": …}`.
fn is_meant(found: &Json, expected: &Json) -> bool {
    match (expected.get("contains").and_then(Json::as_str), found.as_str()) {
        (Some(part), Some(text)) => text.contains(part),
        _ => found == expected,
    }
}

impl Context<'_> {
    /// Whether requests are counted: not if the configuration names another kind of host.
    pub(crate) fn counts(&self) -> bool {
        match self.setting("host") {
            Some("bare") => false,
            Some("envoy") => !self.nginx,
            Some("nginx") => self.nginx,
            _ => true,
        }
    }

    /// Whether audit lines mask a member.
    pub(crate) fn masked(&self, name: &str) -> bool {
        let mask = member(self.config, &["audit", "mask"]);
        matches!(mask, Some(Json::Array(names)) if names.contains(&name.into()))
    }

    /// Whether a rate-limit header is as expected. Times are ignored if the clock is not pinned.
    fn is_header(&self, name: &str, found: Option<&str>, expected: &Json) -> bool {
        let expected = self.meaning.fill_json(expected);
        match (found, expected.as_str()) {
            (Some(found), Some(expected)) if !self.pinned => {
                untimed_header(name, found) == untimed_header(name, expected)
            }
            (found, expected) => found == expected,
        }
    }

    fn is_body(&self, found: &Json, expected: &Json) -> bool {
        let expected = self.meaning.fill_json(expected);
        match self.pinned {
            true => contains(found, &expected),
            false => contains(&untimed(found), &untimed(&expected)),
        }
    }

    /// A setting of audit lines. Those of a rejected configuration are not in force.
    fn audit(&self, name: &str) -> Option<&str> {
        let config = self.config.filter(|_| self.outcome != Outcome::Refused);
        member(config, &["audit", name])?.as_str()
    }
}

// === comparing JSON ===

/// Whether all expected members are present. Lists and plain values must be equal.
fn contains(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Object(_), Json::Object(members)) => members
            .iter()
            .all(|(name, value)| found.get(name).is_some_and(|found| contains(found, value))),
        _ => found == expected,
    }
}
