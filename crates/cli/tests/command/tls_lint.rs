//! Holding configurations of Envoy against the policy. `testdata/lint` has one file for each defect; what
//! it is broken in is the first part of its name, and a file that begins with `good` is not broken.

mod aggregates;
mod endpoints;
mod inputs;
mod listeners;
mod outsiders;
mod routes;
mod sockets;
mod switched_off;
mod unread;
mod wiring;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, root, text};
use crate::usage::{NOBODY, Server, fails};

/// A day on which one exception of the test's policy is in force and another has expired.
const TODAY: &str = "2026-11-22T00:00:00Z";

fn data(name: &str) -> PathBuf {
    root().join("testdata/lint").join(name)
}

fn policy() -> String {
    text(data("policy.json"))
}

/// The command with the test's policy.
fn lint(args: &[&str]) -> Vkey {
    let fixed = ["tls", "lint", "--policy", &policy(), "--now", TODAY];
    Vkey::new(&[&fixed, args].concat())
}

fn report(vkey: Vkey) -> (i32, Value) {
    let done = vkey.run();
    (done.code, serde_json::from_str(&done.out).expect(&done.err))
}

fn lint_text(config: impl AsRef<[u8]>, args: &[&str]) -> (i32, Value) {
    report(lint(&[&["--json", "-"], args].concat()).stdin(config))
}

fn rules(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["rule"].as_str().expect("an id")).collect()
}

/// The files, each with the id of its defect, `good` where there is none.
fn files() -> Vec<(PathBuf, String)> {
    let files = fs::read_dir(data("")).expect("a directory").map(|entry| entry.expect("readable"));
    let files = files.map(|entry| entry.path()).filter(|path| path.is_file());
    let files = files.filter(|path| !path.ends_with("policy.json"));
    let expected = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_str().expect("text");
        let id = name.split('-').next().expect("a part").to_owned();
        (path, id)
    };
    files.map(expected).collect()
}

#[test]
fn a_credential_without_its_tls_is_a_finding_of_the_cluster_or_a_note_of_the_configuration() {
    let (code, report) = report(lint(&["--json", &text(data("credential_never_sent.yaml"))]));
    let finding = &report["findings"][0];
    assert_eq!(
        (code, &finding["cluster"], &finding["host"]),
        (1, &json!("llm"), &json!("127.0.0.1"))
    );
    let reason = finding["reason"].as_str().expect("text");
    assert!(
        reason.starts_with("credential llm: no rule of the policy is for 127.0.0.1, "),
        "{reason}"
    );
    let fix = "serve TLS with a certificate for the host, or give the credential plaintext";
    assert_eq!(finding["fix"], fix);

    // With the front's configuration beside it.
    let gate = Gate::new();
    let config = |forward: Value| {
        let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
        gate.file("front.json", json!({"keyring": keyring, "forward": forward}).to_string())
    };
    let good = text(data("good-plaintext.yaml"));
    let with = |config: &str| {
        let done = lint(&["--json", &good, "--config", config]).run();
        let report: Value = serde_json::from_str(&done.out).expect(&done.err);
        (done.code, report["findings"].to_string(), report["notes"].to_string())
    };
    let granted = with(&config(json!({"credentials": [{"name": "llm"}]})));
    assert_eq!(granted, (0, "[]".to_owned(), "[]".to_owned()));
    let (code, _, notes) = with(&config(json!({"credentials": [{"name": "other"}]})));
    assert!(code == 0 && notes.contains("credential other: no upstream gate holds it"), "{notes}");
    assert!(notes.contains("credential llm: forward.credentials of the gate"), "{notes}");
    let held = |host: &str| {
        let value = json!({"hosts": [host], "header": "x-key", "value": "${KEY}"});
        config(json!({"credentials_in_front": true, "credentials": [value, {"name": "llm"}]}))
    };
    let (code, findings, notes) = with(&held("127.0.0.1"));
    assert_eq!((code, &*findings), (0, "[]"));
    assert!(notes.contains("credential forward.credentials[0]: no rule of the policy"), "{notes}");
    let (code, findings, _) = with(&held("010.0.0.1"));
    assert!(code == 1 && findings.contains("credential_never_sent"), "{findings}");
    assert!(findings.contains(r#""configuration":"--config""#), "{findings}");
    let people = lint(&[&good, "--config", &held("010.0.0.1")]).run().out;
    assert!(
        people.starts_with(
            "--config: error: the configuration: credential_never_sent\n  credential forward"
        ),
        "{people}"
    );
}

#[test]
fn each_broken_configuration_has_exactly_its_defect() {
    for (path, id) in files() {
        let (code, report) = report(lint(&["--json", path.to_str().expect("text")]));
        let expected = if id == "good" { (0, vec![]) } else { (1, vec![id.as_str()]) };
        assert_eq!((code, rules(&report)), expected, "{}: {report}", path.display());
        let findings = report["findings"].as_array().expect("a list");
        let says = |finding: &Value, members: &[&str]| {
            let says = |member: &&str| finding[*member].as_str().is_some_and(|s| !s.is_empty());
            members.iter().all(says)
        };
        let elements = [&["cluster", "host"][..], &["configuration"], &["listener"], &["route"]];
        for finding in findings {
            assert!(says(finding, &["rule", "severity", "reason", "fix"]), "{finding}");
            assert_eq!(finding["file"], path.to_str().expect("text"));
            let named = elements.iter().filter(|members| says(finding, members));
            assert_eq!(named.count(), 1, "{finding}");
        }
    }
}

#[test]
fn each_rule_has_a_broken_configuration() {
    let listed = Vkey::new(&["tls", "lint", "--rules"]).ok().out;
    let listed = listed.lines().map(|line| line.split(' ').next().expect("an id").to_owned());
    let mut broken: BTreeSet<String> = files().into_iter().map(|(_, id)| id).collect();
    assert!(broken.remove("good"));
    assert_eq!(listed.collect::<BTreeSet<_>>(), broken);
}

#[test]
fn findings_come_with_a_fix() {
    let file = text(data("san_match_missing.yaml"));
    let done = lint(&[&file]).run();
    assert_eq!(
        (done.code, done.out, done.err.as_str()),
        (
            1,
            format!(
                "{file}: error: upstream: san_match_missing for api.openai.com\n  \
                 the chain is verified, but any certificate of these authorities is accepted, \
                 whoever it is for\n  \
                 fix: in transport_socket write common_tls_context.validation_context\
                 .match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: \
                 \"api.openai.com\"}}}}]\n\
                 1 cluster, 1 for judged hosts, 0 listeners with the module, 1 finding\n"
            ),
            ""
        )
    );
    let file = text(data("good-skip.yaml"));
    let done = lint(&[&file]).ok();
    assert_eq!(
        done.out,
        format!(
            "{file}: note: upstream: dev-llm.example: not verified until 2027-04-01T00:00:00Z \
             (owner: platform; reason: self-signed lab box)\n\
             1 cluster, 1 for judged hosts, 0 listeners with the module, 0 findings\n"
        )
    );
}

/// A cluster without TLS, but for what is added.
fn plain(name: &str, address: &str, more: &Value) -> Value {
    let endpoint = json!({"address": {"socket_address": {"address": address, "port_value": 80}}});
    let mut cluster = json!({
        "name": name,
        "type": "STRICT_DNS",
        "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    });
    for (member, value) in more.as_object().expect("an object") {
        cluster[member] = value.clone();
    }
    cluster
}

fn is_plaintext(config: &Value, args: &[&str]) -> bool {
    let (_, report) = lint_text(config.to_string(), args);
    rules(&report).contains(&"plaintext")
}

#[test]
fn no_spelling_of_a_known_host_escapes() {
    for host in [
        "api.openai.com",
        "API.OPENAI.COM",
        "api.openai.com.",
        "eu.api.openai.com",
        "mine.openai.azure.com",
        "api.openai.com\u{3002}",
        "xn--api-.openai.com",
        "0x7f.1",
    ] {
        assert!(is_plaintext(&plain("a", host, &json!({})), &[]), "{host}");
    }
    for host in ["echo", "10.0.0.1", "::1", "openai.com", "api.openai.com.example", "my_echo"] {
        assert!(!is_plaintext(&plain("a", host, &json!({})), &[]), "{host}");
    }
}

#[test]
fn a_cluster_is_for_the_hosts_of_its_stamp_endpoints_and_routes() {
    let stamp = json!({"filterMetadata": {"vkey": {"policy": "x", "hosts": ["api.openai.com"]}}});
    assert!(is_plaintext(&plain("a", "10.0.0.1", &json!({"metadata": stamp})), &[]));
    let stamp = json!({"filterMetadata": {"vkey": {"policy": "x", "hosts": ["*.azure.com"]}}});
    assert!(is_plaintext(&plain("a", "10.0.0.1", &json!({"metadata": stamp})), &[]));
    for (is_judged, name) in [
        (true, "outbound|443||api.openai.com"),
        (true, "outbound|443|v1|*.openai.azure.com"),
        (false, "outbound|443||openai.com"),
        (false, "inbound|443||api.openai.com"),
    ] {
        assert_eq!(is_plaintext(&plain(name, "10.0.0.1", &json!({})), &[]), is_judged, "{name}");
    }
    let mut named = plain("a", "10.0.0.1", &json!({}));
    named["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] =
        json!("api.openai.com");
    assert!(is_plaintext(&named, &[]));
    let routed = |host: Value| {
        let aggregate = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig";
        let of = |parts: Value| {
            let config = json!({"@type": aggregate, "clusters": parts});
            json!({"name": "all", "cluster_type": {"typed_config": config}})
        };
        json!({
            "static_resources": {"clusters": [plain("a", "10.0.0.1", &json!({})), of(json!(["a"]))]},
            "route_config": {"virtual_hosts": [host]},
        })
    };
    for (is_judged, host) in [
        (true, json!({"domains": ["Api.OpenAI.com:443"], "routes": [{"route": {"cluster": "a"}}]})),
        (true, json!({"domains": ["*.openai.azure.com"], "routes": [{"route": {"cluster": "a"}}]})),
        (true, json!({"domains": ["api.openai.com"], "routes": [{"route": {"cluster": "all"}}]})),
        (
            true,
            json!({"domains": ["*"], "routes": [{"route":
            {"weighted_clusters": {"clusters": [{"name": "a",
             "host_rewrite_literal": "api.openai.com"}]}}}]}),
        ),
        (
            true,
            json!({"domains": ["api.openai.com"], "routes": [{"route":
            {"cluster": "b", "request_mirror_policies": [
                {"cluster": "a", "disable_shadow_host_suffix_append": true}]}}]}),
        ),
        (
            false,
            json!({"domains": ["api.openai.com"], "routes": [{"route":
            {"cluster": "b", "request_mirror_policies": [{"cluster": "a"}]}}]}),
        ),
        (
            false,
            json!({"domains": ["api.openai.com"], "routes": [{"route":
            {"cluster": "a", "host_rewrite_literal": "echo"}}]}),
        ),
        (false, json!({"domains": ["*"], "routes": [{"route": {"cluster": "a"}}]})),
    ] {
        assert_eq!(is_plaintext(&routed(host.clone()), &[]), is_judged, "{host}");
    }
}

#[test]
fn a_policy_that_verifies_unlisted_hosts_judges_all_clusters() {
    let gate = Gate::new();
    let known = r#""known_hosts":["api.openai.com"]"#;
    let verify = format!(r#"{{"version":1,"default":{{"min_version":"TLSv1.2"}},{known}}}"#);
    let verify = gate.file("policy.json", verify);
    let echo = plain("a", "echo", &json!({}));
    let nameless = json!({"name": "a", "type": "EDS"});
    for cluster in [&echo, &nameless] {
        let lint = |args: &[&str]| {
            let fixed = ["tls", "lint", "-", "--json"];
            report(Vkey::new(&[&fixed, args].concat()).stdin(cluster.to_string())).1
        };
        assert_eq!(lint(&["--policy", &policy()])["judged"], 0);
        let found = lint(&["--policy", &verify]);
        assert_eq!(rules(&found), ["gate_missing", "plaintext", "stamp_missing"]);
        let tighten = r#"{"upstream_tls":{"tighten":[{"host":"*","min_version":"TLSv1.3"}]}}"#;
        let tighten = gate.file("tighten.json", tighten);
        let found = lint(&["--policy", &policy(), "--config", &tighten]);
        assert!(rules(&found).contains(&"plaintext"));
    }
    let tighten =
        gate.file("wrong.json", r#"{"upstream_tls":{"tighten":[{"host":"a","pins":"b"}]}}"#);
    let wrong = lint(&["-", "--config", &tighten]).stdin(echo.to_string());
    wrong.refused(1, "upstream_tls.tighten[0].pins: expected a list");
}

#[test]
fn what_no_rule_covers_is_a_note() {
    let forward = json!({"name": "any", "cluster_type": {"typed_config": {"@type":
        "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"}}});
    let (code, report) = lint_text(forward.to_string(), &[]);
    assert_eq!((code, report["notes"][0]["place"].as_str()), (0, Some("any")));
    let shipped = root().join("envoy.yaml");
    let shipped = fs::read_to_string(shipped).expect("readable");
    let (code, report) = lint_text(&shipped, &[]);
    assert_eq!((code, &report["notes"]), (0, &json!([])), "{report}");
    assert_eq!(report["listeners"], 1);
}

fn notes(config: &Value) -> Vec<String> {
    let (_, report) = lint_text(config.to_string(), &[]);
    let notes = report["notes"].as_array().expect("a list").iter();
    notes.map(|note| note["text"].as_str().expect("text").to_owned()).collect()
}

/// The options of a cluster with the gate, which has what is added.
fn gate_options(more: &Value) -> Value {
    let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    let plugin =
        json!({"failure_policy": "FAIL_RELOAD", "configuration": {"role": "upstream_tls"}});
    let mut gate = json!({"name": "g", "typed_config": {"@type": wasm, "config": plugin}});
    for (member, value) in more.as_object().expect("an object") {
        gate[member] = value.clone();
    }
    let codec = json!({"name": "envoy.filters.http.upstream_codec"});
    let options = json!({"http_filters": [gate, codec]});
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

#[test]
fn a_cluster_for_whatever_host_needs_the_gate() {
    let open = "it connects to whatever host a request names; only the gate can judge that, and ";
    let mut forward = json!({"name": "any", "cluster_type": {"typed_config": {"@type":
        "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"}}});
    assert_eq!(notes(&forward), [format!("{open}there is none")]);
    let original = |name: &str| json!({"name": name, "type": "ORIGINAL_DST"});
    assert_eq!(notes(&original("PassthroughCluster")), [format!("{open}there is none")]);
    assert!(notes(&original("InboundPassthroughCluster")).is_empty());
    let mut with_gate = |more: Value| {
        forward["typed_extension_protocol_options"] = gate_options(&more);
        notes(&forward)
    };
    assert!(with_gate(json!({})).is_empty());
    assert_eq!(with_gate(json!({"disabled": true})), [format!("{open}there is none")]);
    let fails = "requests pass unjudged when the gate fails";
    assert_eq!(with_gate(json!({"is_optional": true})), [format!("{open}{fails}")]);
}

#[test]
fn the_place_where_a_gate_is_switched_off_is_named() {
    let place = |name: &str| {
        let (_, report) = report(lint(&["--json", data(name).to_str().expect("text")]));
        report["findings"][0]["reason"].as_str().expect("text").to_owned()
    };
    let said = |place: &str| {
        format!("the gate is switched off in {place}: what goes there leaves unjudged")
    };
    let host = "the virtual host openai of the route configuration llm";
    let route = format!("the route chat of {host}");
    assert_eq!(place("gate_missing-route.yaml"), said(&route));
    assert_eq!(
        place("gate_missing-weighted.yaml"),
        said(&format!("a weighted cluster of {route}"))
    );
    assert_eq!(place("gate_missing-virtual_host.yaml"), said(host));
    assert_eq!(place("gate_missing-route_config.yaml"), said("the route configuration llm"));
}

/// Of a validation context, a secret and both combined Envoy takes one only, so a fix must not add
/// another.
#[test]
fn a_fix_names_the_validation_context_that_counts() {
    let fix = |validation: Value, rule: &str| {
        let mut common = json!({"tls_params": {}});
        common
            .as_object_mut()
            .expect("an object")
            .extend(validation.as_object().expect("one").clone());
        let tls =
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        let socket = json!({"typed_config": {"@type": tls, "common_tls_context": common}});
        let more = json!({"transport_socket": socket});
        let (_, report) = lint_text(plain("a", "llm.corp.example", &more).to_string(), &[]);
        let findings = report["findings"].as_array().expect("a list");
        let finding = findings.iter().find(|finding| finding["rule"] == rule).expect(rule);
        finding["fix"].as_str().expect("text").to_owned()
    };
    let own = "common_tls_context.validation_context";
    let default = "common_tls_context.combined_validation_context.default_validation_context";
    let secret = json!({"name": "roots"});
    let sds = json!({"validation_context_sds_secret_config": secret});
    let combined = |context: Value| {
        json!({"combined_validation_context": {"default_validation_context": context,
            "validation_context_sds_secret_config": secret}})
    };
    let written = |validation: Value, rule: &str, what: &str, home: &str| {
        let fix = fix(validation, rule);
        assert!(fix.starts_with(&format!("in transport_socket write {home}.{what}: ")), "{fix}");
        fix
    };
    for (rule, what) in [
        ("san_match_missing", "match_typed_subject_alt_names"),
        ("pins_missing", "verify_certificate_hash"),
    ] {
        let ca = json!({"trusted_ca": {"filename": "a"}});
        written(json!({"validation_context": ca}), rule, what, own);
        written(combined(json!({})), rule, what, default);
        let fix = written(sds.clone(), rule, what, default);
        assert!(fix.contains("move validation_context_sds_secret_config into"), "{fix}");
    }
    written(json!({}), "ca_missing", "trusted_ca", own);
    let empty = json!({"combined_validation_context": {"default_validation_context": {}}});
    written(empty, "ca_missing", "trusted_ca", default);
    for (rule, member, value) in [
        ("accept_untrusted", "trust_chain_verification", json!(1)),
        ("expired_accepted", "allow_expired_certificate", json!(true)),
    ] {
        let said = |home| format!("in transport_socket remove {member} from {home}");
        let context = json!({member: value});
        assert_eq!(fix(json!({"validation_context": context}), rule), said(own));
        assert_eq!(fix(combined(context), rule), said(default));
    }
}

#[test]
fn a_configuration_without_clusters_is_not_good() {
    for config in [
        json!({"static_resources": {}}),
        json!({"static_resources": {"clusters": []}}),
        json!({"static_resources": {"clusters": {"name": "a", "type": "EDS"}}}),
        json!({"static_resources": {"clusters": [{"name": "a", "type": "EDS"}, "b"]}}),
        json!({"dynamic_resources": {}}),
        json!({"clusters": []}),
        json!({"clusters": ["a"]}),
        json!({"listeners": [{"name": "a", "filter_chains": []}]}),
        json!({"configs": []}),
        json!({"configs": [{"static_clusters": {"cluster": {"name": "a"}}}]}),
        json!({"resources": [{"name": "listener"}]}),
    ] {
        let says = "the input has no clusters, and no listener with the module: expected them in \
                    static_resources, resources, configs, clusters, or a list; check its content";
        lint(&["-"]).stdin(config.to_string()).refused(4, says);
    }
}

#[test]
fn the_rules_are_listed_for_programs() {
    let listed: Value =
        serde_json::from_str(&Vkey::new(&["tls", "lint", "--rules", "--json"]).ok().out)
            .expect("JSON");
    let rules = listed["rules"].as_array().expect("a list");
    let lines = Vkey::new(&["tls", "lint", "--rules"]).ok().out;
    assert_eq!(rules.len(), lines.lines().count());
    assert_eq!(rules[0]["rule"], "accept_untrusted");
    assert!(rules.iter().all(|rule| rule["about"].as_str().is_some_and(|about| !about.is_empty())));
}

#[test]
fn anything_but_an_envoy_configuration_is_rejected() {
    let rejected = |code: i32, input: &[u8], says: &str| {
        lint(&["-"]).stdin(input).refused(code, &format!("not an Envoy configuration: {says}"));
    };
    let nothing = |input: &[u8]| rejected(4, input, "expected static_resources");
    let refused = |input: &[u8], says: &str| rejected(1, input, says);
    nothing(b"");
    nothing(b"---\n---\n");
    nothing(b"some words");
    nothing(b"[]");
    nothing(b"{\"name\": \"a\"}");
    nothing("a".repeat(8 << 20).as_bytes());
    refused(b"\xff\xfe{}", "not UTF-8");
    refused(b"{\"a\": [}", "not valid JSON, line 1");
    refused(b"a: [\nb: }", "not valid YAML: mismatched bracket '[' closed by '}', line 1");
    refused(
        b"a: *vm\nb: &vm 1",
        "not valid YAML: unknown anchor: an alias (*) must come after its",
    );
    refused(b"a: b: c", "not valid YAML: mapping values are not allowed in this context, line 1");
    refused(b"a: @secret", "not valid YAML: unexpected character, line 1");
    refused(b"{\"a\": 1,\n\"a\": 2}", "a name stands twice, line 2");
    refused(b"{\"a\": 1,\n\"\\u0061\": 2}", "a name stands twice, line 2");
    refused(b"a: 1\na: 2", "a name stands twice, line 2");
    refused(b"a: 1\n---\na: [", "not valid YAML: unclosed bracket '[', line 3");
    refused("[".repeat(1 << 20).as_bytes(), "not valid JSON");
    refused("- ".repeat(1 << 20).as_bytes(), "more than this command reads");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    refused(bomb.as_bytes(), "more than this command reads");
    let too_long = vec![b' '; (32 << 20) + 1];
    lint(&["-"]).stdin(too_long).refused(1, "standard input is longer than 33554432 bytes");
}

/// Each of the routes is to another cluster, and each cluster is for all the hosts.
#[test]
fn more_hosts_than_can_be_looked_at_are_refused() {
    let domains: Vec<String> = (0..2000).map(|number| format!("h{number}.example")).collect();
    let routes = (0..400).map(|number| json!({"route": {"cluster": number.to_string()}}));
    let clusters = (0..400).map(|number| json!({"name": number.to_string(), "type": "EDS"}));
    let config = json!({
        "static_resources": {"clusters": clusters.collect::<Vec<_>>()},
        "virtual_hosts": [{"domains": domains, "routes": routes.collect::<Vec<_>>()}],
    });
    lint(&["-"]).stdin(config.to_string()).refused(1, "more than this command reads");
}

#[test]
fn files_that_cannot_be_read_are_an_error() {
    let gate = Gate::new();
    lint(&[&text(gate.dir.file("missing"))]).refused(3, "cannot be read");
    lint(&[&text(gate.dir.path().to_owned())]).refused(3, "cannot be read");
    lint(&[]).refused(2, "<FILE|URL>");
    let twice = Vkey::new(&["tls", "lint", "-", "--policy", "-"]);
    twice.refused(2, "cannot both be read from standard input");
    let wrong = gate.file("wrong.json", "{\n\"version\": 1,\n\"default\": {}}");
    let wrong_policy = Vkey::new(&["tls", "lint", "-", "--policy", &wrong]).stdin("{}");
    wrong_policy.refused(1, "wrong.json:3: default.min_version: missing");
}

fn dump() -> String {
    fs::read_to_string(data("ca_missing-config_dump.json")).expect("readable")
}

#[test]
fn a_running_envoy_is_asked_for_its_dump() {
    let asked = |path: &str| {
        let server = Server::answering("200 OK", dump());
        let url = format!("http://{}{path}", server.address);
        let (code, report) = report(lint(&["--json", &url]));
        assert_eq!((code, rules(&report)), (1, vec!["ca_missing"]));
        assert_eq!((&report["clusters"], &report["judged"]), (&json!(2), &json!(1)));
        let asked = server.asked();
        assert!(!asked.iter().any(|line| line.starts_with("authorization")), "{asked:?}");
        asked[0].clone()
    };
    let whole = "GET /config_dump?include_eds HTTP/1.1";
    assert_eq!(asked(""), whole);
    assert_eq!(asked("/"), whole);
    assert_eq!(asked("/config_dump"), whole);
    assert_eq!(asked("/config_dump?resource=a"), "GET /config_dump?resource=a HTTP/1.1");
    assert_eq!(asked("/pods/y/proxy/"), "GET /pods/y/proxy/config_dump?include_eds HTTP/1.1");
}

#[test]
fn an_envoy_that_does_not_answer_is_an_error() {
    let answer = |answer: &str, code, says: &str| {
        let server = Server::raw(answer);
        fails(lint(&[&format!("http://{}", server.address)]), code, says);
    };
    answer(
        "",
        3,
        "connection closed before the end of the response; check the URL, and the proxy's log",
    );
    let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let says = "the admin interface returned 404 without a reason; check the URL";
    answer(refusal, 1, says);
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1\r\ncontent-length: 0\r\n\r\n";
    let says = "the admin interface returned 302, a redirect, which is not followed; check the URL";
    answer(moved, 1, says);
    let says =
        "unexpected response: not a response of Envoy's admin interface (not HTTP); check the URL";
    answer("SSH-2.0-OpenSSH\r\n\r\n", 1, says);
    let html = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
    answer(
        html,
        4,
        "the response is not an Envoy configuration: expected static_resources, resources, configs, or \
         clusters; check the URL",
    );
    let json = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]";
    let says = "the response is not an Envoy configuration: not valid JSON, line 1; check the URL";
    answer(json, 1, says);
    let empty = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"configs\": []}";
    answer(
        empty,
        4,
        "the response has no clusters, and no listener with the module: expected them in \
         static_resources, resources, configs, clusters, or a list; check the URL",
    );
    lint(&[NOBODY]).refused(3, "cannot connect to the admin interface");
    // Whoever is on the way could show a configuration without defects.
    lint(&["http://gw.example:9901"]).refused(2, "--allow-http");
    lint(&["http://0.0.0.0:1", "--allow-http"]).refused(3, "cannot connect");
    lint(&[NOBODY, "--ca", "missing"]).refused(2, "--ca is for an https URL");
    lint(&["http://127.0.0.1:1/stats?a"]).refused(2, "no query");
    for url in ["http://u:p@127.0.0.1:1/", "http://u@127.0.0.1:1/"] {
        let says = "no user and no password in the URL; remove the part before the @";
        lint(&[url]).refused(2, says);
    }
    for address in ["127.0.0.1:9901", "ftp://127.0.0.1/config_dump"] {
        lint(&[address]).refused(3, "write http:// or https:// before its address");
    }
}
