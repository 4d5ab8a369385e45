//! Ways in which a new configuration reaches an Envoy, and what each does to connections that are
//! open.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::{Value, json};
use vkey::audit::AuditRecord;
use vkey::decision::Decision;

use crate::keys::{Minter, complete, options, records};
use crate::support::{
    Connection, Envoy, Options, Request, Response, TempDir, config, each_envoy, wait_for,
};
use crate::updates::{Listener, stat};

/// What Envoy calls the filter that it reads from a file.
const NAME: &str = "vkey";

/// The counters of that filter's configurations.
const DISCOVERY: &str = "extension_config_discovery.http_filter.vkey";

/// The module's filter in a file that Envoy watches (ECDS); the listener stays as it is.
pub(crate) struct Extension {
    dir: TempDir,
    /// The filter's `typed_config`.
    wasm: Value,
    version: u32,
}

impl Extension {
    /// Starts an Envoy that reads the module's filter from a file, with a plugin configuration.
    pub(crate) fn start(options: Options, plugin: Value) -> (Envoy, Self) {
        let (sender, receiver) = channel();
        let envoy = Envoy::start(options.edit(move |config| {
            let mut extension = Self::take_out(config, TempDir::new("ecds"));
            extension.publish(plugin);
            sender.send(extension).unwrap();
        }));
        (envoy, receiver.recv().unwrap())
    }

    /// Moves the filter out of the listener, as Istio does: nothing is served before it is there.
    fn take_out(config: &mut Value, dir: TempDir) -> Self {
        let filters = config::http_filters(config);
        let name = json!("envoy.filters.http.wasm");
        let place = filters.iter().position(|filter| filter["name"] == name).unwrap();
        let wasm = filters[place]["typed_config"].take();
        let source = json!({"path_config_source": {"path": dir.file("ecds.json")},
                            "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
        let discovery = json!({"config_source": source, "type_urls": [wasm["@type"]]});
        filters[place] = json!({"name": NAME, "config_discovery": discovery});
        Self { dir, wasm, version: 0 }
    }

    /// Publishes a plugin configuration, completed.
    pub(crate) fn publish(&mut self, plugin: Value) {
        self.publish_text(&complete(plugin));
    }

    fn publish_text(&mut self, plugin: &str) {
        self.wasm["config"]["configuration"]["value"] = json!(plugin);
        self.version += 1;
        let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
        let resource = json!({"@type": kind, "name": NAME, "typed_config": self.wasm});
        let response = json!({"version_info": self.version.to_string(), "resources": [resource]});
        let next = self.dir.file("ecds.next");
        fs::write(&next, response.to_string()).unwrap();
        fs::rename(&next, self.dir.file("ecds.json")).unwrap();
    }
}

/// A configuration with this version of the list of revoked keys.
fn revoking(version: u32, keys: &[&str]) -> Value {
    json!({"revoked": {"version": version, "keys": keys}})
}

fn request(main: &Minter) -> Request {
    Request::new("GET", "/v1/models").bearer(&main.key("k1", json!({})))
}

/// The version of the list in an audit line.
fn version<'a>(record: &'a AuditRecord<'_>) -> &'a str {
    record.plan.as_deref().unwrap().rsplit_once('/').unwrap().1
}

#[test]
fn ecds_reaches_open_connections() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let options = options("ecds", &main, json!({})).on(binary).concurrency(4);
        let (envoy, mut extension) = Extension::start(options, revoking(1, &[]));
        let request = request(&main);
        let mut connections: Vec<_> = (0..16).map(|_| Connection::open(envoy.gate())).collect();
        for connection in &mut connections {
            assert_eq!(connection.send(&request).status, 200);
        }
        extension.publish(revoking(2, &["k1"]));
        let published = Instant::now();
        let mut sent = connections.len();
        for connection in &mut connections {
            let refused = || {
                sent += 1;
                (connection.send(&request).status == 401).then_some(())
            };
            wait_for(refused, || envoy.proxy_log());
        }
        println!("every open connection is judged by the new list after {:?}", published.elapsed());
        assert_eq!(stat(&envoy, "http.gate.downstream_cx_total"), 16, "none was closed");
        let records = records(&envoy, sent);
        for record in &records {
            let by = if record.decision == Some(Decision::Allow) { "1" } else { "2" };
            assert_eq!(version(record), by);
        }
    });
}

#[test]
fn ecds_keeps_the_list_it_has_when_the_next_is_refused() {
    let main = Minter::new("main", None);
    let options = options("ecds_bad", &main, json!({}));
    let (envoy, mut extension) = Extension::start(options, revoking(2, &["k1"]));
    let mut connection = Connection::open(envoy.gate());
    assert_eq!(connection.send(&request(&main)).status, 401);
    extension.publish_text(r#"{"keyring": []}"#);
    let rejected = || stat(&envoy, &format!("{DISCOVERY}.config_fail")) == 1;
    wait_for(|| rejected().then_some(()), || envoy.proxy_log());
    assert_eq!(connection.send(&request(&main)).status, 401);
    extension.publish(revoking(3, &[]));
    let allowed = || (connection.send(&request(&main)).status == 200).then_some(());
    wait_for(allowed, || envoy.proxy_log());
}

/// A gate whose listener was replaced, and a connection that was open before.
struct Replaced {
    envoy: Envoy,
    open: Connection,
    request: Request,
    /// How many requests were sent.
    sent: usize,
    _listener: Listener,
}

impl Replaced {
    /// Opens a connection, replaces the listener by one that revokes the key, and waits until new
    /// connections are judged by that.
    fn new(binary: &Path, label: &str, arguments: &[&str]) -> Self {
        let main = Minter::new("main", None);
        let options = options(label, &main, json!({})).on(binary).arguments(arguments);
        let (envoy, mut listener) = Listener::start(options, revoking(1, &[]));
        let request = request(&main);
        let mut open = Connection::open(envoy.gate());
        assert_eq!(open.send(&request).status, 200);
        listener.publish(revoking(2, &["k1"]));
        let mut sent = 1;
        let replaced = || {
            sent += 1;
            (envoy.send(&request).status == 401).then_some(())
        };
        wait_for(replaced, || envoy.proxy_log());
        Self { envoy, open, request, sent, _listener: listener }
    }

    /// Sends a request on the connection that was open before.
    fn send(&mut self) -> Response {
        self.sent += 1;
        self.open.send(&self.request)
    }

    /// The version of the list that the last request was judged by.
    fn last_version(&self) -> String {
        version(records(&self.envoy, self.sent).last().unwrap()).to_owned()
    }
}

#[test]
fn lds_leaves_open_connections_with_the_configuration_they_began_with() {
    each_envoy(|binary| {
        let mut replaced = Replaced::new(binary, "lds", &[]);
        replaced.send();
        assert_eq!(replaced.last_version(), "1");
    });
}

/// Istio and Envoy Gateway start Envoy with this strategy.
#[test]
fn lds_with_the_immediate_strategy_ends_a_connection_after_one_more_request() {
    each_envoy(|binary| {
        let mut replaced = Replaced::new(binary, "immediate", &["--drain-strategy", "immediate"]);
        assert_eq!(replaced.send().header("connection").as_deref(), Some("close"));
        let next = replaced.open.read_response().unwrap_err();
        assert_eq!(next.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(replaced.last_version(), "1");
    });
}

#[test]
fn lds_closes_idle_connections_when_the_drain_time_is_over() {
    each_envoy(|binary| {
        let mut replaced = Replaced::new(binary, "drained", &["--drain-time-s", "1"]);
        let next = replaced.open.read_response().unwrap_err();
        assert_eq!(next.kind(), io::ErrorKind::UnexpectedEof);
    });
}
