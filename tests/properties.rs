//! Properties that hold for every key, restriction and request, not only for those of the vectors.
//! They run natively and, in Node, on wasm32.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

#[path = "properties/upstreams.rs"]
mod upstreams;

use std::net::{IpAddr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use vkey::access::restriction::Restriction;
use vkey::access::{Access, CanonicalPath, McpCall, canonical_host, exact_host, query_keys};
use vkey::alerts::failures::Shard;
use vkey::audit::Record;
use vkey::config::{Config, Plan};
use vkey::decision::{Decision, DenyReason};
use vkey::digest::sha256_hex;
use vkey::engine::{Engine, Identity};
use vkey::exchange::Exchange;
use vkey::gate::Gate;
use vkey::headers::Headers;
use vkey::host::Rules;
use vkey::host::{Action, MemoryHost, MemoryStore};
use vkey::json::Json;
use vkey::key::Key;
use vkey::key::claims::Claims;
use vkey::key::keyring::{Keyring, Ring, RingState, Secret};
use vkey::key::mac::hkdf_sha256;
use vkey::key::token::{Kid, Unverified, mint};
use vkey::limits::cell::{Cell, key_name};
use vkey::record::{Record as _, decode};
use vkey::upstream_tls::Policy;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: u64 = 1_790_000_000;

/// As many cases as `PROPTEST_CASES` says, others each time. Node shows no environment, and runs always the same
/// ones: what could be wrong there is the target and not the rule. There is also no file for those that failed.
fn config() -> ProptestConfig {
    match cfg!(target_arch = "wasm32") {
        true => ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::with_cases(2_000)
        },
        false => ProptestConfig::default(),
    }
}

// === keys ===

/// Made at run time: a configuration accepts it, so it is printed nowhere.
fn secret() -> String {
    format!("A-{}", sha256_hex(b"the property tests"))
}

fn ring() -> Ring {
    let secret = Secret::parse(&secret()).unwrap();
    Ring::new("main", &secret, RingState::Active, None).unwrap()
}

fn engine() -> Engine {
    let text = br#"{"keyring": [{"name": "main", "secret": "${SECRET}"}]}"#;
    let secret = |_: &str| Some(secret());
    Engine::new(Config::parse(text).unwrap().compile(secret).unwrap())
}

fn sign(claims: &Value) -> String {
    let kid = Kid::new("main", 0).unwrap();
    mint(&ring().signing_key(&kid), &kid, claims.to_string().as_bytes())
}

fn attenuate(token: &str, caveat: &Value) -> String {
    Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.to_string().as_bytes()).unwrap()
}

fn verify(token: &str) -> Option<Key> {
    let keyring = Keyring::new(vec![ring()], 0);
    Key::verify(Unverified::parse(token.as_bytes()).ok()?, &keyring).ok()
}

fn allows(engine: &mut Engine, token: &str, access: &Access<'_>) -> bool {
    match engine.identify(token.as_bytes(), access.now_secs) {
        Identity::Known { key, validity: Ok(()) } => engine.authorize(&key, access).is_ok(),
        Identity::Known { .. } | Identity::Stranger(_) => false,
    }
}

// === strategies ===

/// Members are drawn from few values, so that they hold about as often as they do not.
fn restriction() -> impl Strategy<Value = Value> {
    let any_of = sometimes(vec(flat_restriction(), 0..3));
    (flat_restriction(), any_of, sometimes(1..9_u32), sometimes(0..9_u64)).prop_map(
        |(mut flat, any_of, rate, quota)| {
            if let Some(any_of) = any_of {
                flat["any_of"] = Value::Array(any_of);
            }
            if let Some(requests) = rate {
                flat["rate"] = json!({"requests": requests, "per": "1h"});
            }
            if let Some(requests) = quota {
                flat["quotas"] = json!([{"requests": requests, "per": "total"}]);
            }
            flat
        },
    )
}

/// Present once in five times: a key with some restrictions still allows about as much as it refuses.
fn sometimes<T: Strategy>(strategy: T) -> impl Strategy<Value = Option<T::Value>> {
    proptest::option::weighted(0.2, strategy)
}

fn flat_restriction() -> impl Strategy<Value = Value> {
    let list = |items: &'static [&'static str]| sometimes(vec(select(items), 1..4));
    (
        (sometimes(NOW - 5..NOW + 5), sometimes(NOW - 5..NOW + 5)),
        list(&["GET", "POST", "DELETE"]),
        list(&["gw.example", "*.example", "a.b.example", "other"]),
        list(&["/v1/**", "/v1/*", "/v1/models", "/**", "/v2/*", "/*/chat"]),
        list(&["gpt-*", "*", "o3"]),
        list(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "192.0.2.1"]),
        sometimes((list(&["tools/*", "ping"]), list(&["s1", "*"]), list(&["search_*", "*"]))),
        sometimes(vec(select(&["ab", "cd"][..]), 0..2)),
    )
        .prop_map(|((nbf, exp), methods, hosts, paths, models, sources, mcp, certs)| {
            let mcp = mcp.map(|(methods, servers, tools)| {
                present([
                    ("methods", json!(methods)),
                    ("servers", json!(servers)),
                    ("tools", json!(tools)),
                ])
            });
            let certs = certs.map(|certs| certs.iter().map(|c| c.repeat(32)).collect::<Vec<_>>());
            present([
                ("nbf", json!(nbf)),
                ("exp", json!(exp)),
                ("methods", json!(methods)),
                ("hosts", json!(hosts)),
                ("paths", json!(paths)),
                ("models", json!(models)),
                ("sources", json!(sources)),
                ("mcp", json!(mcp)),
                ("client_cert", json!(certs)),
            ])
        })
}

fn present<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn access() -> impl Strategy<Value = Access<'static>> {
    (
        NOW - 6..NOW + 6,
        select(&["GET", "POST", "DELETE", "get"][..]),
        of(select(&["gw.example", "a.b.example", "other", "example"][..])),
        select(&["/v1/models", "/v1/chat/completions", "/v2/x", "/", "/v1", "/v1/chat"][..]),
        of(select(&["10.1.2.3", "10.9.9.9", "2001:db8::1", "192.0.2.1"][..])),
        of(select(&["ab", "cd"][..])),
        of(select(&["gpt-4o", "o3", "other"][..])),
        of((
            select(&["tools/call", "tools/list", "ping"][..]),
            of(select(&["s1", "s2"][..])),
            of(select(&["search_docs", "x"][..])),
        )),
    )
        .prop_map(|(now_secs, method, host, path, source, cert, model, mcp)| Access {
            now_secs,
            method,
            host: host.and_then(|host| exact_host(host.as_bytes())),
            path: CanonicalPath::parse(path.as_bytes()).unwrap(),
            source: source.map(|source| source.parse::<IpAddr>().unwrap()),
            client_cert: cert.map(|cert| match cert {
                "ab" => "abababababababababababababababababababababababababababababababab",
                _ => "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            }),
            model,
            mcp: mcp.map(|(method, server, name)| McpCall { method, server, name }),
        })
}

fn claims() -> impl Strategy<Value = Value> {
    (
        "[A-Za-z0-9_-]{1,64}",
        "[A-Za-z0-9_-]{1,64}",
        of("\\PC{1,40}"),
        of(vec("[a-z.]{1,20}", 0..3)),
        of(restriction()),
        of("\\PC{0,40}"),
    )
        .prop_map(|(jti, tenant, sub, aud, only, note)| {
            let meta = note.map(|note| json!({"note": note}));
            present([
                ("jti", json!(jti)),
                ("tenant", json!(tenant)),
                ("sub", json!(sub)),
                ("iat", json!(NOW - 60)),
                ("exp", json!(NOW + 60)),
                ("aud", json!(aud)),
                ("only", json!(only)),
                ("meta", json!(meta)),
            ])
        })
}

// === the forms of paths and hosts, written down a second time ===

/// Paths that are canonical about as often as not.
fn targets() -> impl Strategy<Value = String> {
    let segments = &[
        "a", "v1", "~x", ".", "..", "...", ".a", "", "a;b", "..;a", ".;", "%2E", "%2e%2E", "%61",
        "%2F", "%5c", "%00", "%20", "%c3%A9", "%", "%4", "%zz", "a b", "a\\b", "a%3Bb", "%2e;x",
        "..%3ba", "\u{e9}", "a#b", "*",
    ][..];
    let usual = prop_oneof![3 => select(&["a", "v1", "%20", "a.b"][..]), 1 => select(segments)];
    let paths = (vec(usual, 0..4), any::<bool>(), select(&["", "", "?a=//../%2e", "?"][..]));
    let paths = paths.prop_map(|(segments, slash, query)| {
        let end = if slash { "/" } else { "" };
        format!("/{}{end}{query}", segments.join("/"))
    });
    prop_oneof![paths, "/[a-c./%2eE;~?]{0,24}", "[/a.%2eE]{0,6}"]
}

/// The path of a target that is canonical as it stands, with escapes in upper case: what is left of it when
/// each segment is normalised by itself (RFC 3986, section 6.2.2) is the segment, and no segment can be read
/// in another way.
fn canonical_path(target: &str) -> Option<String> {
    let path = target.split('?').next()?;
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let last = segments.len() - 1;
    let normal = segments.iter().enumerate().map(|(index, segment)| {
        let (decoded, upper) = normal_segment(segment)?;
        // Servers that know parameters resolve `..;a` as they do `..`.
        let parameters = upper.replace("%3B", ";");
        let resolved = matches!(parameters.split(';').next()?, "." | "..");
        let missing = segment.is_empty() && index != last;
        (decoded == upper && !resolved && !missing).then_some(upper)
    });
    let normal = normal.collect::<Option<Vec<_>>>()?;
    (!target.contains('#')).then(|| format!("/{}", normal.join("/")))
}

/// A segment with its unreserved characters decoded, and one with the case of its escapes changed and
/// nothing else; `None` where it has anything but visible ASCII, or an escape that is none or is for a
/// character that servers take for the end of a segment or of a path.
fn normal_segment(segment: &str) -> Option<(String, String)> {
    let (mut decoded, mut upper) = (String::new(), String::new());
    let mut rest = segment.chars();
    while let Some(c) = rest.next() {
        if !c.is_ascii_graphic() || c == '\\' {
            return None;
        }
        if c != '%' {
            decoded.push(c);
            upper.push(c);
            continue;
        }
        let (high, low) = (rest.next()?.to_digit(16)?, rest.next()?.to_digit(16)?);
        let byte = char::from(u8::try_from(high * 16 + low).unwrap());
        if matches!(byte, '/' | '\\' | '\0') {
            return None;
        }
        let escape = format!("%{:02X}", u32::from(byte));
        upper.push_str(&escape);
        match byte.is_ascii_alphanumeric() || "-._~".contains(byte) {
            true => decoded.push(byte),
            false => decoded.push_str(&escape),
        }
    }
    Some((decoded, upper))
}

/// Authorities that are canonical about as often as not.
fn authorities() -> impl Strategy<Value = String> {
    let hosts = &[
        "gw.example", "a_b.example", "10.0.0.1", "[2001:db8::1]", "localhost", "GW.example",
        "[2001:DB8::1]", "a..b", "", ".", ".a", "a%2eb", "u@a", "[::1", "::1",
    ][..];
    let ends = &["", "", "", "", ".", ":443", ".:443", ":", ":0", ":65536", ":000080", ":x"][..];
    let usual = (select(hosts), select(ends)).prop_map(|(host, end)| format!("{host}{end}"));
    prop_oneof![usual, "[a-zA-C0-2.:@_\\[\\]-]{0,12}"]
}

/// Whether an authority is a lower-case name without a dot at its end, or something in brackets; with nothing
/// before it or behind it. What is in the brackets is not looked into.
fn is_lower(authority: &str) -> bool {
    let of = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    match authority.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|literal| of(literal, ":.[]")),
        None => of(authority, ".-_") && authority.split('.').all(|label| !label.is_empty()),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_minted_says_what_was_claimed(claims in claims()) {
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        let again = Claims::parse(claims.to_json().to_string().as_bytes()).unwrap();
        prop_assert_eq!(&again, &claims);
        let json: Value = serde_json::from_str(&claims.to_json().to_string()).unwrap();
        let key = verify(&sign(&json)).unwrap();
        prop_assert_eq!(key.claims(), &claims);
    }

    #[test]
    fn no_change_to_a_key_survives(
        claims in claims(),
        caveats in vec(restriction(), 1..5),
        other in restriction(),
        at in any::<Index>(),
        to in any::<Index>(),
        letter in select(&b"ABab01-_.="[..]),
    ) {
        let token = caveats.iter().fold(sign(&claims), |token, caveat| attenuate(&token, caveat));
        prop_assert!(verify(&token).is_some());
        let segments: Vec<&str> = token.split('.').collect();
        let foreign = attenuate(&sign(&json!({})), &other);
        let foreign: Vec<&str> = foreign.split('.').collect();
        let (i, j) = (at.index(segments.len()), to.index(segments.len()));
        let mut changed = vec![token.clone(); 5];
        let mut edit = segments.clone();
        edit.remove(i);
        changed[0] = edit.join(".");
        let mut edit = segments.clone();
        edit.swap(i, j);
        changed[1] = edit.join(".");
        let mut edit = segments.clone();
        edit.insert(i, foreign[3]);
        changed[2] = edit.join(".");
        let mut bytes = token.clone().into_bytes();
        bytes[at.index(token.len())] = letter;
        changed[3] = String::from_utf8(bytes).unwrap();
        let mut edit = segments.clone();
        edit[i] = foreign[i.min(foreign.len() - 1)];
        changed[4] = edit.join(".");
        for changed in changed {
            prop_assert!(changed == token || verify(&changed).is_none(), "{}", changed);
        }
    }

    #[test]
    fn a_remembered_key_is_judged_like_a_fresh_one(
        claims in claims(),
        caveat in restriction(),
        accesses in vec(access(), 1..6),
    ) {
        let token = attenuate(&sign(&claims), &caveat);
        let mut remembers = engine();
        for access in accesses {
            let fresh = allows(&mut engine(), &token, &access);
            prop_assert_eq!(allows(&mut remembers, &token, &access), fresh);
        }
    }

    #[test]
    fn a_path_is_accepted_exactly_where_it_is_canonical_as_it_stands(target in targets()) {
        let path = CanonicalPath::parse(target.as_bytes()).ok();
        let canonical = canonical_path(&target);
        prop_assert_eq!(path.as_ref().map(CanonicalPath::as_str), canonical.as_deref(), "{}", target);
        let Some(path) = path else { return Ok(()) };
        let again = CanonicalPath::parse(path.as_str().as_bytes()).unwrap();
        prop_assert_eq!(&again, &path);
        let sent = target.split('?').next().unwrap();
        prop_assert!(sent.eq_ignore_ascii_case(path.as_str()));
        let resource = CanonicalPath::parse(path.resource().as_bytes()).unwrap();
        prop_assert_eq!(resource.resource(), path.resource());
        let rest = path.as_str().strip_prefix(path.resource()).unwrap();
        prop_assert!(rest.is_empty() || rest == "/");
    }

    #[test]
    fn an_exact_host_stands_in_its_one_spelling(authority in authorities()) {
        let exact = exact_host(authority.as_bytes());
        prop_assert!(exact.is_none() || is_lower(&authority), "{}", authority);
        prop_assert!(exact.is_none() || exact == Some(&authority));
        let address = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = address.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok());
        if is_lower(&authority) && (address || !authority.starts_with('[')) {
            prop_assert_eq!(exact, Some(&*authority));
        }
    }
}

#[test]
fn a_caveat_only_narrows() {
    let strategy = (claims(), vec(restriction(), 0..3), restriction(), access());
    let allowed = std::cell::Cell::new((0, 0));
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&strategy, |(claims, caveats, more, access)| {
        let key = caveats.iter().fold(sign(&claims), |token, caveat| attenuate(&token, caveat));
        let narrower = attenuate(&key, &more);
        let mut engine = engine();
        let wide = allows(&mut engine, &key, &access);
        let narrow = allows(&mut engine, &narrower, &access);
        let (wide_count, narrow_count) = allowed.get();
        allowed.set((wide_count + u32::from(wide), narrow_count + u32::from(narrow)));
        prop_assert!(wide || !narrow);
        Ok(())
    });
    outcome.unwrap();
    // It says something only if keys allow, and caveats take away.
    let (wide, narrow) = allowed.get();
    let enough = config().cases / 100;
    let says_something = narrow >= enough && wide >= narrow + enough;
    assert!(says_something, "{wide} allowed, {narrow} with a caveat more, {enough} wanted of each");
}

// === keys elsewhere ===

/// Another key, good or forged, in either form.
fn second_key() -> impl Strategy<Value = String> {
    let forms = (any::<bool>(), vec(restriction(), 0..3), any::<Index>(), any::<Index>());
    forms.prop_map(|(is_jwt, caveats, at, forgery)| {
        let claims = json!({"jti": "other", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60});
        let mut key = match is_jwt {
            true => jwt(&claims),
            false => caveats.iter().fold(sign(&claims), |token, caveat| attenuate(&token, caveat)),
        };
        match forgery.index(3) {
            // A tag that is not that of the rest.
            0 => {
                let start = key.rfind('.').unwrap() + 1;
                let index = start + at.index(key.len() - start - 1);
                let other = if &key[index..=index] == "A" { "B" } else { "A" };
                key.replace_range(index..=index, other);
                key
            }
            // Claims that were signed for another key.
            1 => {
                let mut segments: Vec<&str> = key.split('.').collect();
                let claims =
                    sign(&json!({"jti": "more", "tenant": "t", "iat": NOW, "exp": NOW + 9}));
                let claims = claims.split('.').nth(2).unwrap().to_owned();
                segments[if is_jwt { 1 } else { 2 }] = &claims;
                segments.join(".")
            }
            _ => key,
        }
    })
}

fn jwt(claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": "main-0", "typ": "JWT"});
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let mut key = [0; 32];
    hkdf_sha256(b"vkey.v1", secret().as_bytes(), b"main-0", &mut key).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_jwt_of_the_tests_is_a_good_key() {
    let claims = json!({"jti": "other", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60});
    assert!(verify(&jwt(&claims)).is_some());
}

/// A text with some of its bytes escaped.
fn escaped(text: &str, which: &[bool]) -> Vec<u8> {
    let bytes = text.bytes().zip(which.iter().cycle());
    let escape = |(byte, escapes): (u8, &bool)| match escapes {
        true => format!("%{byte:02x}").into_bytes(),
        false => vec![byte],
    };
    bytes.flat_map(escape).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_second_key_in_any_other_header_is_refused(
        second in second_key(),
        name in prop_oneof!["[a-z][a-z0-9_-]{0,12}", select(&[
            "cookie", "referer", "x-forwarded-for", "x-request-id", "upgrade", "forwarded", "x-vkey-key",
            "x-envoy-retry-on", "proxy-authorization",
        ][..]).prop_map(str::to_owned)],
        before in "[ -,/:-@\\[-^`{-~]{0,20}",
        after in "[ -,/:-@\\[-^`{-~]{0,20}",
        which in vec(any::<bool>(), 1..5),
        escapes: bool,
        first: bool,
    ) {
        let sources = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
        prop_assume!(!sources.contains(&&*name));
        let good = sign(&json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60}));
        let second = if escapes { escaped(&second, &which) } else { second.into_bytes() };
        let value = [before.as_bytes(), &second, after.as_bytes()].concat();
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":path".to_vec(), b"/v1/models".to_vec()),
            (b":authority".to_vec(), b"gw.example".to_vec()),
            (b"x-api-key".to_vec(), good.into_bytes()),
        ];
        headers.insert(if first { 0 } else { 4 }, (name.into_bytes(), value));
        let (gate, host, mut exchange) = (gate(), host(headers, Vec::new()), Exchange::default());
        prop_assert_eq!(gate.on_request_headers(&host, &mut exchange), Action::Pause);
        gate.on_log(&host, &mut exchange);
        let line = host.log.borrow()[0].1.clone();
        let decision = Record::parse(&line).unwrap().decision;
        prop_assert_eq!(decision, Some(Decision::Deny(DenyReason::KeyConflict)), "{}", line);
    }
}

// === anything at all ===

/// Every member that there is.
const WHOLE_CONFIGURATION: &[u8] = br#"{
    "audience": "gw", "clock_skew": "5s", "host": "auto", "mode": "shadow", "upgrades": false,
    "keyring": [{"name": "main", "secret": "${A}", "state": "retiring",
                 "rotation": {"interval": "1h", "max_age": "2h", "keep_expired": true}}],
    "key_sources": [{"header": "authorization", "scheme": "Bearer"}],
    "tiers": {"default": {"only": {"methods": ["GET"], "any_of": [{"sources": ["::/0"]}]},
                          "rate": {"requests": 5, "per": "1s", "burst": 9},
                          "quotas": [{"requests": 9, "per": "day"}], "usage_of_others": true}},
    "tenants": {"acme": {"only": {"paths": ["/v1/**"]}, "quotas": [{"requests": 9, "per": "total"}],
                         "rate": {"requests": 5, "per": "1s"}}}, "unlisted_tenants": "deny",
    "auth_failures": {"threshold": 5, "window": "300s", "block_for": "1s"},
    "anomaly": {"sensitivity": "low"},
    "revoked": {"version": 1, "keys": ["k", {"tenant": "acme", "jti": "k"}], "tenants": {"acme": {"issued_before": 1.0}}},
    "forward": {"identity_headers": true, "credentials_in_front": true,
                "credentials": [{"hosts": ["*.a"], "header": "b", "value": "Bearer ${C}"},
                                {"name": "c", "hosts": ["*.d"]}]},
    "upstream_tls": {"require_stamp": true, "require_gate": false,
                     "tighten": [{"host": "a.b", "min_version": "TLSv1.3"}]},
    "client": {"trusted_hops": 1, "allow": ["10.0.0.0/8"], "deny": []},
    "usage": {"path": "/usage"},
    "audit": {"sink": "log", "level": "warn", "mask": ["sub"], "mask_value": "?"}
}"#;

/// Bytes, and texts that come near to what the readers expect.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let near = "(vk1|eyJ[a-zA-Z0-9]{0,8})?[.a-zA-Z0-9_-]{0,60}";
    let json = r#"[{}\[\]":,a-z0-9.\\-]{0,60}"#;
    prop_oneof![
        vec(any::<u8>(), 0..200),
        near.prop_map(String::into_bytes),
        json.prop_map(String::into_bytes),
        restriction().prop_map(|json| json.to_string().into_bytes()),
    ]
}

fn host(headers: Vec<(Vec<u8>, Vec<u8>)>, peer: Vec<u8>) -> MemoryHost {
    let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
    host.now_ns.set(Some(NOW * 1_000_000_000));
    *host.headers.borrow_mut() = Some(headers);
    host.show("source\0address", peer);
    host
}

fn gate() -> Gate {
    gate_under(Policy::strictest())
}

fn gate_under(policy: Policy) -> Gate {
    let text =
        br#"{"keyring": [{"name": "main", "secret": "${SECRET}"}], "client": {"trusted_hops": 1},
             "tiers": {"default": {"rate": {"requests": 5, "per": "1s"}, "usage_of_others": true}},
             "auth_failures": {"threshold": 2, "block_for": "1h"},
             "anomaly": {"sensitivity": "high"}}"#;
    let secret = |_: &str| Some(secret());
    let plan: Plan = Config::parse(text).unwrap().compile(secret).unwrap();
    Gate::open(plan, policy)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in anything()) {
        _ = Unverified::parse(&bytes).map(|token| verify(&String::from_utf8_lossy(token.untrusted_content().0)));
        _ = Kid::parse(&bytes);
        _ = Claims::parse(&bytes);
        _ = Restriction::parse(&bytes);
        _ = Json::parse(&bytes);
        _ = Config::parse(&bytes);
        _ = CanonicalPath::parse(&bytes);
        _ = canonical_host(&bytes);
        _ = query_keys(&bytes).count();
        _ = decode::<Cell>(&key_name("acme", "k1"), &bytes);
        _ = Cell::read(&mut &*bytes);
        _ = Shard::read(&mut &*bytes);
        _ = Headers::from_pairs(bytes.clone()).map(|headers| headers.iter().count());
        _ = Record::parse(&String::from_utf8_lossy(&bytes));
        _ = Secret::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_genuine_tag_over_anything_is_no_danger(claims in anything(), caveat in anything()) {
        let kid = Kid::new("main", 0).unwrap();
        let token = mint(&ring().signing_key(&kid), &kid, &claims);
        let Ok(unverified) = Unverified::parse(token.as_bytes()) else { return Ok(()) };
        let token = unverified.attenuate(&caveat).unwrap();
        let identity = engine().identify(token.as_bytes(), NOW);
        let is_good = matches!(identity, Identity::Known { validity: Ok(()), .. });
        prop_assert!(!is_good || Restriction::parse(&caveat).is_ok());
    }

    #[test]
    fn no_request_makes_the_gate_panic_or_opens_it(
        mut headers in vec(("[a-z:-]{1,12}", anything()), 0..8),
        credential in anything(),
        target in anything(),
        peer in anything(),
    ) {
        headers.push(("authorization".to_owned(), [b"Bearer ", &*credential].concat()));
        headers.push((":path".to_owned(), target));
        let headers = headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let (gate, host, mut exchange) = (gate(), host(headers, peer), Exchange::default());
        gate.on_request_headers(&host, &mut exchange);
        gate.on_log(&host, &mut exchange);
        prop_assert!(host.reply.borrow().is_some());
        prop_assert!(host.filter_state.borrow().is_empty());
        prop_assert_eq!(host.log.borrow().len(), 1);
        Record::parse(&host.log.borrow()[0].1).unwrap();
    }

    #[test]
    fn a_good_key_among_anything_is_decided_once(
        mut headers in vec(("[a-z:-]{1,12}", anything()), 0..8),
        target in prop_oneof![anything(), Just(b"/v1/models".to_vec())],
        peer in anything(),
        caveats in vec(restriction(), 0..2),
    ) {
        let key = sign(&json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60}));
        let key = caveats.iter().fold(key, |token, caveat| attenuate(&token, caveat));
        headers.push(("x-api-key".to_owned(), key.into_bytes()));
        headers.push((":method".to_owned(), b"GET".to_vec()));
        headers.push((":path".to_owned(), target));
        let headers = headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let (gate, host, mut exchange) = (gate(), host(headers, peer), Exchange::default());
        gate.on_request_headers(&host, &mut exchange);
        gate.on_log(&host, &mut exchange);
        let sealed = host.filter_state.borrow().contains_key("vkey.decision");
        prop_assert!(sealed != host.reply.borrow().is_some());
        let lines = host.log.borrow();
        prop_assert_eq!(lines.len(), 1);
        let record = Record::parse(&lines[0].1).unwrap();
        prop_assert_eq!(record.decision.is_some_and(Decision::forwards), sealed);
    }

    #[test]
    fn a_configuration_with_any_byte_changed_is_read_or_refused(at in any::<Index>(), byte: u8) {
        let mut text = WHOLE_CONFIGURATION.to_vec();
        Config::parse(&text).unwrap();
        let index = at.index(text.len());
        text[index] = byte;
        _ = Config::parse(&text);
    }
}
