//! Tests of the limit on the cost of globs.

use super::*;
use crate::access::restriction::MAX_GLOB_STEPS;
use crate::access::{CanonicalPath, MAX_PATH_BYTES, Mcp, McpCall, Models};
use crate::body::mcp::{Arguments, Found, ObjectKind, Pointer};
use crate::config::Config;
use crate::glob::work;
use crate::key::keyring::{Ring, RingState, Secret};
use crate::key::token::{self, MAX_CAVEATS, MAX_TOKEN_BYTES, Unverified};

const SECRET: &str = "Globs-1-are-bounded-by-work";

/// A restriction with a list of as many `unit`s as fit into a key.
fn filled(start: &str, unit: &str, end: &str) -> String {
    // Base64 makes four characters of three bytes.
    let room = (MAX_TOKEN_BYTES - 300) / 4 * 3 - start.len() - end.len();
    let units = vec![unit; room / (unit.len() + 1)];
    [start, &units.join(","), end].concat()
}

fn engine() -> Engine {
    let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#;
    Engine::new(Config::parse(config).unwrap().compile(|_| Some(SECRET.to_owned())).unwrap())
}

fn key(engine: &mut Engine, caveats: &[String]) -> Rc<KnownKey> {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = br#"{"jti":"k","tenant":"acme","iat":1780000000,"exp":1900000000}"#;
    let mut token = token::mint(&ring.signing_key(&kid).unwrap(), &kid, claims);
    for caveat in caveats {
        token = Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.as_bytes()).unwrap();
    }
    match engine.identify(token.as_bytes(), 1_790_000_000) {
        Identity::Known { key, validity: Ok(()) } => key,
        other => panic!("{other:?}"),
    }
}

/// The glob steps of a decision, and its result.
fn decide(engine: &Engine, key: &KnownKey, access: &Access<'_>) -> (usize, Result<(), DenyReason>) {
    work::take();
    let verdict = engine.authorize(key, access);
    (work::take(), verdict)
}

#[test]
fn no_key_takes_more_steps_than_the_limit() {
    let long_glob = format!(r#""{}b""#, "*a*a*a*a".repeat(7));
    let filling = format!(r#""/**{}b""#, "a*".repeat(1_300));
    let few = format!(r#"{{"paths":["{}b"]}}"#, "*a*a".repeat(25));
    let keys: [Vec<String>; 7] = [
        vec![filled(r#"{"paths":["#, &long_glob, "]}")],
        vec![format!(r#"{{"paths":[{filling}]}}"#)],
        vec![filled(r#"{"paths":["#, r#""*a*b""#, "]}")],
        vec![filled(r#"{"any_of":["#, r#"{"paths":["*a*b"]}"#, "]}")],
        vec![filled(r#"{"any_of":["#, r#"{"paths":["/*"]}"#, "]}")],
        vec![few.clone(); MAX_CAVEATS],
        vec![r#"{"paths":["/*"]}"#.to_owned(); MAX_CAVEATS],
    ];
    let mut engine = engine();
    let mut refused_for_work = 0;
    for (number, caveats) in keys.iter().enumerate() {
        let key = key(&mut engine, caveats);
        for len in [1, 20, 64, 100, 250, 500, 1_000, 2_000, MAX_PATH_BYTES] {
            let path = "/a".repeat(len / 2) + &"a".repeat(len % 2);
            let path = if len == 1 { "/" } else { &path };
            let path = CanonicalPath::parse(path.as_bytes()).unwrap();
            let access = Access { now_secs: 1_790_000_000, path, ..Access::default() };
            let (steps, verdict) = decide(&engine, &key, &access);
            assert!(steps <= MAX_GLOB_STEPS, "key {number}: {steps} steps for {len} bytes");
            refused_for_work += usize::from(verdict == Err(DenyReason::CaveatUnsupported));
        }
    }
    assert!(refused_for_work > 0);
}

#[test]
fn the_limit_applies_to_names_too() {
    let name = "a".repeat(MAX_GLOB_STEPS);
    let caveat = filled(r#"{"any_of":["#, r#"{"models":["*a*b"],"mcp":{"tools":["*a*b"]}}"#, "]}");
    let mut engine = engine();
    let key = key(&mut engine, &[caveat]);
    let names = [name.as_str().into()];
    let call = Mcp::Call(McpCall::using(ObjectKind::Tool, &names, None));
    let models = Models::Named { names: &names, open_ended: false };
    for (models, mcp) in [(models, Mcp::None), (Models::None, call), (models, call)] {
        let access = Access { now_secs: 1_790_000_000, models, mcp, ..Access::default() };
        let decided = decide(&engine, &key, &access);
        assert_eq!(decided, (0, Err(DenyReason::CaveatUnsupported)));
    }
}

/// Each name, each string at a pointer, and each comparison.
#[test]
fn the_limit_applies_to_mcp_calls() {
    let decided = |tools: &str, names: &[Box<str>], arguments: &Arguments| {
        let mut engine = engine();
        let key = key(&mut engine, &[format!(r#"{{"mcp":{{"tools":[{tools}]}}}}"#)]);
        let call =
            McpCall { arguments: Some(arguments), ..McpCall::using(ObjectKind::Tool, names, None) };
        let mcp = Mcp::Call(call);
        decide(&engine, &key, &Access { now_secs: 1_790_000_000, mcp, ..Access::default() }).1
    };
    let (is_allowed, exceeds) = (Ok(()), Err(DenyReason::CaveatUnsupported));
    let name = |len: usize| Box::<str>::from("a".repeat(len - 1) + "b");
    let names = vec![name(MAX_GLOB_STEPS / 8); 8];
    let more = [&names[..], &[name(1)]].concat();
    for tools in [r#""*a*b""#, r#"{"name":"*a*b"}"#] {
        assert_eq!(decided(tools, &names, &Arguments::default()), is_allowed, "{tools}");
        assert_eq!(decided(tools, &more, &Arguments::default()), exceeds, "{tools}");
    }
    let at = |found: Vec<Found>| {
        Arguments::new(vec![(Pointer::parse("/a/*").unwrap(), found)], Some(vec!["a".into()]))
    };
    let text = |len: usize| Found::Text(Some(name(len)));
    let glob = r#"{"name":"x","args":[{"at":"/a/*","glob":"*a*b"}]}"#;
    let x = ["x".into()];
    assert_eq!(decided(glob, &x, &at(vec![text(MAX_GLOB_STEPS / 8); 8])), is_allowed);
    assert_eq!(decided(glob, &x, &at(vec![text(MAX_GLOB_STEPS / 8 + 1); 8])), exceeds);
    let list = r#"{"name":"x","args":[{"at":"/a/*","in":["b","ab"]}]}"#;
    assert_eq!(decided(list, &x, &at(vec![text(2); MAX_GLOB_STEPS * 8])), is_allowed);
    assert_eq!(decided(list, &x, &at(vec![text(2); MAX_GLOB_STEPS * 8 + 8])), exceeds);
    let place = r#"{"name":"x","args":[{"at":"/a/*","glob":"a/*"}]}"#;
    let path = |len: usize| Found::Text(Some(("a/".to_owned() + &name(len - 2)).into()));
    assert_eq!(decided(place, &x, &at(vec![path(MAX_GLOB_STEPS * 2 - 1); 8])), is_allowed);
    assert_eq!(decided(place, &x, &at(vec![path(MAX_GLOB_STEPS * 2 + 1); 8])), exceeds);
    let only = r#"{"name":"x","only_args":["a"]}"#;
    let named = |len: usize| Arguments::new(vec![], Some(vec!["a".into(); len]));
    assert_eq!(decided(only, &x, &named(MAX_GLOB_STEPS * 16)), is_allowed);
    assert_eq!(decided(only, &x, &named(MAX_GLOB_STEPS * 16 + 16)), exceeds);
}

#[test]
fn the_limit_applies_to_all_models_together() {
    let mut engine = engine();
    let key = key(&mut engine, &[r#"{"models":["*a*b"]}"#.to_owned()]);
    let decided = |names: &[Box<str>]| {
        let models = Models::Named { names, open_ended: false };
        decide(&engine, &key, &Access { now_secs: 1_790_000_000, models, ..Access::default() })
    };
    let name = |len: usize| Box::<str>::from("a".repeat(len - 1) + "b");
    let names = vec![name(MAX_GLOB_STEPS / 8); 8];
    assert_eq!(decided(&names), (MAX_GLOB_STEPS, Ok(())));
    let names = [&names[..], &[name(1)]].concat();
    assert_eq!(decided(&names), (0, Err(DenyReason::CaveatUnsupported)));
}

#[test]
fn the_limit_is_the_documented_one() {
    let decided = |globs: usize, len: usize| {
        // Each needs 32 bits of state.
        let globs = vec![r#""/*aaaaaaaaaaaaaaaaaaaaaaaaaaaaa*b""#; globs].join(",");
        let mut engine = engine();
        let key = key(&mut engine, &[format!(r#"{{"paths":[{globs}]}}"#)]);
        let path = "/".to_owned() + &"a".repeat(len - 1);
        let path = CanonicalPath::parse(path.as_bytes()).unwrap();
        let access = Access { now_secs: 1_790_000_000, path, ..Access::default() };
        decide(&engine, &key, &access).1
    };
    for (globs, len) in [(2, 4096), (4, 2048), (32, 256), (64, 128)] {
        assert_eq!(decided(globs, len), Err(DenyReason::Path), "{globs} {len}");
        if len < MAX_PATH_BYTES {
            assert_eq!(decided(globs, len + 1), Err(DenyReason::CaveatUnsupported));
        }
        assert_eq!(decided(globs + 1, len), Err(DenyReason::CaveatUnsupported), "{globs} {len}");
    }
}

/// The limit protects against the holders of keys, not against the operator.
#[test]
fn the_limit_does_not_apply_to_tiers() {
    let globs = vec![r#""/**a*a*b""#; 200].join(",");
    let config = format!(
        r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}],
             "tiers": {{"default": {{"only": {{"paths": [{globs}]}}}}}}}}"#
    );
    let config = Config::parse(config.as_bytes()).unwrap();
    let mut engine = Engine::new(config.compile(|_| Some(SECRET.to_owned())).unwrap());
    let key = key(&mut engine, &[]);
    let path = "/".to_owned() + &"a".repeat(MAX_PATH_BYTES - 1);
    let path = CanonicalPath::parse(path.as_bytes()).unwrap();
    let access = Access { now_secs: 1_790_000_000, path, ..Access::default() };
    assert_eq!(engine.authorize(&key, &access), Err(DenyReason::Path));
}
