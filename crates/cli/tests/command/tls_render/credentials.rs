//! Provider credentials of upstreams: in the gates of their clusters, and nowhere else.

use super::*;

/// What a gate sees and holds.
#[derive(Debug, PartialEq)]
struct GateView {
    cluster: String,
    variables: Value,
    credentials: Value,
}

/// The gates that a format writes, with what their cluster is called there.
fn gates(format: &str, documents: &[Value]) -> Vec<GateView> {
    let filters: Vec<(&Value, &Value)> = match format {
        "envoy" => {
            let clusters = documents[0]["resources"].as_array().expect("a list").iter();
            let options = "typed_extension_protocol_options";
            clusters.map(|c| (&c["name"], &c[options][OPTIONS]["http_filters"])).collect()
        }
        "istio" => {
            let filter = of_kind(documents, "EnvoyFilter").next().expect("one");
            let patches = filter["spec"]["configPatches"].as_array().expect("a list");
            let options = "typed_extension_protocol_options";
            let patches = patches.iter().map(|patch| {
                let options = &patch["patch"]["value"][options][OPTIONS];
                (&patch["match"]["cluster"]["service"], &options["http_filters"])
            });
            patches.filter(|(_, filters)| filters.is_array()).collect()
        }
        _ => {
            let policy = of_kind(documents, "EnvoyPatchPolicy").next().expect("one");
            let patches = policy["spec"]["jsonPatches"].as_array().expect("a list").iter();
            let patches = patches.map(|patch| (&patch["name"], &patch["operation"]));
            let filters = patches.filter(|(_, operation)| {
                operation["path"].as_str().expect("a path").ends_with("/http_filters")
            });
            filters.map(|(name, operation)| (name, &operation["value"])).collect()
        }
    };
    filters.into_iter().map(|(name, filters)| gate_view(name, filters)).collect()
}

fn gate_view(cluster: &Value, filters: &Value) -> GateView {
    let config = &filters[0]["typed_config"]["config"];
    let plugin = config["configuration"]["value"].as_str().expect("a text");
    // The module reads it.
    Vkey::new(&["config", "check", "-"]).stdin(plugin).ok();
    let plugin: Value = serde_json::from_str(plugin).expect("JSON");
    GateView {
        cluster: cluster.as_str().expect("a name").to_owned(),
        variables: config["vm_config"]["environment_variables"]["host_env_keys"].clone(),
        credentials: plugin["credentials"].clone(),
    }
}

#[test]
fn the_gate_of_an_upstream_holds_its_credential_and_no_other() {
    for format in FORMATS {
        let out = render(format, &[&list_of(format)]).ok().out;
        let documents = documents(&out);
        let openai = json!([{"name": "openai", "hosts": ["api.openai.com"],
                             "header": "authorization", "value": "Bearer ${OPENAI_API_KEY}"}]);
        let corp = json!([{"name": "corp-key", "hosts": ["llm.corp.example"],
                           "header": "X-Api-Key", "value": "${CORP_KEY}"}]);
        let whole = format != "gateway-api";
        let names: &[&str] = if whole { &["openai", "corp-key"] } else { &["openai"] };
        let variables = ["VKEY_MAIN_SECRET", "OPENAI_API_KEY", "CORP_KEY"];
        let variables = &variables[..names.len() + 1];
        for GateView { cluster, variables: seen, credentials } in gates(format, &documents) {
            let expected = match cluster.as_str() {
                name if name.contains("openai") => openai.clone(),
                name if name.contains("corp") && whole => corp.clone(),
                _ => Value::Null,
            };
            assert_eq!(credentials, expected, "{format}: {cluster}");
            assert_eq!(seen, json!(variables), "{format}: {cluster}");
        }
        let grants: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let grants = json!({"forward": {"credentials": grants}});
        assert!(out.contains(&format!("#   {grants}\n")), "{out}");
        let list = variables.join(", ");
        let environment = match format {
            "envoy" => format!("environment_variables: {{host_env_keys: [{list}]}}"),
            "istio" => {
                let variable = |name: &&str| format!("{{name: {name}, valueFrom: HOST}}");
                let list: Vec<String> = variables.iter().map(variable).collect();
                format!("vmConfig: {{env: [{}]}}", list.join(", "))
            }
            _ => format!("env: {{hostKeys: [{list}]}}"),
        };
        assert!(out.contains(&format!("#   {environment}\n")), "{environment} in {out}");
    }
}

#[test]
fn the_module_on_the_request_path_sees_the_same_variables() {
    let config = sample("config.json");
    for (format, kind) in [("istio", "WasmPlugin"), ("gateway-api", "EnvoyExtensionPolicy")] {
        let done = render(format, &["--config", &config, &list_of(format)]).ok();
        let documents = documents(&done.out);
        let front = &of_kind(&documents, kind).next().expect("one")["spec"];
        let names: Value = match format {
            "istio" => {
                let variables = front["vmConfig"]["env"].as_array().expect("a list").iter();
                assert!(variables.clone().all(|variable| variable["valueFrom"] == "HOST"));
                variables.map(|variable| variable["name"].clone()).collect()
            }
            _ => front["wasm"][0]["env"]["hostKeys"].clone(),
        };
        for gate in gates(format, &documents) {
            assert_eq!(gate.variables, names, "{format}: {}", gate.cluster);
        }
    }
}

/// An upstream with a credential, and what the list's error says of it.
fn with(credential: &Value) -> String {
    let upstream = json!({"name": "a", "host": "api.openai.com", "credential": credential});
    list(&json!([{"name": "first", "host": "a.example"}, upstream])).to_string()
}

#[test]
fn a_literal_secret_is_refused_and_not_repeated() {
    let secret = "sk-proj-Zm9vYmFyYmF6cXV4";
    for format in FORMATS {
        for value in [secret.to_owned(), format!("Bearer {secret}"), format!("Bearer ${{{secret}")]
        {
            let credential = json!({"header": "authorization", "value": value});
            let run = render(format, &["-"]).stdin(with(&credential));
            let says = if value.contains('$') {
                "upstreams[1].credential.value: expected ${NAME}"
            } else {
                "upstreams[1].credential.value: a secret does not belong in a configuration; name an \
                 environment variable"
            };
            let done = run.refused(1, says);
            assert!(!done.err.contains(&secret[..8]), "{}", done.err);
        }
    }
}

#[test]
fn a_credential_that_the_gate_would_refuse_is_refused_by_its_member() {
    let refused = |credential: Value, says: &str| {
        render("envoy", &["-"]).stdin(with(&credential)).refused(1, says);
    };
    let value = "Bearer ${OPENAI_API_KEY}";
    let at = |member: &str, says: &str| format!("upstreams[1].credential.{member}: {says}");
    refused(json!({"value": value}), &at("header", "missing"));
    refused(json!({"header": "authorization"}), &at("value", "missing"));
    refused(json!("Bearer ${OPENAI_API_KEY}"), "upstreams[1].credential: expected an object");
    refused(
        json!({"header": "a", "value": value, "hosts": ["other.example"]}),
        &at("hosts", "unknown member (known here: name, header, value)"),
    );
    for header in ["host", "x-vkey-key", "content-length", "Transfer-Encoding"] {
        let belongs = "this header belongs to the proxy or to the module";
        refused(json!({"header": header, "value": value}), &at("header", belongs));
    }
    refused(json!({"header": "a b", "value": value}), &at("header", "expected a name without"));
    refused(
        json!({"header": "a", "value": "${A}\r\nb: c"}),
        &at("value", "expected visible ASCII"),
    );
    for name in ["", "Open", "-a", "a b", "a.b", &"a".repeat(33)] {
        let credential = json!({"name": name, "header": "a", "value": value});
        refused(credential, &at("name", "expected 1 to 32 of a-z 0-9 -"));
    }
    let long = json!([{"name": "a".repeat(33), "host": "a.example",
                       "credential": {"header": "a", "value": value}}]);
    render("envoy", &["-"])
        .stdin(list(&long).to_string())
        .refused(1, "upstreams[0].credential: name: expected 1 to 32 of a-z 0-9 -");
}

#[test]
fn a_host_under_an_exception_gets_no_credential() {
    for trust in [json!({"system": true}), Value::Null] {
        let mut lab = json!({"name": "lab", "host": "dev-llm.example",
                             "credential": {"header": "authorization", "value": "${LAB_KEY}"}});
        if !trust.is_null() {
            lab["trust"] = trust;
        }
        let upstreams = list(&json!([lab])).to_string();
        for format in FORMATS {
            let says = "upstreams[0].credential: the policy skips this host until \
                        2027-04-01T00:00:00Z, and the gate attaches a credential only to a \
                        connection that it has verified";
            render(format, &["-"]).stdin(&upstreams).refused(1, says);
            render(format, &["--now", AFTER_THE_SKIP, "-"]).stdin(&upstreams).ok();
        }
    }
}

#[test]
fn a_configuration_that_does_not_grant_a_credential_is_warned_of() {
    let gate = Gate::new();
    let warned = |forward: Value| {
        let config = gate.file("front.json", json!({"forward": forward}).to_string());
        let done = render("envoy", &["--config", &config, &list_of("envoy")]).ok();
        let warning = |name: &str| format!("warning: no request gets the credential {name}: ");
        ["openai", "corp-key"].map(|name| done.err.contains(&warning(name)))
    };
    assert_eq!(warned(json!({})), [true, true]);
    assert_eq!(warned(json!({"credentials": [{"name": "openai"}]})), [false, true]);
    assert_eq!(
        warned(json!({"credentials": [{"name": "corp-key"}, {"name": "openai"}]})),
        [false, false]
    );
    // Without a configuration nothing is known of the front.
    assert!(!render("envoy", &[&list_of("envoy")]).ok().err.contains("no request gets"));
}

/// Several clusters for one host, or several hosts with one account.
#[test]
fn upstreams_may_share_a_credential() {
    let credential = json!({"name": "shared", "header": "authorization", "value": "${KEY}"});
    let upstream =
        |name: &str, host: &str| json!({"name": name, "host": host, "credential": credential});
    let upstreams = list(&json!([
        upstream("a", "a.example"),
        upstream("b", "b.example"),
        upstream("c", "[2001:db8::7]"),
        upstream("d", "192.0.2.7")
    ]));
    let done = render("envoy", &["-"]).stdin(upstreams.to_string()).ok();
    assert!(done.out.contains(r#"{"credentials":[{"name":"shared"}]}"#), "{}", done.out);
    let hosts: Vec<Value> = gates("envoy", &documents(&done.out))
        .into_iter()
        .map(|gate| gate.credentials[0]["hosts"][0].clone())
        .collect();
    assert_eq!(hosts, ["a.example", "b.example", "[2001:db8::7]", "192.0.2.7"]);
    assert_eq!(done.out.matches("host_env_keys: [KEY]").count(), 5, "{}", done.out);
}
