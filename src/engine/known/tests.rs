//! Tests of what is prepared for a key.

use super::*;
use crate::access::restriction::MAX_POINTERS;
use crate::config::Config;
use crate::engine::Engine;
use crate::key::keyring::{Ring, Rotation, Secret};
use crate::key::token::{Unverified, mint};

const SECRET: &str = "Known-1-keys-are-prepared-once";

/// An engine whose ring changes its signing key every thousand seconds.
fn engine(members: &str) -> Engine {
    let rotation = r#""rotation": {"interval": "1000s", "max_age": "3000s"}"#;
    let ring = format!(r#"{{"name": "main", "secret": "${{S}}", {rotation}}}"#);
    let config = format!(r#"{{"keyring": [{ring}], "clock_skew": "5s" {members}}}"#);
    let config = Config::parse(config.as_bytes()).unwrap();
    Engine::new(config.compile(|_| Some(SECRET.to_owned())).unwrap())
}

/// A key of epoch 5, which is valid from 5000 to 8000.
fn known(engine: &Engine, claims: &str, caveats: &[&str]) -> KnownKey {
    let secret = Secret::parse(SECRET).unwrap();
    let rotation = Rotation::new(1_000, 3_000, true).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, Some(rotation)).unwrap();
    let kid = Kid::new("main", 5).unwrap();
    let claims = format!(r#"{{"jti":"k-1","tenant":"acme",{claims}}}"#);
    let mut token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes());
    for caveat in caveats {
        token = Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.as_bytes()).unwrap();
    }
    let unverified = Unverified::parse(token.as_bytes()).unwrap();
    engine.prepare(Key::verify(unverified, engine.keyring()).unwrap())
}

const CLAIMS: &str = r#""iat":5100,"exp":7900"#;

#[test]
fn a_key_says_who_it_is_for() {
    let engine = engine("");
    let key = known(&engine, &format!(r#"{CLAIMS},"sub":"ann","tier":"default""#), &["{}"]);
    assert_eq!((key.jti(), key.tenant(), key.tier()), ("k-1", "acme", "default"));
    assert_eq!((key.sub(), key.sub_header()), (Some("ann"), Some("ann")));
    assert_eq!((key.kid().as_str(), key.caveats_len()), ("main-5", 1));
    assert_eq!(key.cell_name().as_str(), "vkey/k/acme/k-1");
    assert_eq!(key.tenant_cell_name(), None);
    let key = known(&engine, CLAIMS, &[]);
    assert_eq!((key.sub(), key.sub_header(), key.caveats_len()), (None, None, 0));
}

#[test]
fn a_key_says_what_of_a_body_decides_on_it() {
    let needs = |rules: &str, caveats: &[&str]| {
        let key = known(&engine(rules), CLAIMS, caveats);
        (key.restricts_models(), key.restricts_mcp())
    };
    let tier = |only: &str| format!(r#", "tiers": {{"default": {{"only": {only}}}}}"#);
    let either = r#"{"any_of":[{"paths":["/v1/**"]},{"models":["a"]},{"mcp":{"tools":[]}}]}"#;
    assert_eq!(needs("", &[r#"{"paths":["/v1/**"]}"#]), (false, false));
    assert_eq!(needs("", &["{}", r#"{"models":[]}"#]), (true, false));
    assert_eq!(needs("", &[r#"{"mcp":{}}"#]), (false, true));
    assert_eq!(needs("", &[either]), (true, true));
    assert_eq!(needs(&tier(r#"{"models":["*"]}"#), &[]), (true, false));
    let tenant = r#", "tenants": {"acme": {"only": {"mcp": {"servers": ["a"]}}}}"#;
    assert_eq!(needs(tenant, &[]), (false, true));
}

#[test]
fn a_key_whose_mcp_calls_are_restricted_names_only_allowed_servers() {
    let engine = engine("");
    let [open, restricted] = [&[][..], &[r#"{"any_of":[{},{"mcp":{"tools":["a"]}}]}"#]]
        .map(|caveats| known(&engine, CLAIMS, caveats));
    let allowed = Globs::names(&["https://mcp.example/*", "connector_mail"]);
    let check = |servers: &[&str], allowed: &Globs| {
        let servers: Vec<Box<str>> = servers.iter().map(|server| (*server).into()).collect();
        assert_eq!(open.check_hosted_mcp(&servers, allowed), Ok(()));
        restricted.check_hosted_mcp(&servers, allowed)
    };
    let refused = Err(DenyReason::McpCall);
    assert_eq!(check(&[], &Globs::names(&[])), Ok(()));
    assert_eq!(check(&["https://mcp.example/a"], &Globs::names(&[])), refused);
    assert_eq!(check(&["https://mcp.example/a", "connector_mail"], &allowed), Ok(()));
    assert_eq!(check(&["https://mcp.example/a", "https://b.example/"], &allowed), refused);
    assert_eq!(check(&[""], &allowed), refused);
}

/// Those of its tier and its tenant count too.
#[test]
fn a_key_with_too_many_pointers_into_arguments_is_refused() {
    let tools = |pointers: Range<usize>| {
        let args = pointers.map(|n| format!(r#"{{"at":"/{n}","max":1}}"#)).collect::<Vec<_>>();
        format!(r#"{{"mcp":{{"tools":[{{"name":"t","args":[{}]}}]}}}}"#, args.join(","))
    };
    let rules = format!(r#", "tiers": {{"default": {{"only": {}}}}}"#, tools(0..10));
    let engine = engine(&rules);
    let check = |caveats: &[Range<usize>]| {
        let caveats: Vec<String> = caveats.iter().cloned().map(tools).collect();
        let caveats: Vec<&str> = caveats.iter().map(String::as_str).collect();
        let key = known(&engine, CLAIMS, &caveats);
        (key.check(engine.keyring(), 6_000), key.argument_needs().pointers.len())
    };
    assert_eq!(check(&[]), (Ok(()), 10));
    assert_eq!(check(&[0..64, 5..30]), (Ok(()), MAX_POINTERS));
    let refused = Err(DenyReason::CaveatUnsupported);
    assert_eq!(check(&[10..40, 30..65]).0, refused);
    assert_eq!(check(&[0..65, 0..1]).0, refused);
}

#[test]
fn only_a_tenant_with_limits_has_a_cell() {
    let tenant = |rules: &str| {
        let engine = engine(&format!(r#", "tenants": {{"acme": {{{rules}}}}}"#));
        known(&engine, CLAIMS, &[]).tenant_cell_name().map(|name| name.as_str().to_owned())
    };
    assert_eq!(tenant(r#""rate": {"requests": 1, "per": "1s"}"#).as_deref(), Some("vkey/t/acme"));
    assert_eq!(tenant(""), None);
}

#[test]
fn a_sub_is_percent_encoded_in_a_header() {
    let engine = engine("");
    let sub = |text: &str| known(&engine, &format!(r#"{CLAIMS},"sub":"{text}""#), &[]);
    for (text, header) in [("a b%\u{e9}", "a%20b%25%C3%A9"), ("\u{1f600}", "%F0%9F%98%80")] {
        assert_eq!((sub(text).sub(), sub(text).sub_header()), (Some(text), Some(header)));
    }
    let longest = "\u{1f600}".repeat(128);
    let header = "%F0%9F%98%80".repeat(128);
    let key = sub(&longest);
    assert_eq!((key.sub(), key.sub_header()), (Some(&*longest), Some(&*header)));
}

#[test]
fn keys_share_the_charges_of_their_tier_unless_they_have_their_own() {
    let engine = engine(
        r#", "tiers": {"default": {"rate": {"requests": 9, "per": "1h"}}},
             "tenants": {"acme": {"quotas": [{"requests": 3, "per": "day"}]}}"#,
    );
    let names = |charges: &[Charge]| -> Vec<String> {
        charges.iter().map(|charge| charge.name().to_string()).collect()
    };
    let plain = known(&engine, CLAIMS, &[r#"{"methods": ["GET"]}"#]);
    assert_eq!(names(plain.charges()), ["tier_rate"]);
    assert_eq!(names(plain.tenant_charges()), ["tenant_requests_day"]);
    assert!(std::ptr::eq(known(&engine, CLAIMS, &[]).charges(), engine.tier_charges("default")));
    let own = known(&engine, CLAIMS, &[r#"{"rate": {"requests": 1, "per": "1h"}}"#]);
    assert_eq!(names(own.charges()), ["tier_rate", "caveat_1_rate"]);
}

#[test]
fn a_key_of_an_unknown_tier_keeps_its_name() {
    let engine = engine("");
    let key = known(&engine, &format!(r#"{CLAIMS},"tier":"gold""#), &[]);
    assert_eq!((key.tier(), key.is_member()), ("gold", false));
    assert!(key.footprint() > known(&engine, CLAIMS, &[]).footprint());
}

/// Within the times at which nothing changes, the result is the one that a full check has.
#[test]
fn the_short_check_agrees_with_the_full_one() {
    let plans = [
        "",
        r#", "audience": "gw""#,
        r#", "revoked": {"keys": ["k-1"]}"#,
        r#", "revoked": {"tenants": {"acme": {"issued_before": 6000}}}"#,
    ];
    let claims = [
        CLAIMS,
        r#""iat":4000,"exp":9000"#,
        r#""iat":5100,"nbf":5200,"exp":7900,"aud":["gw","other"]"#,
        r#""iat":7900,"exp":5100"#,
        r#""iat":5100,"exp":7900,"only":{"nbf":5300,"exp":7700}"#,
    ];
    let caveats: [&[&str]; 5] = [
        &[],
        &[r#"{"nbf":5400}"#, r#"{"exp":7600}"#],
        &[r#"{"any_of":[{"exp":5500},{"nbf":7500}]}"#],
        &[r#"{"any_of":[]}"#],
        &[r#"{"no_such_member":1}"#, r#"{"exp":7600}"#],
    ];
    let mut steady = 0;
    for plan in plans {
        let engine = engine(plan);
        for (claims, caveats) in claims.iter().flat_map(|c| caveats.iter().map(move |d| (c, d))) {
            let (key, mut other) =
                (known(&engine, claims, caveats), known(&engine, claims, caveats));
            other.steady_secs = 0..0;
            for now_secs in (4_900..8_100).step_by(5).flat_map(|secs| [secs - 1, secs]) {
                let short = key.check(engine.keyring(), now_secs);
                let full = other.check(engine.keyring(), now_secs);
                assert_eq!(short, full, "{plan} {claims} {caveats:?} {now_secs}");
                steady += usize::from(key.steady_secs.contains(&now_secs));
            }
        }
    }
    assert!(steady > 10_000, "{steady}");
}
