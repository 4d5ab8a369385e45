use std::fmt::Display;
use std::time::{Duration, Instant};

use super::*;
use crate::limits::allowance::LimitHeaders;

/// Comparing each entry with all earlier ones would take minutes.
const ENTRIES: usize = 100_000;

/// Generous: each list takes less than a second to read.
const MOST: Duration = Duration::from_secs(20);

fn list(entry: impl Fn(usize) -> String) -> String {
    Vec::from_iter((0..ENTRIES).map(entry)).join(",")
}

/// Reads a configuration within the time limit, and returns the error.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "a bound on real time needs a real clock")]
fn read(text: &str) -> String {
    let started = Instant::now();
    let read = RoleConfig::parse(text.as_bytes());
    let took = started.elapsed();
    assert!(took < MOST, "{took:?}");
    read.err().as_ref().map(Invalid::to_string).unwrap_or_default()
}

#[track_caller]
fn gate(members: impl Display) -> String {
    read(&format!(r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], {members}}}"#))
}

#[test]
fn rings_are_read_in_linear_time() {
    let rings = list(|n| format!(r#"{{"name": "r-{n}", "secret": "${{S}}"}}"#));
    assert_eq!(read(&format!(r#"{{"keyring": [{rings}]}}"#)), "");
    let twice = r#"{"name": "r-99999", "secret": "${S}"}"#;
    assert_eq!(
        read(&format!(r#"{{"keyring": [{rings}, {twice}]}}"#)),
        "keyring[100000]: another ring has this name already"
    );
}

#[test]
fn credentials_are_read_in_linear_time() {
    let named = list(|n| format!(r#"{{"name": "c-{n}"}}"#));
    let forward = |list: &str| gate(format_args!(r#""forward": {{"credentials": [{list}]}}"#));
    assert_eq!(forward(&named), "");
    assert_eq!(
        forward(&format!(r#"{named}, {{"name": "c-0"}}"#)),
        "forward.credentials[100000]: another credential has this name already"
    );
    let rest = r#""hosts": ["a.example"], "header": "x-k", "value": "${S}""#;
    let held = list(|n| format!(r#"{{"name": "c-{n}", {rest}}}"#));
    let cluster =
        |list: &str| read(&format!(r#"{{"role": "upstream_tls", "credentials": [{list}]}}"#));
    assert_eq!(cluster(&held), "");
    assert_eq!(
        cluster(&format!(r#"{held}, {{"name": "c-7", {rest}}}"#)),
        "credentials[100000]: another credential has this name already"
    );
}

#[test]
fn key_sources_are_read_in_linear_time() {
    let lists = list(|n| format!(r#"{{"header": "x-{n}", "item_prefix": "k."}}"#));
    assert_eq!(gate(format_args!(r#""key_sources": [{lists}]"#)), "");
    let mixed = gate(format_args!(r#""key_sources": [{lists}, {{"header": "X-99999"}}]"#));
    assert!(mixed.starts_with("key_sources: a header with an item_prefix is a list"), "{mixed}");
}

#[test]
fn pins_are_read_in_linear_time() {
    let pins = list(|n| format!(r#""sha256:{n:064x}""#));
    let tighten = |pins: &str| {
        let rule = format!(r#"{{"host": "a.example", "pins": [{pins}]}}"#);
        gate(format_args!(r#""upstream_tls": {{"tighten": [{rule}]}}"#))
    };
    assert_eq!(tighten(&pins), "");
    assert_eq!(
        tighten(&format!(r#"{pins}, "sha256:{:064x}""#, 99_999)),
        "upstream_tls.tighten[0].pins[100000]: an earlier pin is the same"
    );
}

#[test]
fn tenants_and_revocations_are_read_in_linear_time() {
    let tenants = list(|n| format!(r#""t-{n}": {{"rate": {{"requests": 9, "per": "1m"}}}}"#));
    assert_eq!(gate(format_args!(r#""tenants": {{{tenants}}}"#)), "");
    let twice = gate(format_args!("\"tenants\": {{{tenants},\n \"t-0\": {{}}}}"));
    assert!(twice.contains("a member is named twice at line 2"), "{twice}");
    let keys = list(|n| format!(r#""k_{n}""#));
    let cut_off = list(|n| format!(r#""t-{n}": {{"issued_before": 1790000000}}"#));
    let revoked =
        format!(r#""revoked": {{"version": 1, "keys": [{keys}], "tenants": {{{cut_off}}}}}"#);
    assert_eq!(gate(revoked), "");
}

#[test]
fn headers_about_limits_are_chosen_by_a_word() {
    let headers = |limits: &str| {
        let config = format!(r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}]{limits}}}"#);
        Config::parse(config.as_bytes()).unwrap().settings().limits.headers
    };
    for (limits, expected) in [
        ("", LimitHeaders::Always),
        (r#", "limits": {}"#, LimitHeaders::Always),
        (r#", "limits": {"headers": "always"}"#, LimitHeaders::Always),
        (r#", "limits": {"headers": "refused"}"#, LimitHeaders::Refused),
        (r#", "limits": {"headers": "never"}"#, LimitHeaders::Never),
    ] {
        assert_eq!(headers(limits), expected, "{limits}");
    }
    for (limits, error) in [
        (r#"{"headers": "Never"}"#, "limits.headers: expected one of always, refused, never"),
        (r#"{"headers": true}"#, "limits.headers: expected a string"),
        (r#"{"rate": {}}"#, "limits.rate: unknown member (known here: headers, cluster)"),
        (r#"{"cluster": "yes"}"#, "limits.cluster: expected true or false"),
        (r#"[]"#, "limits: expected an object"),
    ] {
        assert_eq!(gate(format_args!(r#""limits": {limits}"#)), error);
    }
}

#[test]
fn an_audit_trail_needs_a_secret_in_the_environment() {
    let refused = |audit: &str| {
        let text =
            format!(r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], "audit": {audit}}}"#);
        Config::parse(text.as_bytes()).map(|config| config.audit().anchor_every)
    };
    assert_eq!(refused(r#"{"secret": "${A}"}"#).unwrap(), 1000);
    assert_eq!(refused(r#"{"secret": "${A}", "anchor_every": 1}"#).unwrap(), 1);
    for every in ["0", "1000001", "\"1\""] {
        let audit = format!(r#"{{"secret": "${{A}}", "anchor_every": {every}}}"#);
        let error = refused(&audit).unwrap_err().to_string();
        assert!(error.starts_with("audit.anchor_every: expected "), "{error}");
    }
    let error = refused(r#"{"anchor_every": 10}"#).unwrap_err().to_string();
    assert!(error.contains("add audit.secret"), "{error}");
    let error = refused(r#"{"secret": "Literal-1-in-a-configuration"}"#).unwrap_err().to_string();
    assert!(error.starts_with("audit.secret: a secret does not belong"), "{error}");
    assert!(!error.contains("Literal"), "{error}");
}
