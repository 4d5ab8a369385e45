//! Random proxies: how they read a request, and where they route it.

use serde_json::{Value, json};

use super::draw::Draw;
use crate::gateways::KNOWN;

/// One listener of an Envoy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: String,
    /// What differs from the shipped connection manager; `null` removes a member.
    pub(super) manager: Vec<(&'static str, Value)>,
    pub(super) removes_identity: bool,
    pub(super) ignores_port: bool,
    /// Whether a matcher looks at each value of a header that occurs more than once, as since Envoy 1.39,
    /// or at the values joined by commas.
    pub(super) matches_each_value: bool,
    pub(super) hosts: Vec<VirtualHost>,
}

#[derive(Debug)]
pub(super) struct VirtualHost {
    pub(super) domains: Vec<&'static str>,
    pub(super) routes: Vec<Route>,
}

#[derive(Debug)]
pub(super) struct Route {
    /// Unique within the Envoy.
    pub(super) name: String,
    pub(super) path: PathMatch,
    pub(super) ignores_case: bool,
    pub(super) headers: Vec<HeaderMatch>,
    pub(super) target: Target,
    pub(super) path_rewrite: Option<PathRewrite>,
    pub(super) host_rewrite: Option<HostRewrite>,
    pub(super) appends_forwarded_host: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PathMatch {
    Exact(&'static str),
    Prefix(&'static str),
    Separated(&'static str),
    Regex(Pattern),
}

/// A regular expression, and the same in Rust.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    regex: &'static str,
    pub(super) matches: fn(&str) -> bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderMatch {
    pub(super) name: &'static str,
    pub(super) value: ValueMatch,
    pub(super) inverted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ValueMatch {
    Present,
    Absent,
    Exact(&'static str),
    Prefix(&'static str),
    Suffix(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Cluster(&'static str),
    /// The cluster that a header names.
    Header(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PathRewrite {
    Prefix(&'static str),
    Regex(Substitution),
}

/// A substitution by a regular expression, and the same in Rust.
#[derive(Clone, Copy, Debug)]
pub(super) struct Substitution {
    regex: &'static str,
    with: &'static str,
    pub(super) apply: fn(&str) -> String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum HostRewrite {
    Literal(&'static str),
    Header(&'static str),
    Auto,
}

const TARGETS: &[(usize, Target)] = &[
    (4, Target::Cluster("plain")),
    (4, Target::Cluster("gated")),
    (5, Target::Cluster("stamped")),
    (5, Target::Cluster("stamped-gated")),
    (2, Target::Cluster("named")),
    (2, Target::Cluster("named-gated")),
    (2, Target::Cluster("tls")),
    (1, Target::Cluster("tls-ungated")),
    (1, Target::Header("x-cluster")),
    (1, Target::Header("x-original-url")),
];

const DOMAINS: &[&[&str]] = &[
    &["a.example"],
    &["a.example:8080", "a.example:80"],
    &["a.example."],
    &["b.example", "b.example:*"],
    &["*.c.example"],
    &["*.x.c.example", "c.example"],
    &["a.*"],
    &[KNOWN],
    &["other.test", "10.0.0.1"],
];

const PATHS: &[(usize, PathMatch)] = &[
    (3, PathMatch::Prefix("/v1")),
    (3, PathMatch::Prefix("/v1/")),
    (1, PathMatch::Prefix("/admin")),
    (2, PathMatch::Prefix("/")),
    (2, PathMatch::Exact("/v1/models")),
    (2, PathMatch::Exact("/v1/chat")),
    (1, PathMatch::Exact("/admin/x")),
    (3, PathMatch::Separated("/v1")),
    (1, PathMatch::Separated("/v1/chat")),
    (2, PathMatch::Regex(Pattern { regex: "/v[0-9]/.*", matches: is_versioned })),
    (1, PathMatch::Regex(Pattern { regex: "/[a-z/]+", matches: is_lower })),
    (1, PathMatch::Regex(Pattern { regex: ".*/models", matches: |p| p.ends_with("/models") })),
];

fn is_versioned(path: &str) -> bool {
    let rest = path.strip_prefix("/v");
    let rest = rest.and_then(|rest| rest.strip_prefix(|first: char| first.is_ascii_digit()));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn is_lower(path: &str) -> bool {
    let rest = path.strip_prefix('/').unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'/')
}

const PATH_REWRITES: &[PathRewrite] = &[
    PathRewrite::Prefix("/"),
    PathRewrite::Prefix("/api"),
    PathRewrite::Prefix("/api/"),
    PathRewrite::Regex(Substitution {
        regex: "^/v1/",
        with: "/api/",
        apply: |path| {
            let rest = path.strip_prefix("/v1/");
            rest.map_or_else(|| path.to_owned(), |rest| format!("/api/{rest}"))
        },
    }),
    PathRewrite::Regex(Substitution {
        regex: "/chat",
        with: "/talk",
        apply: |path| path.replace("/chat", "/talk"),
    }),
    PathRewrite::Regex(Substitution {
        regex: "^/([^/]*)/(.*)$",
        with: "/\\2/\\1",
        apply: |path| {
            let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
            parts.map_or_else(|| path.to_owned(), |(first, rest)| format!("/{rest}/{first}"))
        },
    }),
];

const HOST_REWRITES: &[(usize, HostRewrite)] = &[
    (3, HostRewrite::Literal("upstream.test")),
    (1, HostRewrite::Literal(KNOWN)),
    (2, HostRewrite::Header("x-forwarded-host")),
    (2, HostRewrite::Header("x-team")),
    (1, HostRewrite::Header("x-vkey-tenant")),
    (1, HostRewrite::Header("x-goog-api-key")),
    (4, HostRewrite::Auto),
];

/// Headers that the module removes, sets or leaves, and values that they have.
const VALUES: &[(&str, ValueMatch)] = &[
    ("authorization", ValueMatch::Prefix("Bearer ")),
    ("authorization", ValueMatch::Present),
    ("authorization", ValueMatch::Absent),
    ("x-api-key", ValueMatch::Present),
    ("x-api-key", ValueMatch::Prefix("vk1.")),
    ("x-goog-api-key", ValueMatch::Absent),
    ("x-vkey-key", ValueMatch::Exact("k3")),
    ("x-vkey-key", ValueMatch::Present),
    ("x-vkey-tenant", ValueMatch::Exact("acme")),
    ("x-vkey-tenant", ValueMatch::Exact("root")),
    ("x-vkey-sub", ValueMatch::Absent),
    ("x-http-method-override", ValueMatch::Exact("GET")),
    ("x-method-override", ValueMatch::Present),
    ("x-forwarded-host", ValueMatch::Exact("b.example")),
    ("x-original-url", ValueMatch::Absent),
    ("forwarded", ValueMatch::Present),
    ("x-envoy-retry-on", ValueMatch::Present),
    ("x-team", ValueMatch::Exact("red")),
    ("x-team", ValueMatch::Prefix("b")),
    ("x-team", ValueMatch::Suffix("red,blue")),
    (":method", ValueMatch::Exact("GET")),
    (":authority", ValueMatch::Suffix(".example")),
    (":path", ValueMatch::Prefix("/v1/c")),
];

impl Proxy {
    pub(super) fn draw(draw: &mut Draw, number: usize) -> Self {
        let name = format!("proxy-{number}");
        let removes_identity = draw.chance(70);
        let any: &[&'static str] = &["*"];
        let rest = draw.chance(80).then_some(any);
        let mut hosts = draw.some(45, DOMAINS);
        hosts.extend(rest.or_else(|| hosts.is_empty().then_some(any)));
        Self {
            manager: manager(draw, removes_identity),
            removes_identity,
            ignores_port: draw.chance(20),
            matches_each_value: false,
            hosts: hosts
                .iter()
                .map(|domains| VirtualHost::draw(draw, &format!("{name}/{}", domains[0]), domains))
                .collect(),
            name,
        }
    }

    /// The route configuration.
    pub(super) fn routes(&self) -> Value {
        let hosts = self.hosts.iter().map(|host| {
            json!({
                "name": host.domains[0], "domains": host.domains,
                "routes": host.routes.iter().map(Route::config).collect::<Vec<_>>(),
            })
        });
        json!({
            "name": self.name, "ignore_port_in_host_matching": self.ignores_port,
            "virtual_hosts": hosts.collect::<Vec<_>>(),
        })
    }
}

/// What differs from the shipped connection manager.
fn manager(draw: &mut Draw, removes_identity: bool) -> Vec<(&'static str, Value)> {
    let mut changes = Vec::new();
    if !removes_identity {
        changes.push(("early_header_mutation_extensions", Value::Null));
    }
    let strips = draw.weighted(&[(2, None), (1, Some("strip_matching_host_port")), (2, Some(""))]);
    if let Some(strip) = strips {
        changes.push(("strip_any_host_port", Value::Null));
        changes.extend((!strip.is_empty()).then_some((strip, json!(true))));
    }
    for option in ["strip_trailing_host_dot", "normalize_path", "merge_slashes"] {
        if draw.chance(45) {
            changes.push((option, json!(false)));
        }
    }
    let escapes = draw.weighted(&[
        (4, "REJECT_REQUEST"),
        (3, "KEEP_UNCHANGED"),
        (1, "UNESCAPE_AND_REDIRECT"),
        (2, "UNESCAPE_AND_FORWARD"),
    ]);
    changes.push(("path_with_escaped_slashes_action", json!(escapes)));
    if draw.chance(50) {
        let allow = json!({"headers_with_underscores_action": "ALLOW"});
        changes.push(("common_http_protocol_options", allow));
    }
    changes
}

impl VirtualHost {
    fn draw(draw: &mut Draw, name: &str, domains: &[&'static str]) -> Self {
        let count = draw.number(1..5);
        let mut routes: Vec<_> =
            (0..count).map(|number| Route::draw(draw, format!("{name}/{number}"))).collect();
        if draw.chance(75) {
            let last = Route::draw(draw, format!("{name}/rest"));
            let path = PathMatch::Prefix("/");
            routes.push(Route { path, ignores_case: false, headers: Vec::new(), ..last });
        }
        if domains.contains(&KNOWN) {
            // No other cluster proves to be this host.
            for route in routes.iter_mut().filter(|_| draw.chance(40)) {
                route.target = Target::Cluster("tls");
            }
        }
        Self { domains: domains.to_vec(), routes }
    }
}

impl Route {
    fn draw(draw: &mut Draw, name: String) -> Self {
        let path = draw.weighted(PATHS);
        let host_rewrite = draw.chance(45).then(|| draw.weighted(HOST_REWRITES));
        let target = match host_rewrite {
            Some(HostRewrite::Auto) => Target::Cluster(draw.pick(&["named", "named-gated"])),
            _ => draw.weighted(TARGETS),
        };
        Self {
            name,
            path,
            ignores_case: !matches!(path, PathMatch::Regex(_)) && draw.chance(15),
            headers: header_matches(draw),
            target,
            path_rewrite: draw.chance(35).then(|| draw.pick(PATH_REWRITES)),
            host_rewrite,
            appends_forwarded_host: host_rewrite.is_some() && draw.chance(25),
        }
    }

    fn config(&self) -> Value {
        let mut matched = self.path.config();
        if self.ignores_case {
            matched["case_sensitive"] = json!(false);
        }
        matched["headers"] = self.headers.iter().map(HeaderMatch::config).collect();
        let mut route = match self.target {
            Target::Cluster(cluster) => json!({"cluster": cluster}),
            Target::Header(header) => json!({"cluster_header": header}),
        };
        match self.path_rewrite {
            None => {}
            Some(PathRewrite::Prefix(with)) => route["prefix_rewrite"] = json!(with),
            Some(PathRewrite::Regex(Substitution { regex, with, .. })) => {
                route["regex_rewrite"] = json!({"pattern": {"regex": regex}, "substitution": with});
            }
        }
        match self.host_rewrite {
            None => {}
            Some(HostRewrite::Literal(host)) => route["host_rewrite_literal"] = json!(host),
            Some(HostRewrite::Header(name)) => route["host_rewrite_header"] = json!(name),
            Some(HostRewrite::Auto) => route["auto_host_rewrite"] = json!(true),
        }
        if self.appends_forwarded_host {
            route["append_x_forwarded_host"] = json!(true);
        }
        json!({"name": self.name, "match": matched, "route": route})
    }
}

fn header_matches(draw: &mut Draw) -> Vec<HeaderMatch> {
    if draw.chance(55) {
        return Vec::new();
    }
    let count = draw.weighted(&[(3, 1), (1, 2)]);
    let matches = (0..count).map(|_| {
        let (name, value) = draw.pick(VALUES);
        HeaderMatch { name, value, inverted: draw.chance(20) }
    });
    matches.collect()
}

impl PathMatch {
    fn config(self) -> Value {
        match self {
            Self::Exact(path) => json!({"path": path}),
            Self::Prefix(prefix) => json!({"prefix": prefix}),
            Self::Separated(prefix) => json!({"path_separated_prefix": prefix}),
            Self::Regex(Pattern { regex, .. }) => json!({"safe_regex": {"regex": regex}}),
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Separated(_) => "separated",
            Self::Regex(_) => "regex",
        }
    }
}

impl HeaderMatch {
    fn config(&self) -> Value {
        let mut config = match self.value {
            ValueMatch::Present => json!({"present_match": true}),
            ValueMatch::Absent => json!({"present_match": false}),
            ValueMatch::Exact(value) => json!({"string_match": {"exact": value}}),
            ValueMatch::Prefix(value) => json!({"string_match": {"prefix": value}}),
            ValueMatch::Suffix(value) => json!({"string_match": {"suffix": value}}),
        };
        config["name"] = json!(self.name);
        config["invert_match"] = json!(self.inverted);
        config
    }
}
