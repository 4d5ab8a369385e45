//! Random requests that carry keys.

use super::clusters::CLUSTERS;
use super::draw::Draw;
use super::key::{Key, Rule};
use crate::gateways::KNOWN;
use crate::support::Request;

/// Where a key may stand.
pub(super) const SOURCES: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

pub(super) const OVERRIDES: [&str; 7] = [
    "forwarded",
    "x-forwarded-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

pub(super) const RETRIES: [&str; 8] = [
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
];

/// Headers that claim an identity. The first three are those that the shipped configuration removes.
pub(super) const IDENTITIES: [&str; 5] =
    ["x-vkey-key", "x-vkey-tenant", "x-vkey-sub", "x-vkey-team", "x_vkey_tenant"];

pub(super) const TENANT: &str = "acme";

const METHODS: &[(usize, &str)] =
    &[(6, "GET"), (4, "POST"), (1, "PUT"), (1, "DELETE"), (1, "PATCH"), (1, "OPTIONS")];

const HOSTS: &[(usize, &str)] = &[
    (6, "a.example"),
    (4, "b.example"),
    (2, "x.c.example"),
    (1, "y.x.c.example"),
    (1, "c.example"),
    (2, KNOWN),
    (2, "other.test"),
    (1, "a.other"),
    (1, "10.0.0.1"),
    (1, "[::1]"),
];

const PATHS: &[(usize, &str)] = &[
    (6, "/v1/chat"),
    (5, "/v1/models"),
    (3, "/v1/chat/x"),
    (2, "/v1/x"),
    (2, "/v2/models"),
    (1, "/v2/chat"),
    (2, "/admin/x"),
    (1, "/admin"),
    (1, "/v1"),
    (1, "/"),
    (1, "/v1x/chat"),
    (1, "/V1/Chat"),
    (1, "/v1/chatty"),
];

/// What may stand in the place of a `/`.
const SEPARATORS: &[&str] = &[
    "//", "/./", "/../", "/x/../", "/%2e%2e/", "/..;/", "/.;a/", "%2f", "%2F", "%5c", "\\",
    "/..%2f", "/%2e/", "/;/", "/admin/../",
];

const ENDS: &[&str] = &[
    "/", "%20x", "%c3%a9", "%7e", "%78", "/..", "/.", "%00", "#x", "%zz", "%", ";a=b", "*", "%25",
    "//",
];

const QUERIES: &[(usize, &str)] =
    &[(8, ""), (2, "?a=b"), (1, "?q=/../x"), (1, "?"), (1, "?a=%2f//b?c"), (1, "?q=%78")];

/// A request, and what it carries.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) id: usize,
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) authority: String,
    /// Whether the target is a URL, which stands for the host.
    pub(super) absolute: bool,
    /// In the order in which they are sent, names in lower case. Without `host` and `content-length`.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: &'static str,
    /// The key that is judged, as its place among the keys.
    pub(super) key: Option<usize>,
}

impl Case {
    /// `port` is the port of the listener.
    pub(super) fn draw(draw: &mut Draw, id: usize, keys: &[Key], port: u16) -> Self {
        let key = if draw.chance(35) { draw.number(0..2) } else { draw.number(2..keys.len()) };
        let rule = keys[key].any_rule(draw);
        let method = match rule.methods {
            Some(methods) if draw.chance(80) => draw.pick(methods),
            _ => draw.weighted(METHODS),
        };
        let mut case = Self {
            id,
            method,
            target: draw_path(draw, &rule),
            authority: draw_authority(draw, &rule, port),
            absolute: draw.chance(10),
            headers: vec![("x-case".to_owned(), id.to_string())],
            body: if matches!(method, "POST" | "PUT" | "PATCH") { "text" } else { "" },
            key: Some(key),
        };
        case.add_keys(draw, keys, key);
        case.add_headers(draw);
        case.target.push_str(draw.weighted(QUERIES));
        if draw.chance(2) {
            let start = if case.target.contains('?') { '&' } else { '?' };
            case.target.push_str(&format!("{start}key={}", keys[key].text));
        }
        case
    }

    /// The bytes to send.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (target, host) = match self.absolute {
            true => (format!("http://{}{}", self.authority, self.target), "decoy.test"),
            false => (self.target.clone(), self.authority.as_str()),
        };
        let request = Request::new(self.method, target).header("host", host).body(self.body);
        let request = self.headers.iter().fold(request, |request, (name, value)| {
            // Names have no case, so half of them are sent in another one.
            let name =
                if self.id.is_multiple_of(2) { name.to_ascii_uppercase() } else { name.clone() };
            request.header(&name, value)
        });
        request.encode()
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(super) fn query(&self) -> &str {
        &self.target[self.path().len()..]
    }

    fn push(&mut self, name: &str, value: impl Into<String>) {
        self.headers.push((name.to_owned(), value.into()));
    }

    fn push_key(&mut self, source: &str, key: &str) {
        let value =
            if source == "authorization" { format!("Bearer {key}") } else { key.to_owned() };
        self.push(source, value);
    }

    fn add_keys(&mut self, draw: &mut Draw, keys: &[Key], key: usize) {
        let source = draw.weighted(&[(5, 0), (2, 1), (1, 2), (1, 3)]);
        let text = keys[key].text.as_str();
        let other = keys[draw.number(0..keys.len())].text.as_str();
        match draw.number(0..100) {
            0..3 => self.key = None,
            3..6 => {
                self.key = None;
                let forged = with_another_tag(text);
                self.push_key(SOURCES[source], &forged);
            }
            6..12 => {
                self.push_key(SOURCES[source], text);
                self.push_key(SOURCES[(source + 1) % 4], other);
            }
            12..20 => {
                self.push_key(SOURCES[source], text);
                self.push_key(SOURCES[(source + 2) % 4], text);
            }
            20..23 => {
                self.push_key(SOURCES[source], text);
                self.push("x-team", format!("for {other}"));
            }
            _ => self.push_key(SOURCES[source], text),
        }
    }

    fn add_headers(&mut self, draw: &mut Draw) {
        for percent in [45, 5] {
            if draw.chance(percent) {
                self.push("x-team", draw.pick(&["red", "blue", "a.example"]));
            }
        }
        if draw.chance(50) {
            let known = draw.chance(80).then(|| draw.pick(&CLUSTERS).name);
            self.push("x-cluster", known.unwrap_or("nowhere"));
        }
        if draw.chance(40) {
            for name in draw.some(20, &OVERRIDES) {
                let name = if draw.chance(10) { name.replace('-', "_") } else { name.to_owned() };
                let values = ["GET", "/admin/x", "b.example", "gated", "stamped-gated"];
                self.push(&name, draw.pick(&values));
            }
        }
        if draw.chance(15) {
            self.push(draw.pick(&RETRIES), draw.pick(&["5xx", "3", "true"]));
        }
        if draw.chance(8) {
            self.push(draw.pick(&IDENTITIES), draw.pick(&["root", TENANT, "k3"]));
        }
    }
}

/// The key with one character of its tag changed.
fn with_another_tag(key: &str) -> String {
    let (start, tag) = key.rsplit_once('.').expect("a tag");
    let (first, rest) = tag.split_at(1);
    format!("{start}.{}{rest}", if first == "A" { "B" } else { "A" })
}

fn draw_authority(draw: &mut Draw, rule: &Rule, port: u16) -> String {
    let named = rule.hosts.filter(|_| draw.chance(75)).map(|hosts| draw.pick(hosts));
    let host = named.unwrap_or_else(|| draw.weighted(HOSTS)).replace('*', "x");
    let host = if draw.chance(5) { host.to_ascii_uppercase() } else { host };
    let listener = format!(":{port}");
    let spelling = draw.weighted(&[
        (32, ""),
        (2, ":80"),
        (2, ":8080"),
        (1, ":443"),
        (1, ":"),
        (1, ":0"),
        (1, ":99999"),
        (2, "."),
        (1, ".:8080"),
        (1, ".."),
        (1, ":80:90"),
        (1, "@"),
        (3, listener.as_str()),
    ]);
    if spelling == "@" { format!("user@{host}") } else { format!("{host}{spelling}") }
}

fn draw_path(draw: &mut Draw, rule: &Rule) -> String {
    let named = rule.paths.filter(|_| draw.chance(75)).map(|globs| draw.pick(globs));
    let mut path = match named {
        Some(glob) => {
            glob.replace("**", draw.pick(&["chat", "models", "x/y"])).replace('*', "chat")
        }
        None => draw.weighted(PATHS).to_owned(),
    };
    if draw.chance(10) {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
        let at = draw.pick(&slashes);
        path.replace_range(at..=at, draw.pick(SEPARATORS));
    }
    if draw.chance(12) {
        path.push_str(draw.pick(ENDS));
    }
    path
}
