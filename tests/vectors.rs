//! Test vectors: published ones and the project's own. They run natively and, in Node, on wasm32.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a vector that is not there fails"
)]
#![allow(clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

#[path = "../examples/tokens/main.rs"]
#[allow(dead_code, reason = "its main writes the file that this test reads")]
mod tokens;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use vkey::access::{Access, CanonicalPath, McpCall, Models, exact_host};
use vkey::config::{Config, Plan};
use vkey::decision::{DenyClass, DenyReason};
use vkey::digest::sha256_hex;
use vkey::engine::{Engine, Identity};
use vkey::key::keyring::{Keyring, Ring, RingState, Rotation, Secret};
use vkey::key::mac::{SigningKey, Tag, hkdf_sha256};
use vkey::key::token::{Kid, Unverified};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A published file of vectors. It is compiled in, because there are no files to read in Node.
macro_rules! vectors {
    ($name:literal) => {
        json(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/vectors/", $name)))
    };
}

#[path = "vectors/lists.rs"]
mod lists;
#[path = "vectors/messages.rs"]
mod messages;
#[path = "vectors/pieces.rs"]
mod pieces;
#[path = "vectors/requests.rs"]
mod requests;
#[path = "vectors/responses.rs"]
mod responses;

const TOKENS: &str = include_str!("../testdata/tokens/tokens.json");

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    let byte = |index| u8::from_str_radix(&digits[index..index + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn base64url(text: &[u8]) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn tag_of(bytes: &[u8]) -> Tag {
    Tag::from_bytes(bytes.try_into().unwrap())
}

#[track_caller]
fn cases(list: &Value, at_least: usize) -> &[Value] {
    let list = list.as_array().unwrap();
    assert!(list.len() >= at_least, "only {} cases", list.len());
    list
}

// === primitives ===

#[test]
fn hmac_of_rfc_4231() {
    let file = vectors!("rfc4231_hmac.json");
    for case in cases(&file["tests"], 7) {
        let expected = hex(&case["sha256"]);
        let tag = SigningKey::new(&hex(&case["key"])).sign(&[&hex(&case["data"])]);
        // Test case 5 has a truncated tag, which keys never have.
        if expected.len() == 32 {
            assert!(tag.matches(&tag_of(&expected)), "{}", case["tc"]);
        }
    }
}

#[test]
fn hmac_of_wycheproof() {
    let file = vectors!("wycheproof_hmac_sha256_test.json");
    let mut full = 0;
    for group in cases(&file["testGroups"], 2) {
        // A truncated tag is invalid in this format.
        let whole = group["tagSize"] == 256;
        for case in cases(&group["tests"], 1) {
            let tag = SigningKey::new(&hex(&case["key"])).sign(&[&hex(&case["msg"])]);
            let expected = <[u8; 32]>::try_from(hex(&case["tag"])).ok().map(Tag::from_bytes);
            let matches = expected.is_some_and(|expected| tag.matches(&expected));
            assert_eq!(matches, whole && case["result"] == "valid", "{}", case["tcId"]);
            full += u32::from(whole);
        }
    }
    assert!(full >= 80, "only {full} cases with whole tags");
}

#[test]
fn hkdf_of_rfc_5869() {
    let file = vectors!("rfc5869_hkdf_sha256.json");
    for case in cases(&file["tests"], 3) {
        let expected = hex(&case["okm"]);
        let mut okm = vec![0; expected.len()];
        let (salt, ikm, info) = (hex(&case["salt"]), hex(&case["ikm"]), hex(&case["info"]));
        hkdf_sha256(&salt, &ikm, &info, &mut okm).unwrap();
        assert_eq!(okm, expected, "{}", case["case"]);
    }
}

#[test]
fn hkdf_of_wycheproof() {
    let file = vectors!("wycheproof_hkdf_sha256_test.json");
    let groups = cases(&file["testGroups"], 1);
    let tests: Vec<&Value> = groups.iter().flat_map(|group| cases(&group["tests"], 1)).collect();
    assert_eq!(tests.len(), 86);
    for case in tests {
        let (salt, ikm, info) = (hex(&case["salt"]), hex(&case["ikm"]), hex(&case["info"]));
        let mut okm = vec![0; usize::try_from(case["size"].as_u64().unwrap()).unwrap()];
        let derived = hkdf_sha256(&salt, &ikm, &info, &mut okm).is_ok();
        let valid = derived && okm == hex(&case["okm"]);
        assert_eq!(valid, case["result"] == "valid", "{}", case["tcId"]);
    }
}

/// The token of RFC 7515 is a JWS, but not a key: its header has no kid. The primitive verifies its
/// signature, but as a key it is malformed.
#[test]
fn jws_of_rfc_7515() {
    let file = vectors!("rfc7515_a1_hs256.json");
    let field = |name: &str| file[name].as_str().unwrap().as_bytes().to_vec();
    let key = SigningKey::new(&base64url(&field("k")));
    let tag = key.sign(&[&field("protected"), b".", &field("payload")]);
    assert!(tag.matches(&tag_of(&base64url(&field("signature")))));
    assert!(Unverified::parse(&field("compact")).is_err());
}

// === keys ===

/// An engine without rules, with rings whose secrets are published.
fn engine(rings: &Value, clock_skew_secs: u64) -> Engine {
    let text = br#"{"keyring": [{"name": "unused", "secret": "${UNUSED}"}]}"#;
    let unused = |_: &str| Some(format!("A-{}", sha256_hex(b"unused")));
    let plan = Config::parse(text).unwrap().compile(unused).unwrap();
    let rings = cases(rings, 1).iter().map(ring).collect();
    Engine::new(Plan { keyring: Keyring::new(rings, clock_skew_secs), ..plan })
}

fn ring(ring: &Value) -> Ring {
    let secs = |member: &str| {
        let text = ring["rotation"][member].as_str().unwrap();
        humantime::parse_duration(text).unwrap().as_secs()
    };
    let rotation = ring.get("rotation").map(|rotation| {
        let keep_expired = rotation["keep_expired"].as_bool().unwrap();
        Rotation::new(secs("interval"), secs("max_age"), keep_expired).unwrap()
    });
    let secret = Secret::parse(ring["secret"].as_str().unwrap()).unwrap();
    Ring::new(ring["name"].as_str().unwrap(), &secret, RingState::Active, rotation).unwrap()
}

/// Identifies a token and, if the case has an access, authorizes that too.
fn outcome(engine: &mut Engine, case: &Value) -> Result<(), DenyReason> {
    let now_secs = case["now"].as_u64().unwrap();
    let identity = engine.identify(case["token"].as_str().unwrap().as_bytes(), now_secs);
    let key = match identity {
        Identity::Known { key, validity } => validity.map(|()| key)?,
        Identity::Stranger(reason) => return Err(reason),
    };
    let Some(asked) = case.get("access") else {
        return Ok(());
    };
    let text = |member: &str| asked[member].as_str();
    let path = text("path").unwrap().as_bytes();
    let names: Vec<Box<str>> = text("model").map(Box::from).into_iter().collect();
    let access = Access {
        now_secs,
        method: text("method").unwrap(),
        host: exact_host(text("authority").unwrap().as_bytes()),
        path: CanonicalPath::parse(path).map_err(|_| DenyReason::PathAmbiguous)?,
        source: text("src").map(|src| src.parse().unwrap()),
        client_cert: text("client_cert"),
        models: Models::Named { names: &names, open_ended: false },
        mcp: asked.get("mcp").map(|call| McpCall {
            method: call["method"].as_str().unwrap(),
            server: call["server"].as_str(),
            name: call["name"].as_str(),
        }),
    };
    engine.authorize(&key, &access)
}

/// Cases in which the second implementation normalises a path or an authority. This one requires canonical
/// form, because a proxy may forward it unchanged.
const NOT_CANONICAL: [(&str, &str); 5] = [
    ("access: host with port, case and dot", "host"),
    ("access: dot segments", "path_ambiguous"),
    ("access: encoded dot segments", "path_ambiguous"),
    ("access: double slash", "path_ambiguous"),
    ("access: encoded unreserved", "path_ambiguous"),
];

/// The expected result of a case.
fn expected(case: &Value) -> &str {
    let stricter = NOT_CANONICAL.iter().find(|(name, _)| case["name"] == *name);
    stricter.map_or_else(|| case["expect"].as_str().unwrap(), |(_, reason)| reason)
}

fn check(engine: &mut Engine, case: &Value) {
    let name = case["name"].as_str().unwrap();
    let outcome = outcome(engine, case);
    match (expected(case), outcome) {
        ("ok", outcome) => assert_eq!(outcome, Ok(()), "{name}"),
        ("any", outcome) => {
            let class = outcome.err().map(DenyReason::class);
            assert_eq!(class, Some(DenyClass::Forbidden), "{name}");
        }
        (code, outcome) => assert_eq!(outcome.err().map(DenyReason::code), Some(code), "{name}"),
    }
}

fn check_file(file: &Value, at_least: usize) {
    let skew = file["clock_skew_secs"].as_u64().unwrap();
    for case in cases(&file["cases"], at_least) {
        // Twice with one engine: a cached key is treated like a new one.
        let mut engine = engine(&file["rings"], skew);
        check(&mut engine, case);
        check(&mut engine, case);
    }
    let mut engine = engine(&file["rings"], skew);
    for case in cases(&file["cases"], at_least) {
        check(&mut engine, case);
    }
}

#[test]
fn keys_of_a_second_implementation() {
    let file = vectors!("keys.json");
    check_file(&file, 91);
    let named = |name: &str| cases(&file["cases"], 91).iter().any(|case| case["name"] == name);
    assert!(NOT_CANONICAL.iter().all(|(name, _)| named(name)));
    let engine = engine(&file["rings"], 0);
    for derived in cases(&file["derived"], 2) {
        let kid = Kid::parse(derived["kid"].as_str().unwrap().as_bytes()).unwrap();
        let ours =
            engine.keyring().ring(&kid).unwrap().signing_key(&kid).unwrap().sign(&[b"probe"]);
        let theirs = SigningKey::new(&hex(&derived["signing_key_hex"])).sign(&[b"probe"]);
        assert!(ours.matches(&theirs), "{kid}");
    }
}

#[test]
fn keys_of_this_project() {
    check_file(&json(TOKENS), 100);
}

#[test]
fn keys_of_this_project_are_what_the_command_writes() {
    assert!(
        tokens::generate() == TOKENS,
        "run `cargo run --example tokens` and look at the change"
    );
}
