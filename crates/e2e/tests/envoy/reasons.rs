//! Every reason that a request can be refused for on Envoy.

use serde_json::{Value, json};
use vkey::audit::Line;
use vkey::decision::{Decision, DenyClass, DenyReason};
use vkey::key::keyring::Rotation;

use crate::keys::{Minter, VARIABLE, attenuate, audit_lines, now_secs, options};
use crate::support::{Envoy, Request, config};

const DAY: u64 = 86_400;

/// A request, and the reason it is refused for; `None` for one that gets through.
type Case = (&'static str, Request, Option<DenyReason>);

fn plugin() -> Value {
    let secret = format!("${{{VARIABLE}}}");
    let rotation = json!({"interval": "1d", "max_age": "2d", "keep_expired": true});
    json!({
        "audience": "gw",
        "keyring": [
            {"name": "main", "secret": secret},
            {"name": "old", "secret": secret, "state": "revoked"},
            {"name": "rot", "secret": secret, "rotation": rotation},
        ],
        "tiers": {
            "default": {"only": {"methods": ["GET", "POST"], "paths": ["/v1/**"]}},
            "once": {"rate": once()},
            "never": {"quotas": [never()]},
        },
        "tenants": {"once": {"rate": once()}, "never": {"quotas": [never()]}},
        "revoked": {"keys": ["leaked"], "tenants": {"gone": {"issued_before": 4_000_000_000_u64}}},
    })
}

fn once() -> Value {
    json!({"requests": 1, "per": "1d"})
}

fn never() -> Value {
    json!({"requests": 0, "per": "total"})
}

fn get(key: &str) -> Request {
    Request::new("GET", "/v1/models").bearer(key)
}

fn cases(main: &Minter) -> Vec<Case> {
    let key = |members: Value| {
        let mut claims = json!({"aud": ["gw"]});
        claims.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        claims
    };
    let good = main.key("good", key(json!({})));
    let narrowed = |caveat: Value| get(&attenuate(&good, &caveat));
    let claiming = |members: Value| get(&main.key("good", key(members)));
    let now = now_secs();
    let rotation = Rotation::new(DAY, 2 * DAY, true).unwrap();
    let (old, rot) = (main.beside("old", None), main.beside("rot", Some(rotation)));
    let other = Minter::new("main", None);
    use DenyReason::*;
    vec![
        ("a good key", get(&good), None),
        ("no key", Request::new("GET", "/v1/models"), Some(KeyMissing)),
        ("a key in the URL", Request::new("GET", format!("/v1/models?key={good}")), Some(KeyInUrl)),
        ("two keys", get(&good).header("x-api-key", "another"), Some(KeyConflict)),
        ("one key twice", get(&good).header("x-api-key", &good), None),
        ("a provider's key", get("sk-proj-1234567890"), Some(KeyMalformed)),
        ("an unknown ring", get(&good.replace("main-0", "none-0")), Some(KeyUnknown)),
        ("another's secret", get(&other.key("good", key(json!({})))), Some(KeySignature)),
        (
            "minted tomorrow",
            claiming(json!({"iat": now + DAY, "exp": now + 2 * DAY})),
            Some(KeyNotYetValid),
        ),
        ("expired", claiming(json!({"exp": now - 1})), Some(KeyExpired)),
        ("expired by a caveat", narrowed(json!({"exp": now - 1})), Some(KeyExpired)),
        (
            "aged out",
            get(&rot.key_at(now - 3 * DAY, "good", key(json!({"exp": now + DAY})))),
            Some(KeyRetired),
        ),
        ("this epoch", get(&rot.key("good", key(json!({})))), None),
        ("revoked by id", get(&main.key("leaked", key(json!({})))), Some(KeyRevoked)),
        ("revoked by tenant", claiming(json!({"tenant": "gone"})), Some(KeyRevoked)),
        ("revoked by ring", get(&old.key("good", key(json!({})))), Some(KeyRevoked)),
        ("for another audience", claiming(json!({"aud": "other"})), Some(KeyAudience)),
        ("for no audience", get(&main.key("good", json!({}))), Some(KeyAudience)),
        ("an unknown caveat", narrowed(json!({"colour": "red"})), Some(CaveatUnsupported)),
        ("an unknown tier", claiming(json!({"tier": "gold"})), Some(TierUnknown)),
        ("elsewhere", narrowed(json!({"sources": ["192.0.2.0/24"]})), Some(Source)),
        ("here", narrowed(json!({"sources": ["127.0.0.0/8"]})), None),
        (
            "pretending to be elsewhere",
            narrowed(json!({"sources": ["192.0.2.0/24"]})).header("x-forwarded-for", "192.0.2.1"),
            Some(Source),
        ),
        ("a method not listed", Request::new("DELETE", "/v1/models").bearer(&good), Some(Method)),
        (
            "an upgrade",
            get(&good).header("upgrade", "websocket").header("connection", "upgrade"),
            Some(Method),
        ),
        ("another host", narrowed(json!({"hosts": ["other.example"]})), Some(Host)),
        ("another path", Request::new("GET", "/admin").bearer(&good), Some(Path)),
        ("dot segments", Request::new("GET", "/v1/../admin").bearer(&good), Some(Path)),
        ("no certificate", narrowed(json!({"client_cert": ["ab".repeat(32)]})), Some(ClientCert)),
        ("a model rule", narrowed(json!({"models": ["*"]})).path("/v1/files"), Some(Model)),
        ("an MCP rule", narrowed(json!({"mcp": {"tools": ["*"]}})), Some(McpCall)),
        ("the first of one", claiming(json!({"tier": "once"})), None),
        ("the second of one", claiming(json!({"tier": "once"})), Some(Rate)),
        ("none at all", claiming(json!({"tier": "never"})), Some(Quota)),
        ("a tenant's first of one", claiming(json!({"tenant": "once"})), None),
        ("a tenant's second of one", claiming(json!({"tenant": "once"})), Some(TenantRate)),
        ("none for a tenant", claiming(json!({"tenant": "never"})), Some(TenantQuota)),
        ("a child's first of one", narrowed(json!({"rate": once()})), None),
        ("a child's second of one", narrowed(json!({"rate": once()})), Some(ChildRate)),
        ("none for a child", narrowed(json!({"quotas": [never()]})), Some(ChildQuota)),
        ("a key in another header", get(&good).header("x-note", &good), Some(KeyConflict)),
        ("a forged identity", get(&good).header("x-vkey-role", "admin"), Some(HeaderMismatch)),
        ("an ambiguous path", Request::new("GET", "/v1/%zz").bearer(&good), Some(PathAmbiguous)),
    ]
}

/// The status of a reason's class.
fn status(reason: DenyReason) -> u16 {
    match reason.class() {
        DenyClass::Unauthenticated => 401,
        DenyClass::Forbidden => 403,
        DenyClass::BadRequest => 400,
        DenyClass::Limited => 429,
        DenyClass::Upstream => 502,
        DenyClass::Unavailable => 503,
    }
}

#[test]
fn every_reason_shows_in_status_body_and_audit_line() {
    let main = Minter::new("main", None);
    // Unless told otherwise Envoy refuses upgrades itself, behind the module.
    let envoy = Envoy::start(options("reasons", &main, plugin()).edit(|config| {
        let manager = config::connection_manager(config, "gate");
        manager["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    }));
    let cases = cases(&main);
    for (name, request, expected) in &cases {
        let answer = envoy.send(request);
        let text = answer.text();
        let Some(reason) = *expected else {
            assert_eq!(answer.status, 200, "{name}: {text}");
            continue;
        };
        assert_eq!(answer.status, status(reason), "{name}: {text}");
        let unauthenticated = answer.status == 401;
        let code = if unauthenticated { "invalid_token" } else { reason.code() };
        assert_eq!(answer.json()["error"]["code"], code, "{name}");
        assert_eq!(answer.header("www-authenticate").is_some(), unauthenticated, "{name}");
    }
    let lines = audit_lines(&envoy, cases.len());
    for ((name, _, expected), Line { record, outcome }) in cases.iter().zip(lines) {
        assert_eq!(record.unwrap().decision.and_then(Decision::reason), *expected, "{name}");
        assert_eq!(outcome.status, Some(u64::from(expected.map_or(200, status))), "{name}");
    }
    // Bodies are in `bodies`, blocked sources in `alerts`, two more reasons need a proxy that is broken, those of
    // upstreams are in `upstream_*`, those of budgets in `budgets`, and those of the cluster need a service:
    // filters/vkey/deploy/tests/test_limits.py.
    let reached = |reason: &&DenyReason| {
        let of_upstream = reason.class() == DenyClass::Upstream;
        of_upstream || cases.iter().any(|(_, _, expected)| expected.as_ref() == Some(*reason))
    };
    let missing: Vec<_> = DenyReason::ALL.iter().filter(|reason| !reached(reason)).collect();
    assert_eq!(
        missing,
        [
            &DenyReason::BodyUnreadable,
            &DenyReason::BodyTooLarge,
            &DenyReason::SourceBlocked,
            &DenyReason::LeaseSpent,
            &DenyReason::ClusterRate,
            &DenyReason::NotReady,
            &DenyReason::Contention,
            &DenyReason::LedgerLost,
            &DenyReason::ClusterUnknown,
        ]
    );
}

#[test]
fn every_default_key_source_opens() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("sources", &main, json!({})));
    let key = main.key("good", json!({}));
    for (header, value) in [
        ("authorization", format!("Bearer {key}")),
        ("Authorization", format!("bearer   {key}")),
        ("x-api-key", key.clone()),
        ("api-key", key.clone()),
        ("x-goog-api-key", key.clone()),
    ] {
        let answer = envoy.send(&Request::new("GET", "/v1/models").header(header, &value));
        assert_eq!(answer.status, 200, "{header}");
        assert!(!answer.text().contains(&key), "{header}: {}", answer.text());
    }
}
