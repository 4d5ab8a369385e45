//! What the module needs around it: its variables, an access log, the labels of its metrics.

use super::listeners::{edited, notes, rules};

const ENVIRONMENT: &str = "environment_variables: {host_env_keys: [VKEY_MAIN_SECRET]}";

#[test]
fn a_variable_reaches_the_module_by_either_member() {
    for (given, expected) in [
        ("environment_variables: {key_values: {VKEY_MAIN_SECRET: x}}", &[][..]),
        (
            "environment_variables: {host_env_keys: [VKEY_OTHER], key_values: {VKEY_MAIN_SECRET: x}}",
            &[],
        ),
        ("environment_variables: {host_env_keys: [VKEY_OTHER]}", &["variable_missing"]),
        ("environment_variables: {}", &["variable_missing"]),
        ("nack_on_code_cache_miss: true", &["variable_missing"]),
    ] {
        assert_eq!(rules(&edited(&[(ENVIRONMENT, given)])), expected, "{given}");
    }
}

#[test]
fn audit_lines_need_an_access_log_only_where_they_go_there() {
    let audit = |sink: &str, log: &str| {
        let sink = format!("}}], \"audit\": {{{sink}}}}}'");
        let filters = "          http_filters:\n";
        rules(&edited(&[("}]}'", &sink), (filters, &format!("{log}{filters}"))]))
    };
    let log = |format: &str| {
        format!("          access_log: [{{name: file, typed_config: {{log_format: {format}}}}}]\n")
    };
    let (to_log, other) = ("\"sink\": \"access_log\"", log("{json_format: {a: \"%PROTOCOL%\"}}"));
    for printing in [
        "{json_format: {vkey: \"%FILTER_STATE(wasm.vkey.audit:PLAIN)%\"}}",
        "{text_format_source: {inline_string: \"%FILTER_STATE(wasm.vkey.audit:PLAIN)%\"}}",
    ] {
        assert!(audit(to_log, &log(printing)).is_empty(), "{printing}");
    }
    for unprinted in ["", &other] {
        assert_eq!(audit(to_log, unprinted), ["audit_line_lost"], "{unprinted}");
        assert!(audit("\"sink\": \"log\"", unprinted).is_empty(), "{unprinted}");
    }
}

#[test]
fn a_label_that_stays_in_the_names_of_metrics_is_a_note() {
    let noted = notes(&edited(&[("tag_name: tenant", "tag_name: other")]));
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert!(noted[0].contains("has no rule for tenant: "), "{noted:?}");
    let noted =
        notes(&edited(&[("wasmcustom\\.vkey_\\w+(\\.limit", "wasmcustom\\.\\w+(\\.limit")]));
    assert!(noted[0].contains("has no rule for limit: "), "{noted:?}");
}

/// What discovery delivers can be the module.
#[test]
fn a_seal_after_a_filter_of_discovery_may_have_its_module() {
    let wasm = "          - name: envoy.filters.http.wasm\n            typed_config:\n";
    let with = |filter: &str| rules(&edited(&[(wasm, filter)]));
    let discovered = "          - name: vkey\n            config_discovery: {config_source: {ads: {}}}\n            other:\n";
    assert!(with(discovered).is_empty());
    let other = "          - name: envoy.filters.http.cors\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}\n            other:\n";
    assert_eq!(with(other), ["module_missing"]);
}
