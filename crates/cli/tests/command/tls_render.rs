//! Rendering proxy configuration from the upstream-TLS policy.

mod credentials;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::crd::faults;
use crate::harness::{Done, Gate, Vkey, root, text};

const NOW: &str = "2027-01-01T00:00:00Z";
const AFTER_THE_SKIP: &str = "2027-04-01T00:00:00Z";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const FORMATS: [&str; 3] = ["envoy", "istio", "gateway-api"];

fn sample(name: &str) -> String {
    text(root().join("testdata/render").join(name))
}

fn render(format: &str, args: &[&str]) -> Vkey {
    let policy = sample("policy.json");
    let fixed = ["tls", "render", "--format", format, "--policy", &policy, "--now", NOW];
    // The last of two is taken for those that a test gives itself.
    let fixed = fixed.chunks(2).filter(|pair| !args.contains(&pair[0]));
    Vkey::new(&[fixed.flatten().copied().collect::<Vec<_>>().as_slice(), args].concat())
}

/// The sample that a format can say.
fn list_of(format: &str) -> String {
    sample(if format == "gateway-api" { "gateway-api.yaml" } else { "upstreams.yaml" })
}

fn documents(out: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(out).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

/// The clusters of a list, JSON.
#[track_caller]
fn clusters(list: &Value, args: &[&str]) -> Vec<Value> {
    let done = render("envoy", &[args, &["-"]].concat()).stdin(list.to_string()).ok();
    resources(&done)
}

fn resources(done: &Done) -> Vec<Value> {
    let document = documents(&done.out).remove(0);
    assert_eq!(document.as_object().expect("a map").len(), 1, "{}", done.out);
    document["resources"].as_array().expect("a list").clone()
}

fn list(upstreams: &Value) -> Value {
    json!({"upstreams": upstreams, "wasm": {"file": "/vkey.wasm"}})
}

fn digest(path: impl AsRef<Path>) -> String {
    let digest = Sha256::digest(fs::read(path).expect("readable"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tls(cluster: &Value) -> &Value {
    &cluster["transport_socket"]["typed_config"]
}

fn validation(cluster: &Value) -> &Value {
    let common = &tls(cluster)["common_tls_context"];
    let whole = &common["validation_context"];
    if whole.is_null() {
        &common["combined_validation_context"]["default_validation_context"]
    } else {
        whole
    }
}

/// Lint and render read the policy by the same code, and neither knows of the other.
#[test]
fn what_is_rendered_passes_lint() {
    let policy = sample("policy.json");
    let rendered = render("envoy", &[&list_of("envoy")]).ok().out;
    let lint = ["tls", "lint", "-", "--policy", &policy, "--now", NOW, "--json"];
    let done = Vkey::new(&lint).stdin(&rendered).ok();
    let report: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!((&report["findings"], &report["clusters"]), (&json!([]), &json!(4)), "{report:#}");
    for (right, rule) in [
        ("max_session_keys: 0", "sessions_resumed"),
        ("tls_minimum_protocol_version: TLSv1_3", "version_low"),
        ("api.openai.com\n", "plaintext"),
    ] {
        let wrong = match rule {
            "plaintext" => rendered.replacen("transport_socket:", "transport_socket_:", 1),
            _ => rendered.replacen(right, "connect_timeout: 1s", 1),
        };
        assert_ne!(wrong, rendered, "{rule}");
        let done = Vkey::new(&lint).stdin(&wrong).run();
        assert!(done.code == 1 && done.out.contains(rule), "{rule}: {}", done.out);
    }
}

fn versions(cluster: &Value) -> Value {
    tls(cluster)["common_tls_context"]["tls_params"].clone()
}

fn from(min: &str) -> Value {
    json!({"tls_minimum_protocol_version": min, "tls_maximum_protocol_version": "TLSv1_3"})
}

#[track_caller]
fn assert_verified(cluster: &Value, host: &str) {
    let name = json!([{"san_type": "DNS", "matcher": {"exact": host}}]);
    assert_eq!(validation(cluster)["match_typed_subject_alt_names"], name);
    assert_eq!(validation(cluster)["trust_chain_verification"], "VERIFY_TRUST_CHAIN");
    assert_eq!(tls(cluster)["sni"], host);
    assert_eq!(tls(cluster)["allow_renegotiation"], false);
    let common = &tls(cluster)["common_tls_context"];
    let authorities = [
        &common["validation_context"]["trusted_ca"]["filename"],
        &common["combined_validation_context"]["validation_context_sds_secret_config"]["name"],
    ];
    assert_eq!(authorities.iter().filter(|value| value.is_string()).count(), 1, "{common}");
    assert_eq!(cluster["metadata"]["filter_metadata"]["vkey"]["hosts"], json!([host]));
}

#[test]
fn envoys_clusters_satisfy_the_policy() {
    let done = render("envoy", &[&list_of("envoy")]).ok();
    let clusters = resources(&done);
    let names: Vec<&str> = clusters.iter().map(|c| c["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["openai", "corp", "lab", "other"]);
    let [openai, corp, _, other] = &clusters[..] else { panic!("{names:?}") };
    for (cluster, host, min) in [
        (openai, "api.openai.com", "TLSv1_2"),
        (corp, "llm.corp.example", "TLSv1_3"),
        (other, "llm.partner.example", "TLSv1_2"),
    ] {
        assert_verified(cluster, host);
        assert_eq!(versions(cluster), from(min), "{host}");
    }
    let bundle = json!({"filename": "/etc/ssl/certs/ca-certificates.crt"});
    assert_eq!(validation(openai)["trusted_ca"], bundle);
    assert_eq!(validation(openai).get("verify_certificate_hash"), None);
    assert_eq!(validation(corp)["trusted_ca"], json!({"filename": "/etc/vkey/corp-ca.pem"}));
    assert_eq!(validation(corp)["crl"], json!({"filename": "/etc/vkey/corp-crl.pem"}));
    let pins = json!(["1".repeat(64), "2".repeat(64)]);
    assert_eq!(validation(corp)["verify_certificate_hash"], pins);
    assert_eq!(tls(corp)["max_session_keys"], 0);
    assert_eq!(tls(openai).get("max_session_keys"), None);
    let own = json!([{"certificate_chain": {"filename": "/etc/vkey/client.pem"},
                      "private_key": {"filename": "/etc/vkey/client.key"}}]);
    assert_eq!(tls(corp)["common_tls_context"]["tls_certificates"], own);
    let sds = |path: &str| {
        json!({"name": "partner-ca", "sds_config": {"path_config_source": {"path": path},
                                                    "resource_api_version": "V3"}})
    };
    let common = &tls(other)["common_tls_context"];
    assert_eq!(
        common["tls_certificate_sds_secret_configs"],
        json!([sds("/etc/vkey/sds/client.yaml")])
    );
    assert_eq!(
        common["combined_validation_context"]["validation_context_sds_secret_config"],
        sds("/etc/vkey/sds/partner-ca.yaml")
    );
}

#[test]
fn every_cluster_has_the_gate_and_the_stamp() {
    let config = sample("config.json");
    let done = render("envoy", &["--config", &config, &list_of("envoy")]).ok();
    for cluster in resources(&done) {
        let options = &cluster["typed_extension_protocol_options"][OPTIONS];
        let filters = options["http_filters"].as_array().expect("a list");
        let names: Vec<&Value> = filters.iter().map(|filter| &filter["name"]).collect();
        assert_eq!(names, ["vkey.upstream_tls", "envoy.filters.http.upstream_codec"]);
        let config = &filters[0]["typed_config"]["config"];
        assert_eq!(config["failure_policy"], "FAIL_RELOAD");
        assert_eq!(
            config["vm_config"],
            json!({"vm_id": "vkey", "runtime": "envoy.wasm.runtime.v8",
                   "code": {"local": {"filename": "/etc/vkey/vkey.wasm"}},
                   "environment_variables": {"host_env_keys": ["VKEY_MAIN_SECRET",
                                                               "OPENAI_API_KEY", "CORP_KEY"]}})
        );
        let plugin = config["configuration"]["value"].as_str().expect("a text");
        let mut plugin: Value = serde_json::from_str(plugin).expect("JSON");
        plugin.as_object_mut().expect("an object").remove("credentials");
        let tighten = json!([{"host": "llm.partner.example", "min_version": "TLSv1.3"}]);
        let expected = json!({"role": "upstream_tls", "upstream_tls": {"tighten": tighten}});
        assert_eq!(plugin, expected);
        let stamp = &cluster["metadata"]["filter_metadata"]["vkey"];
        assert_eq!(stamp["policy"], digest(sample("policy.json")));
        let h2 = cluster["name"] == "corp";
        let protocol = if h2 { "http2_protocol_options" } else { "http_protocol_options" };
        assert_eq!(options["explicit_http_config"], json!({protocol: {}}));
        let alpn = if h2 { "h2" } else { "http/1.1" };
        assert_eq!(tls(&cluster)["common_tls_context"]["alpn_protocols"], json!([alpn]));
    }
    let file = sample("config.json");
    let other = render("envoy", &["--wasm", "/other.wasm", &list_of("envoy"), "--config", &file]);
    assert!(!other.ok().out.contains("/etc/vkey/vkey.wasm"));
}

#[test]
fn unlisted_hosts_are_verified_too() {
    let upstreams = list(&json!([{"name": "a", "host": "unlisted.example"},
                                 {"name": "b", "host": "eu.api.openai.com"}]));
    let done = Vkey::new(&["tls", "render", "--format", "envoy", "-"]).stdin(upstreams.to_string());
    let done = done.ok();
    let [unlisted, known] = &resources(&done)[..] else { panic!("{}", done.out) };
    assert_verified(unlisted, "unlisted.example");
    assert_verified(known, "eu.api.openai.com");
    assert_eq!(done.out.matches("No rule of the policy is for this host").count(), 1);
    assert_eq!(done.err, "");
    // The policy compiled in is the file's.
    let shipped = root().join("filters/vkey/upstream-tls.json");
    let stamp = &known["metadata"]["filter_metadata"]["vkey"]["policy"];
    if std::env::var_os("POLICY").is_none() {
        assert_eq!(*stamp, digest(shipped));
    }
}

#[test]
fn a_configuration_tightens() {
    let gate = Gate::new();
    let pin = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let with = |rule: Value, upstreams: Value| {
        let config = json!({"upstream_tls": {"tighten": [rule]}}).to_string();
        let config = gate.file("tighten.json", config);
        render("envoy", &["--config", &config, "-"]).stdin(list(&upstreams).to_string())
    };
    let openai = json!([{"name": "a", "host": "api.openai.com"}]);
    let stricter = json!({"host": "*", "min_version": "TLSv1.3"});
    let cluster = resources(&with(stricter, openai.clone()).ok()).remove(0);
    assert_eq!(versions(&cluster), from("TLSv1_3"));
    let weaker = json!({"host": "*", "min_version": "TLSv1.0"});
    let cluster = resources(&with(weaker, openai.clone()).ok()).remove(0);
    assert_eq!(versions(&cluster), from("TLSv1_2"));
    // A certificate has to be in each set of pins.
    let corp = json!([{"name": "a", "host": "llm.corp.example",
                       "client_certificate": {"certificate": "c", "key": "k"}}]);
    let pins = json!({"host": "llm.corp.example", "pins": [pin("2"), pin("3")]});
    let cluster = resources(&with(pins, corp.clone()).ok()).remove(0);
    assert_eq!(validation(&cluster)["verify_certificate_hash"], json!(["2".repeat(64)]));
    let pins = json!({"host": "*", "pins": [pin("3"), pin("4")]});
    with(pins, corp)
        .refused(1, "upstreams[0].host: the policy and the configuration pin different");
    let demanding = json!({"host": "*", "client_certificate": true});
    with(demanding, openai).refused(1, "upstreams[0].client_certificate: the policy demands one");
    let unskipped = json!({"host": "dev-llm.example", "min_version": "TLSv1.2"});
    let lab = with(unskipped, json!([{"name": "a", "host": "dev-llm.example"}])).ok();
    assert_verified(&resources(&lab)[0], "dev-llm.example");
}

#[test]
fn what_the_policy_demands_cannot_be_left_out() {
    for format in FORMATS {
        let upstreams = list(&json!([{"name": "a", "host": "api.openai.com"},
                                     {"name": "b", "host": "llm.corp.example"}]));
        let run = render(format, &["-"]).stdin(upstreams.to_string());
        let says = "upstreams[1].client_certificate: the policy demands one for this host; add \
                    {certificate: FILE, key: FILE} or {sds:";
        run.refused(1, says);
    }
}

#[test]
fn an_exception_in_force_is_rendered_with_a_warning() {
    let trusting = |trust: Value| {
        let upstreams = json!([{"name": "lab", "host": "dev-llm.example"}]);
        let mut upstreams = list(&upstreams);
        if !trust.is_null() {
            upstreams["upstreams"][0]["trust"] = trust;
        }
        upstreams.to_string()
    };
    let skipped = "lab: the policy skips dev-llm.example until 2027-04-01T00:00:00Z: self-signed lab \
                   box (platform)";
    let done = render("envoy", &["-"]).stdin(trusting(Value::Null)).ok();
    assert!(done.err.contains(&format!("warning: {skipped}")), "{}", done.err);
    assert!(done.out.contains(&format!("# {skipped}")), "{}", done.out);
    let cluster = resources(&done).remove(0);
    assert_eq!(validation(&cluster), &json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"}));
    // It vouches for nothing: the cluster stays as it is when the exception ends.
    let stamp = &cluster["metadata"]["filter_metadata"]["vkey"];
    assert_eq!(stamp["hosts"], json!([]));
    assert_eq!(stamp["policy"], digest(sample("policy.json")));
    // Whoever says whom to trust is taken at their word.
    let done = render("envoy", &["-"]).stdin(trusting(json!({"file": "/lab.pem"}))).ok();
    assert!(done.err.contains("verified all the same"), "{}", done.err);
    assert_verified(&resources(&done)[0], "dev-llm.example");
    let done = render("envoy", &["--now", AFTER_THE_SKIP, "-"]).stdin(trusting(Value::Null)).ok();
    assert_eq!(done.err, "");
    assert_verified(&resources(&done)[0], "dev-llm.example");
}

#[test]
fn addresses_are_verified_as_addresses() {
    let upstreams = list(&json!([
        {"name": "v4", "host": "192.0.2.7", "port": 8443},
        {"name": "v6", "host": "[2001:db8::7]"},
        {"name": "name", "host": "llm.example", "address": "[2001:db8::8]"},
        {"name": "cname", "host": "llm2.example", "address": "internal.example"}]));
    let clusters = clusters(&upstreams, &[]);
    let [v4, v6, name, cname] = &clusters[..] else { panic!("{clusters:?}") };
    let socket = |cluster: &Value| {
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
        let endpoint = cluster.pointer(endpoint).expect("an endpoint");
        (endpoint["address"]["socket_address"].clone(), endpoint["hostname"].clone())
    };
    let expected = |address: &str, port: u64, host: &str| {
        (json!({"address": address, "port_value": port}), json!(host))
    };
    for (cluster, san) in [(v4, "192.0.2.7"), (v6, "2001:db8::7")] {
        let san = json!([{"san_type": "IP_ADDRESS", "matcher": {"exact": san}}]);
        assert_eq!(validation(cluster)["match_typed_subject_alt_names"], san);
        assert_eq!(tls(cluster).get("sni"), None);
        assert_eq!((&cluster["type"], cluster.get("dns_lookup_family")), (&json!("STATIC"), None));
    }
    assert_eq!(socket(v4), expected("192.0.2.7", 8443, "192.0.2.7"));
    assert_eq!(socket(v6), expected("2001:db8::7", 443, "[2001:db8::7]"));
    assert_eq!(v6["metadata"]["filter_metadata"]["vkey"]["hosts"], json!(["[2001:db8::7]"]));
    assert_eq!(socket(name), expected("2001:db8::8", 443, "llm.example"));
    assert_verified(name, "llm.example");
    assert_eq!(socket(cname), expected("internal.example", 443, "llm2.example"));
    assert_eq!(cname["type"], "LOGICAL_DNS");
}

#[test]
fn no_text_breaks_out_of_the_yaml() {
    let texts = [
        "a: b", "a #b", "\"", "'", "\\", "x\n- y: z", "\r\n---\n", "\t", "\u{85}\u{2028}",
        "{a: b}", "[1]", "*a", "&a", "!!str", "%x", "@x", "`x", "~", "null", "no", "0x10", "1e3",
        "1:30", "- x", "? x", "| x", "> x", "\u{feff}", "\u{1}\u{7f}", "é😀", "<<", " x ",
        "${HOME}", "$(id)",
    ];
    for text in texts {
        let upstreams = json!({
            "upstreams": [{"name": "a", "host": "a.example", "trust": {"file": text, "crl": text},
                           "client_certificate": {"certificate": text, "key": text}}],
            "wasm": {"file": text}});
        let clusters = clusters(&upstreams, &[]);
        let common = &tls(&clusters[0])["common_tls_context"];
        assert_eq!(common["validation_context"]["trusted_ca"]["filename"], text);
        assert_eq!(common["validation_context"]["crl"]["filename"], text);
        assert_eq!(common["tls_certificates"][0]["private_key"]["filename"], text);
        let gate = &clusters[0]["typed_extension_protocol_options"][OPTIONS]["http_filters"][0];
        let file = &gate["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"];
        assert_eq!(file, text);
        let done = render("istio", &["-"]).stdin(upstreams.to_string()).ok();
        let documents = documents(&done.out);
        assert_eq!(documents.len(), 4, "{text:?}");
        assert_eq!(documents[1]["spec"]["trafficPolicy"]["tls"]["caCertificates"], text);
        assert!(done.out.is_ascii());
    }
    // The reason of an exception is a stranger's text in a comment.
    let gate = Gate::new();
    let policy = fs::read_to_string(sample("policy.json")).expect("readable");
    let policy =
        gate.file("policy.json", policy.replace("self-signed lab box", "x\\ny: z\\u2028w"));
    let done = render("envoy", &["--policy", &policy, &list_of("envoy")]).ok();
    assert!(done.out.contains("x\\ny: z\\u2028w (platform)"), "{}", done.out);
    assert!(documents(&done.out)[0].get("y").is_none());
}

#[test]
fn the_same_list_gives_the_same_text() {
    for format in FORMATS {
        let path = list_of(format);
        let yaml = fs::read_to_string(&path).expect("readable");
        let json: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        let out = render(format, &[&path]).ok().out;
        for list in [yaml, format!("{json:#}"), json.to_string()] {
            assert_eq!(render(format, &["-"]).stdin(list).ok().out, out, "{format}");
        }
        assert!(out.starts_with(&format!("# Written by `vkey tls render --format {format}`")));
        assert!(out.contains(&digest(sample("policy.json"))));
    }
}

fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

#[test]
fn istios_objects_say_the_same() {
    let config = sample("config.json");
    let done = render("istio", &["--config", &config, &list_of("istio")]).ok();
    let documents = documents(&done.out);
    let metadata = |name: &str| json!({"name": name, "namespace": "gateways"});
    let entries: Vec<_> = of_kind(&documents, "ServiceEntry").collect();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[1]["metadata"], metadata("vkey-corp"));
    assert_eq!(entries[1]["spec"]["ports"][0]["number"], 8443);
    assert_eq!(entries[2]["spec"]["resolution"], "STATIC");
    assert_eq!(entries[2]["spec"]["endpoints"], json!([{"address": "192.0.2.10"}]));
    let rules = of_kind(&documents, "DestinationRule");
    let tls: Vec<_> = rules.map(|rule| rule["spec"]["trafficPolicy"]["tls"].clone()).collect();
    let expected = [
        json!({"mode": "SIMPLE", "sni": "api.openai.com", "caCertificates": "system",
               "subjectAltNames": ["api.openai.com"]}),
        json!({"mode": "MUTUAL", "sni": "llm.corp.example", "caCrl": "/etc/vkey/corp-crl.pem",
               "clientCertificate": "/etc/vkey/client.pem", "privateKey": "/etc/vkey/client.key",
               "caCertificates": "/etc/vkey/corp-ca.pem", "subjectAltNames": ["llm.corp.example"]}),
        json!({"mode": "SIMPLE", "sni": "dev-llm.example", "insecureSkipVerify": true}),
        json!({"mode": "MUTUAL", "sni": "llm.partner.example", "credentialName": "partner-ca",
               "subjectAltNames": ["llm.partner.example"]}),
    ];
    assert_eq!(tls, expected);
    let filter = of_kind(&documents, "EnvoyFilter").next().expect("one");
    assert_eq!(filter["spec"]["workloadSelector"]["labels"], json!({"istio": "egressgateway"}));
    let patches = filter["spec"]["configPatches"].as_array().expect("a list");
    assert_eq!(patches.len(), 8);
    let cluster = json!({"service": "llm.corp.example", "portNumber": 8443});
    assert!(patches[2..4].iter().all(|patch| patch["match"]["cluster"] == cluster));
    let plugin = of_kind(&documents, "WasmPlugin").next().expect("one");
    assert_eq!(faults("wasmplugins.extensions.istio.io.yaml", plugin), Vec::<String>::new());
    let config: Value = serde_json::from_slice(&fs::read(config).expect("a file")).expect("JSON");
    assert_eq!(plugin["spec"]["pluginConfig"], config);
    assert_eq!(plugin["spec"]["failStrategy"], "FAIL_CLOSE");
    // Without a configuration there is nothing to run the module with.
    let done = render("istio", &[&list_of("istio")]).ok();
    assert!(!done.out.contains("kind: WasmPlugin"));
}

#[test]
fn the_patches_of_istio_hold_what_its_objects_cannot() {
    let documents = documents(&render("istio", &[&list_of("istio")]).ok().out);
    let filter = of_kind(&documents, "EnvoyFilter").next().expect("one");
    let values = filter["spec"]["configPatches"].as_array().expect("a list").iter();
    let values: Vec<_> = values.map(|patch| &patch["patch"]["value"]).collect();
    for pair in values.chunks(2) {
        // Istio drops what is next to a transport socket.
        assert_eq!(pair[0].as_object().expect("a map").len(), 1);
        let filters = &pair[1]["typed_extension_protocol_options"][OPTIONS]["http_filters"];
        let vm = &filters[0]["typed_config"]["config"]["vm_config"];
        assert_eq!(vm.get("vm_id"), None);
        assert_eq!(vm["code"]["local"]["filename"], "/etc/vkey/vkey.wasm");
        let stamp = &pair[1]["metadata"]["filter_metadata"]["vkey"];
        assert_eq!(stamp["policy"], digest(sample("policy.json")));
    }
    assert_eq!(versions(values[2]), from("TLSv1_3"));
    let common = &tls(values[2])["common_tls_context"];
    let pins = &common["combined_validation_context"]["default_validation_context"];
    assert_eq!(*pins, json!({"verify_certificate_hash": ["1".repeat(64), "2".repeat(64)]}));
    let virtual_service = of_kind(&documents, "VirtualService").next().expect("one");
    let routes = virtual_service["spec"]["http"].as_array().expect("a list");
    assert_eq!(routes[1]["rewrite"]["authority"], "llm.corp.example:8443");
}

#[test]
fn the_objects_of_the_gateway_api_say_the_same() {
    let config = sample("config.json");
    let done = render("gateway-api", &["--config", &config, &list_of("gateway-api")]).ok();
    let documents = documents(&done.out);
    let validations: Vec<_> = of_kind(&documents, "BackendTLSPolicy")
        .map(|policy| (&policy["spec"]["targetRefs"][0]["name"], &policy["spec"]["validation"]))
        .collect();
    let names = |host: &str| json!([{"type": "Hostname", "hostname": host}]);
    let openai = json!({"hostname": "api.openai.com", "wellKnownCACertificates": "System",
                        "subjectAltNames": names("api.openai.com")});
    let corp = json!({"hostname": "llm.corp.example",
                      "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "corp-ca"}],
                      "subjectAltNames": names("llm.corp.example")});
    assert_eq!(validations, [(&json!("vkey-openai"), &openai), (&json!("vkey-corp"), &corp)]);
    let backends: Vec<_> = of_kind(&documents, "Backend").map(|b| b["spec"].clone()).collect();
    let fqdn = |host: &str, port: u64| json!({"fqdn": {"hostname": host, "port": port}});
    assert_eq!(backends[0], json!({"endpoints": [fqdn("api.openai.com", 443)]}));
    assert_eq!(backends[1], json!({"endpoints": [fqdn("llm.internal.example", 8443)]}));
    assert_eq!(backends[2]["tls"], json!({"insecureSkipVerify": true}));
    let routes: Vec<_> = of_kind(&documents, "HTTPRoute").collect();
    let rewritten = "/spec/rules/0/filters/0/urlRewrite/hostname";
    assert_eq!(routes[1].pointer(rewritten), Some(&json!("llm.corp.example")));
    let patches = of_kind(&documents, "EnvoyPatchPolicy").next().expect("one");
    let patches = patches["spec"]["jsonPatches"].as_array().expect("a list");
    let value = |cluster: &str, ends: &str| {
        let cluster = format!("httproute/gateways/vkey-{cluster}/rule/0");
        let mut patches = patches.iter().filter(|patch| patch["name"] == cluster);
        let path = |patch: &&Value| patch["operation"]["path"].as_str().unwrap().ends_with(ends);
        patches.find(path).map(|patch| patch["operation"]["value"].clone())
    };
    let whole = value("openai", "/typed_config").expect("a context");
    assert_eq!(
        (&whole["sni"], &whole["allow_renegotiation"]),
        (&json!("api.openai.com"), &json!(false))
    );
    assert_eq!(value("corp", "/tls_params"), Some(from("TLSv1_3")));
    let pins = json!(["1".repeat(64), "2".repeat(64)]);
    assert_eq!(
        value("corp", "/default_validation_context/verify_certificate_hash"),
        Some(pins.clone())
    );
    assert!(value("corp", "/tls_certificates").is_some());
    let unverified = json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"});
    let lab = value("lab", "/typed_config").expect("a context");
    assert_eq!(lab["common_tls_context"]["validation_context"], unverified);
    // Nor does the socket verify less that is for endpoints without a match.
    for (cluster, verified) in [("openai", &whole), ("lab", &lab)] {
        let socket = value(cluster, "/transport_socket").expect("a socket");
        assert_eq!(socket["typed_config"], *verified, "{cluster}");
    }
    let corp = value("corp", "/transport_socket").expect("a socket");
    let corp = &corp["typed_config"]["common_tls_context"];
    assert_eq!(corp["validation_context"]["verify_certificate_hash"], pins);
    for cluster in ["openai", "corp", "lab"] {
        let stamp = value(cluster, "/metadata/filter_metadata/vkey").expect("a stamp");
        assert_eq!(stamp["policy"], digest(sample("policy.json")), "{cluster}");
        let gate = value(cluster, "/http_filters").expect("filters");
        let vm_id = &gate[0]["typed_config"]["config"]["vm_config"]["vm_id"];
        assert_eq!(vm_id, "envoyextensionpolicy/gateways/vkey/wasm/0", "{cluster}");
    }
    let policy = of_kind(&documents, "EnvoyExtensionPolicy").next().expect("one");
    let crd = "envoyextensionpolicies.gateway.envoyproxy.io.yaml";
    assert_eq!(faults(crd, policy), Vec::<String>::new());
    assert_eq!(policy["spec"]["wasm"][0]["failOpen"], false);
}

#[test]
fn what_a_format_cannot_express_is_rejected() {
    let refused = |format: &str, upstream: Value, says: &str| {
        let mut upstreams = list(&json!([{"name": "a", "host": "a.example"}]));
        upstreams["upstreams"].as_array_mut().unwrap().push(upstream);
        render(format, &["-"]).stdin(upstreams.to_string()).refused(1, says);
    };
    let sds = |name: &str| json!({"sds": {"name": name}});
    let b = |trust: Value, identity: Value| {
        let mut upstream = json!({"name": "b", "host": "b.example"});
        for (member, value) in [("trust", trust), ("client_certificate", identity)] {
            if !value.is_null() {
                upstream[member] = value;
            }
        }
        upstream
    };
    let files = json!({"certificate": "c", "key": "k"});
    let null = Value::Null;
    refused(
        "envoy",
        b(sds("x"), null.clone()),
        "upstreams[1].trust.sds.path: missing; name the file",
    );
    refused(
        "envoy",
        b(null.clone(), sds("x")),
        "upstreams[1].client_certificate.sds.path: missing",
    );
    refused("istio", b(null.clone(), sds("x")), "upstreams[1].trust: Istio takes the authorities");
    refused("istio", b(sds("x"), sds("y")), "upstreams[1].client_certificate: Istio takes");
    refused("istio", b(sds("x"), files), "upstreams[1].client_certificate: Istio takes");
    let address = json!({"name": "b", "host": "192.0.2.1"});
    refused("istio", address.clone(), "upstreams[1].host: Istio takes only names");
    refused("gateway-api", address, "upstreams[1].host: a BackendTLSPolicy takes only names");
    let second = json!({"name": "b", "host": "a.example", "port": 8443});
    refused("istio", second, "upstreams[1].host: an earlier upstream has this host");
    let file = b(json!({"file": "f"}), null);
    refused("gateway-api", file, "upstreams[1].trust.file: the Gateway API takes authorities");
}

#[test]
fn a_list_that_is_wrong_is_refused_by_its_member() {
    let refused = |list: &str, says: &str| {
        render("envoy", &["-"]).stdin(list).refused(1, says);
    };
    let one = |members: &str| {
        format!("{{upstreams: [{{name: a, host: a.example, {members}}}], wasm: {{file: f}}}}")
    };
    refused("upstreams: []\nwasm: {file: f}", "upstreams: expected at least one upstream");
    refused("wasm: {file: f}", "upstreams: missing");
    refused("upstreams: {}", "upstreams: expected a list");
    refused("[]", "expected an object");
    refused(
        "upstreams: [{name: a, host: a.example}]",
        "wasm.file: missing; name the module's file",
    );
    refused("upstreams: [{name: a}]", "upstreams[0].host: missing");
    refused("{upstreams: [], hosts: []}", "hosts: unknown member (known here: upstreams, wasm");
    refused(&one("tls: off"), "upstreams[0].tls: unknown member (known here: name, host");
    for port in ["0", "65536", "-1", "https", "443.5"] {
        refused(&one(&format!("port: {port}")), "upstreams[0].port: expected a");
    }
    for host in [
        "A.example",
        "*.example",
        "*",
        "https://a.example",
        "a.example:443",
        "a..b",
        "1.2.3",
        "::1",
        "a b",
        "",
        "b\u{fc}cher.example",
        "0x7f.1",
        "user@a.example",
        "a.example/",
        "xn--a-.example",
    ] {
        let says = "expected one host name in lower case, or an address";
        let list = one("http2: false").replace("a.example", &format!("{host:?}"));
        refused(&list, &format!("upstreams[0].host: {says}"));
        refused(&one(&format!("address: {host:?}")), &format!("upstreams[0].address: {says}"));
    }
    for name in ["A", "a.b", "-a", "a-", "\"\"", "\"a b\"", &"a".repeat(41)] {
        refused(
            &one("").replace("name: a", &format!("name: {name}")),
            "upstreams[0].name: expected 1 to",
        );
    }
    refused(&one("http2: yes please"), "upstreams[0].http2: expected true or false");
    refused(&one("trust: {}"), "upstreams[0].trust: expected one of system: true, file and sds");
    refused(&one("trust: {system: true, file: f}"), "upstreams[0].trust: expected one of");
    refused(&one("trust: {system: false}"), "upstreams[0].trust.system: expected true");
    refused(&one("trust: {file: ''}"), "upstreams[0].trust.file: expected a text");
    refused(&one("trust: {sds: {path: p}}"), "upstreams[0].trust.sds.name: missing");
    refused(&one("trust: {insecure: true}"), "upstreams[0].trust.insecure: unknown member");
    refused(&one("client_certificate: {key: k}"), "client_certificate: expected both certificate");
    let twice = "upstreams: [{name: a, host: a.example}, {name: b, host: a.example}, \
                 {name: a, host: b.example}]";
    refused(twice, "upstreams[2].name: an earlier upstream has this name already; choose another");
    let wasm = |members: &str| {
        format!("{{upstreams: [{{name: a, host: a.example}}], wasm: {{file: f, {members}}}}}")
    };
    refused(&wasm("url: https://a.example"), "wasm: expected both url and sha256");
    refused(&wasm("url: u, sha256: ABC"), "wasm.sha256: expected the 64");
    refused(&wasm("environment: [\"A B\"]"), "wasm.environment[0]: expected the name");
    refused(&format!("{}, kubernetes: {{name: x}}}}", wasm("").trim_end_matches('}')), "not valid");
}

#[test]
fn an_invalid_list_is_rejected() {
    let gate = Gate::new();
    let missing = text(gate.dir.file("missing"));
    let directory = text(gate.dir.path().to_owned());
    for format in FORMATS {
        render(format, &[&missing]).refused(3, "UPSTREAMS cannot be read");
        render(format, &[&directory]).refused(3, "UPSTREAMS cannot be read");
        let refused = |list: &[u8], says: &str| {
            render(format, &["-"]).stdin(list).refused(1, says);
        };
        refused(b"", "invalid list of upstreams: ");
        refused(b"\xff\xfe", "not UTF-8");
        refused(b"upstreams: [", "not valid YAML or JSON");
        refused(b"upstreams:\n- name: a\n  name: b\n", "a member is named twice, line 3");
        refused(b"a: 1\n---\nb: 2\n", "more than one YAML document");
        refused(b"upstreams: ~", "invalid list of upstreams: ");
        refused(&[b'['; 100_000], "invalid list of upstreams: ");
        refused(&vec![b'a'; 1 << 20], "invalid list of upstreams: ");
        refused(&vec![b'a'; (1 << 20) + 1], "longer than 1048576 bytes");
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..40 {
            let before = level - 1;
            bomb += &format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n");
        }
        refused(bomb.as_bytes(), "invalid list of upstreams: ");
    }
    let stdin_twice = render("envoy", &["--config", "-", "-"]).stdin("{}");
    stdin_twice.refused(2, "cannot both be read from standard input");
    render("nginx", &["-"]).refused(2, "envoy, istio, gateway-api");
    Vkey::new(&["tls", "render", "-"]).refused(2, "--format");
    Vkey::new(&["tls", "render", "--format", "envoy"]).refused(2, "UPSTREAMS");
}

#[test]
fn a_policy_or_configuration_that_is_wrong_is_refused() {
    let gate = Gate::new();
    let list = list_of("envoy");
    let missing = text(gate.dir.file("missing"));
    for option in ["--policy", "--config"] {
        let says = format!("{option} cannot be read");
        render("envoy", &[option, &missing, &list]).refused(3, &says);
    }
    let policy = gate.file("p.json", "{\"version\": 1,\n \"default\": {}, \"known_hosts\": []}");
    let done = render("envoy", &["--policy", &policy, &list]).refused(1, "default.min_version");
    assert!(done.err.contains("p.json:2:"), "{}", done.err);
    let garbage = gate.file("g.json", b"\xff{");
    render("envoy", &["--policy", &garbage, &list]).refused(1, "not valid JSON");
    render("envoy", &["--config", &garbage, &list]).refused(1, "g.json: the file is neither JSON");
    let config = gate.file("c.json", r#"{"upstream_tls":{"tighten":[{"host":"*","min":"x"}]}}"#);
    render("envoy", &["--config", &config, &list])
        .refused(1, "upstream_tls.tighten[0].min: unknown");
}

#[test]
fn a_reader_that_closes_early_is_not_a_failure() {
    for format in FORMATS {
        let run = render(format, &[&list_of(format)]);
        let mut child = run.command().spawn().expect("the command starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the command ends");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert!(!err.contains("panicked") && !err.contains("pipe"), "{err}");
    }
}

#[test]
fn misplaced_arguments_are_not_repeated() {
    let secret = crate::harness::secret();
    let list = list_of("envoy");
    for before in [
        &["tls"][..],
        &["tls", "render", "--format"],
        &["tls", "render", "--format", "envoy"],
        &["tls", "render", "--format", "envoy", &list, "--now"],
        &["tls", "render", "--format", "envoy", &list, "--policy"],
        &["tls", "render", "--format", "envoy", &list, "--config"],
    ] {
        let done = Vkey::new(&[before, &[&secret]].concat()).run();
        assert!([1, 2, 3].contains(&done.code) && done.out.is_empty(), "{before:?}");
        assert!(!done.err.contains(&secret[..16]), "{before:?}: {}", done.err);
    }
}

#[test]
fn the_schemas_find_deliberate_errors() {
    let config = sample("config.json");
    for (format, kind, crd) in [
        ("istio", "WasmPlugin", "wasmplugins.extensions.istio.io.yaml"),
        (
            "gateway-api",
            "EnvoyExtensionPolicy",
            "envoyextensionpolicies.gateway.envoyproxy.io.yaml",
        ),
    ] {
        let done = render(format, &["--config", &config, &list_of(format)]).ok();
        let documents = documents(&done.out);
        let mut object = of_kind(&documents, kind).next().expect("one").clone();
        object["spec"]["failstrategy"] = json!("x");
        assert_eq!(faults(crd, &object).len(), 1);
    }
}
