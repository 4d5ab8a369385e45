//! Alerts are delivered, at least once and whatever the receiver does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts};
use zeroize::Zeroizing;

use super::*;
use crate::client::{Client, ClientError, ClientOptions, InvalidClient};
use crate::clock::now_secs;
use crate::collect::{Inlet, inlet};
use crate::store::{Batch, Item, Reader, Record, Retention, Store, StoreError};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a receiver was sent.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: Value,
}

impl Request {
    fn read(from: impl Read) -> Option<Self> {
        let mut from = BufReader::new(from);
        let (mut head, mut len) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).ok()? <= 2 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        let mut body = vec![0; len];
        from.read_exact(&mut body).ok()?;
        Some(Self { head, body: serde_json::from_slice(&body).ok()? })
    }

    fn cause(&self) -> &str {
        self.body["cause"].as_str().unwrap()
    }
}

/// A receiver on a port of its own, for as long as the tests run. It returns the status that a function of the number of
/// the request, from 0, and of the request says; `None` is no response.
struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    fn new(
        status: impl Fn(usize, &Request) -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?from=vkey", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, status) = (Arc::clone(&requests), Arc::new(status));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (seen, status) = (Arc::clone(&seen), Arc::clone(&status));
                thread::spawn(move || respond(stream, &seen, &*status));
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn causes(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.cause().to_owned()).collect()
    }

    fn receiver(&self) -> Receiver {
        Receiver::new(Client::new(&self.url, ClientOptions::default()).unwrap())
    }
}

fn respond(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    status: &dyn Fn(usize, &Request) -> Option<&'static str>,
) {
    let Some(request) = Request::read(&stream) else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    match status(number, &request) {
        Some(status) => {
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        // Until the client leaves.
        None => _ = stream.read(&mut [0]),
    }
}

/// A collector with a sender.
struct Bench {
    folder: TempDir,
    /// The way to the writer, while it runs.
    to: Option<Inlet>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    sender: Option<JoinHandle<Result<(), StoreError>>>,
    stop: Arc<AtomicBool>,
    reported: Arc<Mutex<Vec<ClientError>>>,
    /// The first wait after a failure.
    wait: Duration,
}

impl Bench {
    fn new() -> Self {
        Self::open(TempDir::new().unwrap())
    }

    fn open(folder: TempDir) -> Self {
        let retention = Retention { max_records: 1000, max_age_secs: None };
        let store = Store::open(&path(&folder), retention).unwrap();
        let (to, writer) = inlet(store);
        let writer = thread::spawn(|| writer.run(&AtomicBool::new(false)));
        let (stop, reported) = (Arc::default(), Arc::default());
        let wait = Duration::from_millis(2);
        Self { folder, to: Some(to), writer: Some(writer), sender: None, stop, reported, wait }
    }

    fn send_to(&mut self, receiver: Receiver) {
        let to = self.to.as_ref().unwrap();
        let sender = Sender::new(&path(&self.folder), receiver, to).unwrap();
        let sender = sender.waiting(self.wait);
        let (stop, reported) = (Arc::clone(&self.stop), Arc::clone(&self.reported));
        self.sender = Some(thread::spawn(move || {
            sender.run(&stop, |error| reported.lock().unwrap().push(error.clone()))
        }));
    }

    /// Collects a record that is an alert with the cause `anomaly:rate:TENANT:KEY`.
    fn raise(&self, tenant: &str, key: &str) {
        let record = Record {
            ts_micros: now_secs() * 1_000_000,
            anomaly: Some("rate".to_owned()),
            tenant: Some(tenant.to_owned()),
            key: Some(key.to_owned()),
            line: "{}".to_owned(),
            ..Record::default()
        };
        let items = vec![Item::Record(Box::new(record))];
        self.to.as_ref().unwrap().blocking_send(Batch { items, position: None }).unwrap();
    }

    fn reader(&self) -> Reader {
        Reader::open(&path(&self.folder)).unwrap()
    }

    fn alerts(&self) -> Vec<Alert> {
        self.reader().alerts(100).unwrap()
    }

    /// The number of alerts that the store says were delivered.
    fn delivered(&self) -> usize {
        self.alerts().iter().filter(|alert| alert.delivered_at_secs.is_some()).count()
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.reader().counters().unwrap();
        counters.into_iter().find(|(known, _)| known == name).map_or(0, |(_, value)| value)
    }

    /// Ends the collector, and returns its folder.
    fn end(mut self) -> TempDir {
        self.to = None;
        self.stop.store(true, Ordering::Relaxed);
        for thread in [self.sender.take(), self.writer.take()].into_iter().flatten() {
            thread.join().unwrap().unwrap();
        }
        self.folder
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("store")
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let step = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if is_so() {
            return;
        }
        thread::sleep(step);
    }
    panic!("{what} within {PATIENCE:?}");
}

fn alert() -> Alert {
    Alert {
        id: 7,
        kind: "anomaly".to_owned(),
        cause: "anomaly:rate:acme:k".to_owned(),
        tenant: Some("acme".to_owned()),
        key: Some("k".to_owned()),
        first_at_secs: 1_796_001_682,
        last_at_secs: 1_796_001_690,
        count: 3,
        text: "unusual".to_owned(),
        delivered_at_secs: None,
    }
}

#[test]
fn an_alert_is_posted_as_one_json_object() {
    let stub = Stub::new(|_, _| Some("204 No Content"));
    let token = Some(Zeroizing::new("s3cret-token".to_owned()));
    let options = ClientOptions { token, ..ClientOptions::default() };
    Receiver::new(Client::new(&stub.url, options).unwrap()).deliver(&alert()).unwrap();
    let request = stub.requests().remove(0);
    let head = request.head.to_ascii_lowercase();
    assert!(head.starts_with("post /hook?from=vkey http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nauthorization: bearer s3cret-token\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    let expected = json!({
        "version": 1,
        "id": "1796001682-7",
        "kind": "anomaly",
        "cause": "anomaly:rate:acme:k",
        "tenant": "acme",
        "key": "k",
        "first_at": "2026-11-30T01:21:22Z",
        "last_at": "2026-11-30T01:21:30Z",
        "count": 3,
        "text": "unusual",
    });
    assert_eq!(request.body, expected);
    stub.receiver().deliver(&Alert { tenant: None, key: None, ..alert() }).unwrap();
    let request = stub.requests().remove(1);
    assert!(!request.head.to_ascii_lowercase().contains("authorization"));
    assert_eq!((&request.body["tenant"], &request.body["key"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_hostile_tenant_stays_a_text() {
    let stub = Stub::new(|_, _| Some("200 OK"));
    let mut bench = Bench::new();
    bench.send_to(stub.receiver());
    let hostile = "a\",\"count\":0,\"x\":\"\n</script>";
    bench.raise(hostile, hostile);
    wait_until("the alert is delivered", || bench.delivered() == 1);
    let body = stub.requests().remove(0).body;
    assert_eq!((&body["count"], &body["x"]), (&json!(1), &Value::Null));
    assert_eq!(body["tenant"], "a\",\"count\"?0,\"x\"?\"?</script>");
    bench.end();
}

#[test]
fn an_alert_is_tried_until_it_is_taken_and_never_after() {
    const FAILURES: usize = 4;
    let failing = |number, _: &Request| Some(if number < FAILURES { "500 No" } else { "200 OK" });
    let stub = Stub::new(failing);
    let mut bench = Bench::new();
    bench.send_to(stub.receiver());
    bench.raise("t", "first");
    wait_until("the first is delivered", || bench.delivered() == 1);
    // More of the same cause, then another one: if the first had been sent again, that would be before the second.
    bench.raise("t", "first");
    wait_until("it is counted", || bench.alerts()[0].count == 2);
    bench.raise("t", "second");
    wait_until("the second is delivered", || bench.delivered() == 2);
    let mut causes = vec!["anomaly:rate:t:first"; FAILURES + 1];
    causes.push("anomaly:rate:t:second");
    assert_eq!(stub.causes(), causes);
    let failed = bench.counter("alert_deliveries_failed");
    assert_eq!(failed, FAILURES as u64);
    assert_eq!(*bench.reported.lock().unwrap(), [ClientError::Status(500)], "reported once");
    bench.end();
}

#[test]
fn a_receiver_that_is_away_does_not_keep_the_collector_waiting() {
    let stub = Stub::new(|_, _| None);
    let mut bench = Bench::new();
    bench.send_to(stub.receiver());
    bench.raise("t", "k");
    wait_until("the receiver hangs", || !stub.causes().is_empty());
    for _ in 0..50 {
        bench.raise("t", "k");
    }
    wait_until("all is written", || bench.counter("records") == 51);
    assert_eq!((bench.delivered(), stub.causes().len()), (0, 1));
    // The writer ends although the sender is still in its request.
    bench.to = None;
    bench.writer.take().unwrap().join().unwrap().unwrap();
}

#[test]
fn a_receiver_that_hangs_is_left_after_the_timeout() {
    let stub = Stub::new(|number, _| (number > 0).then_some("200 OK"));
    let timeout = Duration::from_millis(200);
    let options = ClientOptions { timeout, ..ClientOptions::default() };
    let mut bench = Bench::new();
    bench.send_to(Receiver::new(Client::new(&stub.url, options).unwrap()));
    bench.raise("t", "k");
    wait_until("the second attempt is taken", || bench.delivered() == 1);
    assert_eq!(*bench.reported.lock().unwrap(), [ClientError::Timeout]);
    bench.end();
}

#[test]
fn what_was_not_delivered_is_delivered_by_the_next_collector() {
    let bench = Bench::new();
    bench.raise("t", "k");
    let mut bench = Bench::open(bench.end());
    assert_eq!((bench.alerts().len(), bench.delivered()), (1, 0));
    let stub = Stub::new(|_, _| Some("200 OK"));
    bench.send_to(stub.receiver());
    wait_until("the alert is delivered", || bench.delivered() == 1);
    // And by no later one.
    let mut bench = Bench::open(bench.end());
    bench.send_to(stub.receiver());
    bench.raise("t", "other");
    wait_until("the other is delivered", || bench.delivered() == 2);
    assert_eq!(stub.causes(), ["anomaly:rate:t:k", "anomaly:rate:t:other"]);
    bench.end();
}

#[test]
fn an_alert_that_is_never_taken_does_not_hold_up_the_others() {
    let refuses = |request: &Request| request.cause().ends_with(":bad");
    let stub = Stub::new(move |_, request| {
        Some(if refuses(request) { "400 Bad Request" } else { "200 OK" })
    });
    let mut bench = Bench::new();
    for (count, key) in [(1, "bad"), (2, "a"), (3, "b")] {
        bench.raise("t", key);
        wait_until("the alert is raised", || bench.alerts().len() == count);
    }
    bench.send_to(stub.receiver());
    wait_until("the others are delivered", || bench.delivered() == 2);
    let tries = || stub.causes().iter().filter(|cause| cause.ends_with(":bad")).count();
    wait_until("the bad one is tried again", || tries() > 1);
    bench.end();
}

#[test]
fn the_others_do_not_wait_for_an_alert_that_is_refused() {
    let refused = ["400 Bad Request", "413 Content Too Large", "415 No", "422 Unprocessable"];
    let stub = Stub::new(move |number, _| Some(refused.get(number).copied().unwrap_or("200 OK")));
    let mut bench = Bench::new();
    bench.wait = Duration::from_secs(3600);
    for (count, key) in (1..).zip(["a", "b", "c", "d", "e", "f"]) {
        bench.raise("t", key);
        wait_until("the alert is raised", || bench.alerts().len() == count);
    }
    bench.send_to(stub.receiver());
    wait_until("the others are delivered", || bench.delivered() == 2);
    assert_eq!(bench.counter("alert_deliveries_failed"), 4);
    bench.end();
}

#[test]
fn the_sender_ends_with_the_writer() {
    let stub = Stub::new(|_, _| Some("200 OK"));
    let mut bench = Bench::new();
    bench.send_to(stub.receiver());
    bench.to = None;
    bench.writer.take().unwrap().join().unwrap().unwrap();
    bench.sender.take().unwrap().join().unwrap().unwrap();
}

#[test]
fn a_redirect_is_not_followed() {
    let other = Stub::new(|_, _| Some("200 OK"));
    let location = format!("307 Temporary Redirect\r\nlocation: {}", other.url);
    let location: &'static str = location.leak();
    let stub = Stub::new(move |_, _| Some(location));
    assert_eq!(stub.receiver().deliver(&alert()), Err(ClientError::Status(307)));
    assert_eq!(other.causes(), Vec::<String>::new());
}

/// A receiver with a certificate for a name, which vouches for itself. It takes some connections.
fn secure(name: &str, connections: usize) -> (String, Certificate<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], private)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            if Request::read(&mut stream).is_some() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    (url, Certificate::from_pem(made.cert.pem().as_bytes()).unwrap().to_owned())
}

#[test]
fn the_certificate_of_a_receiver_is_verified() {
    let deliver = |url: &str, roots| {
        let options = ClientOptions { roots, ..ClientOptions::default() };
        Receiver::new(Client::new(url, options).unwrap()).deliver(&alert())
    };
    let (url, root) = secure("127.0.0.1", 2);
    let unknown = deliver(&url, RootCerts::WebPki).unwrap_err();
    assert!(matches!(&unknown, ClientError::Tls(text) if text.contains("UnknownIssuer")));
    assert_eq!(deliver(&url, RootCerts::new_with_certs(&[root])), Ok(()));
    let (url, root) = secure("other.example", 1);
    let other = deliver(&url, RootCerts::new_with_certs(&[root])).unwrap_err();
    assert!(matches!(&other, ClientError::Tls(text) if text.contains("not valid for name")));
}

#[test]
fn a_receiver_that_is_not_there_is_an_error_that_shows_no_secret() {
    let token = Some(Zeroizing::new("s3cret".to_owned()));
    let options = ClientOptions { token, ..ClientOptions::default() };
    // Nothing listens on this port, which nothing is given by chance.
    let receiver = Receiver::new(Client::new("http://127.0.0.1:1/hook-s3cret", options).unwrap());
    let error = receiver.deliver(&alert()).unwrap_err();
    assert_eq!(error, ClientError::Connect(std::io::ErrorKind::ConnectionRefused));
    let text = error.to_string();
    assert_eq!(text, "the server cannot be reached: connection refused");
}

#[test]
fn what_is_not_http_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = Request::read(&stream);
        let _ = stream.write_all(b"SSH-2.0-server\r\n\r\n");
    });
    let receiver = Receiver::new(Client::new(&url, ClientOptions::default()).unwrap());
    assert_eq!(receiver.deliver(&alert()), Err(ClientError::NotHttp));
}

#[test]
fn only_a_url_that_is_private_or_allowed_is_taken() {
    let invalid = |url: &str, allow_http| {
        let options = ClientOptions { allow_http, ..ClientOptions::default() };
        Client::new(url, options).err()
    };
    for url in [
        "https://alerts.example",
        "https://alerts.example:8443/a?b=c",
        "http://127.0.0.1:9/x",
        "http://[::1]/",
        "http://LOCALHOST/",
    ] {
        assert_eq!(invalid(url, false), None, "{url}");
    }
    for url in ["http://alerts.example/", "http://127.0.0.1.example/", "http://10.0.0.1/"] {
        assert_eq!(invalid(url, false), Some(InvalidClient::Cleartext), "{url}");
        assert_eq!(invalid(url, true), None, "{url}");
    }
    for url in [
        "",
        "alerts.example",
        "/x",
        "ftp://alerts.example/",
        "https://user:pw@alerts.example/",
        "https://alerts.example/#x",
        "https://alerts.example:99999/",
        "https:///x",
    ] {
        assert_eq!(invalid(url, true), Some(InvalidClient::Url), "{url}");
    }
    for token in ["", "a b", "a\r\nx: y", "é"] {
        let token = Some(Zeroizing::new(token.to_owned()));
        let options = ClientOptions { token, ..ClientOptions::default() };
        let invalid = Client::new("https://alerts.example", options).err();
        assert_eq!(invalid, Some(InvalidClient::Token));
    }
}

/// The writer looks for what is too much or missing also while nothing comes.
#[test]
fn what_is_too_much_is_noticed_while_nothing_comes() {
    let folder = TempDir::new().unwrap();
    let retention = Retention { max_records: 1000, max_age_secs: None };
    let mut store = Store::open(&path(&folder), retention).unwrap();
    store.set_thresholds(Thresholds { errors: 1, ..Thresholds::default() });
    let ts_micros = now_secs() * 1_000_000;
    let record = Record { ts_micros, is_failed: true, ..Record::default() };
    let items = vec![Item::Record(Box::new(record))];
    let (to, writer) = inlet(store);
    let writer = thread::spawn(|| writer.run(&AtomicBool::new(false)));
    to.blocking_send(Batch { items, position: None }).unwrap();
    wait_until("the alert is raised", || !causes(&path(&folder)).is_empty());
    assert_eq!(causes(&path(&folder)), ["errors"]);
    drop(to);
    writer.join().unwrap().unwrap();
}

fn causes(store: &Path) -> Vec<String> {
    let alerts = Reader::open(store).unwrap().alerts(10).unwrap();
    alerts.into_iter().map(|alert| alert.cause).collect()
}
