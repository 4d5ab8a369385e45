//! What needs no key: probes, and the requests that the configuration makes public.

use serde_json::json;
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, VARIABLE, complete, options, records};
use crate::metrics::series;
use crate::support::{Connection, Envoy, Options, Request, config, each_envoy};

fn probe(envoy: &Envoy) -> (u16, String) {
    let answer = envoy.send(&Request::new("GET", "/.vkey/ready"));
    (answer.status, answer.text())
}

/// The value of a gauge that has no labels but these.
fn gauge(envoy: &Envoy, metric: &str, ring: Option<&str>) -> Option<u64> {
    let found =
        series(envoy, metric).into_iter().find(|s| s.labels.get("ring").map(|r| &**r) == ring);
    found.map(|series| series.value)
}

#[test]
fn a_probe_of_the_gate_sees_what_that_of_envoy_does_not() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let keyring = json!({"keyring": [
            {"name": "main", "secret": format!("${{{VARIABLE}}}")},
            {"name": "late", "secret": "${ABSENT}"},
        ]});
        let ready =
            Envoy::start(options("ready", &main, keyring.clone()).on(binary).concurrency(4));
        // The main thread and each worker configure the module, and one of them warns.
        let log = ready.proxy_log();
        assert_eq!(
            log.matches("no cluster has the module as its upstream filter").count(),
            1,
            "{log}"
        );
        assert_eq!(probe(&ready), (200, r#"{"ready":true}"#.to_owned()));
        assert_eq!(gauge(&ready, "vkey_ready", None), Some(1));
        let of = |envoy: &Envoy, ring| gauge(envoy, "vkey_ring_ready", Some(ring));
        assert_eq!((of(&ready, "main"), of(&ready, "late")), (Some(1), Some(0)));

        let unready = Envoy::start(Options::new("unready").plugin(complete(keyring)).on(binary));
        assert_eq!(unready.admin_get("/ready").text().trim(), "LIVE");
        let (status, body) = probe(&unready);
        assert_eq!((status, body.contains("not_ready")), (503, true), "{body}");
        assert_eq!(gauge(&unready, "vkey_ready", None), Some(0));
        assert_eq!((of(&unready, "main"), of(&unready, "late")), (Some(0), Some(0)));
    });
}

#[test]
fn a_public_request_goes_on_without_a_key_and_without_a_claimed_identity() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let key = main.key("k1", json!({}));
        let public = json!({"public": [{"methods": ["GET"], "paths": ["/healthz"]}]});
        // Here the proxy does not remove such headers itself.
        let options = options("public", &main, public).on(binary).edit(|config| {
            let manager = config::connection_manager(config, "gate").as_object_mut().unwrap();
            manager.remove("early_header_mutation_extensions").unwrap();
        });
        let envoy = Envoy::start(options);
        let request = Request::new("GET", "/healthz");
        let forged = request.clone().header("x-vkey-tenant", "acme").bearer(&key);
        let mut connection = Connection::open(envoy.gate());
        let answers = [&request, &forged].map(|request| connection.send(request));
        for answer in &answers {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-vkey-tenant"), None, "the service echoes what it gets");
            assert!(
                !answer.text().contains("vk1.") && !answer.text().contains("acme"),
                "{}",
                answer.text()
            );
        }
        let other = connection.send(&Request::new("POST", "/healthz"));
        assert_eq!(other.status, 401);
        let id = other.header("x-request-id");
        let records = records(&envoy, 3);
        let decisions: Vec<_> = records.iter().map(|record| record.decision.unwrap()).collect();
        let missing = Decision::Deny(DenyReason::KeyMissing);
        assert_eq!(decisions, [Decision::Public, Decision::Public, missing]);
        assert_eq!(id.as_deref(), records[2].req.as_deref());
        assert!(id.is_some_and(|id| id.len() == 36));
    });
}
