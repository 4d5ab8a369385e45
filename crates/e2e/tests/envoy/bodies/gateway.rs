//! An Envoy whose gate reads bodies, in front of an upstream that keeps what it gets.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use vkey::audit::Line;

use crate::keys::{Minter, options};
use crate::support::origin::{Origin, Received, write_response};
use crate::support::{Connection, Envoy, Options, Request, Response, config};

pub(super) const PATH: &str = "/v1/chat/completions";

/// The most bytes of a body, where a test sets a bound.
pub(super) const MAX_BYTES: usize = 4096;

/// A gateway with one upstream.
pub(super) struct Gateway {
    pub(super) envoy: Envoy,
    pub(super) origin: Origin,
    key: String,
}

/// What a gateway is started with.
pub(super) struct Plan {
    options: Options,
    key: String,
}

impl Plan {
    /// A key that may use small models, and 10 000 tokens, unless `plugin` says otherwise.
    pub(super) fn new(binary: &Path, label: &str, plugin: Value) -> Self {
        let main = Minter::new("main", None);
        let mut all = json!({"tiers": {"default": {
            "only": {"models": ["small*"]},
            "quotas": [{"tokens": 10_000, "per": "total"}],
        }}});
        all.as_object_mut().unwrap().extend(plugin.as_object().unwrap().clone());
        let key = main.key("reader", json!({}));
        Self { options: options(label, &main, all).on(binary), key }
    }

    pub(super) fn edit(mut self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.options = self.options.edit(edit);
        self
    }

    pub(super) fn workers(mut self, workers: u32) -> Self {
        self.options = self.options.concurrency(workers);
        self
    }

    /// Starts it in front of an upstream that responds with the usage of 7 tokens.
    pub(super) fn start(self) -> Gateway {
        self.start_before(|_, stream| {
            write_response(stream, 200, &[("content-type", "application/json")], USED_7.as_bytes())
        })
    }

    pub(super) fn start_before(
        self,
        respond: impl Fn(&Received, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Gateway {
        let origin = Origin::start(respond);
        let port = origin.address.port();
        self.start_at(origin, port)
    }

    /// Starts it in front of a port on which nothing listens.
    pub(super) fn start_without_upstream(self) -> Gateway {
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        self.start_at(Origin::start(|_, _| Ok(())), closed.port())
    }

    fn start_at(self, origin: Origin, port: u16) -> Gateway {
        let envoy = Envoy::start(self.options.edit(move |config| send_to(config, port)));
        Gateway { envoy, origin, key: self.key }
    }
}

pub(super) const USED_7: &str =
    r#"{"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}"#;

/// Sends what is forwarded to a port of this machine.
fn send_to(config: &mut Value, port: u16) {
    let cluster = config::named(config, "/static_resources/clusters", "echo");
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
        json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
}

impl Gateway {
    /// A request with the key, of which the body is still missing.
    pub(super) fn request(&self) -> Request {
        Request::new("POST", PATH).bearer(&self.key).header("content-type", "application/json")
    }

    pub(super) fn ask(&self, body: impl AsRef<[u8]>) -> Response {
        self.envoy.send(&self.request().body(body))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.envoy.gate()
    }

    pub(super) fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// The headers of the request over HTTP/2.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            (":method", "POST".to_owned()),
            (":scheme", "http".to_owned()),
            (":path", PATH.to_owned()),
            (":authority", "gate.test".to_owned()),
            ("authorization", format!("Bearer {}", self.key)),
            ("content-type", "application/json".to_owned()),
        ]
    }

    /// The only request that has reached the upstream.
    pub(super) fn received(&self) -> Received {
        let mut requests = self.origin.take();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// The tokens that the key has used, its open reservations included.
    pub(super) fn used(&self) -> u64 {
        let request = Request::new("GET", "/.vkey/usage").bearer(&self.key);
        let usage = self.envoy.send(&request).json();
        let limits = usage["limits"].as_array().unwrap();
        let of_tokens = |limit: &&Value| limit["name"].as_str().unwrap().contains("tokens");
        limits.iter().find(of_tokens).unwrap()["used"].as_u64().unwrap()
    }

    /// The audit line of the last request, once there is this number of lines.
    pub(super) fn line(&self, count: usize) -> Value {
        let lines = self.envoy.wait_for_access_log(count);
        let line = lines.last().unwrap();
        Line::parse(line).expect(line);
        serde_json::from_str(line).expect(line)
    }
}

/// A reply of the module.
#[track_caller]
pub(super) fn assert_refused(answer: &Response, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], code, "{answer:?}");
}
