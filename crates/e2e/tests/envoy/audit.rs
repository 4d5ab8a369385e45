//! One audit line for each request, whatever becomes of it.

use std::borrow::Cow;

use serde_json::json;
use vkey::audit::Line;
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, attenuate, audit_lines, options};
use crate::load::usage;
use crate::support::{Connection, Envoy, Request, config, wait_for};

#[test]
fn a_line_says_who_what_and_how_it_ended() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("line", &main, json!({"revoked": {"version": 7}})));
    let key = attenuate(&main.key("k1", json!({"sub": "bot"})), &json!({}));
    let request = Request::new("POST", "/v1/./chat?a=secret&b").bearer(&key).body("0123456789");
    let request = request.header("x-request-id", "not-a-uuid");
    assert_eq!(envoy.send(&request).status, 200);
    let [Line { record, outcome }] = <[_; 1]>::try_from(audit_lines(&envoy, 1)).unwrap();
    let record = record.unwrap();
    let text = |text: &'static str| Some(Cow::Borrowed(text));
    assert_eq!(record.host, text("vkey-demo"));
    assert_eq!(record.decision, Some(Decision::Allow));
    assert_eq!((record.kid, record.jti), (text("main-0"), text("k1")));
    assert_eq!((record.tenant, record.sub), (text("acme"), text("bot")));
    assert_eq!((record.tier, record.caveats), (text("default"), Some(1)));
    assert_eq!(record.src, text("127.0.0.1"));
    assert_eq!((record.method, record.authority), (text("POST"), text("gate.test")));
    assert_eq!((record.path, record.query_keys), (text("/v1/chat"), vec!["a".into(), "b".into()]));
    assert_eq!((outcome.status, outcome.bytes_in), (Some(200), Some(10)));
    assert!(outcome.bytes_out > Some(100), "{outcome:?}");
    assert!(outcome.duration_ns > Some(10_000), "{outcome:?}");
    assert_eq!(outcome.peer, text("127.0.0.1"));
    assert!(outcome.upstream.is_some_and(|upstream| upstream.starts_with('@')));
    let between = record.ts_micros.abs_diff(outcome.start_micros.unwrap());
    assert!(between < 1_000_000, "{between} us");
    assert!(record.plan.unwrap().ends_with("/7"));
    // Envoy replaces an id that a stranger sent.
    assert_eq!(record.req.unwrap().len(), 36);
}

#[test]
fn requests_that_envoy_refuses_itself_have_their_line() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("refused", &main, json!({})));
    let key = main.key("k1", json!({}));
    let escaped = envoy.send(&Request::new("GET", "/v1%2fmodels").bearer(&key));
    let underscore = envoy.send(&Request::new("GET", "/v1/models").bearer(&key).header("a_b", "c"));
    assert_eq!((escaped.status, underscore.status), (400, 400));
    for Line { record, outcome } in audit_lines(&envoy, 2) {
        assert_eq!((record, outcome.status), (None, Some(400)));
        assert_eq!(outcome.peer.as_deref(), Some("127.0.0.1"));
    }
}

#[test]
fn an_allowed_request_that_fails_behind_the_gate_shows_the_final_status() {
    let main = Minter::new("main", None);
    let options = options("failing", &main, json!({})).edit(|config| {
        let cluster = &mut config["static_resources"]["clusters"][0];
        let endpoint =
            &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"] = json!({"pipe": {"path": "@nobody-listens-here"}});
    });
    let envoy = Envoy::start(options);
    let answer = envoy.send(&Request::new("GET", "/v1/models").bearer(&main.key("k1", json!({}))));
    assert_eq!(answer.status, 503);
    let [Line { record, outcome }] = <[_; 1]>::try_from(audit_lines(&envoy, 1)).unwrap();
    let record = record.unwrap();
    assert_eq!((record.decision, outcome.status), (Some(Decision::Allow), Some(503)));
}

#[test]
fn aborted_requests_have_their_line() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("aborted", &main, json!({})));
    let key = main.key("k1", json!({}));
    let started = |envoy: &Envoy| {
        let active = envoy.admin_get("/stats?filter=http.gate.downstream_rq_active").text();
        (active.trim() == "http.gate.downstream_rq_active: 1").then_some(())
    };
    // The body that is promised never comes whole: the request is under way when its client leaves.
    let request = Request::new("POST", "/v1/chat").bearer(&key).header("content-length", "100");
    let mut connection = Connection::open(envoy.gate());
    connection.send_raw(&request.encode()).unwrap();
    connection.send_raw(b"only this").unwrap();
    wait_for(|| started(&envoy), || envoy.proxy_log());
    drop(connection);
    let [Line { record, outcome }] = <[_; 1]>::try_from(audit_lines(&envoy, 1)).unwrap();
    let record = record.unwrap();
    assert_eq!(record.decision, Some(Decision::Allow));
    assert_eq!((outcome.status, record.jti.as_deref()), (None, Some("k1")));
}

#[test]
fn the_log_sink_writes_to_the_proxy_log_alone() {
    let main = Minter::new("main", None);
    let plugin = json!({"audit": {"sink": "log", "level": "warn", "mask": ["sub", "src"]}});
    let envoy = Envoy::start(options("log", &main, plugin).log_level("warn"));
    let key = main.key("k1", json!({"sub": "a person"}));
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models").bearer(&key)).status, 200);
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models")).status, 401);
    assert_eq!(envoy.send(&Request::new("GET", "/v1%2fmodels").bearer(&key)).status, 400);
    // Envoy's own access logger finds no record of any request.
    for line in envoy.wait_for_access_log(3) {
        assert_eq!(Line::parse(&line).unwrap().record, None);
    }
    envoy.stop();
    let log = envoy.proxy_log();
    let json = log.lines().filter_map(|line| Some(&line[line.find("{\"vkey\":")?..]));
    let lines: Vec<Line<'_>> = json.map(|line| Line::parse(line).expect(line)).collect();
    assert_eq!(lines.len(), 3, "{log}");
    let records = lines.iter().map(|line| line.record.as_ref().unwrap());
    let records = Vec::from_iter(records);
    assert_eq!(records[0].sub.as_deref(), Some("***REDACTED***"));
    assert_eq!(records[0].src.as_deref(), Some("***REDACTED***"));
    assert_eq!(records[1].decision, Some(Decision::Deny(DenyReason::KeyMissing)));
    assert_eq!(records[2].decision, None);
    let statuses = lines.iter().map(|line| line.outcome.status);
    assert!(statuses.eq([200, 401, 400].map(Some)), "{log}");
    assert!(lines[0].outcome.bytes_out > Some(100), "{log}");
    assert!(!log.contains("a person"));
}

/// Filter state serves as many loggers as there are, and the line is in no other place.
#[test]
fn the_access_log_sink_leaves_the_proxy_log_alone() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("access", &main, json!({})).edit(|config| {
        // A second logger prints the same line: filter state serves as many as there are.
        let manager = config::connection_manager(config, "gate");
        let logger = manager["access_log"][0].clone();
        manager["access_log"].as_array_mut().unwrap().push(logger);
    }));
    let key = main.key("k1", json!({}));
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models").bearer(&key)).status, 200);
    let lines = audit_lines(&envoy, 2);
    assert!(lines[0].record.is_some());
    assert_eq!(lines[0].record, lines[1].record);
    assert!(!envoy.proxy_log().contains("{\"vkey\":"), "{}", envoy.proxy_log());
}

/// Envoy serves on without its log. Its own counter is the only sign of it.
#[test]
fn a_full_disk_loses_lines_and_no_counts() {
    let main = Minter::new("main", None);
    let options = options("full-disk", &main, json!({})).edit(|config| {
        let logger = &mut config::connection_manager(config, "gate")["access_log"][0];
        logger["typed_config"]["path"] = json!("/dev/full");
    });
    let envoy = Envoy::start(options);
    let key = main.key("k1", json!({}));
    let mut connection = Connection::open(envoy.gate());
    let request = Request::new("GET", "/v1/models").bearer(&key);
    assert_eq!([0; 3].map(|_| connection.send(&request).status), [200; 3]);
    wait_for(
        || (envoy.stat("filesystem.write_failed") >= Some(1)).then_some(()),
        || envoy.admin_get("/stats?filter=filesystem").text(),
    );
    assert_eq!(usage(&mut connection, &key, "")["seen"], 3);
}
