//! Records in shared data that another plugin of the same `vm_id` has overwritten.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vkey::limits::cell::{key_name, tenant_name};
use vkey::record::{Record, Writer, encode};

use crate::keys::{Minter, options};
use crate::support::{Envoy, Options, Request, config, each_envoy};

/// How many headers a request has on which the other plugin writes.
const HEADERS: usize = 30;

/// A cell in a layout that no version of the module reads.
struct OtherCell;

impl Record for OtherCell {
    const VERSION: u8 = 250;

    fn fresh() -> Self {
        Self
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put_slice(b"other");
    }

    fn read(_: &mut &[u8]) -> Option<Self> {
        None
    }
}

/// A plugin that overwrites records on each request with as many headers.
fn vandal(records: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut data, mut writes, mut at) = (String::new(), String::new(), 1024);
    for (name, record) in records {
        let text: String = name
            .bytes()
            .chain(record.iter().copied())
            .fold(String::new(), |text, byte| text + &format!("\\{byte:02x}"));
        let (value, len) = (at + name.len(), record.len());
        data += &format!("(data (i32.const {at}) \"{text}\")\n");
        writes += &format!(
            "(drop (call $set (i32.const {at}) (i32.const {}) (i32.const {value}) (i32.const {len}) \
             (i32.const 0)))\n",
            name.len()
        );
        at = value + len;
    }
    let source = format!(
        r#"(module
            (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            {data}
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 32768))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (if (i32.ge_u (local.get 1) (i32.const {HEADERS})) (then {writes}))
                (i32.const 0)))"#
    );
    wat::parse_str(source).unwrap()
}

/// The gate behind such a plugin.
fn vandalised(label: &str, main: &Minter, plugin: Value, module: Vec<u8>) -> Options {
    options(label, main, plugin).edit(move |all| {
        let mut vandal = config::wasm(all).clone();
        vandal["name"] = json!("vandal");
        vandal["configuration"] = Value::Null;
        vandal["vm_config"]["environment_variables"] = Value::Null;
        vandal["vm_config"]["code"] = json!({"local": {"inline_bytes": STANDARD.encode(&module)}});
        let filter = json!({
            "name": "vandal",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": vandal,
            },
        });
        config::http_filters(all).insert(0, filter);
    })
}

#[test]
fn records_that_another_plugin_overwrites_begin_anew() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let (older, tenant) = (key_name("acme", "older"), tenant_name("acme"));
        let module = vandal(&[
            ("vkey/k/acme/taken", b"garbage".to_vec()),
            ("vkey/k/acme/older", encode(&older, &OtherCell)),
            (tenant.as_str(), Vec::new()),
        ]);
        let plugin = json!({
            "tiers": {"default": {"quotas": [{"requests": 3, "per": "total"}]}},
            "tenants": {"acme": {"quotas": [{"requests": 100, "per": "total"}]}},
        });
        let options = vandalised("vandal", &main, plugin, module).on(binary).concurrency(2);
        let envoy = Envoy::start(options);
        let status = |jti: &str, headers: usize| {
            let filler = (0..headers).map(|number| format!("x-filler-{number}"));
            let request = Request::new("GET", "/v1/models").bearer(&main.key(jti, json!({})));
            envoy.send(&filler.fold(request, |request, name| request.header(&name, "x"))).status
        };
        for jti in ["taken", "older"] {
            assert_eq!([0; 4].map(|headers| status(jti, headers)), [200, 200, 200, 429], "{jti}");
        }
        // All three are overwritten, and then as good as new.
        assert_eq!(status("taken", HEADERS), 200);
        for (jti, statuses) in [("taken", [200, 200, 429]), ("older", [200, 200, 200])] {
            assert_eq!([0; 3].map(|headers| status(jti, headers)), statuses, "{jti}");
        }
        envoy.stop();
        let log = envoy.proxy_log();
        for (text, times) in [
            ("record vkey/k/acme/taken held bytes that are no record of the module", 1),
            ("record vkey/t/acme held bytes that are no record of the module", 1),
            ("record vkey/k/acme/older has the layout of another version of the module", 1),
        ] {
            assert_eq!(log.matches(text).count(), times, "{text}: {log}");
        }
    });
}
