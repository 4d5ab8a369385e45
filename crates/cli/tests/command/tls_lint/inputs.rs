//! Inputs of several files and documents, in the forms that proxies and control planes produce.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::{data, lint, lint_text, plain, report, rules};
use crate::harness::{Gate, Vkey, text};

/// A file of `testdata/lint/inputs`, the exit code, the findings in their order, and how the notes begin.
type Row = (&'static str, i32, &'static [&'static str], &'static [&'static str]);

const OPEN: &str = "PassthroughCluster: it connects to whatever host a request names";
const LABELS: &str = "default/eg/http: stats_config.stats_tags has no rule for anomaly";
const UNSEEN: &str = "httproute/default/llm/rule/0: its endpoints are not in the input";
const UNROUTED: &str = "default/eg/http: the module runs only where a route enables it";

const ROWS: &[Row] = &[
    (
        "bootstrap-v2.yaml",
        1,
        &[
            "openai: gate_missing",
            "openai: tls_context_obsolete",
            "openai: endpoints_missing",
            "openai: stamp_missing",
            "echo: endpoints_missing",
        ],
        &[],
    ),
    ("clusters.json", 0, &[], &[]),
    ("clusters-plaintext.json", 1, &["plain: plaintext"], &[]),
    ("discovery-response.json", 0, &[], &[]),
    ("documents.yaml", 1, &["a: gate_missing", "a: plaintext", "a: stamp_missing"], &[]),
    ("envoy-gateway.json", 0, &[], &[LABELS]),
    ("envoy-gateway-one-route-without-module.json", 0, &[], &[UNROUTED, LABELS]),
    (
        "envoy-gateway-unmarked-endpoint.json",
        1,
        &[
            "httproute/default/llm/rule/0: gate_missing",
            "httproute/default/llm/rule/0: ca_missing",
            "httproute/default/llm/rule/0: stamp_missing",
            "httproute/default/llm/rule/0: sni_missing",
        ],
        &[],
    ),
    ("envoy-gateway-without-endpoints.json", 0, &[], &[UNSEEN]),
    (
        "envoy-gateway-without-vkey.json",
        1,
        &[
            "httproute/default/llm/rule/0: gate_missing",
            "httproute/default/llm/rule/0: stamp_missing",
        ],
        &[],
    ),
    ("istio.json", 0, &[], &[OPEN]),
    (
        "istio-automatic-mtls.json",
        1,
        &[
            "outbound|443||api.openai.com: gate_missing",
            "outbound|443||api.openai.com: sni_wrong",
            "outbound|443||api.openai.com: san_match_wrong",
            "outbound|443||api.openai.com: plaintext",
            "outbound|443||api.openai.com: stamp_missing",
        ],
        &[OPEN],
    ),
    (
        "istio-without-vkey.json",
        1,
        &[
            "outbound|443||api.openai.com: gate_missing",
            "outbound|443||api.openai.com: stamp_missing",
        ],
        &[OPEN],
    ),
    ("listener-only.yaml", 4, &[], &[]),
    (
        "misspelt.yaml",
        1,
        &["one: endpoints_missing", "two: endpoints_missing", "three: endpoints_missing"],
        &[],
    ),
];

fn input(name: &str) -> String {
    text(data("inputs").join(name))
}

/// The cluster or listener of a finding.
fn place(finding: &Value) -> &str {
    let place = ["cluster", "listener"].into_iter().find_map(|member| finding[member].as_str());
    place.expect("a cluster or a listener")
}

fn word<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().expect("text")
}

#[test]
fn each_input_gives_these_findings_and_no_others() {
    for (name, code, expected, noted) in ROWS {
        if *code == 4 {
            lint(&[&input(name)]).refused(4, "the input has no clusters, and no listener");
            continue;
        }
        let (done, report) = report(lint(&["--json", &input(name)]));
        let findings = report["findings"].as_array().expect("a list").iter();
        let found = findings.map(|f| format!("{}: {}", place(f), word(f, "rule")));
        assert_eq!((done, found.collect::<Vec<_>>()), (*code, owned(expected)), "{name}");
        let notes = report["notes"].as_array().expect("a list").iter();
        let notes: Vec<_> =
            notes.map(|note| format!("{}: {}", word(note, "place"), word(note, "text"))).collect();
        assert_eq!(notes.len(), noted.len(), "{name}: {notes:?}");
        for (note, start) in notes.iter().zip(*noted) {
            assert!(note.starts_with(start), "{name}: {note}");
        }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn each_input_has_a_row_and_a_line_about_how_it_was_made() {
    let files = fs::read_dir(data("inputs")).expect("a directory");
    let files = files.map(|file| file.expect("readable").file_name().into_string().expect("text"));
    let files: BTreeSet<String> = files.filter(|name| name != "README.md").collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(files, rows);
    let readme = fs::read_to_string(data("inputs/README.md")).expect("readable");
    for name in files {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// Routes in one file lead to clusters in another one, whose endpoints are in a third one.
#[test]
fn several_files_are_parts_of_one_configuration() {
    let gate = Gate::new();
    let host = json!({"name": "h", "domains": ["api.openai.com"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}}]});
    let kind = |name: &str| format!("type.googleapis.com/envoy.config.{name}");
    let route =
        json!({"@type": kind("route.v3.RouteConfiguration"), "name": "r", "virtual_hosts": [host]});
    let cluster = json!({"@type": kind("cluster.v3.Cluster"), "name": "a", "type": "EDS"});
    let item = json!({"endpoint": {"address": {"pipe": {"path": "/run/a"}}}});
    let assignment = json!({"@type": kind("endpoint.v3.ClusterLoadAssignment"), "cluster_name": "a",
        "endpoints": [{"lb_endpoints": [item]}]});
    let file = |name, resource| gate.file(name, json!({"resources": [resource]}).to_string());
    let [rds, cds, eds] =
        [file("rds.json", route), file("cds.json", cluster), file("eds.json", assignment)];
    let (code, report) = report(lint(&["--json", &rds, &cds, &eds]));
    assert_eq!((code, rules(&report)), (1, vec!["gate_missing", "plaintext", "stamp_missing"]));
    assert_eq!((&report["clusters"], &report["notes"]), (&json!(1), &json!([])));
    let findings = report["findings"].as_array().expect("a list");
    assert!(findings.iter().all(|finding| finding["file"] == cds), "{report}");
    // Without the routes it is for nobody, and without the endpoints that is a note.
    let (code, report) = super::report(lint(&["--json", &cds]));
    assert_eq!((code, &report["judged"]), (0, &json!(0)));
    assert_eq!(report["notes"][0]["file"], cds);
}

#[test]
fn findings_name_their_file_and_come_in_the_order_of_severity() {
    let gate = Gate::new();
    let stampless = json!([plain("b", "api.openai.com", &json!({}))]);
    let eds = json!([{"name": "c", "type": "EDS"}, {"name": "d", "type": "STATIC"}]);
    let [one, two] =
        [gate.file("one.json", eds.to_string()), gate.file("two.json", stampless.to_string())];
    let lines = |args: &[&str]| {
        let out = lint(args).run().out;
        let heads = out.lines().filter(|line| !line.starts_with("  "));
        heads.map(|line| line.split(": its").next().expect("a part").to_owned()).collect::<Vec<_>>()
    };
    let expected = [
        format!("{two}: error: b: gate_missing for api.openai.com"),
        format!("{two}: error: b: plaintext for api.openai.com"),
        format!("{one}: warning: d: endpoints_missing"),
        format!("{two}: warning: b: stamp_missing for api.openai.com"),
        format!("{one}: note: c"),
        "3 clusters, 1 for judged hosts, 0 listeners with the module, 4 findings".to_owned(),
    ];
    assert_eq!(lines(&[&one, &two]), expected);
    let listed = Vkey::new(&["tls", "lint", "--rules", "--json"]).ok().out;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let rules = listed["rules"].as_array().expect("a list");
    let severities: BTreeSet<&str> = rules.iter().map(|rule| word(rule, "severity")).collect();
    assert_eq!(severities, BTreeSet::from(["error", "warning"]));
}

#[test]
fn findings_of_routes_and_listeners_name_their_file_too() {
    let gate = Gate::new();
    let whole = super::listeners::edited(&[
        ("merge_slashes: true", "merge_slashes: false"),
        ("match: {prefix: /}", "match: {prefix: /, headers: [{name: x-api-key}]}"),
    ]);
    let whole: Value = serde_saphyr::from_str(&whole).expect("YAML");
    let mut listener = whole["static_resources"]["listeners"][0].clone();
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let routes = manager["route_config"].take();
    manager["rds"] = json!({"route_config_name": "llm"});
    let lds = gate.file("lds.json", json!({"listeners": [listener]}).to_string());
    let rds = gate.file("rds.json", routes.to_string());
    let cds = json!({"clusters": whole["static_resources"]["clusters"]});
    let cds = gate.file("cds.json", cds.to_string());
    let (_, report) = report(lint(&["--json", &cds, &lds, &rds]));
    let findings = report["findings"].as_array().expect("a list").iter();
    let found: Vec<_> = findings.map(|f| (word(f, "rule"), word(f, "file"))).collect();
    assert_eq!(
        found,
        [("route_by_removed_header", rds.as_str()), ("slashes_not_merged", lds.as_str())]
    );
}

#[test]
fn errors_name_the_file_if_there_are_several() {
    let gate = Gate::new();
    let good = input("clusters.json");
    let other = gate.file("values.yaml", "replicas: 1");
    lint(&[&good, &other]).refused(4, "values.yaml: the input is not an Envoy configuration");
    let broken = gate.file("broken.json", "{\"a\": [}");
    lint(&[&good, &broken]).refused(1, "broken.json: the input is not an Envoy configuration");
    lint(&[&good, "missing.yaml"]).refused(3, "missing.yaml: ");
    let bad = text(data("san_match_missing.yaml"));
    for nothing in ["", "---\n# nothing\n", "{\"resources\": []}"] {
        let nothing = gate.file("nothing.yaml", nothing);
        assert_eq!(lint(&[&bad, &nothing]).run().code, 1);
        assert_eq!(lint(&[&nothing, &bad]).run().code, 1);
    }
    let empty = gate.file("empty.json", "{\"resources\": []}");
    lint(&[&empty, &empty]).refused(4, "has no clusters");
    let twice = lint(&["-", "-"]).stdin("{}");
    twice.refused(2, "cannot both be read from standard input");
}

#[test]
fn documents_of_one_file_are_parts_of_one_configuration() {
    let cluster = "name: a\ntype: STRICT_DNS\n";
    let two = format!("---\n{cluster}---\n# nothing\n---\n{}...\n", cluster.replace(": a", ": b"));
    let (code, report) = lint_text(two, &[]);
    assert_eq!((code, &report["clusters"]), (1, &json!(2)));
    assert_eq!(rules(&report), ["endpoints_missing"; 2]);
    // An alias is of its own document.
    lint(&["-"]).stdin("a: &x 1\n---\nb: *x\n").refused(1, "not valid YAML");
}

#[test]
fn a_list_of_clusters_may_have_a_name() {
    let clusters = [plain("a", "api.openai.com", &json!({})), plain("b", "echo", &json!({}))];
    let (code, report) = lint_text(json!({"clusters": clusters}).to_string(), &[]);
    assert_eq!((code, &report["clusters"], &report["judged"]), (1, &json!(2), &json!(1)));
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = Vkey::new(&["tls", "lint", "--help"]).ok().out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("0 no findings; 1 findings"), "{help}");
    assert!(help.contains("4 no configuration found"), "{help}");
    assert!(help.contains("<FILE|URL>...") || help.contains("[FILE|URL]..."), "{help}");
}
