//! What `vkey tls render` writes, on a real Envoy.

mod credentials;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Value, json};

use crate::support::{Envoy, Options, TempDir, artefact, root, vkey, wait_for};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// Every way to say whom to trust and what to show, in files that are there.
struct Sample {
    dir: TempDir,
}

impl Sample {
    fn new(label: &str) -> Self {
        let sample = Self { dir: TempDir::new(label) };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature, // the proxy shows it too
        ];
        let certificate = params.self_signed(&key).unwrap();
        let lists = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let lists = lists.signed_by(&Issuer::new(params, &key)).unwrap();
        sample.write("ca.pem", certificate.pem());
        sample.write("ca.key", key.serialize_pem());
        sample.write("crl.pem", lists.pem().unwrap());
        sample.secret("own.json", "own", "tls_certificate", &sample.own()[0]);
        let trusted = json!({"trusted_ca": {"filename": sample.path("ca.pem")}});
        sample.secret("ca.json", "ca", "validation_context", &trusted);
        sample
    }

    fn write(&self, name: &str, text: String) {
        fs::write(self.dir.file(name), text).unwrap();
    }

    fn secret(&self, file: &str, name: &str, member: &str, value: &Value) {
        let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let secret = json!({"@type": kind, "name": name, member: value});
        self.write(file, json!({"resources": [secret]}).to_string());
    }

    fn path(&self, name: &str) -> String {
        self.dir.file(name).into_os_string().into_string().unwrap()
    }

    fn sds(&self, name: &str) -> Value {
        json!({"sds": {"name": name, "path": self.path(&format!("{name}.json"))}})
    }

    fn files(&self) -> Value {
        json!({"certificate": self.path("ca.pem"), "key": self.path("ca.key")})
    }

    /// The certificate of the proxy.
    fn own(&self) -> Value {
        let file = |name: &str| json!({"filename": self.path(name)});
        json!([{"certificate_chain": file("ca.pem"), "private_key": file("ca.key")}])
    }

    /// The upstreams of each format, by what it can say.
    fn list(&self, format: &str) -> Value {
        let mut trust = json!({"file": self.path("ca.pem"), "crl": self.path("crl.pem")});
        let mut second = json!({"name": "other", "host": "llm.partner.example", "http2": true});
        match format {
            "envoy" => {
                second["trust"] = self.sds("ca");
                second["client_certificate"] = self.sds("own");
            }
            "gateway-api" => trust = json!({"sds": {"name": "ca"}, "crl": self.path("crl.pem")}),
            _ => {}
        }
        let mut upstreams = json!([
            {"name": "openai", "host": "api.openai.com",
             "credential": {"header": "authorization", "value": "Bearer ${OPENAI_API_KEY}"}},
            {"name": "corp", "host": "llm.corp.example", "port": 8443, "trust": trust,
             "client_certificate": self.files()},
            {"name": "lab", "host": "dev-llm.example", "address": "192.0.2.10"},
            second]);
        if format == "envoy" {
            let address = json!({"name": "address", "host": "[2001:db8::7]"});
            upstreams.as_array_mut().unwrap().push(address);
        }
        let wasm = json!({"file": artefact("VKEY_TEST_WASM"), "environment": ["VKEY_MAIN_SECRET"]});
        json!({"upstreams": upstreams, "wasm": wasm, "kubernetes": {"namespace": "gw"}})
    }

    /// The documents of a format.
    fn render(&self, format: &str) -> Vec<Value> {
        let text = render(format, &self.list(format));
        serde_saphyr::from_multiple(&text).unwrap()
    }

    /// Whether Envoy takes the clusters; its log where not.
    fn validate(&self, clusters: &[Value]) -> Result<(), String> {
        let config = json!({"node": {"id": "test", "cluster": "test"},
                            "static_resources": {"clusters": clusters}});
        self.write("envoy.json", config.to_string());
        let done = Command::new(artefact("VKEY_TEST_ENVOY"))
            .args(["--mode", "validate", "--disable-hot-restart", "--config-path"])
            .arg(self.dir.file("envoy.json"))
            .env_clear()
            .env("VKEY_MAIN_SECRET", "x")
            .env("OPENAI_API_KEY", "x")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(()) } else { Err(log) }
    }
}

fn render(format: &str, list: &Value) -> String {
    let policy = root().join("testdata/render/policy.json");
    render_by(format, &["--policy", policy.to_str().unwrap()], list)
}

/// What is rendered with more arguments; without a policy among them, by the one compiled in.
fn render_by(format: &str, args: &[&str], list: &Value) -> String {
    let mut child = Command::new(vkey())
        .args(["tls", "render", "--format", format, "--now", "2027-01-01T00:00:00Z"])
        .args(args)
        .arg("-")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn without_type(mut cluster: Value) -> Value {
    cluster.as_object_mut().unwrap().remove("@type");
    cluster
}

#[test]
fn envoy_accepts_the_clusters() {
    let sample = Sample::new("render_envoy");
    let resources = sample.render("envoy")[0]["resources"].as_array().unwrap().clone();
    let clusters: Vec<Value> = resources.into_iter().map(without_type).collect();
    assert_eq!(clusters.len(), 5);
    sample.validate(&clusters).unwrap();
    // The same check sees a member that Envoy does not know, and a file that is not there.
    for (place, value) in [
        ("/transport_socket/typed_config/common_tls_context/tls_params/typo", json!(1)),
        (
            "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename",
            json!("/missing.pem"),
        ),
        ("/metadata/filter_metadata/vkey", json!("no object")),
    ] {
        let mut broken = clusters[0].clone();
        let (parent, member) = place.rsplit_once('/').unwrap();
        broken.pointer_mut(parent).unwrap()[member] = value;
        assert!(sample.validate(&[broken]).is_err(), "{place}");
    }
}

#[test]
fn envoy_reads_the_clusters_from_a_file_that_changes() {
    let sample = Sample::new("render_cds");
    sample.write("cds.yaml", render("envoy", &sample.list("envoy")));
    let file = sample.path("cds.yaml");
    let options = Options::new("render_cds").env("VKEY_MAIN_SECRET", "x");
    let options = options.env("OPENAI_API_KEY", "x").edit(move |config| {
        let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
        config["dynamic_resources"] = json!({"cds_config": source});
    });
    let envoy = Envoy::start(options);
    let stamps = || {
        let dump = envoy.admin_get("/config_dump?resource=dynamic_active_clusters").json();
        let clusters = dump["configs"].as_array().cloned().unwrap_or_default();
        let stamp = |cluster: &Value| {
            let cluster = &cluster["cluster"];
            let hosts = cluster["metadata"]["filter_metadata"]["vkey"]["hosts"].clone();
            (cluster["name"].as_str().unwrap().to_owned(), hosts)
        };
        clusters.iter().map(stamp).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(stamps().len(), 5, "{}", envoy.proxy_log());
    assert_eq!(stamps()["corp"], json!(["llm.corp.example"]));
    assert_eq!(stamps()["lab"], json!([]));
    let mut list = sample.list("envoy");
    list["upstreams"].as_array_mut().unwrap().retain(|upstream| upstream["name"] == "openai");
    sample.write("next.yaml", render("envoy", &list));
    fs::rename(sample.dir.file("next.yaml"), sample.dir.file("cds.yaml")).unwrap();
    wait_for(|| (stamps().len() == 1).then_some(()), || envoy.proxy_log());
    let stats = envoy.admin_get("/stats?filter=cds.update_rejected").text();
    assert_eq!(stats.trim(), "cluster_manager.cds.update_rejected: 0");
}

/// As Istio merges: maps member by member, lists one behind the other.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(patch)) => into.extend(patch.iter().cloned()),
        (into, patch) => *into = patch.clone(),
    }
}

/// A cluster as Istio makes it of a ServiceEntry and a DestinationRule.
fn istio_cluster(sample: &Sample, service: &str, port: u64, verified: bool) -> Value {
    let sds = json!({"name": "ca", "sds_config": {
        "path_config_source": {"path": sample.path("ca.json")}, "resource_api_version": "V3"}});
    let names = json!({"match_subject_alt_names": [{"exact": service}]});
    let mut common = json!({"tls_params": {"tls_minimum_protocol_version": "TLSv1_2",
                                           "tls_maximum_protocol_version": "TLSv1_3"}});
    if verified {
        common["combined_validation_context"] = json!({
            "default_validation_context": names, "validation_context_sds_secret_config": sds});
    } else {
        common["validation_context"] = json!({});
    }
    if service == "llm.corp.example" {
        common["tls_certificates"] = sample.own();
    }
    let tls = json!({"@type": TLS, "sni": service, "common_tls_context": common});
    let options = json!({"@type": format!("type.googleapis.com/{OPTIONS}"),
                         "explicit_http_config": {"http_protocol_options": {}}});
    json!({
        "name": format!("outbound|{port}||{service}"), "type": "STRICT_DNS", "connect_timeout": "10s",
        "load_assignment": {"cluster_name": format!("outbound|{port}||{service}")},
        "metadata": {"filter_metadata": {"istio": {"services": [{"host": service}]}}},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {OPTIONS: options}})
}

#[test]
fn envoy_accepts_what_istio_makes_of_the_patches() {
    let sample = Sample::new("render_istio");
    let documents = sample.render("istio");
    let filter = documents.iter().find(|document| document["kind"] == "EnvoyFilter").unwrap();
    let patches = filter["spec"]["configPatches"].as_array().unwrap();
    let mut clusters = Vec::new();
    for pair in patches.chunks(2) {
        let matched = &pair[0]["match"]["cluster"];
        assert_eq!(*matched, pair[1]["match"]["cluster"]);
        let service = matched["service"].as_str().unwrap();
        let port = matched["portNumber"].as_u64().unwrap();
        let verified = service != "dev-llm.example";
        let mut cluster = istio_cluster(&sample, service, port, verified);
        for patch in pair {
            let value = &patch["patch"]["value"];
            // An entry of a protobuf map is replaced.
            if value.get("typed_extension_protocol_options").is_some() {
                cluster["typed_extension_protocol_options"] = json!({});
            }
            merge(&mut cluster, value);
        }
        clusters.push(cluster);
    }
    assert_eq!(clusters.len(), 4);
    let corp = "/transport_socket/typed_config/common_tls_context/combined_validation_context";
    let corp = clusters[1].pointer(corp).unwrap();
    let checks = corp["default_validation_context"].as_object().unwrap();
    assert_eq!(checks.len(), 2, "names and pins: {corp}");
    assert!(clusters[0]["metadata"]["filter_metadata"]["istio"].is_object());
    sample.validate(&clusters).unwrap();
}

/// A cluster as Envoy Gateway makes it of a Backend.
fn gateway_cluster(name: &str, validation: (&str, Value)) -> Value {
    let common = json!({validation.0: validation.1});
    let tls = json!({"@type": TLS, "sni": "llm.corp.example", "common_tls_context": common});
    let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
    let unused =
        json!({"name": "unused", "typed_config": {"@type": TLS, "common_tls_context": {}}});
    let options = json!({"@type": format!("type.googleapis.com/{OPTIONS}"),
                         "auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}});
    json!({
        "name": name, "type": "STRICT_DNS", "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name},
        "metadata": {"filter_metadata": {"envoy-gateway": {"resources": []}}},
        "transport_socket": unused,
        "transport_socket_matches": [{"name": "tls", "match": {"name": "tls"},
                                      "transport_socket": socket}],
        "typed_extension_protocol_options": {OPTIONS: options}})
}

#[test]
fn envoy_accepts_what_envoy_gateway_makes_of_the_patches() {
    let sample = Sample::new("render_gateway");
    let documents = sample.render("gateway-api");
    let policy = documents.iter().find(|document| document["kind"] == "EnvoyPatchPolicy").unwrap();
    let patches = policy["spec"]["jsonPatches"].as_array().unwrap();
    let sds = json!({"name": "ca", "sds_config": {
        "path_config_source": {"path": sample.path("ca.json")}, "resource_api_version": "V3"}});
    let names = json!({"match_typed_subject_alt_names":
                       [{"san_type": "DNS", "matcher": {"exact": "llm.corp.example"}}]});
    let config_map = json!({"default_validation_context": names,
                            "validation_context_sds_secret_config": sds});
    let mut clusters = Vec::new();
    for name in ["openai", "corp", "lab", "other"] {
        let cluster_name = format!("httproute/gw/vkey-{name}/rule/0");
        let validation = match name {
            "corp" => ("combined_validation_context", config_map.clone()),
            _ => ("validation_context", json!({})),
        };
        let mut cluster = gateway_cluster(&cluster_name, validation);
        let mut applied = 0;
        for patch in patches.iter().filter(|patch| patch["name"] == cluster_name.as_str()) {
            assert_eq!(patch["operation"]["op"], "add");
            let path = patch["operation"]["path"].as_str().unwrap();
            // RFC 6902: what it is added to has to be there.
            let (parent, member) = path.rsplit_once('/').unwrap();
            let parent = cluster.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
            parent[member] = patch["operation"]["value"].clone();
            applied += 1;
        }
        assert!(applied >= 3, "{name}");
        clusters.push(cluster);
    }
    sample.validate(&clusters).unwrap();
}
