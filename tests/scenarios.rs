//! Runs the scenarios of `testdata/scenarios` and `testdata/bench` on the library and the in-memory host.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

mod scenario;

use std::collections::{BTreeMap, BTreeSet};

use scenario::Machine;
use scenario::body::{anywhere, bytewise};
use scenario::folder::{all_hold, all_with_bodies_hold, files, read};
use scenario::format::{HostKind, Scenario};
use scenario::memory::InMemory;
use scenario::native::Native;
use scenario::run::run;
use scenario::step::Expected;
use vkey::decision::{DenyClass, DenyReason};

fn native(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Box<dyn Machine> {
    Box::new(InMemory::<Native>::new(config, env, host))
}

fn problems(text: &str) -> Vec<String> {
    run(&Scenario::read(text.as_bytes()).unwrap(), &native)
}

#[test]
fn every_scenario_holds_on_the_library() {
    all_hold("native", &native);
}

#[test]
fn how_a_body_is_cut_makes_no_difference() {
    for recut in [bytewise, anywhere] {
        all_with_bodies_hold("native", &move |config, env, host| {
            Box::new(InMemory::<Native>::new(config, env, host).cutting(recut)) as Box<dyn Machine>
        });
    }
}

#[test]
fn every_reason_has_a_scenario() {
    let mut reasons = BTreeSet::new();
    for scenario in files().iter().map(|file| read(file)) {
        let refused = scenario.steps.iter().filter(|step| step.expect.action.denies());
        reasons.extend(refused.filter_map(|step| step.expect.reason));
    }
    let all: BTreeSet<_> = DenyReason::ALL.iter().copied().collect();
    let lacking: Vec<_> = all.difference(&reasons).copied().collect();
    // A lease needs a ledger: see src/gate/tests/budgets.rs.
    assert_eq!(lacking, [DenyReason::LeaseSpent]);
}

#[test]
fn each_gate_refuses_upstreams_for_every_reason() {
    for action in [Expected::Stop, Expected::Withhold] {
        let mut reasons = BTreeSet::new();
        for scenario in files().iter().map(|file| read(file)) {
            let steps = scenario.steps.iter().filter(|step| step.expect.action == action);
            let of_upstream = |reason: &DenyReason| reason.class() == DenyClass::Upstream;
            reasons.extend(steps.filter_map(|step| step.expect.reason).filter(of_upstream));
        }
        let all = DenyReason::ALL.iter().copied();
        let all: BTreeSet<_> = all.filter(|r| r.class() == DenyClass::Upstream).collect();
        assert_eq!(reasons, all, "{action:?}");
    }
}

/// A valid scenario, which the tests break.
const GOOD: &str = r#"{
    "about": "a key is allowed",
    "host": "envoy",
    "config": {"keyring": [{"name": "main", "secret": "${MAIN}"}]},
    "env": {"MAIN": "@secret:main"},
    "keys": {"good": {}},
    "steps": [{
        "name": "good",
        "request": {
            "headers": [["authorization", "Bearer {{key good}}"], ["x-other", "1"]],
            "trailers": [["x-vkey-sub", "root"], ["x-checksum", "abc"]]
        },
        "expect": {
            "action": "forward",
            "audit": {"jti": "good"},
            "upstream": {
                "present": {"x-vkey-key": "good"},
                "absent": ["authorization"],
                "trailers": {"present": {"x-checksum": "abc"}, "absent": ["x-vkey-sub"]}
            }
        }
    }]
}"#;

#[test]
fn a_wrong_scenario_fails() {
    assert_eq!(problems(GOOD), [""; 0]);
    for (right, wrong) in [
        (r#"{"jti": "good"}"#, r#"{"jti": "other"}"#),
        (r#"{"jti": "good"}"#, r#"{"no_such_member": null}"#),
        (r#""x-vkey-key": "good""#, r#""x-vkey-key": "other""#),
        (r#""absent": ["authorization"]"#, r#""absent": ["x-other"]"#),
        (r#""absent": ["authorization"]"#, r#""credentials": "openai""#),
        (r#""absent": ["x-vkey-sub"]"#, r#""absent": ["x-checksum"]"#),
        (r#""x-checksum": "abc""#, r#""x-checksum": "other""#),
        (r#"["x-checksum", "abc"]"#, r#"["x-checksum", "{{env MAIN}}"]"#),
        (r#"["x-checksum", "abc"]"#, r#"["x-other", "abc"]"#),
        (r#"[["x-vkey-sub", "root"], ["x-checksum", "abc"]]"#, "null"),
        (r#""x-other", "1""#, r#""x-other", "{{env MAIN}}""#),
        (r#""action": "forward","#, r#""action": "forward", "log": ["no such text"],"#),
        (r#""action": "forward","#, r#""action": "forward", "reason": "path","#),
        (r#""keys": {"good": {}}"#, r#""keys": {"good": {"secret": "@secret:other"}}"#),
        (r#""about":"#, r#""configure": {"outcome": "closed"}, "about":"#),
        (r#""action": "forward","#, r#""action": "forward", "answer": {},"#),
        (
            r#""action": "forward","#,
            r#""action": "forward", "metrics": {"vkey_auth_alerts_total": 1},"#,
        ),
    ] {
        let spoiled = GOOD.replace(right, wrong);
        assert_ne!(spoiled, GOOD, "{right}");
        assert_ne!(problems(&spoiled), [""; 0], "{wrong}");
    }
}

/// A valid scenario with a limit.
const LIMITED: &str = r#"{
    "about": "two keys of a tenant that may make three requests",
    "start": 1800000000,
    "config": {
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tenants": {"acme": {"quotas": [{"requests": 3, "per": "day"}]}}
    },
    "env": {"MAIN": "@secret:main"},
    "keys": {"good": {"count": 3}},
    "steps": [
        {
            "name": "within",
            "repeat": 3,
            "request": {"headers": [["authorization", "Bearer {{key good {{n}}}}"]]},
            "expect": {
                "action": "forward",
                "audit": {"jti": "good_{{n}}"},
                "answer": {}
            }
        },
        {
            "name": "past it",
            "at": 57599,
            "at_ns": 999999999,
            "request": {"headers": [["authorization", "Bearer {{key good 1}}"]]},
            "expect": {
                "action": "refuse",
                "status": 429,
                "reason": "tenant_quota",
                "reply": {
                    "headers": {
                        "retry-after": "1",
                        "ratelimit-policy": "\"tenant_requests_day\";q=3;w=86400"
                    }
                },
                "metrics": {"vkey_limit_hits_total.limit.tenant_requests_day.tenant.acme": 1}
            }
        }
    ]
}"#;

#[test]
fn a_scenario_with_wrong_limits_fails() {
    let long = LIMITED.replace(r#"{"count": 3}"#, r#"{"count": 3, "claims": {"exp": 1800090000}}"#);
    assert_eq!(problems(&long), [""; 0]);
    for (right, wrong) in [
        (r#""count": 3,"#, r#""count": 3, "epoch": 1,"#),
        ("good_{{n}}", "good_1"),
        ("{{key good {{n}}}}", "{{key good 1}}"),
        ("q=3;w=86400", "q=3"),
        (r#"{"requests": 3, "per": "day"}"#, r#"{"requests": 4, "per": "day"}"#),
        (r#"{"requests": 3, "per": "day"}"#, r#"{"requests": 3, "per": "week"}"#),
        (r#""at_ns": 999999999"#, r#""at_ns": 1000000000"#),
        (r#""retry-after": "1""#, r#""retry-after": "0""#),
        (r#"tenant.acme": 1"#, r#"tenant.acme": 2"#),
        (r#""answer": {}"#, r#""answer": {"x-other": "1"}"#),
        (
            r#""answer": {}"#,
            r#""answer": {"ratelimit-policy": "\"tenant_requests_day\";q=3;w=86400"}"#,
        ),
        (r#""tenants": {"acme""#, r#""limits": {"headers": "refused"}, "tenants": {"acme""#),
        (r#""tenants": {"acme""#, r#""limits": {"headers": "never"}, "tenants": {"acme""#),
        (r#""status": 429"#, r#""status": 403"#),
        (r#""tenants": {"acme""#, r#""mode": "shadow", "tenants": {"acme""#),
    ] {
        let spoiled = long.replace(right, wrong);
        assert_ne!(spoiled, long, "{right}");
        assert_ne!(problems(&spoiled), [""; 0], "{wrong}");
    }
}

/// A valid scenario with upstreams.
const UPSTREAMS: &str = r#"{
    "about": "a good upstream, one that is withheld, and one that the upstream gate refuses",
    "host": "envoy",
    "config": {
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "upstream_tls": {"require_gate": false}
    },
    "env": {"MAIN": "@secret:main"},
    "keys": {"good": {}},
    "upstream_tls": {"cluster": "api", "tls_version": "TLSv1.3"},
    "steps": [
        {
            "name": "good",
            "request": {"authority": "api.openai.com", "headers": [["x-api-key", "{{key good}}"]]},
            "upstream_tls": {"certificate": {"digest": "{{times 64 a}}", "first_name": "*.openai.com"}},
            "expect": {"action": "forward", "audit": {"tls_verdict": "verified"}}
        },
        {
            "name": "stamped",
            "request": {"authority": "api.openai.com", "headers": [["x-api-key", "{{key good}}"]]},
            "upstream_tls": {"stamp": {"policy": "{{policy}}", "hosts": ["api.openai.com"]}},
            "expect": {"action": "forward", "audit": {"tls_verdict": "stamped"}}
        },
        {
            "name": "refused by the upstream gate",
            "request": {"authority": "api.openai.com", "headers": [["x-api-key", "{{key good}}"]]},
            "upstream_tls": {"gate": "upstream_pin"},
            "expect": {"action": "stop", "reason": "upstream_pin"}
        },
        {
            "name": "unlisted, and sent to a known host",
            "request": {"headers": [["x-api-key", "{{key good}}"]]},
            "upstream_tls": {
                "cluster": "rewritten",
                "certificate": {"digest": "{{times 64 b}}", "first_name": "other.example"},
                "authority": "api.openai.com"
            },
            "expect": {"action": "forward", "audit": {"tls_verdict": "upstream_name"}}
        },
        {
            "name": "plaintext",
            "request": {"authority": "api.openai.com", "headers": [["x-api-key", "{{key good}}"]]},
            "upstream_tls": {"tls_version": null, "up": true, "local_certificate": "CN=gateway"},
            "expect": {"action": "withhold", "status": 502, "reason": "upstream_plaintext"}
        },
        {
            "name": "at once",
            "request": {"authority": "api.openai.com", "headers": [["x-api-key", "{{key good}}"]]},
            "expect": {"action": "refuse", "status": 502, "reason": "upstream_plaintext"}
        }
    ]
}"#;

#[test]
fn a_scenario_with_wrong_upstreams_fails() {
    assert_eq!(problems(UPSTREAMS), [""; 0]);
    for (right, wrong) in [
        (r#""first_name": "*.openai.com""#, r#""first_name": "openai.com""#),
        (r#""tls_version": "TLSv1.3"},"#, r#""tls_version": "TLSv1.1"},"#),
        (r#""tls_verdict": "verified""#, r#""tls_verdict": "stamped""#),
        (r#""tls_verdict": "upstream_name""#, r#""tls_verdict": "unlisted""#),
        (r#""policy": "{{policy}}""#, r#""policy": "{{times 64 0}}""#),
        (r#""hosts": ["api.openai.com"]"#, r#""hosts": ["api.anthropic.com"]"#),
        (r#""gate": "upstream_pin""#, r#""gate": "upstream_name""#),
        (r#""gate": "upstream_pin""#, r#""gate": "verified""#),
        (r#""action": "stop","#, r#""action": "withhold", "status": 502,"#),
        (r#""action": "withhold", "status": 502,"#, r#""action": "stop","#),
        (r#""action": "withhold","#, r#""action": "refuse","#),
        (
            r#""status": 502, "reason": "upstream_plaintext"}
        },"#,
            r#""status": 503, "reason": "upstream_plaintext"}
        },"#,
        ),
        (r#""up": true"#, r#""up": false"#),
        (
            r#""authority": "api.openai.com"
            }"#,
            r#""authority": "gw.example"
            }"#,
        ),
        (r#"{"tls_version": null, "#, r#"{"tls_version": null, "cluster": "other", "#),
        (
            r#""upstream_tls": {"require_gate": false}"#,
            r#""mode": "shadow", "upstream_tls": {"require_stamp": true}"#,
        ),
        (r#""upstream_tls": {"require_gate": false}"#, r#""audience": "gw.example""#),
    ] {
        let spoiled = UPSTREAMS.replacen(right, wrong, 1);
        assert_ne!(spoiled, UPSTREAMS, "{right}");
        assert_ne!(problems(&spoiled), [""; 0], "{wrong}");
    }
}

#[test]
fn invalid_members_of_a_scenario_are_errors() {
    for (right, wrong) in [
        (r#""about":"#, r#""typo": 1, "about":"#),
        (r#""good": {}"#, r#""good": {"typo": 1}"#),
        (r#""name": "good","#, r#""name": "good", "typo": 1,"#),
        (r#""headers": [["auth"#, r#""typo": 1, "headers": [["auth"#),
        (r#""action": "forward","#, r#""action": "forward", "typo": 1,"#),
        (r#""action": "forward","#, r#""action": "forward", "reason": "no_such_reason","#),
        (r#""action": "forward","#, r#""action": "forward", "status": 200,"#),
        (r#""action": "forward","#, r#""action": "refuse", "status": 403,"#),
        (r#""action": "forward","#, r#""action": "Forward","#),
        (r#""name": "good","#, r#""name": "good", "faults": {"typo": true},"#),
        (r#""name": "good","#, r#""name": "good", "ending": {"typo": true},"#),
        (r#""action": "forward","#, r#""action": "nothing", "answer": {},"#),
        (r#""action": "forward","#, r#""action": "forward", "metrics": {"vkey": "1"},"#),
        (r#""action": "forward","#, r#""action": "withhold", "status": 502,"#),
        (r#""action": "forward","#, r#""action": "stop","#),
        (
            r#""action": "forward","#,
            r#""action": "stop", "status": 502, "reason": "upstream_pin","#,
        ),
        (r#""action": "forward","#, r#""action": "withhold", "reason": "upstream_pin","#),
        (r#""action": "forward","#, r#""action": "stop", "reason": "upstream_pin", "answer": {},"#),
        (r#""name": "good","#, r#""name": "good", "upstream_tls": {"typo": "api"},"#),
        (r#""name": "good","#, r#""name": "good", "bench": ["typo"],"#),
        (r#""name": "good","#, r#""name": "good", "bench": "request","#),
        (r#""about":"#, r#""request": {"typo": "GET"}, "about":"#),
        (r#""about":"#, r#""request": ["GET"], "about":"#),
        (r#""about":"#, r#""ending": {"typo": 1}, "about":"#),
        (r#""about":"#, r#""ending": [200], "about":"#),
        (r#""name": "good","#, r#""name": "good", "upstream_tls": {"up": "yes"},"#),
        (r#""name": "good","#, r#""name": "good", "upstream_tls": {"taken": {"stamp": null}},"#),
        (r#"["x-checksum", "abc"]"#, r#"["x-checksum"]"#),
        (r#""absent": ["x-vkey-sub"]"#, r#""typo": ["x-vkey-sub"]"#),
        (r#""absent": ["auth"#, r#""credentials": ["openai"], "absent": ["auth"#),
        (r#""name": "good","#, r#""name": "good", "upstream_tls": {"stamp": {"hosts": []}},"#),
        (r#""name": "good","#, r#""name": "good", "upstream_tls": {"certificate": {"pem": "x"}},"#),
        (r#""about":"#, r#""upstream_tls": {"typo": "api"}, "about":"#),
        (r#""about":"#, r#""upstream_tls": [], "about":"#),
        (r#""good": {}"#, r#""good": {"count": "2"}"#),
        (r#""good": {}"#, r#""good": {"of": "other", "edits": [], "claims": {}}"#),
        (r#""about":"#, r#""not_on": {"typo": "reason"}, "about":"#),
        (r#""steps": [{"#, r#""steps": [], "variants": [{"#),
    ] {
        let spoiled = GOOD.replace(right, wrong);
        assert_ne!(spoiled, GOOD, "{right}");
        assert!(Scenario::read(spoiled.as_bytes()).is_err(), "{wrong}");
    }
}
