//! Routes and listeners on which the module does not run.

use super::listeners::{edited, found, notes};

const ROUTE: &str = "                route: {cluster: gated}\n";
const OFF: &str =
    "{\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}";
const ON: &str = "{\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}";
const OPTIONAL: &str = "{\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, \
                        is_optional: true, config: {}}";
const MODULE: &str = "          - name: envoy.filters.http.wasm\n";
const EARLY: &str =
    "mutations: [{remove: x-vkey-key}, {remove: x-vkey-tenant}, {remove: x-vkey-sub}]";

const ALL: &str = "the route all of the virtual host echo of the route configuration llm";
const HOST: &str = "the virtual host echo of the route configuration llm";
const TABLE: &str = "the route configuration llm";

/// The setting of a filter, as a member of an element of the routes.
fn setting(indent: usize, filter: &str, setting: &str) -> String {
    let indent = " ".repeat(indent);
    format!("{indent}typed_per_filter_config: {{{filter}: {setting}}}\n")
}

fn on_route(filter: &str, value: &str) -> (String, String) {
    (ROUTE.to_owned(), format!("{ROUTE}{}", setting(16, filter, value)))
}

fn on_host(filter: &str, value: &str) -> (String, String) {
    let domains = "              domains: [echo.example]\n";
    (domains.to_owned(), format!("{domains}{}", setting(14, filter, value)))
}

fn on_table(filter: &str, value: &str) -> (String, String) {
    let name = "            name: llm\n";
    (name.to_owned(), format!("{name}{}", setting(12, filter, value)))
}

fn on_part(filter: &str, value: &str) -> (String, String) {
    let part =
        format!("{{name: gated, weight: 1, typed_per_filter_config: {{{filter}: {value}}}}}");
    let action = format!(
        "                route: {{weighted_clusters: {{clusters: [{part}, {{name: gated, weight: 1}}]}}}}\n"
    );
    (ROUTE.to_owned(), action)
}

fn config(edits: &[(String, String)]) -> String {
    edited(&edits.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect::<Vec<_>>())
}

const WASM: &str = "envoy.filters.http.wasm";
const RBAC: &str = "envoy.filters.http.rbac";

fn off_at(place: &str) -> Vec<(String, String)> {
    vec![(place.to_owned(), "module_switched_off".to_owned())]
}

#[test]
fn a_module_that_is_switched_off_is_found_wherever_the_setting_is() {
    let part = format!("a weighted cluster of {ALL}");
    for (edit, place) in [
        (on_route(WASM, OFF), ALL),
        (on_host(WASM, OFF), HOST),
        (on_table(WASM, OFF), TABLE),
        (on_part(WASM, OFF), &part),
    ] {
        assert_eq!(found(&config(&[edit])), off_at(place));
    }
    for setting in [ON, OPTIONAL] {
        assert!(found(&config(&[on_route(WASM, setting)])).is_empty(), "{setting}");
    }
    // Another filter, and a route that sends nothing on.
    assert!(found(&config(&[on_route("envoy.filters.http.lua", OFF)])).is_empty());
    let direct =
        format!("                direct_response: {{status: 200}}\n{}", setting(16, WASM, OFF));
    assert!(found(&edited(&[(ROUTE, &direct)])).is_empty());
}

/// Envoy takes the setting that is nearest to the route.
#[test]
fn the_nearest_setting_counts() {
    let edits = [on_table(WASM, OFF), on_route(WASM, ON)];
    assert!(found(&config(&edits)).is_empty());
    let edits = [on_table(WASM, ON), on_host(WASM, OFF)];
    assert_eq!(found(&config(&edits)), off_at(HOST));
}

#[test]
fn a_seal_that_is_switched_off_is_found_wherever_the_setting_is() {
    let seal = [("gate".to_owned(), "seal_missing".to_owned())];
    for edit in [on_route(RBAC, OFF), on_host(RBAC, OFF), on_table(RBAC, OFF), on_part(RBAC, OFF)] {
        assert_eq!(found(&config(&[edit])), seal);
    }
    let both = [on_route(WASM, OFF), on_host(RBAC, OFF)];
    let rules = found(&config(&both)).into_iter().map(|(_, rule)| rule).collect::<Vec<_>>();
    assert_eq!(rules, ["seal_missing", "module_switched_off"]);
    let filter = "          - name: envoy.filters.http.rbac\n";
    for (member, says) in [("disabled", "is disabled"), ("is_optional", "is optional")] {
        let off = format!("{filter}            {member}: true\n");
        let config = edited(&[(filter, &off)]);
        assert_eq!(found(&config), seal);
        assert!(reasons(&config)[0].starts_with(&format!("the seal {RBAC} {says}")), "{member}");
    }
}

#[test]
fn a_module_that_is_off_in_the_manager_is_found() {
    let listener = off_at("gate");
    let with = |member: &str| format!("{MODULE}            {member}: true\n");
    let disabled = (MODULE.to_owned(), with("disabled"));
    assert_eq!(found(&edited(&[(MODULE, &with("is_optional"))])), listener);
    assert_eq!(found(&config(std::slice::from_ref(&disabled))), listener);
    for enabled in [on_route(WASM, ON), on_host(WASM, ON), on_table(WASM, ON)] {
        let config = config(&[disabled.clone(), enabled]);
        assert!(found(&config).is_empty());
        assert!(notes(&config).is_empty());
    }
    // Where some routes enable it, as Envoy Gateway does, the others are a note.
    let some = config(&[disabled.clone(), on_part(WASM, ON)]);
    assert!(found(&some).is_empty());
    let says =
        format!("gate: the module runs only where a route enables it, and it does not in {ALL}");
    assert_eq!(notes(&some), [says]);
    let away = (
        "          route_config:\n".to_owned(),
        "          rds: {route_config_name: away}\n          ignored:\n".to_owned(),
    );
    let away = config(&[disabled, away]);
    assert!(found(&away).is_empty());
    let says = "gate: the module is disabled, and whether a route enables it is not known";
    assert!(notes(&away).contains(&says.to_owned()), "{:?}", notes(&away));
}

fn members(config: &str, member: &str) -> Vec<String> {
    let (_, report) = super::lint_text(config, &[]);
    let findings = report["findings"].as_array().expect("a list").iter();
    findings.map(|finding| finding[member].as_str().expect("text").to_owned()).collect()
}

fn reasons(config: &str) -> Vec<String> {
    members(config, "reason")
}

/// The reason says what happens to a forged identity, and the fix how to let requests pass without a key.
#[test]
fn the_reason_says_what_passes_and_the_fix_how_to_do_without() {
    let off = on_route(WASM, OFF);
    let name = "the filter envoy.filters.http.wasm, which is the module, is switched off: ";
    let sealed = reasons(&config(std::slice::from_ref(&off)));
    assert_eq!(sealed, [format!("{name}the seal refuses every request there")]);
    let unsealed = [off.clone(), on_host(RBAC, OFF)];
    let removed = &reasons(&config(&unsealed))[1];
    assert!(removed.contains("only early_header_mutation_extensions keep an x-vkey-tenant"));
    let kept = [&unsealed[..], &[(EARLY.to_owned(), "mutations: []".to_owned())]].concat();
    let kept = reasons(&config(&kept)).pop().expect("a finding");
    assert_eq!(
        kept,
        format!(
            "{name}requests pass there without a key, and an x-vkey-tenant that a \
        client forges reaches the upstream"
        )
    );
    let public = "\"public\": [{\"methods\": [\"GET\"], \"paths\": [\"/healthz\"]}]";
    for edit in [off, on_route(RBAC, OFF)] {
        let fix = members(&config(&[edit]), "fix").pop().expect("a finding");
        assert!(fix.ends_with(public), "{fix}");
    }
    let fix = members(&config(&[on_host(WASM, OFF)]), "fix").pop().expect("a finding");
    assert!(fix.starts_with(&format!("in {HOST} remove {WASM} from typed_per_filter_config; ")));
}
