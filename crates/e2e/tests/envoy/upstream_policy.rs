//! The policy that is compiled in: what the proxy says of it, and what it excepts.

use serde_json::json;
use vkey::digest::sha256_hex;

use crate::gateways::{
    Gateway, KNOWN, Plan, UNLISTED, assert_allowed, assert_denied, digest, proven, tighten,
};
use crate::keys::now_secs;
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Envoy, artefact, each_envoy, root};

/// The end of 2099, UTC.
const END_OF_2099: u64 = 4_102_444_800;

/// The value of a metric of the module's. Envoy before 1.39 puts the name of some cluster before it.
fn metric(envoy: &Envoy, name: &str) -> Option<u64> {
    let text = envoy.admin_get("/stats?filter=vkey_upstream").text();
    let values = text.lines().filter_map(|line| line.split_once(": "));
    let mut values = values.filter(|(have, _)| have.ends_with(&format!("wasmcustom.{name}")));
    let (_, value) = values.next()?;
    assert!(values.next().is_none(), "{name} is there twice in {text}");
    Some(value.parse().expect("a number"))
}

fn verdicts(envoy: &Envoy, verdict: &str, cluster: &str) -> (Option<u64>, Option<u64>) {
    let of = |metric| format!("{metric}.verdict.{verdict}.upstream.{cluster}");
    (
        metric(envoy, &of("vkey_upstream_tls_total")),
        metric(envoy, &of("vkey_upstream_tls_since_seconds")),
    )
}

#[test]
fn the_digest_of_the_policy_is_in_log_lines_and_metric() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate();
        let gateway = Gateway::start(binary, "digest", cluster);
        gateway.passes(KNOWN);
        gateway.passes("api.openai.com.");
        let shown = format!("vkey_upstream_tls_policy_info.digest.{}", digest());
        assert_eq!(metric(&gateway.envoy, &shown), Some(1));
        for record in gateway.records(2) {
            assert_eq!(record.tls_policy.as_deref(), Some(&*digest()));
        }
        let log = gateway.envoy.proxy_log();
        assert!(log.contains(&format!("upstream TLS policy {} is in force", digest())), "{log}");
    });
}

#[test]
fn verdicts_are_counted_and_shown_since_when_they_hold() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let good = authority.server(&[KNOWN]);
        let upstream = Serve::tls(&good).start();
        let cluster = Cluster::tls("dots.api", &upstream, &authority).sni(KNOWN).max_requests(1);
        // Both gates judge, and one of them counts.
        let rule = tighten(json!({"host": KNOWN, "min_version": "TLSv1.2"}));
        let cluster = cluster.gate_with(rule.clone());
        let plan = Plan::new(binary, "verdicts", rule);
        let gateway = plan.edit(|config| cluster.install(config)).start();
        let before = now_secs();
        for _ in 0..3 {
            gateway.passes(KNOWN);
        }
        let (count, since) = verdicts(&gateway.envoy, "verified", "dots.api");
        assert_eq!(count, Some(3));
        assert!((before..=now_secs()).contains(&since.unwrap()), "{since:?}");

        upstream.swap(&authority.server(&["other.example"]));
        gateway.refuses(KNOWN, "upstream_name");
        gateway.refuses(KNOWN, "upstream_name");
        assert_eq!(verdicts(&gateway.envoy, "verified", "dots.api"), (Some(3), Some(0)));
        let (count, since) = verdicts(&gateway.envoy, "upstream_name", "dots.api");
        assert_eq!(count, Some(2));
        assert!(since.unwrap() >= before);
        assert!(gateway.envoy.proxy_log().contains("breaks the policy: upstream_name"));

        upstream.swap(&good);
        gateway.passes(KNOWN);
        assert_eq!(verdicts(&gateway.envoy, "upstream_name", "dots.api"), (Some(2), Some(0)));
        assert!(verdicts(&gateway.envoy, "verified", "dots.api").1.unwrap() >= before);
    });
}

#[test]
fn an_exception_holds_until_its_day_ends() {
    let policy = std::fs::read(root().join("testdata/policies/skip.json")).unwrap();
    each_envoy(|binary| {
        let (skipped, expired) = (Serve::plain().start(), Serve::plain().start());
        for gated in [true, false] {
            let gate = |cluster: Cluster| if gated { cluster.gate() } else { cluster };
            let cluster = gate(Cluster::plain("api", &skipped));
            let old = gate(Cluster::plain("old", &expired));
            let gateway = Plan::new(binary, "skip", json!({}))
                .options(|options| options.module(artefact("VKEY_TEST_WASM_SKIP")))
                .edit(|config| {
                    cluster.install(config);
                    old.install_for(config, "old.corp.example");
                })
                .start();
            gateway.passes(UNLISTED);
            gateway.refuses("old.corp.example", "upstream_plaintext");
            gateway.refuses("api.openai.com", "upstream_plaintext");
            assert_eq!(verdicts(&gateway.envoy, "skip", "api").0, Some(1));
            let until = metric(&gateway.envoy, "vkey_upstream_tls_skip_until_seconds.upstream.api");
            assert_eq!(until, Some(END_OF_2099));
            let records = gateway.records(3);
            assert_allowed(&records[0], Some("skip"));
            assert_denied(&records[1], "upstream_plaintext");
            assert_denied(&records[2], "upstream_plaintext");
            assert_eq!(records[0].tls_policy.as_deref(), Some(&*sha256_hex(&policy)));
            if gated {
                assert_eq!(skipped.final_counts().requests, 1);
                assert_eq!(expired.final_counts().bytes, 0);
            }
        }
    });
}
