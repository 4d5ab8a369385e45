//! Listeners with the module, and what they do to requests before it.

use std::fs;

use serde_json::{Value, json};

use super::{data, lint_text};

/// A listener, its routes and its cluster, without a defect, in which each pair's first text is replaced
/// by the second.
pub(super) fn edited(edits: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(data("good-listener.yaml")).expect("readable");
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

/// What is found: each with the element that has it, and the rule.
pub(super) fn found(config: &str) -> Vec<(String, String)> {
    let (code, report) = lint_text(config, &[]);
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(code, i32::from(!findings.is_empty()), "{report}");
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let element = |finding: &Value| {
        ["cluster", "listener", "route"]
            .iter()
            .map(|kind| said(&finding[*kind]))
            .collect::<String>()
    };
    findings.iter().map(|finding| (element(finding), said(&finding["rule"]))).collect()
}

pub(super) fn rules(config: &str) -> Vec<String> {
    found(config).into_iter().map(|(_, rule)| rule).collect()
}

pub(super) fn notes(config: &str) -> Vec<String> {
    let (_, report) = lint_text(config, &[]);
    let notes = report["notes"].as_array().expect("a list").iter();
    let words = |note: &Value| format!("{}: {}", note["place"], note["text"]).replace('"', "");
    notes.map(words).collect()
}

#[test]
fn two_ways_with_escaped_slashes_are_good() {
    let member = "path_with_escaped_slashes_action: ";
    let set = |value: &str| {
        let own = format!("{member}REJECT_REQUEST");
        rules(&edited(&[(&own, &format!("{member}{value}"))]))
    };
    for good in ["REJECT_REQUEST", "2", "UNESCAPE_AND_REDIRECT", "3"] {
        assert!(set(good).is_empty(), "{good}");
    }
    for bad in
        ["IMPLEMENTATION_SPECIFIC_DEFAULT", "0", "KEEP_UNCHANGED", "1", "UNESCAPE_AND_FORWARD", "4"]
    {
        assert_eq!(set(bad), ["escaped_slashes_kept"], "{bad}");
    }
}

/// As the module needs it that keeps escaped slashes for a tier.
#[test]
fn escaped_slashes_may_stay_where_the_module_keeps_them() {
    let keep =
        r#""secret": "${VKEY_MAIN_SECRET}"}], "tiers": {"models": {"escaped_slashes": "keep"}}"#;
    let plugin = (r#""secret": "${VKEY_MAIN_SECRET}"}]"#, keep);
    let action = |value: &str| format!("path_with_escaped_slashes_action: {value}");
    let set = |value: &str| rules(&edited(&[(&action("REJECT_REQUEST"), &action(value)), plugin]));
    assert!(set("KEEP_UNCHANGED").is_empty());
    for bad in ["IMPLEMENTATION_SPECIFIC_DEFAULT", "UNESCAPE_AND_FORWARD"] {
        assert_eq!(set(bad), ["escaped_slashes_kept"], "{bad}");
    }
}

#[test]
fn a_module_that_reads_forwarded_addresses_itself_is_a_note() {
    let off = ("          use_remote_address: true\n", "");
    let hops = |count: &str| {
        let more = format!("}}], \"client\": {{\"trusted_hops\": {count}}}}}'");
        edited(&[off, ("}]}'", &more)])
    };
    assert_eq!(rules(&edited(&[off])), ["remote_address_unset"]);
    assert_eq!(rules(&hops("0")), ["remote_address_unset"]);
    assert!(rules(&hops("1")).is_empty());
    let notes_of = |config: &str| notes(config).len();
    assert!(notes(&hops("1"))[0].starts_with("gate: use_remote_address is not true"));
    assert_eq!((notes_of(&hops("0")), notes_of(&edited(&[]))), (0, 0));
}

#[test]
fn identity_headers_count_as_removed_only_before_routing() {
    let all = "[{remove: x-vkey-key}, {remove: x-vkey-tenant}, {remove: x-vkey-sub}]";
    let set = |mutations: &str| rules(&edited(&[(all, mutations)]));
    for good in [
        "[{remove: X-Vkey-Key}, {remove: X-VKEY-TENANT}, {remove: x-vkey-sub}]",
        "[{remove_on_match: {key_matcher: {prefix: x-vkey-}}}]",
        "[{remove_on_match: {key_matcher: {contains: VKEY, ignore_case: true}}}]",
        "[{remove: x-vkey-key}, {removeOnMatch: {keyMatcher: {prefix: x-vkey-}}}]",
    ] {
        assert!(set(good).is_empty(), "{good}");
    }
    for bad in [
        "[]",
        "[{remove: x-vkey-key}, {remove: x-vkey-tenant}]",
        "[{append: {header: {key: x-vkey-key, value: a}}}]",
        "[{remove_on_match: {key_matcher: {prefix: x-vkey-k}}}]",
        "[{remove_on_match: {key_matcher: {safe_regex: {regex: x-vkey-.*}}}}]",
    ] {
        assert_eq!(set(bad), ["identity_headers_kept"], "{bad}");
    }
    // Too late: by then a route was chosen.
    let mutations = format!("mutations: {all}");
    let late = "          http_filters:
          - name: envoy.filters.http.header_mutation
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations: {request_mutations: [{remove: x-vkey-key}, {remove: x-vkey-tenant}, {remove: x-vkey-sub}]}
";
    let late = edited(&[(&mutations, "mutations: []"), ("          http_filters:\n", late)]);
    assert_eq!(rules(&late), ["identity_headers_kept"]);
    let internal = (
        "name: llm\n",
        "name: llm\n            internal_only_headers: [x-vkey-key, x-vkey-tenant, x-vkey-sub]\n",
    );
    assert_eq!(
        rules(&edited(&[(&mutations, "mutations: []"), internal])),
        ["identity_headers_kept"]
    );
}

const PRINCIPAL: &str =
    "principals: [{filter_state: {key: wasm.vkey.decision, string_match: {exact: allow}}}]";

#[test]
fn a_seal_lets_nothing_pass_that_the_module_has_not_allowed() {
    let state = "{filter_state: {key: wasm.vkey.decision, string_match: {exact: allow}}}";
    let policy = |of: &str| edited(&[(PRINCIPAL, of)]);
    let good = [
        policy(&format!("principals: [{{and_ids: {{ids: [{{any: true}}, {state}]}}}}]")),
        policy(&format!("principals: [{{or_ids: {{ids: [{state}, {state}]}}}}]")),
        edited(&[("ALLOW", "DENY"), (PRINCIPAL, &format!("principals: [{{not_id: {state}}}]"))]),
        edited(&[("ALLOW", "0")]),
    ];
    for config in good {
        assert!(rules(&config).is_empty(), "{config}");
    }
    let another = format!(
        "{PRINCIPAL}\n                  more: {{permissions: [{{any: true}}], principals: [{{any: true}}]}}"
    );
    let unless = format!("{{and_ids: {{ids: [{{not_id: {state}}}, {{source_ip: {{}}}}]}}}}");
    let bad = [
        policy("principals: [{any: true}]"),
        policy(&format!("principals: [{state}, {{any: true}}]")),
        policy(&format!("principals: [{{or_ids: {{ids: [{state}, {{any: true}}]}}}}]")),
        policy(&format!("principals: [{{not_id: {state}}}]")),
        policy(&PRINCIPAL.replace("exact: allow", "prefix: a")),
        policy(&PRINCIPAL.replace("exact: allow", "exact: deny")),
        policy(&another),
        edited(&[("ALLOW", "DENY")]),
        edited(&[("ALLOW", "DENY"), (PRINCIPAL, &format!("principals: [{unless}]"))]),
        edited(&[("ALLOW", "LOG")]),
        edited(&[("              rules:\n", "              shadow_rules:\n")]),
        edited(&[(
            "- name: envoy.filters.http.rbac\n",
            "- name: envoy.filters.http.rbac\n            disabled: true\n",
        )]),
        edited(&[("filters.http.rbac.v3.RBAC", "filters.http.other.v3.Other")]),
    ];
    for config in bad {
        assert_eq!(found(&config), [("gate".to_owned(), "seal_missing".to_owned())], "{config}");
    }
    let (mut listener, cluster) = listener_and_cluster("good-listener.yaml");
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["http_filters"].as_array_mut().expect("a list").swap(0, 1);
    assert_eq!(rules(&json!([listener, cluster]).to_string()), ["seal_missing"]);
}

#[test]
fn a_seal_of_a_matcher_allows_nothing_beside_its_exact_value() {
    let action = |action: &str| {
        let kind = "type.googleapis.com/envoy.config.rbac.v3.Action";
        json!({"action": {"name": "a", "typed_config": {"@type": kind, "name": "a", "action": action}}})
    };
    let (allow, deny) = (action("ALLOW"), action("DENY"));
    let kind =
        "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.FilterStateInput";
    let input = |key: &str| json!({"name": "i", "typed_config": {"@type": kind, "key": key}});
    let seal = input("wasm.vkey.decision");
    let single =
        |matched: Value| json!({"single_predicate": {"input": seal, "value_match": matched}});
    let sealed = single(json!({"exact": "allow"}));
    let list = |predicate: &Value, on_match: &Value| json!({"matcher_list": {"matchers": [{"predicate": predicate, "on_match": on_match}]}});
    let tree = |input: &Value, map: Value| json!({"matcher_tree": {"input": input, "exact_match_map": {"map": map}}});
    let and_no_match = |mut matcher: Value, on_no_match: &Value| {
        matcher["on_no_match"] = on_no_match.clone();
        matcher
    };
    let other =
        json!({"single_predicate": {"input": input("other"), "value_match": {"exact": "allow"}}});
    let join = |how: &str| json!({ how: {"predicate": [sealed, other]} });
    let good = [
        list(&sealed, &allow),
        and_no_match(list(&sealed, &allow), &deny),
        list(&join("and_matcher"), &allow),
        list(&other, &json!({"matcher": list(&sealed, &allow)})),
        tree(&seal, json!({"allow": allow, "deny": deny})),
    ];
    let bad = [
        and_no_match(list(&sealed, &allow), &allow),
        and_no_match(list(&sealed, &allow), &action("LOG")),
        list(&join("or_matcher"), &allow),
        list(&other, &allow),
        list(&json!({"not_matcher": sealed}), &allow),
        list(&single(json!({"prefix": "a"})), &allow),
        list(&other, &json!({"matcher": and_no_match(list(&sealed, &allow), &allow)})),
        tree(&seal, json!({"allow": allow, "deny": allow})),
        tree(&input("other"), json!({"allow": allow})),
        json!({"matcher_tree": {"input": seal, "prefix_match_map": {"map": {"allow": allow}}}}),
    ];
    let found = |matcher: &Value| {
        let (mut listener, cluster) = listener_and_cluster("good-listener.yaml");
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let filters = manager["http_filters"].as_array_mut().expect("a list");
        let rbac = filters.iter_mut().find(|filter| filter["name"] == "envoy.filters.http.rbac");
        let config = &mut rbac.expect("the seal")["typed_config"];
        config["matcher"] = matcher.clone();
        config.as_object_mut().expect("a message").remove("rules");
        rules(&json!([listener, cluster]).to_string())
    };
    for matcher in good {
        assert!(found(&matcher).is_empty(), "{matcher}");
    }
    for matcher in bad {
        assert_eq!(found(&matcher), ["seal_missing"], "{matcher}");
    }
}

#[test]
fn a_seal_holds_on_every_route_and_for_upgrades() {
    let route = "                route: {cluster: gated}\n";
    let on_route = |setting: &str| {
        let filters = format!(
            "{route}                typed_per_filter_config: {{envoy.filters.http.rbac: {setting}}}\n"
        );
        rules(&edited(&[(route, &filters)]))
    };
    let type_of = |name: &str| format!("\"@type\": type.googleapis.com/envoy.{name}");
    let per_route = type_of("extensions.filters.http.rbac.v3.RBACPerRoute");
    let filter = type_of("config.route.v3.FilterConfig");
    let sealed = format!(
        "{{{per_route}, rbac: {{rules: {{policies: {{a: {{permissions: [{{any: true}}], {PRINCIPAL}}}}}}}}}}}"
    );
    assert!(on_route(&sealed).is_empty());
    assert!(on_route(&format!("{{{filter}, config: {sealed}}}")).is_empty());
    for setting in [
        format!("{{{per_route}}}"),
        format!("{{{per_route}, rbac: {{}}}}"),
        sealed.replace("exact: allow", "exact: other"),
        format!("{{{filter}, disabled: true}}"),
        format!("{{{filter}, config: {{{per_route}}}}}"),
    ] {
        assert_eq!(on_route(&setting), ["seal_missing"], "{setting}");
    }
    let upgrades = |upgrade: &str| {
        let to = format!("          upgrade_configs: [{upgrade}]\n          http_filters:\n");
        rules(&edited(&[("          http_filters:\n", &to)]))
    };
    let router = format!(
        "{{name: router, typed_config: {{{}}}}}",
        type_of("extensions.filters.http.router.v3.Router")
    );
    assert!(upgrades("{upgrade_type: websocket}").is_empty());
    assert_eq!(
        upgrades(&format!("{{upgrade_type: websocket, filters: [{router}]}}")),
        ["seal_missing"]
    );
    assert_eq!(
        upgrades(&format!("{{upgrade_type: websocket, enabled: false, filters: [{router}]}}")),
        ["seal_missing"]
    );
}

/// The listener of the file, and its cluster, as JSON.
fn listener_and_cluster(file: &str) -> (Value, Value) {
    let text = fs::read_to_string(data(file)).expect("readable");
    let read: Value = serde_saphyr::from_str(&text).expect("YAML");
    let resources = &read["static_resources"];
    (resources["listeners"][0].clone(), resources["clusters"][0].clone())
}

fn any(kind: &str, mut message: Value) -> Value {
    message["@type"] = format!("type.googleapis.com/{kind}").into();
    message
}

fn dump(section: &str, content: Value) -> Value {
    any(&format!("envoy.admin.v3.{section}ConfigDump"), content)
}

#[test]
fn a_listener_is_found_wherever_it_stands() {
    let (mut listener, cluster) = listener_and_cluster("good-listener.yaml");
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["merge_slashes"] = json!(false);
    let resource = any("envoy.config.listener.v3.Listener", listener.clone());
    let state = json!({"active_state": {"version_info": "1", "listener": resource}});
    let listeners = |listeners: Value| json!({"configs": [dump("Listeners", listeners)]});
    let of_manager = |config: &Value| config["filter_chains"][0]["filters"][0].clone();
    let mut alone = listener.clone();
    alone.as_object_mut().expect("an object").remove("name");
    let mut wrapped = listener.clone();
    let filter = &mut wrapped["filter_chains"][0]["filters"][0]["typed_config"];
    let kind = filter["@type"].clone();
    let content = filter.take();
    *filter = any("xds.type.v3.TypedStruct", json!({"type_url": kind, "value": content}));
    let mut others = listener.clone();
    others["default_filter_chain"] = json!({"filters": [of_manager(&listener)]});
    others["filter_chains"] = json!([]);
    for config in [
        json!({"static_resources": {"listeners": [listener]}}),
        json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}}),
        json!({"resources": [resource]}),
        json!({"resources": [any("envoy.service.discovery.v3.Resource", json!({"resource": resource}))]}),
        json!([listener, cluster]),
        listener.clone(),
        listeners(json!({"static_listeners": [{"listener": resource}]})),
        listeners(json!({"dynamic_listeners": [state]})),
        listeners(json!({"dynamic_listeners": [{"warming_state": state["active_state"]}]})),
        wrapped,
        others,
        json!({"name": "gate", "api_listener": {"api_listener": of_manager(&listener)["typed_config"]}}),
        of_manager(&alone),
    ] {
        let found = found(&config.to_string());
        assert_eq!(found, [("gate".to_owned(), "slashes_not_merged".to_owned())], "{config}");
    }
    // What was there before, and what was refused.
    let gone = json!({
        "active_state": {"listener": listener_and_cluster("good-listener.yaml").0},
        "draining_state": state["active_state"],
        "error_state": {"failed_configuration": resource},
    });
    assert!(found(&listeners(json!({"dynamic_listeners": [gone]})).to_string()).is_empty());
}

#[test]
fn a_module_that_discovery_configures_is_the_module() {
    let (mut listener, cluster) = listener_and_cluster("good-listener.yaml");
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["merge_slashes"] = json!(false);
    let filter = &mut manager["http_filters"][0];
    let config = filter["typed_config"].take();
    *filter = json!({"name": "vkey", "config_discovery": {"type_urls": [config["@type"]]}});
    let extension = json!({"name": "vkey", "typed_config": config});
    let extension = any("envoy.config.core.v3.TypedExtensionConfig", extension);
    let dumped = json!({"configs": [
        dump("Listeners", json!({"static_listeners": [{"listener": listener}]})),
        dump("Clusters", json!({"static_clusters": [{"cluster": cluster}]})),
        dump("Ecds", json!({"ecds_filters": [{"ecds_filter": extension}]})),
    ]});
    assert_eq!(rules(&dumped.to_string()), ["slashes_not_merged"]);
    let mut listener_of = |discovery: Value| {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["http_filters"][0]["config_discovery"] = discovery;
        json!([listener, cluster]).to_string()
    };
    assert_eq!(rules(&listener_of(json!({"default_config": config}))), ["slashes_not_merged"]);
    assert!(rules(&listener_of(json!({}))).is_empty());
}

#[test]
fn credentials_in_front_are_found_by_either_member() {
    let front =
        |forward: &str| rules(&edited(&[("}]}'", &format!("}}], \"forward\": {{{forward}}}}}'"))]));
    let found = ["credentials_in_front"];
    assert_eq!(front("\"credentials_in_front\": true"), found);
    let value = "\"credentials\": [{\"name\": \"a\"}, {\"value\": \"${VKEY_MAIN_SECRET}\"}]";
    assert_eq!(front(value), [found[0], "configuration_refused"]);
    assert!(front("\"credentials_in_front\": false").is_empty());
    assert!(front("\"identity_headers\": true").is_empty());
}

#[test]
fn a_credential_that_no_gate_holds_is_a_note() {
    let front = ("}]}'", "}], \"forward\": {\"credentials\": [{\"name\": \"openai\"}]}}'");
    let gate = "\"upstream_tls\"";
    let holding = |name: &str| {
        format!(
            "{gate}, \"credentials\": [{{\"name\": \"{name}\", \"hosts\": [\"api.openai.com\"], \"header\": \"authorization\", \"value\": \"Bearer ${{K}}\"}}]"
        )
    };
    let unheld = "gate: forward.credentials names openai, and no gate of a cluster that the routes lead \
                  to holds it: requests go on without it";
    let variables = ("[VKEY_MAIN_SECRET]", "[VKEY_MAIN_SECRET, K]");
    let notes_of = |edits: &[(&str, &str)]| {
        let config = edited(&[edits, &[variables]].concat());
        assert!(rules(&config).is_empty(), "{config}");
        notes(&config)
    };
    assert_eq!(notes_of(&[front]), [unheld]);
    assert_eq!(notes_of(&[front, (gate, &holding("anthropic"))]), [unheld]);
    assert!(notes_of(&[front, (gate, &holding("openai"))]).is_empty());
    assert!(notes_of(&[(gate, &holding("openai"))]).is_empty());
    // Where nothing is sent on, and where it is not known to whom, there is nothing to say.
    let elsewhere = ("route: {cluster: gated}", "direct_response: {status: 404}");
    assert!(notes_of(&[front, elsewhere]).is_empty());
    let unknown = notes_of(&[front, ("route: {cluster: gated}", "route: {cluster: other}")]);
    assert!(unknown.is_empty(), "{unknown:?}");
    let rds = edited(&[
        front,
        (
            "          route_config:\n",
            "          rds: {route_config_name: away}\n          ignored:\n",
        ),
    ]);
    assert_eq!(notes(&rds), ["gate: its route configuration away is not in the input"]);
}
