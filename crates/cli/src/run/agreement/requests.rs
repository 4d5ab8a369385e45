//! Random requests, in the form for each command.

use clap::{Args as _, Command, FromArgMatches as _};
use serde_json::{Value, json};

use crate::explain::AccessArgs;
use crate::time;

use super::draw::Draw;
use super::gates::Gate;
use super::keys::DrawnKey;
use super::restrictions::{
    OTHER_CERT, USUAL_CERT, USUAL_HOST, USUAL_METHOD, USUAL_PATH, USUAL_SOURCE,
};

/// A request with a key.
pub(super) struct Request {
    /// The arguments of `vkey explain`.
    pub(super) args: Vec<String>,
    pub(super) now_secs: u64,
    /// The body, which is in the line too.
    pub(super) body: Option<Vec<u8>>,
    /// The line of `vkey run`.
    pub(super) line: String,
}

/// Parses the arguments of `vkey explain` that describe a request.
pub(super) struct Reader(Command);

const METHODS: [&str; 12] = [
    "GET", "GET", "PUT", "DELETE", "OPTIONS", "PROPFIND", "CONNECT", "connect", "post", "",
    "PO ST", "P\u{d6}ST",
];
const HOSTS: [&str; 29] = [
    "GW.Example", "gw.example:8443", "gw.example.", "GW.EXAMPLE.:443", "api.gw.example",
    "a.b.gw.example:1", "other.example", "OTHER.example", "[2001:db8::7]:443", "[2001:DB8::7]",
    "10.0.0.1", "localhost", "", "user@gw.example", "gw.example:x", "gw.example..", ".gw.example",
    " gw.example", "gw.example:443:443", "a_b.example", "xgw.example", "api.openai.com",
    "g\u{eb}.example", "gw.example:", "gw.example:0", "gw.example:65536", "other.example:443",
    "other.example.", "API.gw.example",
];
const PATHS: [&str; 55] = [
    "/",
    "/v1",
    "/v1/",
    "/v1/models",
    "/v1/models/",
    "/v1/models/gpt-4o",
    "/v1/m",
    "/mcp",
    "/mcp/x",
    "/mcp/x/y",
    "/v2/a/b",
    "/v2/b",
    "/v2/files/x/b",
    "/.vkey/usage",
    "/.vkey/ready",
    "/.vkey/other",
    "/admin",
    "/v1/%63hat/completions",
    "/v1/./models",
    "/v1/../admin",
    "//v1//models",
    "/v1/chat/../models",
    "/V1/models",
    "/v1/models?limit=5&a=/../b",
    "/v1/a%20b",
    "/v1/a%2ab",
    "/v1/models;v=2",
    "/v1/chat/completions?",
    "/../../v1/models",
    "/v1/%7emodels",
    "/v1/models%3fx",
    "/v1/chat/completions/",
    "/mcp/x/",
    "/v1/a%20b/",
    // Ambiguous paths.
    "//",
    "/v1/models//",
    "/v1/a%2Db",
    "/v1/a%2fb",
    "/v1/a%2Fb",
    "/v1\\models",
    "/v1/%5c",
    "/v1/..;x/y",
    "/v1/%zz",
    "/v1/%",
    "v1/models",
    "*",
    "",
    "/v1/\u{e9}",
    "/v1/a b",
    "/a//../b",
    "/v1/models#top",
    "/v1/%00",
    "/v1/x?y#z",
    "http://gw.example/v1/models",
    "/v1/%2e%2e;a/b",
];
const USAGE_QUERIES: [&str; 12] = [
    "",
    "",
    "",
    "?",
    "?jti=k_1",
    "?tenant=acme",
    "?jti=k_1&tenant=acme",
    "?jti=no+id",
    "?x=y",
    "?jti=",
    "?tenant=acme#x",
    "/",
];
const SOURCES: [&str; 12] = [
    "10.1.2.4",
    "10.9.9.9",
    "10.1.2.3:4000",
    "192.168.1.5",
    "203.0.113.7",
    "203.0.113.7:1",
    "2001:db8::5",
    "[2001:db8::5]:443",
    "::ffff:10.1.2.3",
    "[::ffff:192.168.1.5]:9",
    "0.0.0.0",
    "::1",
];
const USUAL_BODY: &str = r#"{"model":"gpt-4o","messages":[]}"#;
const BODIES: [&str; 12] = [
    r#"{"model":"o3","stream":true}"#,
    r#"{"model":"gpt-4o","fallbacks":["other"]}"#,
    r#"{"model":"gpt-4o","n":3,"max_tokens":50}"#,
    r#"{"model":"gpt-4o","models":["gpt-4o-mini"]}"#,
    r#"{"model":"gpt-4o","tools":[{"type":"mcp","server_url":"https://mcp.example/"}]}"#,
    r#"{"model":"gpt-4o","Model":"o3"}"#,
    r#"{"model":"gpt-4o","model":"o3"}"#,
    r#"{"messages":[]}"#,
    r#"{"model":""#,
    "[]",
    "",
    "model=gpt-4o",
];
const LETTERS: [char; 6] = ['/', '/', 'a', 'b', '%', '.'];

impl Request {
    pub(super) fn draw(draw: &mut Draw, gate: &Gate, key: &DrawnKey) -> Self {
        let method = draw.usual(86, USUAL_METHOD, &METHODS);
        let host = draw.usual(80, USUAL_HOST, &HOSTS);
        let usage = draw.percent(8);
        let (method, path) = match usage {
            true => ("GET", format!("{}{}", gate.usage_path, draw.one(&USAGE_QUERIES))),
            false => (method, path(draw, key)),
        };
        let source = draw.usual(75, USUAL_SOURCE, &SOURCES);
        let source = draw.percent(95).then_some(source);
        let other = [OTHER_CERT.to_owned(), USUAL_CERT.to_ascii_uppercase()];
        let cert = draw.usual(80, USUAL_CERT, &[&other[0], &other[1]]);
        let cert = draw.percent(85).then_some(cert);
        let now_secs = now(draw, key);
        let body = draw.percent(70).then(|| draw.usual(70, USUAL_BODY, &BODIES));
        let content_type = draw.usual(90, "application/json", &["text/plain", "Application/JSON"]);
        let mut args = vec![format!("--method={method}"), format!("--path={path}")];
        // The authority is always given: by default it is empty in one command, and localhost in the other.
        args.push(format!("--host={host}"));
        args.extend(source.map(|source| format!("--source={source}")));
        args.extend(cert.map(|cert| format!("--client-cert={cert}")));
        args.extend(body.map(|_| format!("--header=content-type: {content_type}")));
        args.extend(call(draw));
        let mut line = json!({"method": method, "path": path, "authority": host, "key": key.text, "now": now_secs});
        show_source(draw, &mut line, source, gate.trusted_hops);
        if let Some(cert) = cert {
            line["client_cert"] = json!(cert);
        }
        if let Some(body) = body {
            line["body"] = json!(body);
            add_header(&mut line, "content-type", content_type);
        }
        add_rest(draw, &mut line, now_secs);
        Self { args, now_secs, body: body.map(Into::into), line: line.to_string() }
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self(AccessArgs::augment_args(Command::new("explain").no_binary_name(true)))
    }

    pub(super) fn read(&mut self, request: &Request) -> AccessArgs {
        let matches = self.0.try_get_matches_from_mut(&request.args).expect("arguments");
        AccessArgs::from_arg_matches(&matches).expect("arguments")
    }
}

/// An MCP call, which neither side reads.
fn call(draw: &mut Draw) -> Vec<String> {
    let call = ["--mcp-method=tools/call", "--mcp-server=x", "--mcp-name=read_file"];
    if draw.percent(20) { call.map(str::to_owned).to_vec() } else { Vec::new() }
}

fn add_header(line: &mut Value, name: &str, value: &str) {
    let headers = &mut line["headers"];
    if headers.is_null() {
        *headers = json!([]);
    }
    headers.as_array_mut().expect("a list").push(json!([name, value]));
}

fn path(draw: &mut Draw, key: &DrawnKey) -> String {
    let tag = key.text.rsplit('.').next().unwrap_or_default();
    match draw.below(100) {
        0..62 => USUAL_PATH.to_owned(),
        62..90 => draw.one(&PATHS).to_owned(),
        90 => format!("/v1/models?key={}", key.text),
        91 => format!("/v1/{}{tag}", draw.one(&["", "%41", "x", "?%3"])),
        92..99 => format!("/{}", draw.text(&LETTERS, 9)),
        _ => format!("/v1/{}", "a/".repeat(2040 + draw.below(8))),
    }
}

/// Usually soon after the key was minted; else at or next to a time when something changes.
fn now(draw: &mut Draw, key: &DrawnKey) -> u64 {
    if draw.percent(87) {
        return key.minted_secs + u64::try_from(draw.below(30)).expect("a number");
    }
    let border = draw.one(&key.borders_secs);
    draw.usual(60, border, &[border.saturating_sub(1), border + 1])
}

/// Puts the client's address where the gate looks for it.
fn show_source(draw: &mut Draw, line: &mut Value, source: Option<&str>, trusted_hops: usize) {
    let Some(source) = source else {
        return;
    };
    if trusted_hops == 0 {
        match draw.percent(80) {
            true => line["source"] = json!(source),
            false => line["properties"] = json!({"source.address": source}),
        }
        return;
    }
    let proxies = vec!["10.0.0.9"; trusted_hops - 1];
    let entries = [&["198.51.100.1", source][..], &proxies].concat();
    line["source"] = json!("10.0.0.9:1234");
    add_header(line, "X-Forwarded-For", &entries.join(", "));
}

/// Adds members that do not affect the decision.
fn add_rest(draw: &mut Draw, line: &mut Value, now_secs: u64) {
    let mut add = |percent, name: &str, value: Value| {
        if draw.percent(percent) {
            line[name] = value;
        }
    };
    add(10, "id", json!({"n": 1}));
    add(10, "now", json!(time::rfc3339(now_secs)));
    add(10, "status", json!(404));
    add(10, "bytes_out", json!(17));
}
