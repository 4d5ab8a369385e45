//! Plugin configurations in what configures a proxy.

use std::fs;
use std::slice::from_ref;

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, root, secret, text};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The configuration of a gate whose ring has this name.
fn plugin(ring: &str) -> Value {
    json!({"keyring": [{"name": ring, "secret": "${MAIN}"}],
           "tiers": {"default": {"rate": {"requests": 5, "per": "1s"}}}})
}

/// A Wasm filter of Envoy with a configuration message, that gets these variables.
fn filter(name: &str, message: &Value, variables: &[&str]) -> Value {
    let vm = json!({"vm_id": "vkey", "environment_variables": {"host_env_keys": variables}});
    json!({"name": name, "typed_config": {"@type": WASM, "config":
        {"name": name, "vm_config": vm, "configuration": message}}})
}

fn string(plugin: &Value) -> Value {
    json!({"@type": STRING, "value": plugin.to_string()})
}

/// A listener with filters.
fn listener(name: &str, filters: &[Value]) -> Value {
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let manager = json!({"@type": manager, "http_filters": filters});
    let chain = json!({"filters": [{"name": "hcm", "typed_config": manager}]});
    json!({"name": name, "filter_chains": [chain]})
}

fn bootstrap(listeners: &[Value]) -> Value {
    json!({"static_resources": {"listeners": listeners}})
}

fn check(text: impl std::fmt::Display) -> Vkey {
    Vkey::new(&["config", "check", "-"]).stdin(text.to_string())
}

/// The line of the ring in a summary.
fn ring(name: &str) -> String {
    format!("ring         {name}: active, does not rotate\n")
}

/// JSON that only a reader of YAML takes.
fn yaml(value: &Value) -> String {
    format!("# YAML\n{value:#}")
}

#[test]
fn every_shipped_configuration_is_read() {
    for (file, roles) in [
        ("envoy.yaml", 1),
        ("filters/vkey/deploy/istio/wasmplugin.yaml", 1),
        ("examples/nginx/nginx.conf", 0),
    ] {
        let path = text(root().join(file));
        let out = Vkey::new(&["config", "check", &path]).ok().out;
        assert_eq!(out.matches("\nrole         upstream_tls").count(), roles, "{file}: {out}");
        assert_eq!(out.matches("\nring         main: active").count(), 1, "{file}: {out}");
        let secret = secret();
        let mint = ["mint", "--config", &path, "--tenant", "acme", "--lifetime", "1h"];
        Vkey::new(&mint).env("VKEY_MAIN_SECRET", &secret).ok();
    }
}

fn extension(filter: &Value) -> Value {
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    json!({"@type": kind, "name": "vkey", "typed_config": filter["typed_config"]})
}

/// A dump, in which a configuration that failed is not in force.
fn dump(filter: &Value) -> Value {
    let section = |name: &str| format!("type.googleapis.com/envoy.admin.v3.{name}");
    let failed = self::filter("vkey", &string(&plugin("failed")), &["MAIN"]);
    let listeners = json!({"@type": section("ListenersConfigDump"), "dynamic_listeners":
        [{"name": "gate", "active_state": {"listener": listener("gate", from_ref(filter))},
          "error_state": {"failed_configuration": listener("gate", &[failed])}}]});
    let discovered = json!({"@type": section("EcdsConfigDump"),
        "ecds_filters": [{"ecds_filter": extension(filter)}]});
    json!({ "configs": [listeners, discovered] })
}

/// Every file that gives the module this configuration.
fn forms(plain: &Value) -> Vec<Value> {
    let whole = filter("vkey", &string(plain), &["MAIN"]);
    let object = |kind: &str, spec: &Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "gate"}, "spec": spec});
    let env = json!({"env": [{"name": "MAIN", "valueFrom": "HOST"}]});
    let istio = json!({"pluginConfig": plain, "vmConfig": env});
    let policy = json!({"wasm": [{"config": plain, "env": {"hostKeys": ["MAIN"]}}]});
    let patch = json!({"configPatches": [{"patch": {"value": whole}}]});
    let objects = json!([object("Service", &json!({})), object("WasmPlugin", &istio)]);
    vec![
        bootstrap(&[listener("gate", from_ref(&whole))]),
        json!({"resources": [extension(&whole)]}),
        extension(&whole),
        dump(&whole),
        object("WasmPlugin", &istio),
        object("TrafficExtension", &json!({ "wasm": istio })),
        object("EnvoyExtensionPolicy", &policy),
        object("EnvoyFilter", &patch),
        json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    ]
}

#[test]
fn every_form_is_the_same_configuration() {
    let plain = plugin("main");
    let gate = Gate::new();
    let expected = check(&plain).ok().out;
    assert_eq!(check(yaml(&plain)).ok().out, expected);
    for form in forms(&plain) {
        for text in [form.to_string(), yaml(&form), format!("\u{feff}{}", yaml(&form))] {
            let out = check(&text).ok().out;
            assert!(out.starts_with("plugin       ") && out.contains(&expected), "{text}: {out}");
            assert!(!out.contains("failed"), "{out}");
            let file = gate.file("form", text);
            let args = ["explain", "--json", "--config", &file, "--method", "GET", "--path", "/"];
            let mint = ["mint", "--tenant", "a", "--lifetime", "1h", "--config", &file];
            let key = Vkey::new(&mint).env("MAIN", &gate.secret).ok().out;
            let done = Vkey::new(&args).env("MAIN", &gate.secret).stdin(key).run();
            assert!(done.out.contains("\"decision\":\"allow\""), "{}{}", done.out, done.err);
        }
    }
}

/// The place of a filter of a listener.
fn place(listener: usize, filter: usize) -> String {
    format!(
        "static_resources.listeners[{listener}].filter_chains[0].filters[0].typed_config.\
         http_filters[{filter}].typed_config.config.configuration"
    )
}

/// Three gates, two of which are the same, an upstream gate, and a plugin of another module.
fn gates() -> Value {
    let of = |message: &Value| filter("vkey", &string(message), &["MAIN"]);
    let other = filter("waf", &json!({"@type": STRING, "value": "SecRuleEngine On"}), &[]);
    bootstrap(&[
        listener("first", &[other, of(&plugin("one"))]),
        listener("second", &[of(&plugin("two"))]),
        listener("third", &[of(&plugin("two")), of(&json!({"role": "upstream_tls"}))]),
    ])
}

#[test]
fn several_configurations_are_all_checked_and_named() {
    let out = check(gates()).ok().out;
    let first = format!("plugin       first: {}\n{}", place(0, 1), ring("one"));
    let second = format!("plugin       second: {}\n{}", place(1, 0), ring("two"));
    let same = format!("plugin       third: {}\nsame as      {}\n", place(2, 0), place(1, 0));
    let upstream = format!("plugin       third: {}\nrole         upstream_tls", place(2, 1));
    assert!(out.starts_with(&first), "{out}");
    for part in [second, same, upstream] {
        assert!(out.contains(&part), "{part}: {out}");
    }
    let of = |message: &Value| filter("vkey", &string(message), &["MAIN"]);
    let bad = of(&json!({"keyring": [{"name": "main", "secret": "literal"}]}));
    let second = listener("b", &[of(&plugin("two")), bad.clone()]);
    let done = check(bootstrap(&[listener("a", &[bad]), second])).run();
    assert!(done.code == 1 && done.out.contains(&ring("two")), "{}", done.out);
    for place in [place(0, 0), place(1, 1)] {
        let says = "invalid configuration: keyring[0].secret: a secret";
        let error = format!("vkey: standard input: {place}: {says}");
        assert!(done.err.contains(&error), "{}", done.err);
    }
}

#[test]
fn one_of_several_gates_is_chosen_by_its_name() {
    let gate = Gate::new();
    let file = gate.file("two#gates.json", gates().to_string());
    let out = |name: &str| {
        Vkey::new(&["config", "check", &format!("{file}{name}")]).ok().out.replace(&file, "")
    };
    assert_eq!(out("").matches("plugin ").count(), 4);
    assert!(out("#second").contains("two:") && !out("#second").contains("one:"));
    assert!(out(&format!("#{}", place(0, 1))).contains("one:"));
    let mint = |name: &str| {
        let file = format!("{file}{name}");
        let args = ["mint", "--tenant", "a", "--lifetime", "1h", "--config", &file];
        Vkey::new(&args).env("MAIN", &gate.secret)
    };
    let several = "choose one by FILE#NAME, with first, second, third";
    mint("").refused(1, &format!("{file}: several gates have different configurations; {several}"));
    assert!(mint("#third").ok().out.starts_with("vk1.two-"));
    let none = "no plugin configuration has the name after #; expected one of first";
    mint("#fourth").refused(1, none);
}

#[test]
fn what_the_module_would_not_get_is_named() {
    let secret = secret();
    let check = |variables: &[&str]| {
        let filter = filter("vkey", &string(&plugin("main")), variables);
        check(bootstrap(&[listener("gate", &[filter])]))
    };
    let says = "the module does not get MAIN, so it would refuse every request; add it to \
                vm_config.environment_variables.host_env_keys";
    check(&[]).refused(1, says);
    check(&["OTHER"]).refused(1, says);
    check(&["MAIN"]).ok();
    let object = |env: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: vkey}}\n\
             spec:\n  vmConfig: {{env: [{env}]}}\n  pluginConfig:\n    keyring: [{{name: main, secret: '${{MAIN}}'}}]"
        )
    };
    let plain = |text: String| Vkey::new(&["config", "check", "--env", "-"]).stdin(text);
    plain(object("")).refused(1, "spec.pluginConfig: the module does not get MAIN");
    let host = object("{name: MAIN, valueFrom: HOST}");
    let unset = plain(host.clone()).run();
    assert!(unset.code == 1 && unset.err.contains("MAIN is not set"), "{}", unset.err);
    plain(host).env("MAIN", &secret).ok();
    // A value in the file is what the module gets, whatever the environment.
    plain(object(&format!("{{name: MAIN, value: '{secret}'}}"))).env("MAIN", "weak").ok();
    let nginx = "http { location / { proxy_wasm vkey '{\"keyring\":[{\"name\":\"main\",\"secret\":\"${MAIN}\"}]}';\n} }";
    let nginx = nginx.replace("proxy_wasm", "\n  proxy_wasm");
    plain(nginx.clone()).refused(1, "the module does not get MAIN");
    plain(format!("env MAIN;\n{nginx}")).env("MAIN", &secret).ok();
}

#[test]
fn what_is_no_configuration_is_named_with_the_file() {
    let bom = format!("\u{feff}{}", plugin("main"));
    check(bom)
        .refused(1, "standard input: invalid configuration: it begins with a byte order mark");
    check("keyring: []\nkeyring: []")
        .refused(1, "neither JSON nor YAML: a name stands twice, line 2");
    check("just words")
        .refused(1, "expected a plugin configuration, or the configuration of a proxy");
    check("static_resources: {}").refused(1, "it has no configuration of the module");
    let other = filter("waf", &json!({"@type": STRING, "value": "{}"}), &[]);
    check(bootstrap(&[listener("gate", &[other])])).refused(1, "no plugin has keyring");
    let untyped = filter("vkey", &plugin("main"), &["MAIN"]);
    check(bootstrap(&[listener("gate", &[untyped])]))
        .refused(1, "config.configuration: expected a google.protobuf.StringValue");
    let binary = filter("vkey", &json!({"@type": STRUCT, "value": plugin("main")}), &["MAIN"]);
    check(bootstrap(&[listener("gate", &[binary])]))
        .refused(1, "Envoy hands over a Struct in binary");
    // The module is recognized by its name, if its configuration is damaged.
    let damaged = json!({"@type": STRING, "value": "{\"keyring\": ["});
    let damaged = bootstrap(&[listener("gate", &[filter("vkey", &damaged, &["MAIN"])])]);
    check(damaged).refused(1, "config.configuration: invalid configuration: not valid JSON");
    check("keyring: [{name: main, secret: literal}]").refused(1, "keyring[0].secret: a secret");
    check(r#"{"keyring": [],}"#).refused(1, "not valid JSON: trailing comma");
    let gates =
        "keyring: [{name: a, secret: '${MAIN}'}]\n---\nkeyring: [{name: B, secret: '${MAIN}'}]";
    let done = check(gates).run();
    assert!(
        done.err.contains("document 2: invalid configuration: keyring[0].name"),
        "{}",
        done.err
    );
    let upstream = Gate::with(&json!({"role": "upstream_tls"}));
    upstream
        .vkey(&["mint", "--tenant", "a", "--lifetime", "1h"])
        .refused(1, "config.json: the configuration is for an upstream gate");
}

#[test]
fn the_discovery_file_holds_the_same_configuration() {
    let gate = Gate::new();
    let file = text(gate.dir.file("ecds.json"));
    let envoy = |args: &[&str]| {
        let fixed = ["config", "envoy", "--module", "/m.wasm", "--out", &file, "--force"];
        gate.vkey(&[&fixed, args].concat()).env("PROVIDER", "x").ok();
        let text = fs::read_to_string(&file).expect("readable");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let config = |response: &Value| response["resources"][0]["typed_config"]["config"].clone();
    let response = envoy(&[]);
    let plugin = config(&response);
    let written = fs::read_to_string(gate.dir.file("config.json")).expect("readable");
    assert_eq!(plugin["configuration"]["value"], json!(written));
    assert_eq!(plugin["failure_policy"], "FAIL_RELOAD");
    let vm = &plugin["vm_config"];
    assert_eq!(vm["code"]["local"]["filename"], "/m.wasm");
    assert_eq!(vm["environment_variables"], json!({"host_env_keys": ["MAIN", "PROVIDER"]}));
    Vkey::new(&["config", "check", &file]).ok();

    let literal = config(&envoy(&["--literal", "PROVIDER"]));
    let environment = &literal["vm_config"]["environment_variables"];
    assert_eq!(*environment, json!({"host_env_keys": ["MAIN"], "key_values": {"PROVIDER": "x"}}));
    assert_ne!(literal["vm_config"]["configuration"], vm["configuration"]);
    // What was published before is a source like any other, and keeps its values.
    let again = ["config", "envoy", "--module", "/m.wasm", "--config", &file];
    let again: Value = serde_json::from_str(&Vkey::new(&again).ok().out).expect("JSON");
    assert_eq!(config(&again), literal);
    Vkey::new(&["config", "envoy", "--config", &file, "--literal", "UNSET"])
        .refused(3, "--literal is not set");
    let weak = ["config", "envoy", "--config", &file, "--literal", "MAIN"];
    Vkey::new(&weak).env("MAIN", "short").refused(3, "MAIN: the secret is too short");
}

#[test]
fn a_damaged_gate_is_not_left_out() {
    let of = |name: &str, code: &str, text: &str| {
        let mut filter = filter(name, &json!({"@type": STRING, "value": text}), &["MAIN"]);
        filter["typed_config"]["config"]["vm_config"]["code"] =
            json!({"local": {"filename": code}});
        filter
    };
    let good = of("main", "/main.wasm", &plugin("main").to_string());
    let with = |other: Value| check(bootstrap(&[listener("gate", &[good.clone(), other])]));
    let broken = "invalid configuration: not valid JSON";
    for (other, says) in [
        (of("b", "/etc/vkey.wasm", "{\"a\": ["), broken),
        (of("b", "/b.wasm", "{\"keyring\": ["), broken),
        (of("b", "/b.wasm", "{\"keyrings\": []}"), "keyring"),
    ] {
        let done = with(other).run();
        assert!(done.code == 1 && done.err.contains(says), "{says}: {}{}", done.out, done.err);
    }
    let remote = |address: &str| {
        let mut filter = of("b", "", "{");
        filter["typed_config"]["config"]["vm_config"]["code"] =
            json!({"remote": {"http_uri": {"uri": address}}});
        filter
    };
    assert_eq!(with(remote("https://example.com/vkey.wasm")).run().code, 1);
    let object = |kind: &str, spec: &Value| json!({"apiVersion": "v1", "kind": kind, "spec": spec});
    for (kind, spec) in [
        ("WasmPlugin", json!({"url": "oci://example.com/vkey:1", "pluginConfig": {"a": 1}})),
        (
            "EnvoyExtensionPolicy",
            json!({"wasm": [{"code": {"image": {"url": "example.com/vkey"}}, "config": {"a": 1}}]}),
        ),
    ] {
        check(object(kind, &spec)).refused(1, "a: unknown member");
    }
    let done = with(of("waf", "/waf.wasm", "{\"role\": \"waf\"}")).ok();
    let says = format!("vkey: note: {} is taken for another module\n", place(0, 1));
    assert_eq!(done.err, says);
}

#[test]
fn only_http_filters_are_gates() {
    let mut network = filter("vkey", &string(&json!({"keyring": []})), &[]);
    network["typed_config"]["@type"] = json!(WASM.replace(".http.", ".network."));
    check(bootstrap(&[listener("gate", &[network.clone()])])).refused(1, "it has no configuration");
    let gate = filter("vkey", &string(&plugin("main")), &["MAIN"]);
    assert!(
        check(bootstrap(&[listener("gate", &[network, gate])])).ok().out.contains(&ring("main"))
    );
}

#[test]
fn a_file_that_cannot_be_read_or_used_is_named() {
    let gate = Gate::new();
    let missing = text(gate.dir.file("missing.yaml"));
    let says = format!("{missing}: the file named by --config cannot be read");
    Vkey::new(&["config", "check", &missing]).refused(3, &says);
    let large = format!("a: [{}]", "1,".repeat(1_000_001));
    check(large).refused(1, "standard input: more than this command reads, line 1");
    check("apiVersion: v1\nkind: WasmPlugin\nspec: {pluginConfig: {tenants: {no: {}}}}")
        .refused(1, "standard input: kubectl reads a name or a number without quotes in another way; quote it, line 3");
}

#[test]
fn a_name_in_a_file_without_names_is_refused() {
    let gate = Gate::new();
    let file = format!("{}#a", text(gate.dir.file("config.json")));
    let says = "the only plugin configuration has no name; leave out # and the name";
    Vkey::new(&["config", "check", &file]).refused(1, says);
}

#[test]
fn a_struct_for_another_module_is_no_matter() {
    let of = |configuration: Value| {
        let other = filter("waf", &json!({"@type": STRUCT, "value": configuration}), &[]);
        check(bootstrap(&[listener(
            "gate",
            &[other, filter("vkey", &string(&plugin("main")), &["MAIN"])],
        )]))
    };
    let done = of(json!({"rules": ["On"], "role": "waf"})).ok();
    assert!(done.out.contains(&ring("main")) && done.err.contains(&place(0, 0)), "{}", done.err);
    for ours in [plugin("main"), json!({"role": "upstream_tls"})] {
        of(ours).refused(1, "Envoy hands over a Struct in binary");
    }
}

#[test]
fn the_same_text_in_another_environment_is_checked_again() {
    let vm = json!({"key_values": {"MAIN": secret()}});
    let mut literal = filter("vkey", &string(&plugin("main")), &[]);
    literal["typed_config"]["config"]["vm_config"]["environment_variables"] = vm;
    let inherited = filter("vkey", &string(&plugin("main")), &["MAIN"]);
    let of = |filters: &[Value]| {
        let text = bootstrap(&[listener("gate", filters)]).to_string();
        Vkey::new(&["config", "check", "--env", "-"]).stdin(text)
    };
    of(&[literal.clone(), literal.clone()]).ok();
    let done = of(&[literal, inherited]).run();
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.err.contains("MAIN is not set"), "{}", done.err);
}

#[test]
fn a_credential_that_another_gate_names_is_granted() {
    let named = |credentials: Value| {
        let mut plugin = plugin("main");
        plugin["forward"] = json!({ "credentials": credentials });
        filter("vkey", &string(&plugin), &["MAIN"])
    };
    let held = json!({"role": "upstream_tls", "credentials": [
        {"name": "a", "hosts": ["api.openai.com"], "header": "x-key", "value": "${MAIN}"},
        {"name": "b", "hosts": ["api.openai.com"], "header": "x-key", "value": "${MAIN}"}]});
    let upstream = filter("vkey", &string(&held), &["MAIN"]);
    let of = |second: Value| {
        let second = listener("second", &[named(second), upstream.clone()]);
        check(bootstrap(&[listener("first", &[named(json!([{"name": "a"}]))]), second])).run()
    };
    let done = of(json!([{"name": "b"}]));
    assert!(done.code == 0 && !done.out.contains("note "), "{}{}", done.out, done.err);
    let done = of(json!([{"name": "a", "hosts": ["api.openai.com"]}]));
    assert!(
        done.code == 1 && done.out.contains("credential b: forward.credentials"),
        "{}",
        done.out
    );
}
