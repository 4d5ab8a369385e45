//! One Envoy with many listeners, each a proxy of its own: the requests that it gets, and what client,
//! proxy and upstreams saw of each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use vkey::audit::{self, Outcome};

use super::check::{Arrival, Line, Seen, Tally};
use super::clusters::{CLUSTERS, Kind};
use super::draw::Draw;
use super::key::Key;
use super::proxy::Proxy;
use super::request::Case;
use crate::gateways::KNOWN;
use crate::keys::{Minter, options};
use crate::support::tls::{Authority, Cluster, Upstream};
use crate::support::{Connection, Envoy, Options, Request, Response, config};

/// How many connections a proxy has.
const CONNECTIONS: usize = 4;

const KEYS: usize = 16;

const ACCESS_LOG: &str = "%REQ(X-CASE)%\t%ROUTE_NAME%\t%UPSTREAM_CLUSTER%\t\
                          %FILTER_STATE(wasm.vkey.audit:PLAIN)%\n";

pub(super) struct World {
    seed: u64,
    number: usize,
    draw: Draw,
    requires_stamp: bool,
    identifies: bool,
    proxies: Vec<Proxy>,
}

/// A request that was sent, and its response.
struct Exchanged {
    proxy: usize,
    case: Case,
    response: Response,
}

/// What reached the upstreams, by case.
type Arrivals = BTreeMap<usize, Vec<Arrival>>;

impl World {
    pub(super) fn draw(seed: u64, number: usize, proxies: usize) -> Self {
        let mut draw = Draw::new(seed, u64::try_from(number).unwrap());
        Self {
            seed,
            number,
            requires_stamp: number % 3 == 1,
            identifies: number % 4 != 3,
            proxies: (0..proxies).map(|number| Proxy::draw(&mut draw, number)).collect(),
            draw,
        }
    }

    /// Sends `requests` requests to each proxy, and checks each of them.
    pub(super) fn run(mut self, binary: &Path, requests: usize, tally: &mut Tally) {
        let minter = Minter::new("main", None);
        let keys = Key::draw_all(&mut self.draw, &minter, KEYS);
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let upstreams: Vec<_> = CLUSTERS.iter().map(|kind| kind.serve(&leaf)).collect();
        let clusters = CLUSTERS.iter().zip(&upstreams).map(|(k, u)| k.cluster(u, &authority));
        let envoy = Envoy::start(self.options(&minter, clusters.collect()).on(binary));
        let matches_each_value = minor_version(&envoy) >= 39;
        for proxy in &mut self.proxies {
            proxy.matches_each_value = matches_each_value;
        }
        let exchanged = self.exchange(&envoy, &keys, requests);
        let used = used(&envoy, &minter, &keys);
        envoy.stop();
        let (lines, arrivals) = (lines(&envoy), arrivals(&upstreams, &exchanged));
        let seen = exchanged.iter().map(|Exchanged { proxy, case, response }| Seen {
            proxy: &self.proxies[*proxy],
            case,
            keys: &keys,
            requires_stamp: self.requires_stamp,
            identifies: self.identifies,
            response,
            line: lines.get(&case.id),
            arrivals: arrivals.get(&case.id).map_or(&[], Vec::as_slice),
        });
        self.check(&seen.collect::<Vec<_>>(), &used, tally);
    }

    fn check(&self, all: &[Seen<'_>], used: &[u64], tally: &mut Tally) {
        let before = tally.failures.len();
        for seen in all {
            tally.check(seen);
        }
        for (key, used) in used.iter().enumerate() {
            tally.check_charges(all, key, *used);
        }
        for failure in &mut tally.failures[before..] {
            failure.insert_str(0, &format!("seed {}, world {}: ", self.seed, self.number));
        }
    }

    fn options(&self, minter: &Minter, clusters: Vec<Cluster>) -> Options {
        let plugin = json!({
            "tiers": {
                "default": {"quotas": [{"requests": 1_000_000, "per": "total"}]},
                "operator": {"usage_of_others": true},
            },
            "forward": {"identity_headers": self.identifies},
            "upstream_tls": {"require_stamp": self.requires_stamp},
        });
        let listeners: Vec<_> = self
            .proxies
            .iter()
            .map(|proxy| (proxy.name.clone(), proxy.manager.clone(), proxy.routes()))
            .collect();
        options("agreement", minter, plugin).concurrency(2).edit(move |config| {
            for cluster in clusters {
                cluster.add(config);
            }
            let manager = config::connection_manager(config, "gate");
            manager["access_log"][0]["typed_config"]["log_format"] =
                json!({"text_format_source": {"inline_string": ACCESS_LOG}});
            for (name, changes, routes) in listeners {
                add_listener(config, &name, changes, routes);
            }
        })
    }

    /// Sends requests to all proxies in step: one goes out on each connection before any response is
    /// read.
    fn exchange(&mut self, envoy: &Envoy, keys: &[Key], requests: usize) -> Vec<Exchanged> {
        let ports = self.proxies.iter().map(|proxy| envoy.listener(&proxy.name).port());
        let ports: Vec<_> = ports.collect();
        let open = |proxy: usize| Connection::open(envoy.listener(&format!("proxy-{proxy}")));
        let places: Vec<_> = (0..CONNECTIONS).flat_map(|_| 0..self.proxies.len()).collect();
        let mut connections: Vec<_> = places.iter().map(|proxy| open(*proxy)).collect();
        let mut exchanged: Vec<Exchanged> = Vec::new();
        for _ in 0..requests.div_ceil(CONNECTIONS) {
            let first = exchanged.len();
            let cases: Vec<_> = (first..)
                .zip(&places)
                .map(|(id, proxy)| Case::draw(&mut self.draw, id, keys, ports[*proxy]))
                .collect();
            for (case, connection) in cases.iter().zip(&mut connections) {
                connection.send_raw(&case.encode()).expect("Envoy reads");
            }
            for ((case, proxy), connection) in cases.into_iter().zip(&places).zip(&mut connections)
            {
                let response = connection.read_response().expect("a response");
                if response.header("connection").is_some_and(|value| value == "close") {
                    *connection = open(*proxy);
                }
                exchanged.push(Exchanged { proxy: *proxy, case, response });
            }
        }
        exchanged
    }
}

/// A copy of the gate that reads and routes requests in its own way.
fn add_listener(
    config: &mut Value,
    name: &str,
    changes: Vec<(&'static str, Value)>,
    routes: Value,
) {
    let mut listener = config::named(config, "/static_resources/listeners", "gate").clone();
    listener["name"] = json!(name);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"] = routes;
    for (member, value) in changes {
        match value {
            Value::Null => _ = manager.as_object_mut().expect("an object").remove(member),
            value => manager[member] = value,
        }
    }
    let listeners = config.pointer_mut("/static_resources/listeners");
    listeners.and_then(Value::as_array_mut).expect("a list").push(listener);
}

/// The second number of Envoy's version, e.g. the 40 of 1.40.0.
fn minor_version(envoy: &Envoy) -> u32 {
    let version = envoy.admin_get("/server_info").json()["version"].as_str().map(str::to_owned);
    let minor =
        version.as_deref().and_then(|v| v.split('/').nth(1)?.split('.').nth(1)?.parse().ok());
    minor.unwrap_or_else(|| panic!("no version in {version:?}"))
}

/// How many requests are charged to each key.
fn used(envoy: &Envoy, minter: &Minter, keys: &[Key]) -> Vec<u64> {
    let operator = minter.key("operator", json!({"tier": "operator"}));
    let mut connection = Connection::open(envoy.gate());
    let mut used = |jti: &str| {
        let request =
            Request::new("GET", format!("/.vkey/usage?tenant=acme&jti={jti}")).bearer(&operator);
        let response = connection.send(&request);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["limits"][0]["used"].as_u64().expect("a number")
    };
    keys.iter().map(|key| used(&key.jti)).collect()
}

/// The lines of the access log, by case. What Envoy's codec rejects has no case in its line.
fn lines(envoy: &Envoy) -> BTreeMap<usize, Line> {
    let lines = envoy.access_log().into_iter().filter_map(|text| {
        let mut parts = text.splitn(4, '\t');
        let mut next = || parts.next().expect("four parts").to_owned();
        let (case, route, cluster, audit) = (next(), next(), next(), next());
        let audit = audit::Line::splice(&audit, &Outcome::default(), &audit::Mask::default());
        let record = audit::Line::parse(&audit).expect("an audit line").record;
        Some((case.parse().ok()?, Line { route, cluster, record, text }))
    });
    lines.collect()
}

/// The requests that the upstreams got. Every byte that they got belongs to one.
fn arrivals(upstreams: &[Upstream], exchanged: &[Exchanged]) -> Arrivals {
    let mut arrivals = Arrivals::new();
    for (Kind { name, .. }, upstream) in CLUSTERS.iter().zip(upstreams) {
        let mut bytes = 0;
        for head in upstream.heads() {
            let arrival = Arrival { cluster: name, head };
            let id = arrival.case().expect("a request of the test's");
            bytes += arrival.head.len() + exchanged[id].case.body.len();
            arrivals.entry(id).or_default().push(arrival);
        }
        assert_eq!(upstream.final_counts().bytes, u64::try_from(bytes).unwrap(), "{name}");
    }
    arrivals
}
