//! Random gates: configurations, and how the module is hosted.

use serde_json::{Map, Value, json};

use super::draw::Draw;
use super::restrictions::{Place, START_SECS, limits, restriction};

/// A gate, as both commands get it.
pub(super) struct Gate {
    pub(super) config: Value,
    /// The value of `--host`.
    pub(super) rules: &'static str,
    pub(super) rings: Vec<Ring>,
    pub(super) clock_skew_secs: u64,
    pub(super) usage_path: &'static str,
    pub(super) trusted_hops: usize,
}

/// A ring of a gate.
#[derive(Clone, Copy)]
pub(super) struct Ring {
    pub(super) name: &'static str,
    /// The rotation interval, and how long a signing key is accepted, in seconds.
    pub(super) rotation: Option<(u64, u64)>,
}

pub(super) const AUDIENCE: &str = "gw.example";
pub(super) const TENANTS: [&str; 4] = ["acme", "beta", "gamma", "Delta_4"];
pub(super) const TIERS: [&str; 3] = ["gold", "team", "operator"];
pub(super) const LEAKED: [&str; 2] = ["k_leaked", "k_lost"];

/// The rings of a gate. The first one always exists.
pub(super) const RINGS: [&str; 4] = ["main", "old-2025", "gone", "still"];

const ROTATIONS: [(u64, u64); 5] =
    [(604_800, 2_592_000), (604_800, 2_592_000), (3600, 3600), (600, 1500), (60, 180)];

/// Where some gates say whether they are ready. No gate may reply with counts there too.
const READY_PATH: &str = "/v1/models";

/// The value of `--host`, and of `host` in a configuration. If the latter is absent, the module detects it.
/// Missing shared data must be configured, because `vkey explain` cannot detect that.
const HOSTS: [(&str, Option<&str>); 8] = [
    ("envoy", None),
    ("envoy", Some("auto")),
    ("envoy", Some("envoy")),
    ("envoy", Some("bare")),
    ("nginx", None),
    ("nginx", Some("nginx")),
    ("bare", Some("bare")),
    ("bare", Some("bare")),
];

/// The environment variable of a ring's secret, and its value.
pub(super) fn secret(ring: &str) -> (String, String) {
    let variable = format!("RING_{}", ring.to_ascii_uppercase().replace('-', "_"));
    (variable, format!("Secret-0-of-the-ring-{ring}"))
}

/// The environment of both commands.
pub(super) fn environment(name: &str) -> Option<String> {
    let secrets = RINGS.into_iter().map(secret);
    let provider = ("PROVIDER".to_owned(), "a-provider-credential".to_owned());
    secrets.chain([provider]).find_map(|(variable, value)| (variable == name).then_some(value))
}

impl Gate {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let (keyring, rings) = keyring(draw);
        let clock_skew_secs = draw.one(&[0, 5, 5, 60, 3600]);
        let usage_path = draw.usual(70, "/.vkey/usage", &["/v1/models", "/usage", "/"]);
        let trusted_hops = draw.usual(80, 0, &[1, 2]);
        let (rules, host) = draw.one(&HOSTS);
        let mut config = Map::new();
        config.insert("keyring".to_owned(), keyring);
        add_people(draw, &mut config);
        add_surroundings(draw, &mut config);
        let mut add = |name: &str, value| config.insert(name.to_owned(), value);
        if clock_skew_secs != 5 || draw.percent(50) {
            add("clock_skew", json!(format!("{clock_skew_secs}s")));
        }
        if usage_path != "/.vkey/usage" || draw.percent(20) {
            add("usage", json!({"path": usage_path}));
        }
        if trusted_hops > 0 || draw.percent(40) {
            add("client", client(draw, trusted_hops));
        }
        host.map(|host| add("host", json!(host)));
        if usage_path == READY_PATH {
            config.remove("ready");
        }
        Self {
            config: Value::Object(config),
            rules,
            rings,
            clock_skew_secs,
            usage_path,
            trusted_hops,
        }
    }
}

fn keyring(draw: &mut Draw) -> (Value, Vec<Ring>) {
    let others = [("old-2025", "retiring"), ("gone", "revoked"), ("still", "active")];
    let states = others.into_iter().filter(|_| draw.percent(60)).collect::<Vec<_>>();
    let mut rings = Vec::new();
    let mut ring = |draw: &mut Draw, name: &'static str, state: &str| {
        let mut ring = json!({"name": name, "secret": format!("${{{}}}", secret(name).0)});
        if state != "active" || draw.percent(50) {
            ring["state"] = json!(state);
        }
        let rotation = draw.percent(50).then(|| draw.one(&ROTATIONS));
        if let Some((interval, max_age)) = rotation {
            let (interval, max_age) = (format!("{interval}s"), format!("{max_age}s"));
            ring["rotation"] = json!({"interval": interval, "max_age": max_age});
            if draw.percent(60) {
                ring["rotation"]["keep_expired"] = json!(draw.percent(70));
            }
        }
        rings.push(Ring { name, rotation });
        ring
    };
    let main = draw.usual(95, "active", &["retiring", "revoked"]);
    let mut keyring = vec![ring(draw, RINGS[0], main)];
    keyring.extend(states.into_iter().map(|(name, state)| ring(draw, name, state)));
    (json!(keyring), rings)
}

/// Adds tiers, tenants and revocations.
fn add_people(draw: &mut Draw, config: &mut Map<String, Value>) {
    let mut add = |name: &str, value| config.insert(name.to_owned(), value);
    if draw.percent(45) {
        add("audience", json!(AUDIENCE));
    }
    if draw.percent(85) {
        let mut tiers =
            json!({"default": member(draw), "gold": member(draw), "team": member(draw)});
        tiers["operator"] = json!({"usage_of_others": true});
        add("tiers", tiers);
    }
    if draw.percent(60) {
        add("tenants", json!({"acme": member(draw), "beta": member(draw), "gamma": {}}));
        if draw.percent(60) {
            add("unlisted_tenants", json!(draw.usual(80, "deny", &["allow"])));
        }
    }
    if draw.percent(40) {
        let before = draw.usual(50, START_SECS - 50, &[START_SECS, START_SECS + 1]);
        add(
            "revoked",
            json!({"version": 7, "keys": LEAKED, "tenants": {"beta": {"issued_before": before}}}),
        );
    }
}

fn member(draw: &mut Draw) -> Value {
    let mut member = if draw.percent(15) { limits(draw) } else { Map::new() };
    if draw.percent(45) {
        member.insert("only".to_owned(), restriction(draw, Place::Configuration));
    }
    Value::Object(member)
}

fn client(draw: &mut Draw, trusted_hops: usize) -> Value {
    let mut client = json!({"trusted_hops": trusted_hops});
    if draw.percent(50) {
        let mut allow = draw.list("10.0.0.0/8", &["192.168.0.0/16", "0.0.0.0/0", "2001:db8::/32"]);
        if allow == json!([]) {
            allow = json!(["2001:db8::/32"]);
        }
        client["allow"] = allow;
    }
    if draw.percent(50) {
        client["deny"] = draw.list("203.0.113.0/24", &["::/0", "10.1.2.3/32", "192.168.1.5"]);
    }
    client
}

/// Adds the other settings.
fn add_surroundings(draw: &mut Draw, config: &mut Map<String, Value>) {
    let mut add = |percent, name: &str, values: &[Value]| {
        if draw.percent(percent) {
            config.insert(name.to_owned(), values[draw.below(values.len())].clone());
        }
    };
    add(45, "mode", &[json!("shadow"), json!("shadow"), json!("enforce")]);
    add(30, "preflight", &[json!("pass"), json!("refuse")]);
    add(30, "upgrades", &[json!(true), json!(false)]);
    let public = |rule: Value| json!([{"methods": ["PUT"], "paths": ["/none"]}, rule]);
    let rules = [
        public(json!({"methods": ["GET", "POST"], "paths": ["/v1/models", "/mcp/**"]})),
        public(json!({"methods": ["GET"], "paths": ["/v1/**"], "hosts": ["*.gw.example"]})),
        public(json!({"methods": ["GET"], "paths": ["/.vkey/**"], "sources": ["10.0.0.0/8"]})),
    ];
    add(30, "public", &rules);
    add(20, "ready", &[json!({"path": READY_PATH})]);
    add(20, "limits", &[json!({"headers": "refused"}), json!({"headers": "never"})]);
    add(20, "anomaly", &[json!({"sensitivity": "low"}), json!({"sensitivity": "high"})]);
    // Without blocking: that depends on earlier requests.
    add(20, "auth_failures", &[json!({"threshold": 5, "window": "300s", "block_for": "0s"})]);
    let masked =
        json!({"sink": "log", "level": "debug", "mask": ["sub", "path"], "mask_value": "-"});
    add(40, "audit", &[json!({"sink": "access_log"}), masked]);
    add(30, "forward", &forwards());
    let sources = [
        json!([{"header": "x-key"}]),
        json!([{"header": "Authorization", "scheme": "Key"}, {"header": "x-api-key"}]),
        json!([{"header": "authorization"}, {"header": "authorization", "scheme": "Bearer"}]),
    ];
    add(40, "key_sources", &sources);
    add(30, "foreign_credentials", &[json!("drop"), json!("refuse")]);
}

/// Provider credentials that the module attaches, and ones that it grants by name.
fn forwards() -> [Value; 3] {
    let hosts = json!(["other.example", "*.gw.example"]);
    let held = json!({"hosts": hosts, "header": "authorization", "value": "Bearer ${PROVIDER}"});
    [
        json!({"identity_headers": false}),
        json!({"credentials_in_front": true, "credentials": [held, {"name": "any"}]}),
        json!({"credentials": [{"name": "other", "hosts": hosts}]}),
    ]
}
