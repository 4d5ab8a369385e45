//! `vkey serve --ledger`: a ledger of its own for each test, which is spoken to over HTTP/2.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use ureq::http::Request;

use crate::harness::{Gate, Vkey, one_line, text};
use crate::redis_server::RedisServer;

const LEASES: &str = "/v1/ledger/leases";

const NAME: &str = "tenant/acme/requests/total";

/// A configuration, and a folder with a store and a ledger.
struct Site {
    gate: Gate,
}

/// A server that runs.
struct Server {
    child: Child,
    address: String,
}

/// A connection of HTTP/2.
struct Client {
    runtime: Runtime,
    to: SendRequest<Bytes>,
    address: String,
    key: String,
}

// === impl Site ===

impl Site {
    fn new() -> Self {
        Self {
            gate: Gate::with(&json!({
                "keyring": [{"name": "main", "secret": "${MAIN}", "state": "active"}],
                "tiers": {"default": {}, "operator": {"only": {"paths": []}, "usage_of_others": true}},
            })),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.gate.dir.file(name)
    }

    fn mint(&self, args: &[&str]) -> String {
        let fixed = ["mint", "--tenant", "ops", "--lifetime", "1h"];
        one_line(&self.gate.vkey(&[&fixed, args].concat()).ok())
    }

    /// A key of a proxy.
    fn key(&self) -> String {
        self.mint(&["--aud", "vkey-ledger"])
    }

    /// A key of a person.
    fn operator(&self) -> String {
        self.mint(&["--tier", "operator", "--aud", "vkey-serve"])
    }

    fn command(&self, args: &[&str]) -> Vkey {
        let store = text(self.file("store.db"));
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--store", &store];
        self.gate.vkey(&[&fixed, args].concat())
    }

    fn serve(&self, args: &[&str]) -> Server {
        Server::start(&self.command(args))
    }

    fn with_file(&self) -> Server {
        self.serve(&["--ledger", &text(self.file("ledger.db"))])
    }
}

// === impl Server ===

impl Server {
    fn start(command: &Vkey) -> Self {
        let mut child = command.command().spawn().expect("the command starts");
        let mut line = String::new();
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        errors.read_line(&mut line).unwrap();
        let url = line.trim().rsplit("//").next().unwrap();
        let Some(address) = url.strip_suffix('/') else { panic!("{line}") };
        let address = address.to_owned();
        // What it says later must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let server = Self { child, address };
        server.wait();
        server
    }

    /// It listens before it has opened the ledger.
    fn wait(&self) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }

    fn client(&self, key: &str) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = self.address.clone();
        let to = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let (to, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            to
        });
        Client { runtime, to, address, key: key.to_owned() }
    }

    /// Ends it as a loss of power would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

// === impl Client ===

impl Client {
    fn post(&self, body: impl Into<Bytes>) -> (u16, Value) {
        self.try_send("POST", LEASES, body.into()).unwrap()
    }

    fn get(&self, target: &str) -> (u16, Value) {
        self.try_send("GET", target, Bytes::new()).unwrap()
    }

    /// `None` if the server is gone.
    fn try_send(&self, method: &str, target: &str, body: Bytes) -> Option<(u16, Value)> {
        self.runtime.block_on(self.send(method, target, body)).ok()
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        body: Bytes,
    ) -> Result<(u16, Value), h2::Error> {
        let uri = format!("http://{}{target}", self.address);
        let request = Request::builder().method(method).uri(uri);
        let request = match self.key.as_str() {
            "" => request,
            key => request.header("authorization", format!("Bearer {key}")),
        };
        let mut to = self.to.clone().ready().await?;
        let (response, mut stream) = to.send_request(request.body(()).unwrap(), body.is_empty())?;
        if !body.is_empty() {
            // A server that does not want all of it responds early.
            _ = stream.send_data(body, true);
        }
        let (head, mut body) = response.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            bytes.extend_from_slice(&chunk);
            _ = body.flow_control().release_capacity(chunk.len());
        }
        let json = serde_json::from_slice(&bytes);
        Ok((
            head.status.as_u16(),
            json.unwrap_or_else(|_| String::from_utf8(bytes).unwrap().into()),
        ))
    }

    /// Posts an order, and returns its receipt.
    fn order(&self, order: &Value) -> Value {
        let (status, response) = self.post(body(std::slice::from_ref(order)));
        assert_eq!(status, 200, "{response}");
        response["receipts"][0].clone()
    }
}

fn order(lease: u64, number: u64, limit: u64, granted: u64, used: u64, want: u64) -> Value {
    json!({"account": NAME, "lease": format!("{lease:016x}"), "number": number, "window": 0, "limit": limit,
           "granted": granted, "used": used, "need": want.min(1), "want": want})
}

fn body(orders: &[Value]) -> String {
    json!({"orders": orders}).to_string()
}

#[expect(clippy::disallowed_methods, reason = "windows are of now")]
fn today() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() / 86_400
}

#[test]
fn an_order_that_comes_again_gets_the_same_receipt() {
    let site = Site::new();
    let server = site.with_file();
    let client = server.client(&site.key());
    let first = client.order(&order(1, 1, 100, 0, 0, 10));
    let lease = "0000000000000001";
    let expected = json!({"lease": lease, "number": 1, "granted": 10, "left": 90, "until": null});
    assert_eq!(first, expected);
    assert_eq!(client.order(&order(1, 1, 100, 0, 0, 10)), first);
    // At the same time, on streams of one connection.
    let second = Bytes::from(body(&[order(1, 2, 100, 10, 10, 10)]));
    let receipts = client.runtime.block_on(async {
        let all = (0..16).map(|_| client.send("POST", LEASES, second.clone()));
        let mut receipts = Vec::new();
        let all: Vec<_> = all.map(Box::pin).collect();
        for sent in futures_in_order(all).await {
            receipts.push(sent.unwrap().1["receipts"][0].clone());
        }
        receipts
    });
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]), "{receipts:?}");
    assert_eq!(receipts[0]["granted"], 20);
    assert_eq!(client.order(&order(1, 1, 100, 0, 0, 10))["number"], 2, "an older one");
    let (status, empty) = client.post(r#"{"orders":[]}"#);
    assert_eq!((status, empty), (200, json!({"receipts": [], "scarce": []})));
}

/// Polls all of them at once.
async fn futures_in_order<F: Future + Unpin>(mut all: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context)
            {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}

#[test]
fn windows_end_and_scarce_accounts_are_told_to_all() {
    let site = Site::new();
    let server = site.with_file();
    let client = server.client(&site.key());
    let name = "key/acme/k/tokens/day";
    let of_day = |mut order: Value, day: u64| {
        order["account"] = name.into();
        order["window"] = day.into();
        body(&[order])
    };
    let (_, first) = client.post(of_day(order(1, 1, 10, 10, 9, 0), today()));
    assert_eq!(first["receipts"][0]["until"], (today() + 1) * 86_400 - 1);
    assert_eq!(first["scarce"], json!([]));
    let (_, second) = client.post(of_day(order(2, 1, 10, 0, 0, 1), today()));
    assert_eq!(second["receipts"][0]["granted"], 0);
    let (_, poll) = client.post(r#"{"orders":[]}"#);
    assert_eq!((&second["scarce"], &poll["scarce"]), (&json!([name]), &json!([name])));
    for day in [today() - 2, today() + 3] {
        let (status, error) = client.post(of_day(order(1, 2, 10, 10, 9, 0), day));
        assert_eq!((status, &error["error"]["code"]), (400, &json!("orders")));
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("orders[0].window") && message.contains("clocks"), "{message}");
    }
}

#[test]
fn only_keys_for_the_ledger_order_and_only_they_and_operators_see_accounts() {
    let site = Site::new();
    let server = site.with_file();
    let (key, operator) = (site.key(), site.operator());
    let narrowed =
        |caveat: &str| one_line(&Vkey::new(&["attenuate", "--caveat", caveat]).stdin(&key).ok());
    let leases_only = narrowed(&json!({"paths": [LEASES]}).to_string());
    let elsewhere = narrowed(r#"{"sources":["10.0.0.0/8"]}"#);
    let expired = site.mint(&["--aud", "vkey-ledger", "--now", "1790000000"]);
    let both = site.mint(&["--tier", "operator", "--aud", "vkey-serve", "--aud", "vkey-ledger"]);
    let plain = site.mint(&["--aud", "vkey-serve"]);
    let (list, one) = ("/v1/ledger/accounts?tenant=acme", "/api/chain");
    for (who, key, leases, accounts, trail) in [
        ("nobody", "", 401, 401, 401),
        ("garbage", "vk1.x", 401, 401, 401),
        ("a key without an audience", &site.mint(&[]), 401, 401, 401),
        ("a proxy", &key, 200, 200, 401),
        ("a proxy that may only order", &leases_only, 200, 403, 401),
        ("a proxy elsewhere", &elsewhere, 403, 403, 401),
        ("a proxy of yesterday", &expired, 401, 401, 401),
        ("an operator", &operator, 401, 200, 200),
        ("a key of another tier", &plain, 401, 403, 403),
        ("a key for both", &both, 200, 200, 200),
    ] {
        let client = server.client(key);
        let status = (client.post(r#"{"orders":[]}"#).0, client.get(list).0, client.get(one).0);
        // After ten failures the source is told to wait.
        let expected = [leases, accounts, trail];
        for (found, expected) in [status.0, status.1, status.2].into_iter().zip(expected) {
            let is_failure = expected == 401;
            assert!(found == expected || (is_failure && found == 429), "{who}: {found} {expected}");
        }
    }
    // Of others, an order changes nothing.
    let (status, found) = server.client(&operator).get(list);
    assert_eq!((status, &found["accounts"]), (200, &json!([])));
}

#[test]
fn what_is_not_an_order_is_refused_and_harms_nobody() {
    let site = Site::new();
    let server = site.with_file();
    let client = server.client(&site.key());
    let whole = body(&[order(1, 1, 100, 0, 0, 10)]);
    let many = body(&(1..=257).map(|id| order(id, 1, 100, 0, 0, 1)).collect::<Vec<_>>());
    for (body, code) in [
        ("garbage", "orders"),
        ("[]", "orders"),
        ("{\"orders\":1}", "orders"),
        (&whole[..whole.len() - 1], "orders"),
        (&whole.replace("total", "totals"), "orders"),
        (&whole.replace("\"number\":1", "\"number\":0"), "orders"),
        (&many, "orders"),
        (&format!("{{\"orders\":[{}", "[".repeat(200_000)), "orders"),
    ] {
        let (status, error) = client.post(body.to_owned());
        assert_eq!((status, &error["error"]["code"]), (400, &json!(code)), "{error}");
        assert_eq!(error["error"]["type"], "bad_request");
    }
    let (status, error) = client.post(vec![b'['; 300 * 1024]);
    assert_eq!((status, &error["error"]["code"]), (413, &json!("body_too_large")));
    for number in 0..20 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let head = format!(
            "POST {LEASES} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n",
            client.key
        );
        let length = whole.len() + 10;
        write!(stream, "{head}content-length: {length}\r\n\r\n{}", &whole[..number]).unwrap();
    }
    let bad_and_good = body(&[order(1, 1, 100, 0, 0, 10), order(0, 1, 100, 0, 0, 10)]);
    assert_eq!(client.post(bad_and_good).0, 400);
    let receipt = client.order(&order(1, 1, 100, 0, 0, 10));
    assert_eq!((&receipt["granted"], &receipt["left"]), (&json!(10), &json!(90)), "none was taken");
    let (status, error) = client.get("/v1/ledger/accounts?account=x");
    assert_eq!((status, &error["error"]["code"]), (400, &json!("parameter")));
    assert_eq!(client.get("/v1/ledger/accounts").0, 400);
    assert_eq!(client.get("/v1/ledger/nothing").0, 404);
    assert_eq!(client.get(LEASES).0, 405);
}

#[test]
fn accounts_are_listed_with_their_sums() {
    let site = Site::new();
    let server = site.with_file();
    let client = server.client(&site.key());
    client.order(&order(1, 1, 100, 0, 0, 10));
    client.order(&order(2, 1, 100, 0, 0, 10));
    client.order(&order(1, 2, 100, 10, 7, 0));
    let mut of_key = order(3, 1, 2_500_000, 0, 0, 500_000);
    of_key["account"] = "key/acme/k-1/cost/day".into();
    of_key["window"] = today().into();
    client.order(&of_key);
    let (status, found) = client.get(&format!("/v1/ledger/accounts?account={NAME}"));
    assert_eq!(status, 200);
    let account = &found["accounts"][0];
    assert!(account["at_secs"].as_u64().unwrap() / 86_400 >= today());
    let expected = json!({"account": NAME, "window": 0, "until": null, "limit": 100, "used": 7, "held": 13,
                          "left": 80, "leases": 2, "at_secs": account["at_secs"]});
    assert_eq!(*account, expected);
    // As the description of the API says.
    let (_, description) = server.client("").get("/openapi.json");
    for (schema, found) in [
        ("Accounts", &found),
        ("Orders", &json!({"orders": [of_key]})),
        ("Receipts", &client.post(body(&[order(1, 2, 100, 10, 7, 0)])).1),
    ] {
        let schema = format!("#/components/schemas/{schema}");
        let whole = json!({"$ref": schema, "components": description["components"]});
        let validator = jsonschema::validator_for(&whole).unwrap();
        let errors: Vec<_> = validator.iter_errors(found).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{schema}: {errors:?}");
    }
    let names = |target: &str| {
        let (status, found) = client.get(target);
        assert_eq!((status, &found["more"]), (200, &json!(false)));
        let accounts = found["accounts"].as_array().unwrap();
        accounts
            .iter()
            .map(|account| account["account"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/ledger/accounts?tenant=acme"), ["key/acme/k-1/cost/day", NAME]);
    assert_eq!(names("/v1/ledger/accounts?tenant=acme&jti=k-1"), ["key/acme/k-1/cost/day"]);
    assert!(names("/v1/ledger/accounts?tenant=acme&jti=k").is_empty());
    assert_eq!(client.get(&format!("/v1/ledger/accounts?account={NAME}&window=1")).0, 404);
    let usage = |args: &[&str]| {
        let url = format!("http://{}", server.address);
        Vkey::new(&[&["usage", "--ledger", &url], args].concat()).stdin(site.operator()).ok().out
    };
    let until = "T23:59:59Z";
    let table = usage(&["--tenant", "acme"]);
    let lines: Vec<&str> = table.lines().collect();
    let head = "budget                          total      used      held      left  leases  until";
    assert_eq!((lines.len(), lines[0]), (3, head), "{table}");
    assert!(
        lines[1].starts_with(
            "key/acme/k-1/cost/day           $2.50     $0.00     $0.50     $2.00       1  "
        ),
        "{table}"
    );
    assert!(lines[1].ends_with(until), "{table}");
    let row = "tenant/acme/requests/total        100         7        13        80       2  never";
    assert_eq!(lines[2], row);
    let json: Value =
        serde_json::from_str(&usage(&["--tenant", "acme", "--jti", "k-1", "--json"])).unwrap();
    assert_eq!(json["accounts"].as_array().unwrap().len(), 1);
    assert!(usage(&["--tenant", "none"]).contains("nothing of a budget"));
    let (status, metrics) = server.client(&site.operator()).get("/metrics");
    assert_eq!(status, 200);
    for sample in [
        "vkey_ledger_orders_total 5",
        "vkey_ledger_granted_total{unit=\"requests\"} 20",
        "vkey_ledger_granted_total{unit=\"cost\"} 500000",
        "vkey_ledger_unmet_orders_total 0",
    ] {
        assert!(
            metrics.as_str().unwrap().lines().any(|line| line == sample),
            "{sample}: {metrics}"
        );
    }
}

/// Four proxies order one unit after the other until there are none.
#[test]
fn clients_at_the_same_time_get_the_whole_budget_and_no_more() {
    const BUDGET: u64 = 400;
    let site = Site::new();
    let server = site.with_file();
    let key = site.key();
    let spend = |id: u64| {
        let client = server.client(&key);
        let mut granted = 0;
        for number in 1.. {
            let receipt = client.order(&order(id, number, BUDGET, granted, granted, 1));
            match receipt["granted"].as_u64().unwrap() {
                same if same == granted => break,
                more => granted = more,
            }
        }
        granted
    };
    let granted: u64 = thread::scope(|scope| {
        let clients: Vec<_> = (1..=4).map(|id| scope.spawn(move || spend(id))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(granted, BUDGET);
}

/// Proxies order while the server is killed. Each remembers the last order that got a receipt.
fn kill_while_ordering(server: Server, key: &str) -> Vec<(Value, Value)> {
    let (is_over, acknowledged) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let clients: Vec<_> = (1..=3)
        .map(|id| {
            let (is_over, acknowledged) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
            let client = server.client(key);
            thread::spawn(move || {
                let (mut granted, mut last) = (0, None);
                for number in 1.. {
                    let order = order(id, number, 1_000_000, granted, granted, 5);
                    let body = Bytes::from(body(std::slice::from_ref(&order)));
                    let Some((200, response)) = client.try_send("POST", LEASES, body) else {
                        break;
                    };
                    let receipt = response["receipts"][0].clone();
                    granted = receipt["granted"].as_u64().unwrap();
                    last = Some((order, receipt));
                }
                assert!(is_over.load(Ordering::SeqCst), "the server failed before it was killed");
                acknowledged.lock().unwrap().extend(last);
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(700));
    is_over.store(true, Ordering::SeqCst);
    server.kill();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len(), 3);
    acknowledged
}

/// An order that was acknowledged last is still the last one, or the one after it was taken and not acknowledged.
fn assert_kept(client: &Client, acknowledged: &[(Value, Value)]) {
    for (order, receipt) in acknowledged {
        let found = client.order(order);
        let (number, granted) =
            (receipt["number"].as_u64().unwrap(), receipt["granted"].as_u64().unwrap());
        let (found_number, found_granted) =
            (found["number"].as_u64().unwrap(), found["granted"].as_u64().unwrap());
        assert!(number > 3, "{order}");
        match found_number - number {
            0 => assert_eq!(found, *receipt),
            1 => assert_eq!(found_granted, granted + 5),
            _ => panic!("{receipt} {found}"),
        }
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_that_it_confirmed() {
    let site = Site::new();
    let key = site.key();
    for _ in 0..2 {
        let acknowledged = kill_while_ordering(site.with_file(), &key);
        let server = site.with_file();
        assert_kept(&server.client(&key), &acknowledged);
        server.kill();
        std::fs::remove_file(site.file("ledger.db")).unwrap();
    }
}

#[test]
fn servers_on_one_redis_lose_nothing_that_they_confirmed_when_all_is_killed() {
    let site = Site::new();
    let key = site.key();
    let mut redis = RedisServer::start(site.gate.dir.path(), &[]);
    let url = redis.url();
    let serve = || site.serve(&["--ledger", &url]);
    let acknowledged = kill_while_ordering(serve(), &key);
    redis.kill();
    redis.restart();
    let server = serve();
    assert_kept(&server.client(&key), &acknowledged);
    redis.kill();
    let client = server.client(&key);
    let (status, error) = client.post(body(&[order(9, 1, 1_000_000, 0, 0, 1)]));
    assert_eq!((status, &error["error"]["code"]), (503, &json!("ledger_unreachable")));
    assert_eq!(client.get(&format!("/v1/ledger/accounts?account={NAME}")).0, 503);
    redis.restart();
    assert_eq!(client.order(&order(9, 1, 1_000_000, 0, 0, 1))["granted"], 1, "it is found again");
}

#[test]
fn two_servers_on_one_redis_share_a_budget() {
    let site = Site::new();
    let key = site.key();
    let redis = RedisServer::start(site.gate.dir.path(), &[]);
    let serve = |store: &str| {
        let store = text(site.file(store));
        Server::start(&site.gate.vkey(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ledger",
            &redis.url(),
            "--store",
            &store,
        ]))
    };
    let (one, other) = (serve("one.db"), serve("other.db"));
    let (one, other) = (one.client(&key), other.client(&key));
    assert_eq!(one.order(&order(1, 1, 10, 10, 9, 0))["left"], 0);
    let receipt = other.order(&order(2, 1, 10, 0, 0, 1));
    assert_eq!((&receipt["granted"], &receipt["left"]), (&json!(0), &json!(0)));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(one.post(r#"{"orders":[]}"#).1["scarce"], json!([NAME]), "from the other server");
    assert_eq!(one.order(&order(2, 1, 10, 0, 0, 1)), receipt);
}

#[test]
fn a_redis_is_reached_with_tls_and_a_password_that_nobody_sees() {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

    let site = Site::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &authority).unwrap();
    let cert = site.gate.file("cert.pem", leaf.pem());
    let key = site.gate.file("key.pem", leaf_key.serialize_pem());
    let ca = site.gate.file("ca.pem", authority.pem());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let password = "a-password-of-a-redis";
    let _redis = RedisServer::start(
        site.gate.dir.path(),
        &[
            "--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key,
            "--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--requirepass", password,
        ],
    );
    let url = format!("rediss://:{password}@127.0.0.1:{port}/0");
    let command = |args: &[&str]| site.command(&[&["--ledger-env", "LEDGER"], args].concat());
    let server = Server::start(&command(&["--ledger-ca", &ca]).env("LEDGER", &url));
    let client = server.client(&site.key());
    assert_eq!(client.order(&order(1, 1, 10, 0, 0, 1))["granted"], 1);
    drop(server);
    let refused = |args: &[&str], url: &str, code, says: &str| {
        let done = command(args).env("LEDGER", url).refused(code, says);
        assert!(
            !done.err.contains(password) && !done.err.contains("wrong-password"),
            "{}",
            done.err
        );
    };
    refused(&[], &url, 3, "certificate");
    let wrong = url.replace(password, "wrong-password");
    refused(&["--ledger-ca", &ca], &wrong, 3, "the Redis reports");
    refused(&["--ledger-ca", &key], &url, 1, "--ledger-ca");
    refused(&[], &format!("redis://:{password}@redis.example/0"), 2, "--ledger-allow-cleartext");
    refused(&[], password, 2, "expected a URL of a Redis");
    site.command(&["--ledger-env", "LEDGER"]).refused(3, "--ledger-env");
    site.command(&["--ledger", &url]).refused(2, "--ledger-env");
}

#[test]
fn a_client_certificate_is_enough_to_order() {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, ServerName};

    let site = Site::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &authority).unwrap();
    let cert = site.gate.file("cert.pem", leaf.pem());
    let key = site.gate.file("key.pem", leaf_key.serialize_pem());
    let ca = site.gate.file("ca.pem", authority.pem());
    let request = |server: &Server, head: &str, body: &str| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into()),
            );
        let name = ServerName::try_from("localhost").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config.unwrap()), name).unwrap();
        let stream = TcpStream::connect(&server.address).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        _ = stream.write_all(text.as_bytes());
        let mut bytes = Vec::new();
        _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    };
    let ledger = text(site.file("ledger.db"));
    let start = |args: &[&str]| {
        let args = [&["--ledger", &ledger, "--cert", &cert, "--key", &key], args].concat();
        let mut child = site.command(&args).command().spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("//").next().unwrap().trim_end_matches('/').to_owned();
        Server { child, address }
    };
    let posted = body(&[order(1, 1, 100, 0, 0, 10)]);
    let post = format!("POST {LEASES}");
    let server = start(&["--client-ca", &ca]);
    let response = request(&server, &post, &posted);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("\"granted\":10"), "{response}");
    for other in ["GET /v1/ledger/accounts?tenant=acme", "GET /api/chain"] {
        let response = request(&server, other, "");
        assert!(response.starts_with("HTTP/1.1 401"), "{other}: {response}");
    }
    drop(server);
    let response = request(&start(&[]), &post, &posted);
    assert!(response.starts_with("HTTP/1.1 401"), "nobody asks for a certificate: {response}");
}

#[test]
fn a_server_without_a_ledger_says_so() {
    let site = Site::new();
    let server = site.serve(&[]);
    let client = server.client("");
    for (status, error) in [client.post("{}"), client.get("/v1/ledger/accounts?tenant=a")] {
        assert_eq!((status, &error["error"]["code"]), (404, &json!("no_ledger")));
        assert!(error["error"]["message"].as_str().unwrap().contains("--ledger"));
    }
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let site = Site::new();
    let ledger = text(site.file("ledger.db"));
    let foreign = site.gate.file("foreign.db", "a text, and no database ".repeat(99));
    let refused = |args: &[&str], code, says: &str| _ = site.command(args).refused(code, says);
    refused(&["--ledger", ""], 2, "--ledger");
    refused(&["--ledger", "http://redis.example"], 2, "a URL of redis or rediss");
    refused(&["--ledger", "redis://redis.example:6379/0"], 2, "--ledger-allow-cleartext");
    refused(&["--ledger", &ledger, "--ledger-env", "LEDGER"], 2, "--ledger-env");
    refused(&["--ledger", &ledger, "--ledger-audience", "vkey-serve"], 2, "--audience");
    refused(&["--ledger", &text(site.file("store.db"))], 2, "--store are one file");
    refused(&["--ledger", &ledger, "--ledger-ca", &foreign], 2, "--ledger-ca");
    site.gate.file("stands.db", "");
    let of_others = site.command(&["--ledger", &foreign]).run();
    assert_ne!(of_others.code, 0);
    assert!(of_others.err.contains("is not a ledger of vkey"), "{}", of_others.err);
    let nowhere = text(site.file("no/folder.db"));
    let done = site.command(&["--ledger", &nowhere]).run();
    assert!(done.code == 3 && done.err.contains("check the path"), "{}", done.err);
    let _server = site.with_file();
    let other = text(site.file("other.db"));
    let second = site
        .gate
        .vkey(&["serve", "--listen", "127.0.0.1:0", "--ledger", &ledger, "--store", &other]);
    let second = second.run();
    assert_eq!(second.code, 3);
    assert!(second.err.contains("another `vkey serve` has the ledger"), "{}", second.err);
}
