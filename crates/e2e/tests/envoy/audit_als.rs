//! What a real Envoy sends to the access log service of the collector, with the configuration that docs/audit.md shows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use vkey::audit::{AuditKey, Line};
use vkey::key::keyring::Secret;
use vkey_server::collect::{Inlet, LineReader, access_log_service, inlet, read_pipe};
use vkey_server::store::{Filter, Reader, Retention, Store, StoreError};

use crate::keys::{Minter, options};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::page::{blocks, section};
use crate::support::{
    Connection, Envoy, Options, Request, TempDir, artefact, config, each_envoy, root, wait_for,
};

pub(crate) const SECRET: &str = "Chained-1-by-a-real-proxy-2";
pub(crate) const VARIABLE: &str = "VKEY_AUDIT_SECRET";

/// A collector of one test.
struct Collector {
    address: SocketAddr,
    to: Inlet,
    reader: LineReader,
    writer: JoinHandle<Result<(), StoreError>>,
    /// What serves Envoy.
    runtime: Runtime,
    only_chained: bool,
    dir: TempDir,
}

impl Collector {
    fn start(only_chained: bool) -> Self {
        let dir = TempDir::new("collector");
        let retention = Retention { max_records: 1_000_000, max_age_secs: None };
        let (to, writer) = inlet(Store::open(&dir.file("store"), retention).unwrap());
        let reader = LineReader::new(vec![AuditKey::new(&Secret::parse(SECRET).unwrap())], None);
        let writer = thread::spawn(|| writer.run(&AtomicBool::new(false)));
        let (runtime, address) = (Runtime::new().unwrap(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut collector = Self { address, to, reader, writer, runtime, only_chained, dir };
        collector.listen();
        collector
    }

    /// Serves Envoy, always at the same address.
    fn listen(&mut self) {
        let service = access_log_service(self.to.clone(), self.reader.clone(), self.only_chained);
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        self.runtime.spawn(async { axum::serve(listener, service).await });
    }

    /// Closes all connections, and takes no more.
    fn stop_listening(&mut self) {
        self.runtime = Runtime::new().unwrap();
    }

    /// Adds the logger and the cluster of docs/audit.md to an Envoy.
    fn beside(&self, options: Options) -> Options {
        beside(self.address, options)
    }

    /// Reads what is in the store by now.
    fn stored(&self) -> Reader {
        Reader::open(&self.dir.file("store")).unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.stored().counters().unwrap();
        counters.into_iter().find(|(found, _)| found == name).map_or(0, |(_, value)| value)
    }

    fn wait_for(&self, name: &str, count: u64, envoy: &Envoy) {
        let explain = || {
            let counters = self.stored().counters();
            let stats = envoy.admin_get("/stats?filter=grpc_access_log|cluster.audit").text();
            format!("{counters:?}\n{stats}\n{}", envoy.proxy_log())
        };
        wait_for(|| (self.counter(name) >= count).then_some(()), explain);
        assert_eq!(self.counter(name), count, "{name}");
    }

    /// The lines in the store, by what identifies them.
    fn lines(&self) -> BTreeMap<String, Line<'static>> {
        let filter = Filter { limit: 1_000_000, ..Filter::default() };
        let records = self.stored().records(&filter).unwrap().records;
        let lines = records.into_iter().map(|record| Line::parse(&record.line).unwrap());
        lines.map(|line| (id(&line), line)).collect()
    }

    /// Reads a file to its end.
    fn read(&self, path: PathBuf) {
        read_pipe(File::open(path).unwrap(), &self.reader, &self.to).unwrap();
    }

    /// Ends it, and returns its store once all is written.
    fn end(self) -> (Reader, TempDir) {
        drop(self.runtime);
        drop(self.to);
        self.writer.join().unwrap().unwrap();
        (Reader::open(&self.dir.file("store")).unwrap(), self.dir)
    }
}

/// Adds the logger and the cluster of docs/audit.md to an Envoy, for a collector at an address.
pub(crate) fn beside(address: SocketAddr, options: Options) -> Options {
    options.edit(move |config| {
        let page = fs::read_to_string(root().join("docs/audit.md")).unwrap();
        let shown = blocks(section(&page, "### Envoy's access log service"), "yaml");
        let [mut loggers, mut clusters] = <[_; 2]>::try_from(shown)
            .unwrap()
            .map(|yaml| serde_saphyr::from_str::<Value>(yaml).unwrap());
        let logger = loggers["access_log"][0].take();
        let mut cluster = clusters["clusters"][0].take();
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        cluster.pointer_mut(endpoint).unwrap()["socket_address"]["port_value"] =
            json!(address.port());
        let manager = config::connection_manager(config, "gate");
        manager["access_log"].as_array_mut().unwrap().push(logger);
        let common = &mut manager["access_log"][1]["typed_config"]["common_config"];
        common["buffer_flush_interval"] = json!("0.02s");
        config["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
    })
}

/// What identifies a line: the id of its request, or when the request began.
fn id(line: &Line<'_>) -> String {
    match &line.record {
        Some(record) => record.req.as_deref().expect("an id").to_owned(),
        None => format!("{:?}", line.outcome.start_micros.map(|micros| micros / 1000)),
    }
}

/// An Envoy whose records form chains.
pub(crate) fn chained(binary: &Path, main: &Minter) -> Options {
    let secret = format!("${{{VARIABLE}}}");
    let audit = json!({"sink": "access_log", "secret": secret, "anchor_every": 100});
    let plugin = json!({"audit": audit, "tiers": {"default": {"only": {"paths": ["/v1/**"]}}}});
    options("als", main, plugin).on(binary).env(VARIABLE, SECRET)
}

/// The lines of the access log, in which a time is in milliseconds.
fn assert_are_those_of_the_file(stored: BTreeMap<String, Line<'static>>, file: &[String]) {
    let lines = file.iter().map(|line| Line::parse(line).expect(line));
    let lines: BTreeMap<_, _> = lines.map(|line| (id(&line), line)).collect();
    assert_eq!(lines.len(), file.len(), "each has an id of its own");
    let milliseconds = |(id, mut line): (String, Line<'static>)| {
        let start = line.outcome.start_micros.as_mut().expect("a time");
        *start -= *start % 1000;
        (id, line)
    };
    let stored: BTreeMap<_, _> = stored.into_iter().map(milliseconds).collect();
    assert_eq!(stored.len(), lines.len());
    for (id, line) in &lines {
        assert_eq!(stored.get(id), Some(line));
    }
}

#[test]
fn every_request_is_in_the_store_once_with_the_line_of_the_file() {
    const REQUESTS: usize = 1000;
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let collector = Collector::start(true);
        let envoy = Envoy::start(collector.beside(chained(binary, &main).concurrency(WORKERS)));
        let key = main.key("k1", json!({}));
        let paths = ["/v1/a", "/v1/b", "/v1/c", "/v2/d"];
        let request = |number: usize| Request::new("GET", paths[number % 4]).bearer(&key).encode();
        let statuses = send_in_step(&mut connect(&envoy), (0..REQUESTS).map(request));
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), REQUESTS / 4 * 3);
        collector.wait_for("records", REQUESTS as u64, &envoy);
        assert_eq!(envoy.stat("access_logs.grpc_access_log.logs_dropped"), Some(0));
        envoy.stop();
        assert_are_those_of_the_file(collector.lines(), &envoy.access_log());

        // The file has the same records. The log of the proxy has the anchors.
        collector.read(envoy.access_log_path());
        collector.read(envoy.proxy_log_path());
        let (store, _dir) = collector.end();
        let counters: BTreeMap<_, _> = store.counters().unwrap().into_iter().collect();
        let count = |name| counters.get(name).copied();
        assert_eq!(count("records"), Some(REQUESTS as u64), "{counters:?}");
        assert_eq!(count("doubled"), Some(REQUESTS as u64), "{counters:?}");
        assert_eq!(store.findings(10).unwrap(), []);
        let chains = store.chains().unwrap();
        assert_eq!(chains.iter().map(|chain| chain.records).sum::<u64>(), REQUESTS as u64);
        for chain in chains {
            assert_eq!((chain.verified, chain.missing), (chain.records, 0), "{chain:?}");
            assert!(chain.is_closed && chain.anchored == Some(chain.records), "{chain:?}");
        }
    });
}

/// How many of those that [`send_all_kinds`] sends the module never sees.
const REFUSED_BY_ENVOY: u64 = 2;

/// Sends requests that end in all the ways that entries have a field for, and returns how many.
fn send_all_kinds(envoy: &Envoy, main: &Minter) -> u64 {
    let key = main.key("k1", json!({"sub": "bot"}));
    let get = |path: &str| Request::new("GET", path).bearer(&key);
    let post = Request::new("POST", "/v1/chat").bearer(&key).body("0123456789");
    for (request, status) in [
        (post.clone(), 200),
        (get("/v2/other"), 403),
        (Request::new("GET", "/v1/a"), 401),
        (get("/v1/nobody"), 503),
        // The module never sees these.
        (get("/v1%2fmodels"), 400),
        (get("/v1/a").header("a_b", "c"), 400),
    ] {
        assert_eq!(envoy.send(&request).status, status);
        // What was never seen has no other id than its time.
        thread::sleep(std::time::Duration::from_millis(2));
    }
    // Its client leaves before the body has come.
    let mut connection = Connection::open(envoy.gate());
    connection.send_raw(&post.header("content-length", "100").encode()).unwrap();
    envoy.wait_for_stat("http.gate.downstream_rq_active", 1);
    drop(connection);
    7
}

/// Adds a route to an upstream that nothing listens on.
fn with_nobody(options: Options) -> Options {
    options.edit(|config| {
        let manager = config::connection_manager(config, "gate");
        let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
        let route = json!({"match": {"prefix": "/v1/nobody"}, "route": {"cluster": "nobody"}});
        routes.as_array_mut().unwrap().insert(0, route);
        let address = json!({"socket_address": {"address": "::1", "port_value": 1}});
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        let cluster = json!({"name": "nobody", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "nobody", "endpoints": endpoints}});
        config["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
    })
}

#[test]
fn a_line_is_that_of_the_file_however_a_request_ends() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let collector = Collector::start(false);
        let envoy = Envoy::start(with_nobody(collector.beside(chained(binary, &main))));
        let sent = send_all_kinds(&envoy, &main);
        collector.wait_for("records", sent, &envoy);
        let file = envoy.wait_for_access_log(usize::try_from(sent).unwrap());
        let lines = collector.lines();
        let has = |what: &dyn Fn(&Line<'_>) -> bool| lines.values().any(what);
        assert!(has(&|line| line.outcome.flags.as_deref() == Some("DC")), "{lines:#?}");
        assert!(has(&|line| line.outcome.upstream.as_deref() == Some("[::1]:1")), "{lines:#?}");
        assert!(has(&|line| line.outcome.bytes_in == Some(10)), "{lines:#?}");
        let unseen = lines.values().filter(|line| line.record.is_none()).count();
        assert_eq!(unseen as u64, REFUSED_BY_ENVOY);
        assert_are_those_of_the_file(lines, &file);
        assert_eq!(collector.stored().findings(10).unwrap(), []);
    });
}

/// A file that is collected too has these lines. Each request has another entry when it begins, which is not stored.
#[test]
fn what_has_no_place_in_a_chain_is_left_to_the_file() {
    let main = Minter::new("main", None);
    let collector = Collector::start(true);
    let plugin = json!({"tiers": {"default": {"only": {"paths": ["/v1/**"]}}}});
    let options = collector.beside(options("als-plain", &main, plugin)).edit(|config| {
        let manager = config::connection_manager(config, "gate");
        manager["access_log_options"] = json!({"flush_access_log_on_new_request": true});
        let at_end = json!({"log_type_filter": {"types": ["DownstreamEnd"]}});
        manager["access_log"][0]["filter"] = at_end;
    });
    let envoy = Envoy::start(with_nobody(options));
    let sent = send_all_kinds(&envoy, &main);
    collector.wait_for("unchained_over_grpc", sent, &envoy);
    assert_eq!(collector.counter("intermediate_over_grpc"), sent - REFUSED_BY_ENVOY);
    envoy.stop();
    collector.read(envoy.access_log_path());
    let (store, _dir) = collector.end();
    let found = store.records(&Filter { limit: 100, ..Filter::default() }).unwrap();
    assert_eq!(found.records.len() as u64, sent);
}

/// Envoy has no acknowledgement, and sends nothing twice.
#[test]
fn what_was_sent_while_the_collector_was_away_is_missing_until_a_file_has_it() {
    let main = Minter::new("main", None);
    let mut collector = Collector::start(true);
    let binary = artefact("VKEY_TEST_ENVOY");
    let envoy = Envoy::start(collector.beside(chained(&binary, &main)));
    let request = Request::new("GET", "/v1/a").bearer(&main.key("k1", json!({})));
    let mut connection = Connection::open(envoy.gate());
    let mut send = |count: u64| (0..count).for_each(|_| drop(connection.send(&request)));
    send(10);
    collector.wait_for("records", 10, &envoy);
    collector.stop_listening();
    send(10);
    let failed = || envoy.stat("cluster.audit.upstream_cx_connect_fail") > Some(0);
    wait_for(|| failed().then_some(()), || envoy.proxy_log());
    collector.listen();
    // The last one shows that those before it have come or are lost.
    let is_last_stored = || {
        send(1);
        let chain = collector.stored().chains().unwrap().remove(0);
        (chain.records > 20).then_some(chain)
    };
    let chain = wait_for(is_last_stored, || envoy.proxy_log());
    assert!((1..=10).contains(&chain.missing), "{chain:?}");
    assert_eq!(chain.gaps.len(), 1, "{chain:?}");
    envoy.stop();
    collector.read(envoy.access_log_path());
    collector.read(envoy.proxy_log_path());
    let (store, _dir) = collector.end();
    let chain = store.chains().unwrap().remove(0);
    assert_eq!((chain.missing, chain.anchored), (0, Some(chain.records)), "{chain:?}");
    assert!(chain.is_closed && store.findings(10).unwrap().is_empty());
}
