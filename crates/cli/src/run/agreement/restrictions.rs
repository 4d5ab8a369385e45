//! Random restrictions of configurations, keys and caveats.

use serde_json::{Map, Value, json};

use super::draw::Draw;
use vkey::access::restriction::{Slashes, refuse_mistakes};
use vkey::json::{Integers, Json};

/// The time around which everything happens, Unix seconds.
pub(super) const START_SECS: u64 = 1_790_000_000;

/// What most requests have, and most restrictions allow.
pub(super) const USUAL_METHOD: &str = "POST";
pub(super) const USUAL_HOST: &str = "gw.example";
pub(super) const USUAL_PATH: &str = "/v1/chat/completions";
pub(super) const USUAL_SOURCE: &str = "10.1.2.3";
pub(super) const USUAL_CERT: &str =
    "abababababababababababababababababababababababababababababababab";
pub(super) const OTHER_CERT: &str =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Times at which restrictions begin and end. Requests use the same ones.
pub(super) const BORDERS_SECS: [u64; 4] =
    [START_SECS - 1000, START_SECS, START_SECS + 10, START_SECS + 1000];

const METHODS: [&str; 6] = ["GET", "PUT", "DELETE", "post", "CONNECT", "PROPFIND"];
const HOSTS: [&str; 8] = [
    "*.gw.example", "other.example", "*.example", "[2001:db8::7]", "10.0.0.1", "localhost",
    "*.openai.azure.com", "a_b.example",
];
const PATHS: [&str; 20] = [
    "/v1/**", "/v1/*", "/**", "**", "/v1/*/completions", "/v1/models", "/v1/m*", "/", "/*", "/mcp",
    "/mcp/*", "/v2/**/b", "/v1/**s", "/v1/**/c*s", "/**/*", "/v1", "/v1/", "/v1/a%20b",
    "/.vkey/**", "/*/chat/*",
];
const SOURCES: [&str; 10] = [
    "10.0.0.0/8",
    "10.1.2.0/24",
    "10.1.2.4",
    "192.168.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "203.0.113.0/24",
    "::ffff:10.0.0.0/104",
    "2001:db8::5",
];
const MODELS: [&str; 4] = ["gpt-4o*", "*", "o3", "meta/*"];
const TOOLS: [&str; 3] = ["read_*", "*", "delete_page"];
const ARGUMENTS: [&str; 4] = ["/page", "/force", "/items/*", "/items/*/id"];
const LETTERS: [char; 7] = ['/', '/', 'a', 'b', '*', '*', '%'];

/// Where a restriction is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Alternative,
    Configuration,
    Key,
}

/// A restriction with a few members. In a configuration, it is one that is valid there.
pub(super) fn restriction(draw: &mut Draw, place: Place) -> Value {
    loop {
        let only = any_restriction(draw, place);
        let json = Json::parse(only.to_string().as_bytes()).expect("JSON");
        let root = json.root(Integers::Whole);
        if place != Place::Configuration || refuse_mistakes(&root, Slashes::Refused).is_ok() {
            return only;
        }
    }
}

fn any_restriction(draw: &mut Draw, place: Place) -> Value {
    let mut only = Map::new();
    let mut add = |draw: &mut Draw, percent, name: &str, value: fn(&mut Draw, Place) -> Value| {
        if draw.percent(percent) {
            only.insert(name.to_owned(), value(draw, place));
        }
    };
    add(draw, 6, "nbf", |draw, _| json!(draw.usual(60, BORDERS_SECS[0], &BORDERS_SECS)));
    add(draw, 6, "exp", |draw, _| json!(draw.usual(60, BORDERS_SECS[3], &BORDERS_SECS)));
    add(draw, 20, "methods", |draw, _| draw.list(USUAL_METHOD, &METHODS));
    add(draw, 20, "hosts", |draw, _| draw.list(USUAL_HOST, &HOSTS));
    add(draw, 25, "paths", paths);
    add(draw, 15, "sources", |draw, _| draw.list("10.1.0.0/16", &SOURCES));
    add(draw, 8, "client_cert", |draw, _| {
        draw.list(USUAL_CERT, &[OTHER_CERT, &"CD".repeat(32), &"AB".repeat(32)])
    });
    add(draw, 6, "models", |draw, _| draw.list("*", &MODELS));
    add(draw, 2, "mcp", |draw, _| json!({"tools": tools(draw)}));
    if place != Place::Alternative {
        add(draw, 10, "any_of", |draw, _| {
            let alternatives = if draw.percent(97) { 1 + draw.below(3) } else { 0 };
            (0..alternatives).map(|_| restriction(draw, Place::Alternative)).collect()
        });
    }
    Value::Object(only)
}

/// Limits that nobody reaches, for a restriction or a key.
pub(super) fn limits(draw: &mut Draw) -> Map<String, Value> {
    const LOTS: u64 = 1_000_000_000;
    let mut limits = Map::new();
    if draw.percent(50) {
        limits.insert("rate".to_owned(), json!({"requests": LOTS, "per": "1s"}));
    }
    if draw.percent(50) {
        let per = draw.one(&["minute", "day", "month", "total"]);
        let usual = json!({"requests": LOTS, "per": per});
        let others =
            [json!({"tokens": LOTS, "per": per}), json!({"cost_usd": "1000000", "per": per})];
        let quota = draw.usual(80, &usual, &others.each_ref()).clone();
        limits.insert("quotas".to_owned(), json!([quota]));
    }
    limits
}

/// Globs, and perhaps a tool with a condition.
fn tools(draw: &mut Draw) -> Value {
    let mut tools = draw.list("read_*", &TOOLS);
    if draw.percent(30) {
        let (name, at) = (draw.one(&TOOLS), draw.one(&ARGUMENTS));
        let entry = json!({"name": name, "args": [{"at": at, "in": [1, "a", null]}]});
        tools.as_array_mut().expect("a list").push(entry);
    }
    tools
}

/// Globs, some of them random.
fn paths(draw: &mut Draw, place: Place) -> Value {
    let mut globs = draw.list("/v1/**", &PATHS);
    if draw.percent(20) {
        let start = if place == Place::Key { "" } else { "/" };
        let glob = format!("{start}{}", draw.text(&LETTERS, 9));
        globs.as_array_mut().expect("a list").push(json!(glob));
    }
    globs
}
