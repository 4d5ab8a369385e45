//! Writes the project's token vectors to `testdata/tokens/tokens.json`: `cargo run --example tokens`. Each run
//! writes the same file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "stops at the first wrong vector"
)]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a tool of the tests")]
#![allow(clippy::string_slice, reason = "base64url is ASCII")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON literals read better without a sign before them"
)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use vkey::key::keyring::{Ring, RingState, Rotation, Secret};
use vkey::key::mac::hkdf_sha256;
use vkey::key::token::{Kid, Unverified, mint};

mod random;

const PATH: &str = "testdata/tokens/tokens.json";

const NOW: u64 = 1_790_000_000;

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

/// The number of random keys. Each comes with four keys that were tampered with.
const RANDOM_KEYS: usize = 40;

fn main() {
    std::fs::write(PATH, generate()).expect("run from the project's folder");
    println!("wrote {PATH}");
}

/// The text of the file.
pub(crate) fn generate() -> String {
    let signers = Signers::new();
    let mut cases = edges(&signers);
    cases.extend(random::cases(&signers, RANDOM_KEYS));
    let file = json!({
        "about": "vk1 keys with the expected result or deny reason; written by `cargo run --example tokens`",
        "clock_skew_secs": 5,
        "rings": Signers::rings(),
        "cases": cases,
    });
    format!("{}\n", serde_json::to_string_pretty(&file).unwrap())
}

// === rings ===

/// A ring that does not rotate, and one that rotates daily, accepts keys for three days and forgets expired ones.
struct Signers {
    stays: Ring,
    rotates: Ring,
}

impl Signers {
    fn new() -> Self {
        let ring = |index: usize, rotation| {
            let ring = &Self::rings()[index];
            let secret = Secret::parse(ring["secret"].as_str().unwrap()).unwrap();
            Ring::new(ring["name"].as_str().unwrap(), &secret, RingState::Active, rotation).unwrap()
        };
        let daily = Rotation::new(DAY, 3 * DAY, false).unwrap();
        Self { stays: ring(0, None), rotates: ring(1, Some(daily)) }
    }

    fn rings() -> Value {
        json!([
            {"name": "stays", "secret": "Sample-Secret-1-never-deploy"},
            {
                "name": "rotates-daily",
                "secret": "base64:c2FtcGxlIHNlY3JldCAyLCBuZXZlciBkZXBsb3kgaXQ=",
                "rotation": {"interval": "1d", "max_age": "3d", "keep_expired": false},
            },
        ])
    }

    fn stays(&self, claims: &Value) -> String {
        sign(&self.stays, &self.stays.kid_at(NOW).unwrap(), claims)
    }

    /// A key of the epoch `days` days from now.
    fn rotates(&self, days: i64, claims: &Value) -> String {
        let time = NOW.checked_add_signed(days * i64::try_from(DAY).unwrap()).unwrap();
        sign(&self.rotates, &self.rotates.kid_at(time).unwrap(), claims)
    }
}

fn sign(ring: &Ring, kid: &Kid, claims: &Value) -> String {
    mint(&ring.signing_key(kid).unwrap(), kid, claims.to_string().as_bytes())
}

fn attenuate(token: &str, caveat: &Value) -> String {
    let token = Unverified::parse(token.as_bytes()).unwrap();
    token.attenuate(caveat.to_string().as_bytes()).unwrap()
}

// === cases ===

fn claims(members: Value) -> Value {
    let mut claims = json!({"jti": "k1", "tenant": "acme", "iat": NOW - 60, "exp": NOW + 600});
    claims.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    claims
}

fn case(name: &str, token: &str, now: u64, expect: &str) -> Value {
    json!({"name": name, "now": now, "token": token, "expect": expect})
}

fn asking(case: Value, access: Value) -> Value {
    let mut asked = json!({
        "method": "POST", "authority": "gw.example", "path": "/v1/chat/completions", "src": "10.1.2.3",
    });
    asked.as_object_mut().unwrap().extend(access.as_object().unwrap().clone());
    let mut case = case;
    case["access"] = asked;
    case
}

/// Cases at the limits of the rules.
fn edges(signers: &Signers) -> Vec<Value> {
    [times(signers), shapes(signers), restrictions(signers), jwts(signers)].concat()
}

fn times(signers: &Signers) -> Vec<Value> {
    let stays = |members: Value| signers.stays(&claims(members));
    let plain = |days| signers.rotates(days, &claims(json!({})));
    let tomorrow = signers.rotates(1, &claims(json!({"exp": NOW + 2 * DAY})));
    let start = NOW / DAY * DAY;
    vec![
        case("iat inside the clock skew", &stays(json!({"iat": NOW + 5})), NOW, "ok"),
        case("iat past the clock skew", &stays(json!({"iat": NOW + 6})), NOW, "key_not_yet_valid"),
        case("nbf has no skew", &stays(json!({"nbf": NOW + 1})), NOW, "key_not_yet_valid"),
        case("never valid", &stays(json!({"exp": NOW - 61})), NOW, "key_expired"),
        case("exp in the last second of 9999", &stays(json!({"exp": LAST})), NOW, "ok"),
        case("exp past it", &stays(json!({"exp": LAST + 1})), NOW, "key_malformed"),
        case("next epoch inside the skew", &tomorrow, start + DAY - 5, "ok"),
        case("next epoch before the skew", &tomorrow, start + DAY - 6, "key_not_yet_valid"),
        case("this epoch", &plain(0), NOW, "ok"),
        case("the epoch before the last", &plain(-2), NOW, "ok"),
        case("aged out, not remembered", &plain(-3), NOW, "key_retired"),
        case(
            "expired, not remembered",
            &signers.rotates(0, &claims(json!({"exp": NOW}))),
            NOW,
            "key_retired",
        ),
    ]
}

fn shapes(signers: &Signers) -> Vec<Value> {
    let token = signers.stays(&claims(json!({})));
    let long = signers.stays(&claims(json!({"sub": "s".repeat(128)})));
    let caveat = attenuate(&token, &json!({}));
    let (body, tag) = token.rsplit_once('.').unwrap();
    vec![
        case("sub of 128", &long, NOW, "ok"),
        case(
            "sub of 129",
            &signers.stays(&claims(json!({"sub": "s".repeat(129)}))),
            NOW,
            "key_malformed",
        ),
        case("aud as a string", &signers.stays(&claims(json!({"aud": "gw"}))), NOW, "ok"),
        case("aud as a number", &signers.stays(&claims(json!({"aud": 1}))), NOW, "key_malformed"),
        case("meta as a list", &signers.stays(&claims(json!({"meta": []}))), NOW, "key_malformed"),
        case("only as a list", &signers.stays(&claims(json!({"only": []}))), NOW, "key_malformed"),
        case("tenant null", &signers.stays(&claims(json!({"tenant": null}))), NOW, "key_malformed"),
        case("empty caveat segment", &format!("{body}..{tag}"), NOW, "key_malformed"),
        case("a dot at the end", &format!("{token}."), NOW, "key_malformed"),
        case("a dot before", &format!(".{token}"), NOW, "key_malformed"),
        case("a space at the end", &format!("{token} "), NOW, "key_malformed"),
        case(
            "tag of the key without its caveat",
            &caveat.replace(last(&caveat), tag),
            NOW,
            "key_signature",
        ),
        case("an empty caveat", &caveat, NOW, "ok"),
        case("a caveat that is a list", &attenuate(&token, &json!([])), NOW, "caveat_unsupported"),
        case(
            "limits in a caveat",
            &attenuate(&token, &json!({"rate": {}})),
            NOW,
            "caveat_unsupported",
        ),
    ]
}

fn restrictions(signers: &Signers) -> Vec<Value> {
    let token = signers.stays(&claims(json!({})));
    let restricted = |name: &str, caveat: Value, access: Value, expect: &str| {
        asking(case(name, &attenuate(&token, &caveat), NOW, expect), access)
    };
    let digest = "ab".repeat(32);
    let nested = json!({"any_of": [{"any_of": []}]});
    vec![
        restricted("empty any_of", json!({"any_of": []}), json!({}), "any"),
        restricted("nested any_of", nested, json!({}), "caveat_unsupported"),
        restricted(
            "certificate shown",
            json!({"client_cert": [digest]}),
            json!({"client_cert": digest}),
            "ok",
        ),
        restricted(
            "certificate not shown",
            json!({"client_cert": [digest]}),
            json!({}),
            "client_cert",
        ),
        restricted(
            "certificate in capitals",
            json!({"client_cert": [digest.to_uppercase()]}),
            json!({"client_cert": digest}),
            "ok",
        ),
        restricted(
            "half a digest",
            json!({"client_cert": ["ab"]}),
            json!({}),
            "caveat_unsupported",
        ),
        restricted(
            "two labels before a suffix",
            json!({"hosts": ["*.example"]}),
            json!({"authority": "a.b.example"}),
            "ok",
        ),
        restricted(
            "an empty label",
            json!({"hosts": ["*.example"]}),
            json!({"authority": ".example"}),
            "host",
        ),
        restricted(
            "user information",
            json!({"hosts": ["gw.example"]}),
            json!({"authority": "a@gw.example"}),
            "host",
        ),
        restricted(
            "a host rule with a port",
            json!({"hosts": ["gw.example:443"]}),
            json!({}),
            "caveat_unsupported",
        ),
        restricted(
            "path below, not the folder",
            json!({"paths": ["/v1/**"]}),
            json!({"path": "/v1"}),
            "path",
        ),
        restricted("nothing to match", json!({"paths": [""]}), json!({"path": "/"}), "path"),
        restricted(
            "dot segment with parameters",
            json!({}),
            json!({"path": "/v1/..;a/b"}),
            "path_ambiguous",
        ),
        restricted(
            "fragment after the query",
            json!({}),
            json!({"path": "/v1?a#b"}),
            "path_ambiguous",
        ),
        restricted(
            "no network",
            json!({"sources": ["10.0.0.0/33"]}),
            json!({}),
            "caveat_unsupported",
        ),
        restricted("mapped network", json!({"sources": ["::ffff:10.0.0.0/104"]}), json!({}), "ok"),
        restricted(
            "an MCP rule without a call",
            json!({"mcp": {"tools": ["*"]}}),
            json!({}),
            "mcp_call",
        ),
        restricted(
            "an MCP list under a tool rule",
            json!({"mcp": {"tools": ["a"]}}),
            json!({"mcp": {"method": "tools/list"}}),
            "ok",
        ),
        restricted(
            "an MCP method",
            json!({"mcp": {"methods": ["tools/*"]}}),
            json!({"mcp": {"method": "prompts/get", "name": "a"}}),
            "mcp_call",
        ),
        restricted(
            "an MCP server unknown",
            json!({"mcp": {"servers": ["a"]}}),
            json!({"mcp": {"method": "ping"}}),
            "mcp_call",
        ),
        restricted(
            "an MCP resource",
            json!({"mcp": {"resources": ["file:///a/*"]}}),
            json!({"mcp": {"method": "resources/read", "name": "file:///a/b/c"}}),
            "ok",
        ),
        restricted(
            "an MCP prompt",
            json!({"mcp": {"prompts": ["a"]}}),
            json!({"mcp": {"method": "prompts/get", "name": "b"}}),
            "mcp_call",
        ),
    ]
}

fn jwts(signers: &Signers) -> Vec<Value> {
    let jwt = |header: Value| jwt(&header, &claims(json!({})));
    let header = json!({"alg": "HS256", "kid": "stays-0", "typ": "JWT"});
    let good = jwt(header.clone());
    let vk1 = signers.stays(&claims(json!({})));
    vec![
        case("JWT", &good, NOW, "ok"),
        case("JWT again", &jwt(header), NOW, "ok"),
        case(
            "JWT of another type",
            &jwt(json!({"alg": "HS256", "kid": "stays-0", "typ": "at+jwt"})),
            NOW,
            "key_malformed",
        ),
        case(
            "JWT in lower case",
            &jwt(json!({"alg": "hs256", "kid": "stays-0"})),
            NOW,
            "key_malformed",
        ),
        case(
            "JWT of an unknown ring",
            &jwt(json!({"alg": "HS256", "kid": "other-0"})),
            NOW,
            "key_unknown",
        ),
        case(
            "JWT with a key inside",
            &jwt(json!({"alg": "HS256", "kid": "stays-0", "jwk": {}})),
            NOW,
            "key_malformed",
        ),
        case("JWT with a caveat", &good.replacen('.', ".e30.", 1), NOW, "key_malformed"),
        case(
            "JWT under the tag of a vk1 key",
            &good.replace(last(&good), last(&vk1)),
            NOW,
            "key_signature",
        ),
        case(
            "vk1 key under the tag of a JWT",
            &vk1.replace(last(&vk1), last(&good)),
            NOW,
            "key_signature",
        ),
    ]
}

/// Signs a JWT with HMAC directly, because the library mints none.
fn jwt(header: &Value, claims: &Value) -> String {
    let secret = Signers::rings()[0]["secret"].as_str().unwrap().to_owned();
    let mut key = [0; 32];
    hkdf_sha256(b"vkey.v1", secret.as_bytes(), b"stays-0", &mut key).unwrap();
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let body = format!("{}.{}", encode(header), encode(claims));
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&body);
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn last(token: &str) -> &str {
    token.rsplit_once('.').unwrap().1
}
