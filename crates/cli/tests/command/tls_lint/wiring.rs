//! What the module needs around it: its variables, an access log, the labels of its metrics.

use vkey::audit::ACCESS_LOG_FORMAT;

use super::listeners::{edited, found, notes, rules};

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

/// The gate of a cluster has an environment of its own.
#[test]
fn a_variable_reaches_the_gate_of_a_cluster() {
    let role = "value: '{\"role\": \"upstream_tls\"}'";
    let credential = "value: '{\"role\": \"upstream_tls\", \"credentials\": [{\"name\": \"a\", \"hosts\": [\"api.openai.com\"], \"header\": \"x-key\", \"value\": \"${OPENAI_API_KEY}\"}]}'";
    let given = "code: {local: {filename: target/vkey.wasm}}, environment_variables: {host_env_keys: [VKEY_MAIN_SECRET]}}\n";
    assert!(edited(&[]).contains(given));
    let with = |variables: &str| {
        let config = edited(&[(role, credential)]);
        let (front, gate) = config.rsplit_once(given).expect("the gate of the cluster");
        let config = [front, "environment_variables: ", variables, "}\n", gate].concat();
        found(&config)
            .into_iter()
            .filter(|(_, rule)| rule == "variable_missing")
            .collect::<Vec<_>>()
    };
    for good in ["{host_env_keys: [OPENAI_API_KEY]}", "{key_values: {OPENAI_API_KEY: x}}"] {
        assert_eq!(with(good), [], "{good}");
    }
    for bad in ["{}", "{host_env_keys: [VKEY_MAIN_SECRET]}"] {
        let expected = ("gated".to_owned(), "variable_missing".to_owned());
        assert_eq!(with(bad), [expected], "{bad}");
    }
}

#[test]
fn a_text_that_looks_like_a_variable_is_none() {
    let audience = "}], \"audience\": \"${AUD}\"}'";
    assert!(rules(&edited(&[("}]}'", audience)])).is_empty());
}

#[test]
fn a_configuration_that_the_module_refuses_is_found() {
    let keyring = r#"'{"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}]}'"#;
    let refused = |element: &str| (element.to_owned(), "configuration_refused".to_owned());
    for broken in [
        r#"'{"keyring": ['"#,
        r#"'{"keyrings": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}]}'"#,
        r#"'{"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}], "more": 1}'"#,
    ] {
        let found = found(&edited(&[(keyring, broken)]));
        assert!(found.contains(&refused("gate")), "{broken}: {found:?}");
    }
    let binary = found(&edited(&[(
        "protobuf.StringValue\n                  value: '{\"keyring\"",
        "protobuf.Struct\n                  value: '{\"keyring\"",
    )]));
    assert!(binary.contains(&refused("gate")), "{binary:?}");
    let role = r#"{"role": "upstream_tls"}"#;
    for broken in [r#"{"role": "upstream_tls", "more": 1}"#, r#"{"role": "upstream_tls""#] {
        let found = found(&edited(&[(role, broken)]));
        let gates = found.iter().filter(|(_, rule)| rule == "configuration_refused").count();
        assert!(gates > 0 && !found.contains(&refused("gate")), "{broken}: {found:?}");
    }
    // A listener alone, with nothing else to check.
    let text = edited(&[(keyring, "'{\"keyring\": ['")]);
    let listener = text.split("          - name: envoy.filters.http.rbac").next().expect("a part");
    assert_eq!(found(listener), [refused("gate")]);
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
    let inline =
        |format: &str| log(&format!("{{text_format_source: {{inline_string: {format:?}}}}}"));
    for printing in [
        inline(&format!("{ACCESS_LOG_FORMAT}\n")),
        inline("{\"vkey\":\"%FILTER_STATE(wasm.vkey.audit:PLAIN)%\",\"status\":%RESPONSE_CODE%}\n"),
        log(&format!("{{a: {{body: {{string_value: {ACCESS_LOG_FORMAT:?}}}}}}}")),
    ] {
        assert!(audit(to_log, &printing).is_empty(), "{printing}");
    }
    for invalid in [
        log("{json_format: {vkey: \"%FILTER_STATE(wasm.vkey.audit:PLAIN)%\"}}"),
        inline("%FILTER_STATE(wasm.vkey.audit:PLAIN)%\n"),
        inline("{\"vkey\":\"%FILTER_STATE(wasm.vkey.audit:PLAIN):900%\"}\n"),
        inline("{\"vkey\":\"%FILTER_STATE(wasm.vkey.audit:PLAIN)%\"\n"),
        inline(ACCESS_LOG_FORMAT),
    ] {
        assert_eq!(audit(to_log, &invalid), ["audit_line_invalid"], "{invalid}");
        assert!(audit("\"sink\": \"log\"", &invalid).is_empty(), "{invalid}");
    }
    let file = log("{text_format_source: {filename: /etc/format}}");
    assert!(audit(to_log, &file).is_empty());
    let sink = "}], \"audit\": {\"sink\": \"access_log\"}}'";
    let filters = "          http_filters:\n";
    let noted = notes(&edited(&[("}]}'", sink), (filters, &format!("{file}{filters}"))]));
    assert!(noted.iter().any(|note| note.contains("is in a file")), "{noted:?}");
    for unprinted in ["", &other] {
        assert_eq!(audit(to_log, unprinted), ["audit_line_lost"], "{unprinted}");
        assert!(audit("\"sink\": \"log\"", unprinted).is_empty(), "{unprinted}");
    }
}

/// What enforces the limits of the whole cluster, and each way in which it does not.
#[test]
fn limits_of_the_cluster_need_a_filter_that_denies() {
    let router = "          - name: envoy.filters.http.router\n";
    let with = |cluster: &str, members: &str, config: &str| {
        let filter = format!(
            "          - name: limits\n            {members}\n            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit, domain: vkey, {config}}}\n{router}"
        );
        let limits = format!("}}], \"limits\": {{\"cluster\": {cluster}}}}}'");
        rules(&edited(&[("}]}'", &limits), (router, &filter)]))
    };
    let denies = "failure_mode_deny: true";
    assert!(with("true", "", denies).is_empty());
    assert!(with("false", "disabled: true", "").is_empty());
    for (members, config) in [
        ("", "failure_mode_deny: false"),
        ("", "stage: 0"),
        (
            "",
            "failure_mode_deny: true, failure_mode_deny_percent: {default_value: {numerator: 50}}",
        ),
        ("disabled: true", denies),
        ("is_optional: true", denies),
    ] {
        assert_eq!(with("true", members, config), ["cluster_limits_open"], "{members} {config}");
    }
    let missing = ("}]}'", "}], \"limits\": {\"cluster\": true}}'");
    assert_eq!(rules(&edited(&[missing])), ["cluster_limits_open"]);
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
    let discovered = "          - name: vkey\n            config_discovery: {config_source: {ads: {}}, type_urls: [x.v3.Wasm]}\n            other:\n";
    assert_eq!(with(discovered), ["module_unread"]);
    let other = "          - name: envoy.filters.http.cors\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}\n            other:\n";
    assert_eq!(with(other), ["module_missing"]);
}

#[test]
fn http2_that_envoy_ignores_is_noted() {
    let with = |own: &str, explicit: &str| {
        let explicit = format!("explicit_http_config: {{{explicit}: {{}}}}");
        let config = edited(&[
            ("    type: STATIC\n", own),
            ("explicit_http_config: {http_protocol_options: {}}", &explicit),
        ]);
        assert_eq!(rules(&config), [""; 0]);
        notes(&config).into_iter().filter(|note| note.contains("HTTP/1.1")).collect::<Vec<_>>()
    };
    let http2 = "    http2_protocol_options: {}\n";
    let note = "gated: Envoy ignores its http2_protocol_options beside HttpProtocolOptions, so it speaks HTTP/1.1; \
                move them to explicit_http_config";
    assert_eq!(with(http2, "http_protocol_options"), [note]);
    assert_eq!(with(http2, "http2_protocol_options"), [""; 0]);
    assert_eq!(with("", "http_protocol_options"), [""; 0]);
}
