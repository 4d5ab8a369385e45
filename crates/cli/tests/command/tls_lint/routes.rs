//! Routes that undo what the module decided.

use serde_json::{Value, json};

use super::listeners::{edited, found, notes, rules};
use super::{lint_text, plain};

const ROUTE: &str = "route: {cluster: gated}";

/// The listener of the file, with this in the place of the one route, and a cluster `plain` without a
/// gate beside its own.
fn with_route(route: &str) -> String {
    with(&[(ROUTE, route)])
}

fn with(edits: &[(&str, &str)]) -> String {
    edited(edits) + PLAIN
}

const PLAIN: &str = "  - {name: plain, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: \
                     [{endpoint: {address: {pipe: {path: /run/plain}}}}]}]}}\n";

/// A cluster that consists of others.
fn aggregate(name: &str, parts: &str) -> String {
    format!(
        "  - {{name: {name}, cluster_type: {{name: a, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, \
         clusters: [{parts}]}}}}}}\n"
    )
}

const ALL: &str = "the route all of the virtual host echo of the route configuration llm";
const HOST: &str = "the virtual host echo of the route configuration llm";
const TABLE: &str = "the route configuration llm";

/// What is found where requests are copied, by the policy and by what holds it.
fn copied(policy: &str) -> Vec<(String, String)> {
    let policies = format!("request_mirror_policies: [{policy}]");
    let on_route = with_route(&format!("route: {{cluster: gated, {policies}}}"));
    let on_host = format!("domains: [echo.example]\n              {policies}");
    let on_host = with(&[("domains: [echo.example]", &on_host)]);
    let on_table = with(&[("name: llm\n", &format!("name: llm\n            {policies}\n"))]);
    [on_route, on_host, on_table].iter().flat_map(|config| found(config)).collect()
}

#[test]
fn copies_go_to_gates_too() {
    let rule = "mirror_ungated".to_owned();
    let everywhere = [ALL, HOST, TABLE].map(|place| (place.to_owned(), rule.clone()));
    for policy in [
        "{cluster: plain}",
        "{cluster: plain, disable_shadow_host_suffix_append: true}",
        "{cluster: plain, disable_shadow_host_suffix_append: false}",
        "{cluster_header: x-shadow}",
        "{cluster_header: x-shadow, disable_shadow_host_suffix_append: true}",
        "{cluster: plain, runtime_fraction: {default_value: {numerator: 0}, runtime_key: a}}",
        "{cluster: plain, host_rewrite_literal: echo.example}",
        "{cluster: plain, trace_sampled: false}",
        "{cluster: gated}, {cluster: plain}",
    ] {
        assert_eq!(copied(policy), everywhere, "{policy}");
    }
    for policy in ["{cluster: gated}", "{cluster: gated, disable_shadow_host_suffix_append: true}"]
    {
        assert!(copied(policy).is_empty(), "{policy}");
    }
    // All clusters have their gate, so it does not matter which one the header names.
    let mirror = "route: {cluster: gated, request_mirror_policies: [{cluster_header: x-shadow}]}";
    assert!(found(&edited(&[(ROUTE, mirror)])).is_empty());
    let camel = "route: {cluster: gated, requestMirrorPolicies: [{cluster: plain}]}";
    assert_eq!(rules(&with_route(camel)), ["mirror_ungated"]);
}

#[test]
fn a_defective_gate_counts_as_missing() {
    let mirror = "route: {cluster: all, request_mirror_policies: [{cluster: all}]}";
    let config = |parts: &str| with_route(mirror) + &aggregate("all", parts);
    assert!(rules(&config("gated")).is_empty());
    assert_eq!(rules(&config("gated, plain")), ["mirror_ungated"]);
    let open = config("gated").replace("FAIL_RELOAD", "FAIL_OPEN");
    assert_eq!(rules(&open), ["mirror_ungated"]);
    let composite = config("{name: gated}, {name: plain}").replace("aggregate.v3", "composite.v3");
    assert_eq!(rules(&composite), ["mirror_ungated"]);
}

/// Without the module, what is for a judged host is still nobody else's.
#[test]
fn copies_of_requests_to_judged_hosts_go_to_gates_without_the_module_too() {
    let mirrored = |domain: &str, cluster: &str| {
        let mirror = json!([{"cluster": "plain"}]);
        let action = json!({"cluster": cluster, "request_mirror_policies": mirror});
        let route = json!({"match": {"prefix": "/"}, "route": action});
        let hosts = json!([{"name": "h", "domains": [domain], "routes": [route]}]);
        let clusters = [plain("a", "10.0.0.1", &json!({})), plain("plain", "10.0.0.2", &json!({}))];
        let all = json!({"name": "all", "cluster_type": {"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": ["a"],
        }}});
        json!({
            "static_resources": {"clusters": [clusters[0], clusters[1], all]},
            "route_config": {"name": "r", "virtual_hosts": hosts},
        })
    };
    let is_found =
        |config: &Value| rules(&config.to_string()).contains(&"mirror_ungated".to_owned());
    assert!(is_found(&mirrored("api.openai.com", "a")));
    assert!(is_found(&mirrored("api.openai.com", "all")));
    assert!(!is_found(&mirrored("echo.example", "a")));
    let mut on_host = mirrored("api.openai.com", "a");
    let host = &mut on_host["route_config"]["virtual_hosts"][0];
    let policies = host["routes"][0]["route"]["request_mirror_policies"].take();
    host["request_mirror_policies"] = policies;
    assert!(is_found(&on_host));
    let policies = on_host["route_config"]["virtual_hosts"][0]["request_mirror_policies"].take();
    on_host["route_config"]["request_mirror_policies"] = policies;
    assert!(is_found(&on_host));
}

#[test]
fn a_copy_for_another_host_makes_its_cluster_one_for_that_host() {
    let mirror = |policy: &str| {
        let action = format!("route: {{cluster: gated, request_mirror_policies: [{policy}]}}");
        let config = with(&[(ROUTE, &action), ("[echo.example]", "[api.openai.com]")]);
        rules(&config).contains(&"plaintext".to_owned()) && {
            let found = found(&config).into_iter();
            found.filter(|(element, _)| element == "plain").count() > 0
        }
    };
    assert!(mirror("{cluster: plain, disable_shadow_host_suffix_append: true}"));
    assert!(mirror("{cluster: plain, host_rewrite_literal: api.openai.com}"));
    assert!(!mirror("{cluster: plain}"));
    assert!(!mirror("{cluster: plain, host_rewrite_literal: echo.example}"));
    let both = "disable_shadow_host_suffix_append: true, host_rewrite_literal: echo.example";
    assert!(!mirror(&format!("{{cluster: plain, {both}}}")));
    // The policies nearest to the route are the only ones that count.
    let same = "[{cluster: plain, disable_shadow_host_suffix_append: true}]";
    let is_plaintext = |on_host: &str| {
        let host = format!("[api.openai.com]{on_host}");
        let table = format!("name: llm\n            request_mirror_policies: {same}\n");
        let config = with(&[("[echo.example]", &host), ("name: llm\n", &table)]);
        found(&config).contains(&("plain".to_owned(), "plaintext".to_owned()))
    };
    assert!(is_plaintext(""));
    assert!(!is_plaintext("\n              request_mirror_policies: [{cluster: gated}]"));
}

#[test]
fn hosts_that_nobody_lists_lead_to_gates() {
    let open = |domains: &str, route: &str| {
        let found = found(&with(&[("[echo.example]", domains), (ROUTE, route)]));
        assert!(found.iter().all(|(element, _)| element == ALL), "{found:?}");
        found.into_iter().map(|(_, rule)| rule).collect::<Vec<_>>()
    };
    for (domains, route) in [
        ("[\"*\"]", "route: {cluster: plain}"),
        ("[echo.example, \"*\"]", "route: {cluster: plain}"),
        ("[\"echo.*\"]", "route: {cluster: plain}"),
        ("[\"*-echo.example\"]", "route: {cluster: plain}"),
        ("[\"*\"]", "route: {cluster: plain, host_rewrite_literal: echo.example}"),
        ("[\"*\"]", "route: {cluster_header: x-cluster}"),
        ("[\"*\"]", "route: {cluster_specifier_plugin: any}"),
        ("[\"*\"]", "route: {inline_cluster_specifier_plugin: {extension: {name: any}}}"),
        (
            "[\"*\"]",
            "route: {weighted_clusters: {clusters: [{name: gated, weight: 1}, {name: plain}]}}",
        ),
        ("[\"*\"]", "route: {weighted_clusters: {clusters: [{cluster_header: x-cluster}]}}"),
    ] {
        assert_eq!(open(domains, route), ["open_host_ungated"], "{domains} {route}");
    }
    for (domains, route) in [
        ("[\"*\"]", ROUTE),
        ("[\"*\"]", "direct_response: {status: 404}"),
        ("[\"*\"]", "redirect: {https_redirect: true}"),
        ("[echo.example]", "route: {cluster: plain}"),
        ("[\"*.echo.example\"]", "route: {cluster: plain}"),
    ] {
        assert!(open(domains, route).is_empty(), "{domains} {route}");
    }
    let without_module = with(&[("[echo.example]", "[\"*\"]"), (ROUTE, "route: {cluster: plain}")])
        .replace("keyring", "another");
    assert_eq!(rules(&without_module), ["configuration_refused"]);
    let tree = "matcher: {on_no_match: {action: {name: a, typed_config: {\"@type\": \
                type.googleapis.com/envoy.config.route.v3.Route, name: all, match: {prefix: /}, \
                route: {cluster: plain}}}}}\n              ignored:";
    let tree = with(&[("[echo.example]", "[\"*\"]"), ("routes:", tree)]);
    assert_eq!(rules(&tree), ["open_host_ungated"]);
}

#[test]
fn a_cluster_that_is_not_in_the_input_is_a_note() {
    let says =
        format!("away: {ALL} leads to it, and it is not in the input: its gate is not known");
    let open = ("[echo.example]", "[\"*\"]");
    let config = with(&[open, (ROUTE, "route: {cluster: away}")]);
    assert_eq!((rules(&config), notes(&config)), (vec![], vec![says.clone()]));
    let mirror = "route: {cluster: gated, request_mirror_policies: [{cluster: all}]}";
    let config = with_route(mirror) + &aggregate("all", "gated, away");
    assert_eq!((rules(&config), notes(&config)), (vec![], vec![says]));
}

fn chosen_by(member: &str, action: &str) -> Vec<(String, String)> {
    let found = found(&edited(&[
        ("match: {prefix: /}", &format!("match: {{prefix: /{member}}}")),
        (ROUTE, &format!("route: {{{action}}}")),
    ]));
    found.into_iter().filter(|(_, rule)| rule == "route_by_removed_header").collect()
}

#[test]
fn headers_that_the_module_removes_choose_no_route() {
    for name in [
        "authorization",
        "Authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x_api_key",
        "x-vkey-tenant",
        "x_vkey_tenant",
        "X-VKey-Sub",
        "x-vkey-anything",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-host",
        "forwarded",
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-max-retries",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-upstream-rq-per-try-timeout-ms",
    ] {
        let header =
            format!(", headers: [{{name: x-tier}}, {{name: {name}, present_match: true}}]");
        let expected = [(ALL.to_owned(), "route_by_removed_header".to_owned())];
        assert_eq!(chosen_by(&header, "cluster: gated"), expected, "{name}");
    }
    for name in ["x-tier", ":method", "content-type", "x-forwarded-proto", "x-envoy-peer", "cookie"]
    {
        let header = format!(", headers: [{{name: \"{name}\", present_match: true}}]");
        assert!(chosen_by(&header, "cluster: gated").is_empty(), "{name}");
    }
}

#[test]
fn no_form_of_a_choice_by_a_header_escapes() {
    let name = "x-api-key";
    for form in [
        "present_match: true",
        "present_match: false",
        "present_match: true, invert_match: true",
        "string_match: {exact: a}",
        "string_match: {safe_regex: {regex: .*}}, invert_match: true",
        "exact_match: a",
        "range_match: {start: 1, end: 2}",
        "string_match: {exact: a}, treat_missing_header_as_empty: true",
    ] {
        let header = format!(", headers: [{{name: {name}, {form}}}]");
        assert_eq!(chosen_by(&header, "cluster: gated").len(), 1, "{form}");
    }
    let hash = format!("hash_policy: [{{header: {{header_name: {name}}}}}]");
    for action in [
        format!("cluster_header: {name}"),
        format!("weighted_clusters: {{clusters: [{{cluster_header: {name}}}]}}"),
        format!("weighted_clusters: {{clusters: [{{name: gated}}], header_name: {name}}}"),
        format!(
            "weighted_clusters: {{clusters: [{{name: gated}}], use_hash_policy: true}}, {hash}"
        ),
        format!("cluster: gated, request_mirror_policies: [{{cluster_header: {name}}}]"),
    ] {
        assert_eq!(chosen_by("", &action).len(), 1, "{action}");
        assert!(chosen_by("", &action.replace(name, "x-tier")).is_empty(), "{action}");
    }
    // The hash chooses an endpoint only.
    assert!(chosen_by("", &format!("cluster: gated, {hash}")).is_empty());
    let weighted = format!("weighted_clusters: {{clusters: [{{name: gated}}]}}, {hash}");
    assert!(chosen_by("", &weighted).is_empty());
}

#[test]
fn headers_choose_no_virtual_host_and_no_scope_either() {
    let removed = |place: &str| [(place.to_owned(), "route_by_removed_header".to_owned())];
    let input = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
    let tree = format!(
        "matcher: {{matcher_tree: {{input: {{name: i, typed_config: {{\"@type\": {input}, \
         header_name: x-api-key}}}}}}}}\n              routes:"
    );
    assert_eq!(found(&edited(&[("routes:", &tree)])), removed(HOST));
    assert!(found(&edited(&[("routes:", &tree.replace("x-api-key", ":path"))])).is_empty());
    let hosts = "name: llm\n            vhost_header: X-Forwarded-Host\n";
    assert_eq!(found(&edited(&[("name: llm\n", hosts)])), removed(TABLE));
    let scope = "          scoped_routes: {name: s, scope_key_builder: {fragments: [{header_value_extractor: \
                 {name: x-vkey-tenant}}]}}\n          route_config:\n";
    assert_eq!(found(&edited(&[("          route_config:\n", scope)])), removed("gate"));
}

#[test]
fn the_headers_of_the_configuration_are_those_that_are_removed() {
    let sources = "}], \"key_sources\": [{\"header\": \"X-Team-Key\"}, {\"header\": \"cookie\"}]}'";
    let by = |matched: &str| {
        let route = format!("match: {{prefix: /, {matched}}}");
        rules(&edited(&[("}]}'", sources), ("match: {prefix: /}", &route)])).len()
    };
    assert_eq!(by("headers: [{name: x-team-key, present_match: true}]"), 1);
    assert_eq!(by("headers: [{name: x-api-key, present_match: true}]"), 0);
    assert_eq!(by("cookies: [{name: a, string_match: {exact: b}}]"), 1);
    let cookie = "match: {prefix: /, cookies: [{name: a, string_match: {exact: b}}]}";
    assert!(rules(&edited(&[("match: {prefix: /}", cookie)])).is_empty());
}

/// A dump shows the routes in a listener twice.
#[test]
fn duplicates_are_reported_once() {
    let credentials = "{\"role\": \"upstream_tls\", \"credentials\": [{\"name\": \"openai\", \
                       \"hosts\": [\"api.openai.com\"], \"header\": \"x-key\", \"value\": \"${VKEY_MAIN_SECRET}\"}]}";
    let gate = ("{\"role\": \"upstream_tls\"}", credentials);
    let route = "route: {cluster: gated, hedge_policy: {hedge_on_per_try_timeout: true}, \
                 request_mirror_policies: [{cluster: plain}]}";
    let text = with(&[gate, (ROUTE, route)]);
    let config: Value = serde_saphyr::from_str(&text).expect("YAML");
    let resources = &config["static_resources"];
    let listener = &resources["listeners"][0];
    let routes = &listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"];
    let clusters = resources["clusters"].as_array().expect("a list").iter();
    let clusters: Vec<Value> = clusters.map(|cluster| json!({"cluster": cluster})).collect();
    let dump = json!({"configs": [
        {"bootstrap": {
            "stats_config": config["stats_config"],
            "static_resources": {"listeners": [listener]},
        }},
        {"static_clusters": clusters},
        {"static_listeners": [{"listener": listener}]},
        {"static_route_configs": [{"route_config": routes}]},
    ]});
    assert_eq!(rules(&dump.to_string()), ["mirror_ungated"]);
    assert_eq!(notes(&dump.to_string()).len(), 1);
    assert_eq!(lint_text(dump.to_string(), &[]).1["listeners"], 1);
}

/// The routes of a listener may stand elsewhere, and other routes are not its own.
#[test]
fn routes_are_those_that_the_listener_asks_for() {
    let config = |ask: &str, hosts: &str| {
        let apart = "          route_config:\n            name: llm\n";
        edited(&[(apart, &format!("          {ask}\n          apart:\n            name: llm\n"))])
            + PLAIN
            + hosts
    };
    let routes = "  route_configs:\n  - name: open\n    virtual_hosts: [{name: any, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: plain}}]}]\n";
    let open = ["open_host_ungated"];
    assert_eq!(rules(&config("rds: {route_config_name: open}", routes)), open);
    assert_eq!(
        rules(&config("rds: {config_source: {ads: {}}, route_config_name: open}", routes)),
        open
    );
    assert!(rules(&config("rds: {route_config_name: llm}", routes)).is_empty());
    let list = "scoped_routes: {name: s, scoped_route_configurations_list: {scoped_route_configurations: [{name: a, route_configuration_name: open}]}}";
    assert_eq!(rules(&config(list, routes)), open);
    let inline = routes
        .replace(
            "  route_configs:\n  - name: open\n",
            "  scopes:\n  - route_configuration:\n     name: open\n  ",
        )
        .replace("    virtual_hosts", "   virtual_hosts");
    assert_eq!(rules(&config("scoped_routes: {name: s, scoped_rds: {}}", &inline)), open);
    assert!(rules(&config("rds: {route_config_name: llm}", &inline)).is_empty());
    // If some parts are missing from the input, nothing is reported about the clusters after them.
    let both =
        list.replace("name: open}", "name: open}, {name: b, route_configuration_name: away}");
    let front = "}], \"forward\": {\"credentials\": [{\"name\": \"openai\"}]}}'";
    let said = notes(&config(&both, routes).replace("}]}'", front));
    assert_eq!(said, ["gate: its route configuration away is not in the input"]);
    assert_eq!(notes(&config(list, routes).replace("}]}'", front)).len(), 1);
}

#[test]
fn a_retry_takes_no_credential_to_another_cluster() {
    let found = |edits: &[(&str, &str)]| rules(&edited(edits)).join(" ");
    let credentials = "{\"role\": \"upstream_tls\", \"credentials\": [{\"name\": \"openai\", \
                       \"hosts\": [\"api.openai.com\"], \"header\": \"x-key\", \"value\": \"${VKEY_MAIN_SECRET}\"}]}";
    let gate = ("{\"role\": \"upstream_tls\"}", credentials);
    let retried = "route: {cluster: gated, retry_policy: {refresh_cluster_on_retry: {}}}";
    assert_eq!(found(&[gate, (ROUTE, retried)]), "credential_retry_elsewhere");
    assert_eq!(found(&[(ROUTE, retried)]), "");
    let usual = "route: {cluster: gated, retry_policy: {retry_on: 5xx}}";
    assert_eq!(found(&[gate, (ROUTE, usual)]), "");
}

#[test]
fn a_route_that_hedges_a_credential_is_a_note() {
    let says = format!(
        "gated: {ALL} has a hedge_policy: one request can become several, each with the credential \
         (openai) and each billed by the provider"
    );
    let credentials = "{\"role\": \"upstream_tls\", \"credentials\": [{\"name\": \"openai\", \
                       \"hosts\": [\"api.openai.com\"], \"header\": \"x-key\", \"value\": \"${VKEY_MAIN_SECRET}\"}]}";
    let gate = ("{\"role\": \"upstream_tls\"}", credentials);
    let hedged = "route: {cluster: gated, hedge_policy: {hedge_on_per_try_timeout: true}}";
    assert_eq!(notes(&edited(&[gate, (ROUTE, hedged)])), [&*says]);
    assert!(notes(&edited(&[(ROUTE, hedged)])).is_empty());
    assert!(notes(&edited(&[gate])).is_empty());
    assert!(
        notes(&edited(&[gate, (ROUTE, "route: {cluster: gated, hedge_policy: {}}")])).is_empty()
    );
    let host = (
        "[echo.example]",
        "[echo.example]\n              hedge_policy: {hedge_on_per_try_timeout: true}",
    );
    assert_eq!(notes(&edited(&[gate, host])), [&*says]);
    let off = "route: {cluster: gated, hedge_policy: {hedge_on_per_try_timeout: false}}";
    assert!(notes(&edited(&[gate, host, (ROUTE, off)])).is_empty());
    let through =
        edited(&[gate, (ROUTE, &hedged.replace("gated", "all"))]) + &aggregate("all", "gated");
    assert_eq!(notes(&through), [says]);
}
