//! What `vkey config envoy` takes from earlier files.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, root, text};

const DEFAULT: &str = "the path of the module is target/vkey.wasm, relative to the directory";

/// A gate with one ring, and the file that Envoy watches.
fn gate() -> (Gate, String) {
    let gate = Gate::with(&json!({"keyring": [{"name": "main", "secret": "${MAIN}"}]}));
    let file = text(gate.dir.file("ecds.json"));
    (gate, file)
}

fn parse(response: &str) -> Value {
    serde_json::from_str(response).expect("JSON")
}

/// The path of the module, the id of the VM, and the name of the filter.
fn vm(response: &Value) -> [Value; 3] {
    let resource = &response["resources"][0];
    let vm = &resource["typed_config"]["config"]["vm_config"];
    [&vm["code"]["local"]["filename"], &vm["vm_id"], &resource["name"]].map(Value::clone)
}

fn environment(response: &Value) -> &Value {
    &response["resources"][0]["typed_config"]["config"]["vm_config"]["environment_variables"]
}

#[test]
fn the_vm_is_that_of_the_replaced_file_or_of_the_proxy_configuration() {
    let (gate, file) = gate();
    let done = gate.vkey(&["config", "envoy"]).ok();
    assert_eq!(vm(&parse(&done.out)), ["target/vkey.wasm", "vkey", "vkey"]);
    assert!(done.err.contains(DEFAULT), "{}", done.err);

    // A bootstrap says where the module is. The name of its own filter is not that of a discovered one.
    let bootstrap = text(root().join("examples/add-to-envoy/after.yaml"));
    let done = Vkey::new(&["config", "envoy", "--config", &bootstrap]).ok();
    assert_eq!(vm(&parse(&done.out)), ["/etc/envoy/vkey.wasm", "vkey", "vkey"]);
    assert_eq!(done.err, "");

    // The file that is replaced says more about the running Envoy.
    let names = ["--module", "/m.wasm", "--vm-id", "own", "--name", "gate"];
    gate.vkey(&[&["config", "envoy", "--out", &file][..], &names].concat()).ok();
    let publish = |args: &[&str]| {
        let fixed = ["config", "envoy", "--config", &bootstrap, "--out", &file, "--force"];
        let done = Vkey::new(&[&fixed, args].concat()).ok();
        (done.err, parse(&fs::read_to_string(&file).expect("readable")))
    };
    assert_eq!(vm(&publish(&[]).1), ["/m.wasm", "own", "gate"]);
    assert_eq!(vm(&publish(&["--module", "/n.wasm"]).1), ["/n.wasm", "own", "gate"]);
    let again = parse(&Vkey::new(&["config", "envoy", "--config", &file]).ok().out);
    assert_eq!(vm(&again), ["/n.wasm", "own", "gate"]);

    fs::write(&file, "damaged").expect("writable");
    let (said, response) = publish(&[]);
    assert!(said.contains("nothing is taken from the file that is replaced"), "{said}");
    assert_eq!(vm(&response), ["/etc/envoy/vkey.wasm", "vkey", "vkey"]);
}

#[test]
fn a_value_in_the_replaced_file_is_kept() {
    let (gate, file) = gate();
    let publish = |args: &[&str]| {
        let fixed = ["config", "envoy", "--out", &file, "--force"];
        let done = gate.vkey(&[&fixed, args].concat()).ok();
        (done.err, parse(&fs::read_to_string(&file).expect("readable")))
    };
    let kept = json!({"host_env_keys": [], "key_values": {"MAIN": gate.secret}});
    let (said, response) = publish(&["--literal", "MAIN"]);
    assert_eq!(environment(&response), &kept);
    assert!(!said.contains("MAIN"), "{said}");
    let (said, response) = publish(&[]);
    assert_eq!(environment(&response), &kept);
    assert!(said.contains("the value of MAIN is kept from the file that is replaced"), "{said}");
    // It goes when Envoy has the variable, and when no ring names it.
    let (said, response) = publish(&["--inherit", "MAIN"]);
    assert_eq!(environment(&response), &json!({"host_env_keys": ["MAIN"]}));
    assert!(said.contains("Envoy must have MAIN in its environment"), "{said}");
    assert_eq!(publish(&[]).0, "", "nothing is new");
    publish(&["--literal", "MAIN"]);
    let other = json!({"keyring": [{"name": "main", "secret": "${OTHER}"}]});
    gate.file("config.json", other.to_string());
    let (said, response) = publish(&[]);
    assert_eq!(environment(&response), &json!({"host_env_keys": ["OTHER"]}));
    assert!(said.contains("Envoy must have OTHER in its environment"), "{said}");
}

#[test]
fn a_bootstrap_without_its_gate_names_the_file_that_has_it() {
    let example = text(root().join("examples/ecds/envoy.yaml"));
    let says = "the listener's filter vkey comes by ECDS from target/ecds/vkey.json: use that file";
    Vkey::new(&["config", "check", &example]).refused(1, says);
    Vkey::new(&["config", "envoy", "--config", &example]).refused(1, says);
    let (gate, _) = gate();
    let bootstrap = fs::read_to_string(&example).expect("readable");
    let from =
        "path_config_source: {path: target/ecds/vkey.json, watched_directory: {path: target/ecds}}";
    assert!(bootstrap.contains(from));
    let served = gate.file("envoy.yaml", bootstrap.replace(from, "ads: {}"));
    Vkey::new(&["config", "check", &served]).refused(1, "comes by ECDS from a server");
    // An upstream gate is no gate of a listener.
    let upstream = r#"
  clusters:
  - name: app
    typed_extension_protocol_options:
      o:
        http_filters:
        - name: vkey.upstream_tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
            config:
              configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '{"role": "upstream_tls"}'}
"#;
    let both = gate.file("both.yaml", [&bootstrap, upstream].concat());
    Vkey::new(&["config", "envoy", "--config", &both]).refused(1, says);
}
