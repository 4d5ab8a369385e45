//! The command, asking the admin interface of a running Envoy.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::keys::{Minter, VARIABLE, options};
use crate::support::config::{connection_manager, named};
use crate::support::{Envoy, Request, TempDir, artefact, envoys, root, vkey};

/// Runs `vkey tls` on an admin interface.
fn tls(command: &str, envoy: &Envoy) -> (Option<i32>, String) {
    run_tls(command, &format!("http://{}", envoy.admin()))
}

/// Runs `vkey tls` on an admin interface or a file.
fn run_tls(command: &str, source: &str) -> (Option<i32>, String) {
    let run = Command::new(vkey())
        .args(["tls", command, source, "--json"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
    (run.status.code(), String::from_utf8(run.stdout).expect("text"))
}

/// A cluster that says only by the name of its endpoint whom it is for.
fn cluster(name: &str, more: Value) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
    let endpoint = json!({"address": address, "hostname": "api.openai.com"});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": endpoint}]}]);
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    });
    for (member, value) in more.as_object().expect("an object") {
        cluster[member] = value.clone();
    }
    cluster
}

#[test]
fn lint_finds_in_a_running_envoy_what_its_clusters_lack() {
    let envoy =
        Envoy::start(options("lint", &Minter::new("main", None), json!({})).edit(|config| {
            let context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
            let context = json!({"@type": format!("type.googleapis.com/{context}"),
                             "auto_host_sni": true, "allow_renegotiation": true});
            let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
            let clusters = &mut config["static_resources"]["clusters"];
            let clusters = clusters.as_array_mut().expect("a list");
            clusters.push(cluster("plain", json!({})));
            clusters.push(cluster("trusting", json!({"transport_socket": socket})));
        }));
    let (code, report) = tls("lint", &envoy);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((code, &report["clusters"], &report["judged"]), (Some(1), &json!(3), &json!(2)));
    let of = |cluster: &str| {
        let findings = report["findings"].as_array().expect("a list").iter();
        let own = findings.filter(|finding| finding["cluster"] == cluster);
        own.map(|finding| finding["rule"].as_str().expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!(of("plain"), ["gate_missing", "plaintext", "stamp_missing"]);
    let trusting = ["gate_missing", "ca_missing", "stamp_missing", "allow_renegotiation"];
    assert_eq!(of("trusting"), trusting);
    let (code, status) = tls("status", &envoy);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, &status["upstreams"]), (Some(0), &json!([])));
    // The names of metrics are whole in the form that `status` asks for, with labels taken out too.
    let labelled = "/stats?format=json&filter=vkey_requests_total";
    envoy.send(&Request::new("GET", "/v1/models"));
    envoy.wait_for_access_log(1);
    let stats = envoy.admin_get(labelled).json();
    let name = "wasmcustom.vkey_requests_total.decision.deny.reason.key_missing.tenant.none";
    assert_eq!(stats["stats"][0]["name"], name);
}

/// The listener that lint has nothing against, with the module and the ports of the test.
fn good_listener() -> Value {
    let text =
        fs::read_to_string(root().join("testdata/lint/good-listener.yaml")).expect("readable");
    let module = artefact("VKEY_TEST_WASM");
    let text = text.replace("target/vkey.wasm", module.to_str().expect("text"));
    serde_saphyr::from_str(&text).expect("YAML")
}

fn manager(config: &mut Value) -> &mut Value {
    let chains = &mut config["static_resources"]["listeners"][0]["filter_chains"];
    &mut chains[0]["filters"][0]["typed_config"]
}

fn route(config: &mut Value) -> &mut Value {
    &mut manager(config)["route_config"]["virtual_hosts"][0]["routes"][0]
}

/// A module that takes every configuration. Envoy compiles it in no time.
const EMPTY_MODULE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1)))"#;

/// Whether each Envoy takes a configuration, and what lint finds in it.
fn judge(config: &Value) -> (Vec<bool>, Vec<String>) {
    let dir = TempDir::new("lint_validate");
    let (file, module) = (dir.file("envoy.json"), dir.file("empty.wasm"));
    fs::write(&module, wat::parse_str(EMPTY_MODULE).expect("WAT")).expect("the directory is ours");
    let text = config.to_string().replace(
        artefact("VKEY_TEST_WASM").to_str().expect("text"),
        module.to_str().expect("text"),
    );
    fs::write(&file, text).expect("the directory is ours");
    let accepts = |binary: PathBuf| {
        let mut command = Command::new(binary);
        command.args(["--mode", "validate", "--disable-hot-restart", "--config-path"]).arg(&file);
        command.env_clear().env(VARIABLE, "x").output().expect("Envoy starts").status.success()
    };
    let file = file.to_str().expect("text");
    let report: Value = serde_json::from_str(&run_tls("lint", file).1).expect("JSON");
    let findings = report["findings"].as_array().expect("a list").iter();
    let rules = findings.map(|finding| finding["rule"].as_str().expect("an id").to_owned());
    (envoys().into_iter().map(accepts).collect(), rules.collect())
}

/// A setting of a filter on a route.
fn filter_config(members: &Value) -> Value {
    let mut config = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"});
    for (name, value) in members.as_object().expect("an object") {
        config[name] = value.clone();
    }
    config
}

/// What lint asks for exists in every Envoy, and what it finds is no misspelling of something else.
#[test]
fn envoys_take_what_lint_asks_for_and_what_it_finds() {
    type Edit = fn(&mut Value);
    let cases: [(&[&str], Edit); 18] = [
        (&[], |_| {}),
        (&[], |c| manager(c)["xff_num_trusted_hops"] = json!(1)),
        (&[], |c| {
            manager(c)["path_with_escaped_slashes_action"] = json!("UNESCAPE_AND_REDIRECT");
        }),
        (&[], |c| {
            let early = &mut manager(c)["early_header_mutation_extensions"][0]["typed_config"];
            let prefix = json!({"key_matcher": {"prefix": "x-vkey-"}});
            early["mutations"] = json!([{"remove_on_match": prefix}]);
        }),
        (&[], |c| {
            let rules = &mut manager(c)["http_filters"][1]["typed_config"]["rules"];
            rules["action"] = json!("DENY");
            let seal = &mut rules["policies"]["allowed-by-vkey"]["principals"][0];
            *seal = json!({"not_id": seal.take()});
        }),
        (&["host_port_kept"], |c| {
            manager(c)["strip_any_host_port"] = json!(false);
            manager(c)["strip_matching_host_port"] = json!(true);
        }),
        (&["seal_missing"], |c| {
            let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
            let setting = json!({"envoy.filters.http.rbac": {"@type": kind}});
            route(c)["typed_per_filter_config"] = setting;
        }),
        (&["seal_missing"], |c| {
            let router = manager(c)["http_filters"][2].clone();
            let upgrade = json!([{"upgrade_type": "websocket", "filters": [router]}]);
            manager(c)["upgrade_configs"] = upgrade;
        }),
        (&["seal_missing"], |c| {
            route(c)["typed_per_filter_config"] =
                json!({"envoy.filters.http.rbac": filter_config(&json!({"disabled": true}))});
        }),
        (&["module_switched_off"], |c| {
            route(c)["typed_per_filter_config"] =
                json!({"envoy.filters.http.wasm": filter_config(&json!({"disabled": true}))});
        }),
        (&["module_switched_off"], |c| manager(c)["http_filters"][0]["disabled"] = json!(true)),
        (&["module_switched_off"], |c| manager(c)["http_filters"][0]["is_optional"] = json!(true)),
        (&[], |c| {
            manager(c)["http_filters"][0]["disabled"] = json!(true);
            route(c)["typed_per_filter_config"] =
                json!({"envoy.filters.http.wasm": filter_config(&json!({"config": {}}))});
        }),
        (&["mirror_ungated"], |c| {
            add_plain(c);
            let mirrors = json!([
                {"cluster": "plain", "disable_shadow_host_suffix_append": true},
                {"cluster": "gated", "host_rewrite_literal": "echo.example"},
            ]);
            route(c)["route"]["request_mirror_policies"] = mirrors;
        }),
        (&["mirror_ungated"], |c| {
            add_plain(c);
            let none = json!({"default_value": {"numerator": 0}, "runtime_key": "a"});
            let mirrors = json!([{"cluster_header": "x-shadow", "runtime_fraction": none}]);
            let hosts = &mut manager(c)["route_config"]["virtual_hosts"];
            hosts[0]["request_mirror_policies"] = mirrors;
        }),
        (&["mirror_ungated"], |c| {
            add_plain(c);
            manager(c)["route_config"]["request_mirror_policies"] = json!([{"cluster": "plain"}]);
        }),
        (&["open_host_ungated"], |c| {
            add_plain(c);
            manager(c)["route_config"]["virtual_hosts"][0]["domains"] = json!(["echo.*"]);
            let clusters = json!([{"name": "gated", "weight": 1}, {"name": "plain", "weight": 1}]);
            route(c)["route"] = json!({"weighted_clusters": {"clusters": clusters}});
        }),
        (&["route_by_removed_header", "route_by_removed_header"], |c| {
            let header = json!({"name": "x-api-key", "present_match": true, "invert_match": true});
            route(c)["match"]["headers"] = json!([header]);
            let clusters = json!([{"name": "gated", "weight": 1}]);
            let weighted = json!({"clusters": clusters, "header_name": "x-vkey-tenant"});
            route(c)["route"] = json!({"weighted_clusters": weighted});
        }),
    ];
    for (expected, edit) in cases {
        let mut config = good_listener();
        edit(&mut config);
        let (accepted, rules) = judge(&config);
        assert_eq!(rules, expected, "{config:#}");
        assert!(accepted.iter().all(|accepted| *accepted), "{accepted:?}: {config:#}");
    }
    // Envoy itself refuses what lint's fix says to leave out, and a form of mirrors that is gone.
    let refused: [Edit; 2] = [
        |c| manager(c)["strip_matching_host_port"] = json!(true),
        |c| route(c)["route"]["request_mirror_policy"] = json!({"cluster": "gated"}),
    ];
    for edit in refused {
        let mut config = good_listener();
        edit(&mut config);
        let (accepted, _) = judge(&config);
        assert!(!accepted.contains(&true), "{accepted:?}: {config:#}");
    }
}

/// Adds a cluster without a gate.
fn add_plain(config: &mut Value) {
    let clusters = config["static_resources"]["clusters"].as_array_mut().expect("a list");
    let address = json!({"pipe": {"path": "/run/plain.sock"}});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
    let assignment = json!({"cluster_name": "plain", "endpoints": endpoints});
    clusters.push(json!({"name": "plain", "type": "STATIC", "load_assignment": assignment}));
}

/// A running Envoy shows the same routes twice: in their listener, and by themselves.
#[test]
fn lint_finds_in_a_running_envoy_what_its_listeners_lack() {
    let envoy = Envoy::start(
        options("lint_listeners", &Minter::new("main", None), json!({})).edit(|config| {
            add_plain(config);
            let listeners = config["static_resources"]["listeners"].as_array_mut().expect("a list");
            let gate = listeners.iter_mut().find(|listener| listener["name"] == "gate");
            let manager = &mut gate.expect("the gate")["filter_chains"][0]["filters"][0];
            let manager = &mut manager["typed_config"];
            manager["use_remote_address"] = json!(false);
            let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
            routes["route"]["request_mirror_policies"] = json!([{"cluster": "plain"}]);
            routes["match"]["headers"] = json!([{"name": "x-api-key", "present_match": false}]);
        }),
    );
    let (code, report) = tls("lint", &envoy);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((code, &report["listeners"]), (Some(1), &json!(1)), "{report}");
    let findings = report["findings"].as_array().expect("a list").iter();
    let found = findings.map(|finding| (finding["rule"].clone(), finding["listener"].clone()));
    let expected = [
        ("remote_address_unset", json!("gate")),
        ("route_by_removed_header", Value::Null),
        ("mirror_ungated", Value::Null),
        // The tests' cluster has no gate.
        ("open_host_ungated", Value::Null),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected.map(|(rule, gate)| (json!(rule), gate)));
}

/// The status and the body that a request with a forged tenant gets under each configuration.
fn answers(label: &str, has_key: bool, edits: Vec<fn(&mut Value)>) -> Vec<(u16, String)> {
    let answer = |edit: fn(&mut Value)| {
        let minter = Minter::new("main", None);
        let envoy = Envoy::start(options(label, &minter, json!({})).edit(edit));
        let request = Request::new("GET", "/v1/models").header("x-vkey-tenant", "forged");
        let request = if has_key { request.bearer(&minter.key("k1", json!({}))) } else { request };
        let response = envoy.send(&request);
        (response.status, response.text())
    };
    edits.into_iter().map(answer).collect()
}

/// Switches filters of the gate off for all routes, and keeps what a client says of itself.
fn forge(config: &mut Value, settings: Value) {
    let manager = connection_manager(config, "gate");
    manager.as_object_mut().expect("an object").remove("early_header_mutation_extensions");
    manager["route_config"]["typed_per_filter_config"] = settings;
}

/// What the reason of `module_switched_off` says.
#[test]
fn where_the_module_and_the_seal_are_off_a_forged_tenant_reaches_the_upstream() {
    let answers = answers(
        "lint_forged",
        false,
        vec![
            |config| {
                let off = filter_config(&json!({"disabled": true}));
                let both = json!({"envoy.filters.http.wasm": off, "envoy.filters.http.rbac": off});
                forge(config, both);
            },
            |config| {
                let off = filter_config(&json!({"disabled": true}));
                forge(config, json!({"envoy.filters.http.wasm": off}));
            },
            |config| {
                let optional = filter_config(&json!({"is_optional": true, "config": {}}));
                forge(config, json!({"envoy.filters.http.wasm": optional}));
            },
        ],
    );
    let [off, sealed, optional] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(off.0, 200);
    assert!(off.1.contains("x-vkey-tenant: forged"), "{off:?}");
    assert_eq!((sealed.0, optional.0), (403, 401));
}

/// Lets the endpoint of the cluster have this metadata, and its locality that.
fn select(config: &mut Value, endpoint: &Value, locality: &Value) {
    let cluster = named(config, "/static_resources/clusters", "echo");
    let kind = "envoy.extensions.transport_sockets";
    let typed = |name: &str, kind: String| json!({"name": name, "typed_config": {"@type": kind}});
    let plain = typed("plain", format!("type.googleapis.com/{kind}.raw_buffer.v3.RawBuffer"));
    let tls = typed("tls", format!("type.googleapis.com/{kind}.tls.v3.UpstreamTlsContext"));
    cluster["transport_socket"] = tls;
    let criteria = json!({"name": "a", "number": 1});
    cluster["transport_socket_matches"] =
        json!([{"name": "a", "match": criteria, "transport_socket": plain}]);
    let metadata =
        |labels: &Value| json!({"filter_metadata": {"envoy.transport_socket_match": labels}});
    let group = &mut cluster["load_assignment"]["endpoints"][0];
    group["lb_endpoints"][0]["metadata"] = metadata(endpoint);
    group["metadata"] = metadata(locality);
}

/// The upstream has no TLS, so only a request over the branch arrives.
#[test]
fn envoy_selects_a_transport_socket_as_lint_does() {
    let answers = answers(
        "lint_sockets",
        true,
        vec![
            |config| select(config, &json!({"name": "a", "number": 1.0, "x": 1}), &json!({})),
            |config| select(config, &json!({"name": "b"}), &json!({"name": "a", "number": 1})),
            |config| select(config, &json!({"name": "a"}), &json!({"number": 1})),
            |config| select(config, &json!({"name": "a", "number": "1"}), &json!({})),
        ],
    );
    let statuses: Vec<u16> = answers.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [200, 200, 503, 503]);
}
