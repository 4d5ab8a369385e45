//! `vkey config check --kubernetes`: the deployment around gates.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Done, Gate, Vkey, root, secret, text};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CEL: &str = "filter_state['wasm.vkey.decision'] == b'allow'";

/// A mistake: the member, by a JSON pointer into the list of objects; its value; what the only problem has in it.
type Mistake = (&'static str, Value, &'static str);

fn config() -> Value {
    json!({"keyring": [{"name": "main", "secret": "${MAIN}"}]})
}

fn object(version: &str, kind: &str, spec: &Value) -> Value {
    let metadata = json!({"name": "vkey", "namespace": "edge"});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn seal() -> Value {
    let state = json!({"key": "wasm.vkey.decision", "string_match": {"exact": "allow"}});
    let policy = json!({"permissions": [{"any": true}], "principals": [{"filter_state": state}]});
    let rules = json!({"action": "ALLOW", "policies": {"allowed-by-vkey": policy}});
    json!({"name": "vkey.seal", "typed_config": {"@type": RBAC, "rules": rules}})
}

/// A Wasm filter of Envoy with the module.
fn wasm() -> Value {
    let vm = json!({"environment_variables": {"host_env_keys": ["MAIN"]},
        "code": {"remote": {"http_uri": {"uri": "https://m.example/vkey.wasm"}, "sha256": DIGEST}}});
    let message = json!({"@type": STRING, "value": config().to_string()});
    let plugin = json!({"name": "vkey", "failure_policy": "FAIL_RELOAD", "vm_config": vm,
        "allow_on_headers_stop_iteration": true, "configuration": message});
    json!({"name": "vkey", "typed_config": {"@type": WASM, "config": plugin}})
}

/// A patch that inserts a filter.
fn patch(operation: &str, sub_filter: Option<&str>, value: &Value) -> Value {
    let manager = "envoy.filters.network.http_connection_manager";
    let filter =
        json!({"name": manager, "subFilter": sub_filter.map(|name| json!({"name": name}))});
    let place = json!({"context": "GATEWAY", "listener": {"filterChain": {"filter": filter}}});
    json!({"applyTo": "HTTP_FILTER", "match": place, "patch": {"operation": operation, "value": value}})
}

fn seal_patch() -> Value {
    patch("INSERT_BEFORE", Some("envoy.filters.http.router"), &seal())
}

fn envoy_filter(patches: &[Value]) -> Value {
    let spec = json!({"workloadSelector": {"labels": {"istio": "gw"}}, "configPatches": patches});
    object("networking.istio.io/v1alpha3", "EnvoyFilter", &spec)
}

fn plugin_of_istio() -> Value {
    json!({"url": "oci://m.example/vkey:1", "sha256": DIGEST, "failStrategy": "FAIL_CLOSE",
        "vmConfig": {"env": [{"name": "MAIN", "valueFrom": "HOST"}]}, "pluginConfig": config()})
}

fn istio() -> Vec<Value> {
    let mut spec = plugin_of_istio();
    spec["selector"] = json!({"matchLabels": {"istio": "gw"}});
    spec["phase"] = json!("AUTHN");
    vec![object("extensions.istio.io/v1alpha1", "WasmPlugin", &spec), envoy_filter(&[seal_patch()])]
}

fn traffic_extension() -> Vec<Value> {
    let spec = json!({"selector": {"matchLabels": {"istio": "gw"}}, "phase": "AUTHN", "wasm": plugin_of_istio()});
    vec![
        object("extensions.istio.io/v1alpha1", "TrafficExtension", &spec),
        envoy_filter(&[seal_patch()]),
    ]
}

/// The gate in an EnvoyFilter.
fn in_envoy_filter() -> Vec<Value> {
    vec![envoy_filter(&[patch("INSERT_FIRST", None, &wasm()), seal_patch()])]
}

/// The gate in an EnvoyFilter, delivered by discovery.
fn by_discovery() -> Vec<Value> {
    let discovery = json!({"name": "vkey", "config_discovery": {
        "config_source": {"ads": {}}, "type_urls": [WASM]}});
    let extension =
        json!({"applyTo": "EXTENSION_CONFIG", "patch": {"operation": "ADD", "value": wasm()}});
    vec![envoy_filter(&[extension, patch("INSERT_FIRST", None, &discovery), seal_patch()])]
}

fn envoy_gateway() -> Vec<Value> {
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}]);
    let image = json!({"type": "Image", "image": {"url": "m.example/vkey:1", "sha256": DIGEST}});
    let plugin = json!({"name": "vkey", "code": image, "failOpen": false, "config": config(),
        "env": {"hostKeys": ["MAIN"]}});
    let policy = json!({"targetRefs": target, "wasm": [plugin]});
    let rule = json!({"name": "allowed-by-vkey", "action": "Allow", "cel": CEL});
    let seal =
        json!({"targetRefs": target, "authorization": {"defaultAction": "Deny", "rules": [rule]}});
    let version = "gateway.envoyproxy.io/v1alpha1";
    vec![object(version, "EnvoyExtensionPolicy", &policy), object(version, "SecurityPolicy", &seal)]
}

fn envoy() -> Vec<Value> {
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let routes = json!({"name": "gate", "virtual_hosts": [{"name": "any", "domains": ["*"],
        "routes": [{"name": "all", "match": {"prefix": "/"}, "redirect": {}}]}]});
    let manager =
        json!({"@type": MANAGER, "http_filters": [wasm(), seal(), router], "route_config": routes});
    let chain = json!({"filters": [{"name": "hcm", "typed_config": manager}]});
    let listener = json!({"name": "gate", "filter_chains": [chain]});
    vec![json!({"static_resources": {"listeners": [listener]}})]
}

fn config_map(bootstrap: &Value) -> Value {
    let data = json!({"envoy.yaml": format!("# Envoy\n{bootstrap:#}\n"), "other.txt": "a: [", "n.json": "{}"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy", "namespace": "edge"}, "data": data})
}

/// The documents of a file.
fn file(objects: &[Value]) -> String {
    Vec::from_iter(objects.iter().map(|object| format!("{object:#}\n"))).join("---\n")
}

fn command(text: impl AsRef<[u8]>) -> Vkey {
    Vkey::new(&["config", "check", "--kubernetes", "-"]).stdin(text)
}

/// What is wrong with objects: all lines on standard error but the notes. None exits with 0, any with 1.
#[track_caller]
fn problems(objects: &[Value]) -> (Done, Vec<String>) {
    let done = command(file(objects)).run();
    let lines = done.err.lines().filter_map(|line| line.strip_prefix("vkey: standard input: "));
    let lines = Vec::from_iter(lines.map(str::to_owned));
    assert_eq!(done.code, i32::from(!lines.is_empty()), "{}{}", done.out, done.err);
    assert_eq!(done.out.ends_with("\nok\n"), lines.is_empty(), "{}{}", done.out, done.err);
    (done, lines)
}

#[track_caller]
fn good(objects: &[Value]) -> Done {
    let (done, problems) = problems(objects);
    assert_eq!(problems, [""; 0]);
    done
}

/// Objects with another value, or without the member if it is null.
fn with(objects: &[Value], pointer: &str, value: &Value) -> Vec<Value> {
    let mut changed = Value::from(objects.to_vec());
    let (holder, name) = pointer.rsplit_once('/').expect("a pointer");
    let holder = changed.pointer_mut(holder).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
    match (holder, name.parse::<usize>()) {
        (Value::Array(items), Ok(index)) if index == items.len() => items.push(value.clone()),
        (holder, Ok(index)) => holder[index] = value.clone(),
        (holder, Err(_)) => holder[name.replace("~1", "/")] = value.clone(),
    }
    changed.as_array().expect("a list").clone()
}

/// Each mistake by itself is refused with one problem, which starts with the object.
#[track_caller]
fn refuses(objects: &[Value], owner: &str, mistakes: &[Mistake]) {
    good(objects);
    for (pointer, value, says) in mistakes {
        let (_, problems) = problems(&with(objects, pointer, value));
        assert!(
            problems.len() == 1 && problems[0].starts_with(owner) && problems[0].contains(says),
            "{pointer} = {value}: {says:?} is not the only one of {problems:#?}"
        );
    }
}

/// Each change by itself is accepted.
#[track_caller]
fn accepts(objects: &[Value], changes: &[(&str, Value)]) {
    for (pointer, value) in changes {
        let (_, problems) = problems(&with(objects, pointer, value));
        assert!(problems.is_empty(), "{pointer} = {value}: {problems:#?}");
    }
}

#[test]
fn the_shipped_files_are_good() {
    let path = |file: &str| text(root().join(file));
    let check = |path: &str| Vkey::new(&["config", "check", "--kubernetes", path]).run();
    let done = check(&path("envoy.yaml"));
    assert_eq!((done.code, &*done.err), (0, ""), "{}", done.out);
    let shipped = path("filters/vkey/deploy/istio/wasmplugin.yaml");
    let done = check(&shipped);
    let says = format!(
        "vkey: {shipped}: WasmPlugin istio-system/vkey: spec.sha256: no digest pins the module"
    );
    assert!(done.code == 1 && done.err.starts_with(&says), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    // With the digest, as `make istio` writes it.
    let built = fs::read_to_string(&shipped).expect("readable");
    let built = built.replace("sha256: \"\"", &format!("sha256: {DIGEST}"));
    let done = command(&built).ok();
    assert!(done.err.is_empty(), "{}", done.err);
    let note = "\nnote         bodies decide about requests (mcp, tier \"trial\"), and no WasmPlugin can set";
    assert!(done.out.contains(note), "{}", done.out);
    // The seal cannot be left out.
    let done = command(built.split("---\n").next().unwrap_or_default()).run();
    assert!(done.code == 1 && done.err.contains("it has no seal: no EnvoyFilter"), "{}", done.err);
}

#[test]
fn mistakes_in_a_plugin_of_istio_are_named() {
    let open = json!("FAIL_OPEN");
    let literal = json!([{"name": "MAIN", "value": secret()}]);
    let mistakes = |at: [&'static str; 8]| -> Vec<Mistake> {
        vec![
            (at[0], open.clone(), "failStrategy: requests pass when the module fails"),
            (at[0], json!("CLOSED"), "failStrategy: expected FAIL_CLOSE or FAIL_RELOAD"),
            (at[1], json!("AUTHZ"), "spec.phase: expected AUTHN"),
            (at[1], json!(null), "spec.phase: expected AUTHN"),
            (at[2], json!("NETWORK"), "type: expected HTTP"),
            (at[3], json!(""), "sha256: no digest pins the module"),
            (at[3], json!(null), "sha256: no digest pins the module"),
            (at[3], json!("ABC"), "sha256: expected a SHA-256, 64 of 0-9 a-f"),
            (
                at[4],
                json!(format!("oci://m.example/vkey@sha256:{}", "f".repeat(64))),
                "sha256: the address has another digest",
            ),
            (at[5], literal.clone(), "pluginConfig: the file has the value of MAIN"),
            (at[5], json!([]), "pluginConfig: the module does not get MAIN"),
            (at[6], json!(secret()), "keyring[0].secret: a secret"),
            (at[7], json!(1), "keyrings: unknown member"),
        ]
    };
    refuses(
        &istio(),
        "WasmPlugin edge/vkey: spec.",
        &mistakes([
            "/0/spec/failStrategy",
            "/0/spec/phase",
            "/0/spec/type",
            "/0/spec/sha256",
            "/0/spec/url",
            "/0/spec/vmConfig/env",
            "/0/spec/pluginConfig/keyring/0/secret",
            "/0/spec/pluginConfig/keyrings",
        ]),
    );
    refuses(
        &traffic_extension(),
        "TrafficExtension edge/vkey: spec.",
        &mistakes([
            "/0/spec/wasm/failStrategy",
            "/0/spec/phase",
            "/0/spec/wasm/type",
            "/0/spec/wasm/sha256",
            "/0/spec/wasm/url",
            "/0/spec/wasm/vmConfig/env",
            "/0/spec/wasm/pluginConfig/keyring/0/secret",
            "/0/spec/wasm/pluginConfig/keyrings",
        ]),
    );
    accepts(
        &istio(),
        &[
            ("/0/spec/failStrategy", json!(null)),
            ("/0/spec/failStrategy", json!("FAIL_RELOAD")),
            ("/0/spec/url", json!(format!("m.example/vkey@sha256:{DIGEST}"))),
        ],
    );
    let unpinned = with(&istio(), "/0/spec/sha256", &json!(null));
    let by_url = |url: String| problems(&with(&unpinned, "/0/spec/url", &json!(url)));
    assert_eq!(by_url(format!("oci://m.example/vkey@sha256:{DIGEST}")).1, [""; 0]);
    // In the address of a file it is a part of the path.
    let says = "no digest pins the module";
    assert!(by_url(format!("https://m.example/vkey@sha256:{DIGEST}")).1[0].contains(says));
    let (done, none) = by_url("file:///etc/vkey.wasm".to_owned());
    let note = "note         WasmPlugin edge/vkey: spec.url: Istio checks no digest of file://";
    assert!(none.is_empty() && done.out.contains(note), "{}", done.out);
}

#[test]
fn mistakes_in_a_seal_of_istio_are_named() {
    const PATCH: &str = "/1/spec/configPatches/0";
    let at = |rest: &str| -> &'static str { format!("{PATCH}{rest}").leak() };
    let none = "it has no seal: no EnvoyFilter in the file inserts";
    let rules = "configPatches[0]: patch.value does not refuse every request";
    let policy = at("/patch/value/typed_config/rules/policies/allowed-by-vkey");
    let exact: &str = format!("{policy}/principals/0/filter_state/string_match/exact").leak();
    let more: &str = format!("{policy}/principals/1").leak();
    let inserted = "patch.operation: expected INSERT_BEFORE the router";
    let router = "subFilter.name: expected envoy.filters.http.router";
    let sub_filter = at("/match/listener/filterChain/filter/subFilter");
    let mistakes: Vec<Mistake> = vec![
        ("/1/kind", json!("Sidecar"), none),
        ("/1/apiVersion", json!("v1"), none),
        (PATCH, json!({}), none),
        (exact, json!("deny"), rules),
        (more, json!({"any": true}), rules),
        (at("/patch/value/typed_config/rules/action"), json!("LOG"), rules),
        (at("/patch/value/disabled"), json!(true), "patch.value.disabled: expected false"),
        (at("/patch/operation"), json!("INSERT_FIRST"), inserted),
        (at("/patch/operation"), json!("ADD"), inserted),
        (at("/applyTo"), json!("NETWORK_FILTER"), "applyTo: expected HTTP_FILTER"),
        (sub_filter, json!(null), router),
        (sub_filter, json!({"name": "envoy.filters.http.cors"}), router),
        (
            at("/match/listener/filterChain/filter/name"),
            json!("tcp"),
            "filter.name: expected envoy",
        ),
        (at("/match/listener/portNumber"), json!(443), "listener.portNumber: other ports have no"),
        (at("/match/listener/filterChain/sni"), json!("a"), "filterChain.sni: other requests have"),
        (at("/match/proxy"), json!({"proxyVersion": "1"}), "match.proxy: other requests have"),
        (
            at("/match/context"),
            json!("SIDECAR_INBOUND"),
            "match.context: the module runs in GATEWAY, or",
        ),
        (
            "/1/metadata/namespace",
            json!("other"),
            "EnvoyFilter other/vkey: spec.configPatches[0]: it is in another",
        ),
        ("/1/metadata/namespace", json!(null), "it is in another namespace"),
        ("/1/spec/workloadSelector/labels/app", json!("b"), "asks for the label app, which"),
        ("/1/spec/workloadSelector/labels/istio", json!("b"), "asks for the label istio, which"),
        (
            "/1/spec/targetRefs",
            json!([{"kind": "Gateway", "name": "gw"}]),
            "it has targetRefs, and",
        ),
        (
            "/0/spec/targetRefs",
            json!([{"kind": "Gateway", "name": "gw"}]),
            "its targetRefs lack one",
        ),
        ("/0/spec/selector", json!(null), "asks for the label istio, which"),
        ("/0/spec/match", json!([{"mode": "SERVER"}]), "the module runs in SIDECAR_INBOUND, and"),
    ];
    refuses(&istio(), "WasmPlugin edge/vkey: it has no seal: ", &mistakes);
    refuses(&traffic_extension(), "TrafficExtension edge/vkey: it has no seal: ", &mistakes);
    accepts(
        &istio(),
        &[
            (at("/match/context"), json!("ANY")),
            (at("/match/context"), json!(null)),
            (at("/patch/value/name"), json!("other")),
            ("/0/spec/match", json!([{"mode": "CLIENT", "ports": [{"number": 443}]}])),
            ("/0/spec/match", json!([{"mode": "CLIENT_AND_SERVER"}])),
            ("/1/spec/priority", json!(-5)),
        ],
    );
    let on_a_port = with(&istio(), "/0/spec/match", &json!([{"ports": [{"number": 443}]}]));
    accepts(&on_a_port, &[(at("/match/listener/portNumber"), json!(443))]);
    let is_refused = |objects: &[Value]| !problems(objects).1.is_empty();
    assert!(is_refused(&with(&on_a_port, at("/match/listener/portNumber"), &json!(80))));
    // A sidecar: both directions, or the one in which the module runs.
    let inbound = with(&istio(), at("/match/context"), &json!("SIDECAR_INBOUND"));
    good(&with(&inbound, "/0/spec/match", &json!([{"mode": "SERVER"}])));
    let mut outbound = inbound[1]["spec"]["configPatches"][0].clone();
    outbound["match"]["context"] = json!("SIDECAR_OUTBOUND");
    good(&with(&inbound, "/1/spec/configPatches/1", &outbound));
    // A seal for more workloads is closed, and most likely a mistake.
    let note = "note         WasmPlugin edge/vkey: the seal is for more workloads than the plugin";
    let wider = [
        with(&istio(), "/1/spec/workloadSelector", &json!(null)),
        with(&istio(), "/1/metadata/namespace", &json!("istio-system")),
    ];
    for wider in wider {
        let done = good(&wider);
        assert!(done.out.contains(note), "{}", done.out);
    }
    assert!(!good(&istio()).out.contains("note "));
}

#[test]
fn every_target_needs_a_seal() {
    let target =
        |name: &str| json!({"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": name});
    let mut objects = istio();
    objects[0]["spec"]["selector"] = json!(null);
    objects[0]["spec"]["targetRefs"] = json!([target("a"), target("b")]);
    objects[1]["spec"]["workloadSelector"] = json!(null);
    objects[1]["spec"]["targetRefs"] = json!([target("b"), target("a")]);
    good(&objects);
    // A waypoint.
    good(&with(&objects, "/1/spec/configPatches/0/match/context", &json!("SIDECAR_INBOUND")));
    objects[1]["spec"]["targetRefs"] = json!([target("a")]);
    assert!(problems(&objects).1[0].contains("its targetRefs lack one of the plugin's"));
    let mut second = objects[1].clone();
    second["spec"]["targetRefs"] = json!([target("b")]);
    objects.push(second);
    good(&objects);
}

#[test]
fn mistakes_around_a_gate_in_an_envoy_filter_are_named() {
    let plugin = "/0/spec/configPatches/0/patch/value/typed_config/config";
    let at = |rest: &str| -> &'static str { format!("{plugin}{rest}").leak() };
    let digest = at("/vm_config/code/remote/sha256");
    let message = json!({"@type": STRING.replace("StringValue", "Struct"), "value": config()});
    let mut mistakes: Vec<Mistake> = vec![
        (at("/failure_policy"), json!("FAIL_OPEN"), "config.failure_policy: requests pass when"),
        (at("/failure_policy"), json!(3), "config.failure_policy: requests pass when"),
        (
            at("/failure_policy"),
            json!("CLOSED"),
            "failure_policy: expected FAIL_RELOAD or FAIL_CLOSED",
        ),
        (at("/fail_open"), json!(true), "config.fail_open: requests pass when the module fails"),
        (digest, json!(""), "remote.sha256: no digest pins the module"),
        (digest, json!("abc"), "remote.sha256: expected a SHA-256"),
        (at("/configuration"), message, "Envoy hands over a Struct in binary"),
        (at("/configuration/value"), json!("{"), "config.configuration: invalid configuration"),
        (at("/vm_config/environment_variables"), json!({}), "the module does not get MAIN"),
        (
            at("/vm_config/environment_variables"),
            json!({"key_values": {"MAIN": secret()}}),
            "the file has the value of MAIN, and so a secret",
        ),
    ];
    refuses(&by_discovery(), "EnvoyFilter edge/vkey: spec.configPatches[0].", &mistakes);
    mistakes.truncate(4);
    refuses(&in_envoy_filter(), "EnvoyFilter edge/vkey: spec.configPatches[0].", &mistakes);
    let unsealed: &[Mistake] = &[
        (
            "/0/spec/configPatches/1/patch/operation",
            json!("ADD"),
            "it has no seal: EnvoyFilter edge/vkey: spec.configPatches[1]",
        ),
        (
            "/0/spec/configPatches/0/patch/operation",
            json!("ADD"),
            "its patch puts it after the router",
        ),
        (
            "/0/spec/configPatches/0/match/context",
            json!("ANY"),
            "match.context: the module runs in GATEWAY and SIDECAR_INBOUND and",
        ),
        (
            "/0/spec/configPatches/0/applyTo",
            json!("LISTENER"),
            "its patch inserts more than a filter",
        ),
    ];
    refuses(&in_envoy_filter(), "EnvoyFilter edge/vkey: it has no seal: ", unsealed);
    let unused: &[Mistake] = &[(
        "/0/spec/configPatches/1/patch/value/name",
        json!("other"),
        "no HTTP_FILTER patch of the object has its name",
    )];
    refuses(&by_discovery(), "EnvoyFilter edge/vkey: it has no seal: ", unused);
    // Two patches before the router: the later one is nearer to it.
    let before = patch("INSERT_BEFORE", Some("envoy.filters.http.router"), &wasm());
    good(&[envoy_filter(&[before.clone(), seal_patch()])]);
    let early = [envoy_filter(&[seal_patch(), before.clone()])];
    assert!(problems(&early).1[0].contains("spec.configPatches[0]: it may be before the module"));
    let mut apart = vec![envoy_filter(&[before]), envoy_filter(&[seal_patch()])];
    assert!(problems(&apart).1[0].contains("it may be before the module"));
    apart[1]["spec"]["priority"] = json!(1);
    good(&apart);
}

#[test]
fn mistakes_on_envoy_gateway_are_named() {
    let image = "/0/spec/wasm/0/code/image";
    let at = |rest: &str| -> &'static str { format!("{image}{rest}").leak() };
    refuses(
        &envoy_gateway(),
        "EnvoyExtensionPolicy edge/vkey: spec.wasm[0].",
        &[
            (
                "/0/spec/wasm/0/failOpen",
                json!(true),
                "failOpen: requests pass when the module fails",
            ),
            (at("/sha256"), json!(null), "code.image.sha256: no digest pins the module"),
            (at("/sha256"), json!("abc"), "code.image.sha256: expected a SHA-256"),
            (
                "/0/spec/wasm/0/code",
                json!({"http": {"url": "https://m.example"}}),
                "code.http.sha256: no digest",
            ),
            ("/0/spec/wasm/0/code", json!(null), "code: expected an image"),
            (
                "/0/spec/wasm/0/env",
                json!(null),
                "does not get MAIN, so it would refuse every request; add it to env.hostKeys",
            ),
            ("/0/spec/wasm/0/config/keyring", json!([]), "keyring"),
        ],
    );
    let rule = "/1/spec/authorization/rules/0";
    let cel: &'static str = format!("{rule}/cel").leak();
    let open = "spec.authorization.rules[0] allows what the module has not allowed";
    let lacks = "its targetRefs and targetSelectors lack one";
    refuses(
        &envoy_gateway(),
        "EnvoyExtensionPolicy edge/vkey: it has no seal: ",
        &[
            (
                "/1/kind",
                json!("BackendTrafficPolicy"),
                "no SecurityPolicy in the file and the namespace has a rule",
            ),
            (
                "/1/metadata/namespace",
                json!("other"),
                "no SecurityPolicy in the file and the namespace",
            ),
            (
                cel,
                json!("filter_state['wasm.vkey.decision'] == 'allow'"),
                "rules[0].cel: the filter state is bytes, and equals no string, so that every request is refused",
            ),
            (cel, json!("true"), open),
            (cel, json!(null), open),
            (cel, json!(format!("{CEL} || true")), open),
            (cel, json!(format!("!({CEL})")), open),
            (cel, json!(format!("!(true && {CEL} && true)")), open),
            (cel, json!(format!("true // && {CEL}")), open),
            (cel, json!("filter_state['wasm.vkey.decision'] != b'allow'"), open),
            ("/1/spec/authorization/rules/1", json!({"action": "Allow"}), "rules[1] allows what"),
            ("/1/spec/authorization/rules", json!([]), "rules: expected action: Allow and cel"),
            ("/1/spec/authorization/defaultAction", json!("Allow"), "defaultAction: expected Deny"),
            ("/1/spec/authorization", json!(null), "spec.authorization: expected a rule"),
            ("/1/spec/targetRefs/0/name", json!("other"), lacks),
            ("/1/spec/targetRefs/0/kind", json!("HTTPRoute"), lacks),
            ("/1/spec/targetRefs/0/sectionName", json!("https"), lacks),
            ("/0/spec/targetRefs/1", json!({"kind": "Gateway", "name": "b"}), lacks),
            (
                "/0/spec/targetSelectors",
                json!([{"kind": "Gateway", "matchLabels": {"a": "b"}}]),
                lacks,
            ),
        ],
    );
    accepts(
        &envoy_gateway(),
        &[
            (at("/url"), json!(format!("m.example/vkey@sha256:{DIGEST}"))),
            (cel, json!("filter_state[\"wasm.vkey.decision\"]==b\"allow\"")),
            (cel, json!(format!("request.method == 'GET' && {CEL}"))),
            ("/1/spec/authorization/defaultAction", json!(null)),
            ("/0/spec/targetRefs/0/sectionName", json!("https")),
        ],
    );
}

/// The gate in a patch of Envoy Gateway: the seal is in one too, or in a SecurityPolicy.
#[test]
fn a_gate_in_a_patch_of_envoy_gateway_needs_a_seal() {
    let add = |value: Value| json!({"operation": {"op": "add", "path": "/a", "value": value}});
    let spec = json!({"targetRef": {"kind": "Gateway", "name": "gw"}, "type": "JSONPatch",
        "jsonPatches": [add(wasm()), add(seal())]});
    let objects = [object("gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy", &spec)];
    let none: &[Mistake] = &[("/0/spec/jsonPatches/1", json!({}), "no SecurityPolicy in the file")];
    refuses(&objects, "EnvoyPatchPolicy edge/vkey: it has no seal: ", none);
    let unsealed = with(&objects, "/0/spec/jsonPatches/1", &json!({}));
    good(&[unsealed, envoy_gateway()].concat());
}

/// A policy of a route takes the place of that of its gateway.
#[test]
fn a_policy_that_replaces_the_seal_is_named() {
    let version = "gateway.envoyproxy.io/v1alpha1";
    let route = json!([{"kind": "HTTPRoute", "name": "vkey"}]);
    let policy =
        |spec: Value| [envoy_gateway(), vec![object(version, "SecurityPolicy", &spec)]].concat();
    let says =
        "EnvoyExtensionPolicy edge/vkey: it has no seal: SecurityPolicy edge/vkey replaces it";
    let objects = policy(json!({"targetRefs": route, "cors": {}}));
    let (_, found) = problems(&objects);
    assert!(found.len() == 1 && found[0].starts_with(says), "{found:#?}");
    good(&policy(json!({"targetRefs": route, "cors": {}, "mergeType": "StrategicMerge"})));
    let open = json!({"defaultAction": "Allow", "rules": []});
    let merged = json!({"targetRefs": route, "mergeType": "JSONMerge", "authorization": open});
    assert!(
        problems(&policy(merged)).1[0].starts_with(says),
        "its rules take the place of the seal's"
    );
    let of = |gateway: &str| {
        let spec = json!({"parentRefs": [{"name": gateway}]});
        let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", &spec);
        problems(&[&objects[..], &[route]].concat()).1
    };
    assert_eq!((of("gw").len(), of("other").len()), (1, 0));
    let listener = json!([{"kind": "Gateway", "name": "gw", "sectionName": "https"}]);
    assert!(problems(&policy(json!({"targetRefs": listener, "cors": {}}))).1[0].starts_with(says));
}

#[test]
fn mistakes_in_configuration_of_envoy_are_named() {
    let manager = "/0/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let at = |rest: &str| -> &'static str { format!("{manager}{rest}").leak() };
    let missing = "the listener gate: no RBAC filter behind the module refuses requests";
    let mistakes: Vec<Mistake> = vec![
        (at("/http_filters/1"), json!({}), missing),
        (at("/http_filters"), json!([seal(), wasm()]), missing),
        (at("/http_filters/1/disabled"), json!(true), "the seal vkey.seal is disabled"),
        (at("/http_filters/0/disabled"), json!(true), "which is the module, is disabled"),
        (
            at("/http_filters/0/typed_config/config/fail_open"),
            json!(true),
            "config.fail_open: requests pass when the module fails",
        ),
        (
            at("/http_filters/0/typed_config/config/configuration/value"),
            json!("{\"keyring\": []}"),
            "keyring",
        ),
    ];
    let plain: Vec<Mistake> =
        mistakes.iter().filter(|(pointer, ..)| !pointer.ends_with("0/disabled")).cloned().collect();
    refuses(&envoy(), "", &plain);
    for (pointer, value, says) in plain {
        let changed = with(&envoy(), pointer, &value);
        let (_, found) = problems(&[config_map(&changed[0])]);
        assert!(found.len() == 1 && found[0].contains(says), "{found:#?}");
        assert!(found[0].starts_with("ConfigMap edge/envoy: "), "{found:#?}");
    }
    let done = good(&[config_map(&envoy()[0])]);
    assert!(
        done.out.starts_with(
            "plugin       envoy: ConfigMap edge/envoy: data.envoy.yaml[0].static_resources."
        ),
        "{}",
        done.out
    );
    // Every --config reads it.
    let map = file(&[config_map(&envoy()[0])]);
    let plain = Vkey::new(&["config", "check", "-"]).stdin(map).ok().out;
    assert!(
        plain.starts_with("plugin       envoy: data.envoy.yaml[0].static_resources."),
        "{plain}"
    );
    let broken = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"envoy.yaml": "a: [\"keyring"}});
    command(file(&[broken])).refused(
        1,
        "standard input: ConfigMap a: data.envoy.yaml: the text is neither JSON nor YAML",
    );
    // The filter alone does not say what is behind it.
    let says = "its listener is not in the file, so that it is not known whether it has a seal";
    assert!(problems(&[json!({"resources": [wasm()]})]).1[0].contains(says));
    // By ECDS from another ConfigMap.
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let mut delivered = wasm();
    delivered["@type"] = json!(kind);
    let delivered = config_map(&json!({"resources": [delivered]}));
    let discovery = json!({"name": "vkey", "config_discovery": {"type_urls": [WASM],
        "config_source": {"path_config_source": {"path": "/ecds.json"}}}});
    let by_ecds = |at_name: &str, name: &str| {
        let listener = with(&envoy(), at("/http_filters/0"), &discovery);
        let listener = with(&listener, at(&format!("/http_filters/0/{at_name}")), &json!(name));
        vec![config_map(&listener[0]), delivered.clone()]
    };
    good(&by_ecds("name", "vkey"));
    let unsealed = with(&envoy(), at("/http_filters"), &json!([discovery]));
    let (_, found) = problems(&[config_map(&unsealed[0]), delivered.clone()]);
    assert!(found.len() == 1 && found[0].contains(missing), "{found:#?}");
    let (_, found) = problems(&[config_map(&envoy()[0]), delivered.clone()]);
    assert!(found.len() == 1 && found[0].contains(says), "{found:#?}");
    // A seal without the module.
    let other = json!({"name": "a", "typed_config": {"@type": RBAC}});
    let mut lonely = with(&envoy(), at("/http_filters/0"), &other);
    lonely[0]["static_resources"]["clusters"] = json!([{"name": "a", "type": "STATIC"}]);
    let done = command(file(&[istio(), vec![config_map(&lonely[0])]].concat())).run();
    let says =
        "vkey: standard input: ConfigMap edge/envoy: the listener gate: the seal refuses every";
    assert!(done.code == 1 && done.err.starts_with(says), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
}

#[test]
fn held_bodies_are_a_note() {
    let quota = json!({"default": {"quotas": [{"tokens": 9999, "per": "day"}]}});
    for (objects, pointer, kind) in [
        (istio(), "/0/spec/pluginConfig/tiers", "WasmPlugin"),
        (envoy_gateway(), "/0/spec/wasm/0/config/tiers", "EnvoyExtensionPolicy"),
    ] {
        let done = good(&with(&objects, pointer, &quota));
        let note = format!(
            "\nnote         bodies decide about requests (tier \"default\"), and no {kind} can set"
        );
        assert!(done.out.contains(&note), "{}", done.out);
    }
}

#[test]
fn every_problem_is_listed() {
    let mut objects = istio();
    objects[0]["spec"]["phase"] = json!(null);
    objects[0]["spec"]["sha256"] = json!(null);
    objects[0]["spec"]["pluginConfig"]["a"] = json!(1);
    objects[1]["spec"]["configPatches"] = json!([]);
    objects.extend(envoy_gateway());
    objects[2]["spec"]["wasm"][0]["failOpen"] = json!(true);
    let done = command(file(&objects)).run();
    let starts = [
        "pluginConfig: invalid configuration: a: unknown member",
        "spec.sha256: ",
        "spec.phase: ",
        "it has no seal: ",
        "spec.wasm[0].failOpen: ",
    ];
    assert_eq!((done.code, done.err.lines().count()), (1, starts.len()), "{}", done.err);
    for (line, start) in done.err.lines().zip(starts) {
        assert!(
            line.starts_with("vkey: standard input: ") && line.contains(start),
            "{start}: {line}"
        );
    }
}

#[test]
fn lists_and_other_objects_are_read() {
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "edge"}});
    let items = [istio(), vec![service("a"), service("b")]].concat();
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    let done = good(std::slice::from_ref(&list));
    assert_eq!(done.err, "vkey: note: not checked: Service edge/a, Service edge/b\n");
    assert!(
        done.out.starts_with("plugin       vkey: WasmPlugin edge/vkey: spec.pluginConfig\n"),
        "{}",
        done.out
    );
    let many: Vec<Value> = (0..12).map(|n| service(&format!("s{n}"))).collect();
    assert!(good(&[istio(), many].concat()).err.ends_with("Service edge/s9, 2 more\n"));
    // In a list, a mistake is named by its object too.
    let mut bad = list;
    bad["items"][0]["spec"]["phase"] = json!("STATS");
    let (_, found) = problems(&[bad]);
    assert!(found[0].starts_with("WasmPlugin edge/vkey: spec.phase: "), "{found:#?}");
    // The same kind of another API has other rules.
    let other = with(&istio(), "/0/apiVersion", &json!("extensions.example/v1"));
    assert!(problems(&other).1[0].contains("not among those that this command knows"));
    // A name chooses one of several.
    let gate = Gate::new();
    let mut second = envoy_gateway();
    second[0]["metadata"]["name"] = json!("second");
    second[0]["spec"]["wasm"][0]["failOpen"] = json!(true);
    second[0]["spec"]["wasm"][0]["name"] = json!("second");
    let path = gate.file("all.yaml", file(&[istio(), second].concat()));
    let chosen = |name: &str| {
        Vkey::new(&["config", "check", "--kubernetes", &format!("{path}#{name}")]).run().code
    };
    assert_eq!((chosen("vkey"), chosen("second")), (0, 1));
    assert_eq!(chosen("WasmPlugin edge/vkey: spec.pluginConfig"), 0);
}

#[test]
fn wrong_input_is_refused() {
    let nothing = "nothing to check: no object of Kubernetes and no document of Envoy in it has a";
    for empty in [
        "",
        "---\n---\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
        "{\"keyring\": []}",
        "static_resources: {}\n",
    ] {
        command(empty).refused(4, nothing);
    }
    let garbage = "standard input: the file is neither JSON nor YAML: ";
    for text in ["a: [", "{", "kind: X\nkind: Y\n", "\t- \u{0}"] {
        command(text).refused(1, garbage);
    }
    command(b"\xff\xfe\x00").refused(1, garbage);
    command("just words")
        .refused(1, "expected a plugin configuration, or the configuration of a proxy");
    command(format!("a: {}", "x".repeat(1 << 20))).refused(4, nothing);
    let gate = Gate::new();
    let missing = text(gate.dir.file("missing.yaml"));
    let says = format!("{missing}: the file named by --config cannot be read");
    Vkey::new(&["config", "check", "--kubernetes", &missing]).refused(3, &says);
    Vkey::new(&["config", "check", "--kubernetes"]).refused(2, "FILE");
    // What it says of a file never has its values.
    let done = command(file(&with(&istio(), "/0/spec/failStrategy", &json!("hunter2")))).run();
    assert!(!done.err.contains("hunter2") && !done.out.contains("hunter2"), "{}", done.err);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let gate = Gate::new();
    let path = gate.file("all.yaml", file(&istio()));
    let mut child = Vkey::new(&["config", "check", "--kubernetes", &path])
        .command()
        .stdin(Stdio::null())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
