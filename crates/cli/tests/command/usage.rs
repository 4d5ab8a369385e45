//! Asking a gate for a key's counts. The gate is a thread that answers once, with given bytes.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Gate, Vkey};

const ANSWER: &str = concat!(
    r#"{"jti":"k_zXl3Wn3U6tP4gsvR","tenant":"acme","tier":"default","seen":120,"allowed":100,"#,
    r#""denied":{"unauthenticated":0,"forbidden":2,"bad_request":0,"limited":18,"upstream":0,"#,
    r#""unavailable":0},"limits":["#,
    r#"{"name":"tier_rate","limit":200,"used":3,"remaining":197,"reset_secs":1},"#,
    r#"{"name":"tier_requests_day","limit":100000,"used":100,"remaining":99900,"#,
    r#""reset_secs":40925}]}"#,
);

const TABLE: &str = "\
key          k_zXl3Wn3U6tP4gsvR
tenant       acme
tier         default
seen         120
allowed      100
denied       20: limited 18, forbidden 2

limit                        total      used  remaining  resets in
tier_rate                      200         3        197  1s
tier_requests_day           100000       100      99900  11h 22m 5s
";

/// Nothing listens on this port, which nothing is given by chance.
pub(crate) const NOBODY: &str = "http://127.0.0.1:1";

/// What answers, and in the end what it was asked.
pub(crate) struct Server {
    pub(crate) address: String,
    asked: JoinHandle<String>,
}

impl Server {
    /// Takes one connection and hands it over.
    fn new(serve: impl FnOnce(TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = thread::spawn(move || serve(listener.accept().expect("a connection").0));
        Self { address, asked }
    }

    /// Answers with these bytes.
    pub(crate) fn raw(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |stream| exchange(stream, &answer))
    }

    pub(crate) fn answering(status: impl Display, body: impl Display) -> Self {
        Self::raw(response(status, body))
    }

    /// The command that asks it.
    fn usage(&self, args: &[&str]) -> Vkey {
        ask(&format!("http://{}", self.address), args)
    }

    /// What it was asked, line by line.
    pub(crate) fn asked(self) -> Vec<String> {
        let asked = self.asked.join().expect("the server ends");
        asked.trim_end().lines().map(str::to_owned).collect()
    }
}

fn response(status: impl Display, body: impl Display) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads the head of a request and answers. The other side may leave when it has seen enough.
fn exchange(mut stream: impl Read + Write, answer: &[u8]) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    _ = stream.write_all(answer).and_then(|()| stream.flush());
    String::from_utf8(head).expect("text")
}

fn key() -> String {
    Gate::new().mint(&[])
}

fn ask(url: &str, args: &[&str]) -> Vkey {
    Vkey::new(&[&["usage", "--url", url], args].concat()).stdin(key())
}

#[track_caller]
pub(crate) fn fails(vkey: Vkey, code: i32, says: &str) {
    let args = vkey.args.join(" ");
    let done = vkey.run();
    let expected = format!("vkey: {says}\n");
    assert_eq!((done.code, done.out, done.err), (code, String::new(), expected), "{args}");
}

#[track_caller]
fn shows(body: &str, table: &str) {
    let done = Server::answering("200 OK", body).usage(&[]).ok();
    assert_eq!((done.out.as_str(), done.err.as_str()), (table, ""), "{body}");
}

fn redirect(status: u16) -> String {
    format!(
        "the gate returned {status}, a redirect, which is not followed, because the key would be sent there too; check --url"
    )
}

fn no_usage(why: &str) -> String {
    format!("unexpected response: not a usage document ({why}); check --url")
}

#[test]
fn the_answer_is_a_table() {
    shows(ANSWER, TABLE);
}

#[test]
fn the_answer_is_json_where_asked() {
    let spaced = ANSWER.replace(":{", ": {\n").replace("acme", "\\u0061cm\u{e9}");
    let done = Server::answering("200 OK", spaced).usage(&["--json"]).ok();
    assert_eq!(done.out, ANSWER.replace("acme", "acm\\u00e9") + "\n");
    fails(Server::answering("200 OK", "{}").usage(&["--json"]), 1, &no_usage("jti: missing"));
}

#[test]
fn unknown_and_unlimited_counts_are_shown_as_such() {
    shows(
        r#"{"jti":null,"tenant":null,"tier":null,"seen":0,"allowed":0,"denied":{},"limits":[],
            "new":[{}]}"#,
        "key          -\ntenant       -\ntier         -\nseen         0\nallowed      0\n\
         denied       0\nlimits       none\n",
    );
    shows(
        r#"{"jti":"-","tenant":"two words","tier":"","seen":9007199254740992,"allowed":1,
            "denied":{"forbidden":0,"new":1,"limited":1},
            "limits":[{"name":"key_cost_day","limit":25000000,"used":1234500,"remaining":23765500,
                       "reset_secs":0,"new":true},
                      {"name":"a_name_that_is_longer_than_others","limit":null,"used":123456789012,
                       "remaining":null,"reset_secs":null}]}"#,
        r#"key          "-"
tenant       "two words"
tier         ""
seen         9007199254740992
allowed      1
denied       2: new 1, limited 1

limit                                  total          used  remaining  resets in
key_cost_day                          $25.00       $1.2345   $23.7655  0s
a_name_that_is_longer_than_others          -  123456789012          -  never
"#,
    );
}

#[test]
fn what_the_gate_does_not_know_has_no_counts() {
    let answer = |jti: &str| {
        format!(
            r#"{{"jti":{jti},"tenant":"nobody","tier":null,"known":false,"seen":0,"allowed":0,
                "denied":{{"limited":0}},"limits":[]}}"#
        )
    };
    shows(
        &answer("null"),
        "key          -\ntenant       nobody\ntier         -\nunknown      the gate has no counts \
         of this tenant: it has those of the tenants that its configuration lists, without metrics only of those with \
         limits; check the name\n",
    );
    shows(
        &answer("\"k_1\""),
        "key          k_1\ntenant       nobody\ntier         -\nunknown      the gate has counted no \
         request of this key; check the id, the tenant and the URL\n",
    );
    shows(&ANSWER.replacen('{', r#"{"known":true,"#, 1), TABLE);
}

#[test]
fn a_strangers_text_does_not_reach_the_terminal() {
    let limit = r#"{"name":"a\u0007","limit":1,"used":1,"remaining":0,"reset_secs":2}"#;
    let answer = ANSWER.replace("acme", r"a\u001b[2J\u202e\n").replace("limited", "x\u{9b}");
    let answer =
        answer.replace(r#"{"name":"tier_rate""#, &format!(r#"{limit},{{"name":"tier_rate""#));
    let done = Server::answering("200 OK", &answer).usage(&[]).ok();
    for line in [
        "tenant       \"a\\u001b[2J\\u202e\\n\"\n",
        "denied       20: \"x\\u009b\" 18, forbidden 2\n",
        "\"a\\u0007\"                        1         1          0  2s\n",
    ] {
        assert!(done.out.contains(line), "{line}: {}", done.out);
    }
    let done = Server::answering("200 OK", &answer).usage(&["--json"]).ok();
    assert!(done.out.contains(r#""tenant":"a\u001b[2J\u202e\n""#), "{}", done.out);
    assert!(done.out.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
}

#[test]
fn the_key_and_the_question_are_sent() {
    let key = key();
    let sent = |args: &[&str]| {
        let server = Server::answering("200 OK", ANSWER);
        server.usage(args).stdin(format!("{key}\n")).ok();
        let address = format!("host: {}", server.address);
        let mut asked = server.asked();
        assert!(asked.contains(&address), "{asked:?}");
        assert!(asked.contains(&format!("authorization: Bearer {key}")));
        assert!(asked.contains(&"accept: application/json".to_owned()), "{asked:?}");
        assert!(asked.contains(&format!("user-agent: vkey/{}", env!("CARGO_PKG_VERSION"))));
        asked.remove(0)
    };
    assert_eq!(sent(&[]), "GET /.vkey/usage HTTP/1.1");
    let of_key = sent(&["--jti", "k_A-1", "--tenant", "acme"]);
    assert_eq!(of_key, "GET /.vkey/usage?jti=k_A-1&tenant=acme HTTP/1.1");
    assert_eq!(sent(&["--tenant", "acme"]), "GET /.vkey/usage?tenant=acme HTTP/1.1");
    let server = Server::answering("200 OK", ANSWER);
    let url = format!("http://{}/my/usage", server.address);
    ask(&url, &["--key-env", "KEY"]).env("KEY", &key).ok();
    assert_eq!(server.asked()[0], "GET /my/usage HTTP/1.1");
}

#[test]
fn a_refusal_is_passed_on() {
    let refused = |status: &str, body: &str, says: &str| {
        fails(Server::answering(status, body).usage(&[]), 1, &format!("the gate returned {says}"));
    };
    let error = |message: &str, code: &str| {
        format!(r#"{{"error":{{"message":"{message}","type":"x","code":"{code}"}}}}"#)
    };
    let body = error("a valid virtual key is required", "invalid_token");
    refused("401 No", &body, "401: a valid virtual key is required, code invalid_token");
    refused("403 No", &error("not you", "path"), "403: not you, code path");
    refused("429 No", &error("slower", "rate"), "429: slower, code rate");
    refused("503 No", &error("not ready", "not_ready"), "503: not ready, code not_ready");
    let body = error(r#"\u001b[2J\n\"é"#, r"\u0007");
    refused("403 No", &body, r#"403: \u001b[2J\n\"\u00e9, code \u0007"#);
    let long = "a".repeat(200);
    refused("403 No", &error(&(long.clone() + "bc"), "d"), &format!("403: {long}..., code d"));
    refused("403 No", r#"{"error":{"message":"no","code":7}}"#, "403: no");
    for (status, body) in [
        ("404 No", "<html>"),
        ("500 No", ""),
        ("403 No", r#"{"error":"no"}"#),
        ("206 Part", ANSWER),
    ] {
        let status_code = &status[..3];
        refused(status, body, &format!("{status_code} without a reason; check --url"));
    }
}

#[test]
fn a_refusal_about_others_says_who_may_ask() {
    let body = r#"{"error":{"message":"not you","type":"x","code":"path"}}"#;
    let hint = "; only a key whose tier has usage_of_others can ask for another key or a \
                tenant";
    let answers = [("403", hint), ("400", hint), ("401", ""), ("503", "")];
    for (status, hint) in answers {
        let says = format!("the gate returned {status}: not you, code path");
        for args in [&["--jti", "k_1", "--tenant", "acme"] as &[&str], &["--tenant", "acme"]] {
            let server = Server::answering(format!("{status} No"), body);
            fails(server.usage(args), 1, &format!("{says}{hint}"));
        }
        fails(Server::answering(format!("{status} No"), body).usage(&[]), 1, &says);
    }
}

#[test]
fn no_redirect_is_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("non-blocking");
    let location = format!("http://{}/.vkey/usage", elsewhere.local_addr().expect("an address"));
    for status in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {status} No\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        fails(Server::raw(answer).usage(&[]), 1, &redirect(status));
    }
    for status in [300, 302, 304] {
        fails(
            Server::raw(format!("HTTP/1.1 {status} No\r\n\r\n")).usage(&[]),
            1,
            &redirect(status),
        );
    }
    let asked = elsewhere.accept().map(drop).expect_err("nobody came");
    assert_eq!(asked.kind(), ErrorKind::WouldBlock);
}

#[test]
fn an_answer_that_is_something_else_is_refused() {
    let refused = |body: &str, why: &str| {
        fails(Server::answering("200 OK", body).usage(&[]), 1, &no_usage(why));
    };
    refused("", "not valid JSON: EOF while parsing a value at line 1 column 0");
    refused("<html>", "not valid JSON: expected value at line 1 column 1");
    refused("[]", "expected an object");
    refused(&ANSWER.replace("\"seen\"", "\"sean\""), "seen: missing");
    refused(&ANSWER.replace("120", "-1"), "seen: expected a whole number, 0 to 2^53");
    refused(&ANSWER.replace("120", "\"120\""), "seen: expected a whole number");
    refused(&ANSWER.replace("\"acme\"", "7"), "tenant: expected a string");
    refused(&ANSWER.replace(":18", ":null"), "denied.limited: expected a whole number");
    refused(&ANSWER.replace(":197", ":{}"), "limits[0].remaining: expected a whole number");
    refused(&ANSWER.replace("\"used\"", "\"\""), "limits[0].used: missing");
    refused(
        &ANSWER.replace("limited\":18", "\u{9b}\":[]"),
        r"denied.\\u{9b}: expected a whole number",
    );
    for not_http in ["nothing of the kind\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "\0\0\0\0"] {
        fails(Server::raw(not_http).usage(&[]), 1, &no_usage("not HTTP"));
    }
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1 << 17));
    fails(Server::raw(head).usage(&[]), 1, &no_usage("not HTTP"));
}

#[test]
fn an_endless_answer_is_cut_off() {
    let endless = |head: &'static str, part: &'static [u8]| {
        Server::new(move |mut stream| {
            let asked = exchange(&stream, head.as_bytes());
            while stream.write_all(part).is_ok() {}
            asked
        })
    };
    let says = no_usage("longer than 65536 bytes");
    fails(endless("HTTP/1.1 200 OK\r\n\r\n", &[b' '; 4096]).usage(&[]), 1, &says);
    let chunked = "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n";
    fails(endless(chunked, b"10\r\n0123456789abcdef\r\n").usage(&[]), 1, &says);
    let long = format!("{ANSWER}{}", " ".repeat((64 << 10) - ANSWER.len()));
    shows(&long, TABLE);
    fails(Server::answering("200 OK", long + " ").usage(&[]), 1, &says);
}

#[test]
fn a_gate_that_does_not_answer_is_an_error() {
    let closed =
        "connection closed before the end of the response; check --url, and the gate's log";
    fails(Server::raw("").usage(&[]), 3, closed);
    fails(Server::raw("HTTP/1.1 200 OK\r\ncontent-le").usage(&[]), 3, closed);
    fails(Server::raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}").usage(&[]), 3, closed);
    let late = "no response within 1s; check --url, or allow more in --timeout";
    for scheme in ["http", "https"] {
        let silent = Server::new(|mut stream| {
            _ = io::copy(&mut stream, &mut io::sink());
            String::new()
        });
        fails(ask(&format!("{scheme}://{}", silent.address), &["--timeout", "1s"]), 3, late);
    }
    let dripping = Server::new(|mut stream| {
        let asked = exchange(&stream, b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        asked
    });
    fails(dripping.usage(&["--timeout", "1s"]), 3, late);
    let done = ask(NOBODY, &[]).refused(3, "cannot connect to the gate: ");
    assert!(done.err.ends_with("; check --url, and whether it runs\n"), "{}", done.err);
}

#[test]
fn a_key_is_never_sent_unencrypted_over_a_network() {
    let says = "http exposes the key to everyone on the network path; use https, or --allow-http if \
                the network is trusted";
    for host in ["192.0.2.1", "gw.example:8080", "[2001:db8::1]", "0.0.0.0", "localhost.example"] {
        fails(ask(&format!("http://{host}/.vkey/usage"), &[]), 2, says);
    }
    if cfg!(target_os = "linux") {
        // Linux takes this address, which is not a loopback one, for its own.
        let server = Server::answering("200 OK", ANSWER);
        let url = format!("http://{}", server.address.replace("127.0.0.1", "0.0.0.0"));
        assert_eq!(ask(&url, &["--allow-http"]).ok().out, TABLE);
    }
}

#[test]
fn no_proxy_of_the_environment_is_used() {
    let server = Server::answering("200 OK", ANSWER);
    let names =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let usage = names.iter().fold(server.usage(&[]), |usage, name| usage.env(name, NOBODY));
    assert_eq!(usage.ok().out, TABLE);
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let wrong = |args: &[&str], says: &str| {
        Vkey::new(&[&["usage"], args].concat()).stdin(key()).refused(2, says);
    };
    wrong(&[], "--url");
    let form = "'(not shown)' for '--url <URL>': expected ";
    for url in ["//gw", "gw.example/usage", "ftp://gw.example/", "https://gw.example:99999/"] {
        wrong(&["--url", url], &format!("{form}an http or https URL"));
    }
    wrong(&["--url", "https://me:Secr3t@gw.example/"], &format!("{form}no user and no password"));
    wrong(&["--url", "https://gw.example/?jti=k1"], &format!("{form}no query in the URL"));
    wrong(&["--url", "https://gw.example/#k1"], &format!("{form}no fragment in the URL"));
    let with = |args: &[&str], says: &str| {
        wrong(&[&["--url", "https://gw.example"], args].concat(), says);
    };
    with(&["--jti", "a"], "--tenant <ID>");
    for id in ["", "a b", "a&b", "é", &"a".repeat(65)] {
        with(&["--tenant", "acme", "--jti", id], "expected 1 to 64 of A-Z a-z 0-9 _ -");
        with(&["--tenant", id], "expected 1 to 64 of A-Z a-z 0-9 _ -");
    }
    for wrong in ["0s", "3601s", "61m", "-1s", "1.5s", "10", "10S", "500ms"] {
        with(&[&format!("--timeout={wrong}")], "expected a duration in whole seconds up to 1h");
    }
    let says = "--ca is for an https URL; leave it out, or use https";
    fails(ask(NOBODY, &["--ca", "ca.pem"]), 2, says);
}

#[test]
fn only_keys_are_sent_and_they_are_not_shown() {
    ask(NOBODY, &[]).stdin("Tr0ub4dor&3-horse-staple").refused(1, "the input is not a virtual key");
    ask(NOBODY, &[]).stdin("").refused(1, "standard input is empty");
    ask(NOBODY, &["--key-env", "UNSET"]).refused(3, "--key-env is not set");
    let key = key();
    let says = "the response contains the key, which the gate never returns, so it is not shown; check --url";
    for (status, body) in [
        ("200 OK", ANSWER.replace("acme", &key)),
        ("403 No", format!(r#"{{"error":{{"message":"Bearer {key}","code":"x"}}}}"#)),
    ] {
        for json in [&[][..], &["--json"]] {
            let server = Server::answering(status, &body);
            fails(server.usage(json).stdin(&key), 1, says);
        }
    }
}

#[test]
fn a_reader_of_counts_may_leave_early() {
    for (server, code) in
        [(Server::answering("200 OK", ANSWER), 0), (Server::answering("403 No", ""), 1)]
    {
        let mut child = server.usage(&[]).command().spawn().expect("the command starts");
        drop(child.stdout.take());
        _ = child.stdin.take().expect("a pipe").write_all(key().as_bytes());
        let output = child.wait_with_output().expect("the command ends");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(!err.contains("panicked") && !err.contains("pipe"), "{err}");
    }
}

/// A gate with a certificate for a name; the certificate, PEM, vouches for itself.
fn secure(name: &str) -> (Server, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], private)
        .expect("a usable certificate");
    let server = Server::new(move |stream| {
        let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        exchange(StreamOwned::new(connection, stream), &response("200 OK", ANSWER))
    });
    (server, made.cert.pem())
}

#[test]
fn a_certificate_is_always_verified() {
    let gate = Gate::new();
    let fails = |server: &Server, args: &[&str], why: &str| {
        let says = format!("the TLS handshake failed: invalid peer certificate: {why}");
        let done = ask(&format!("https://{}", server.address), args).refused(3, &says);
        let hint =
            "; check --url, and --ca if the gate's certificate is from a private authority\n";
        assert!(done.err.ends_with(hint), "{}", done.err);
    };
    let (server, _) = secure("127.0.0.1");
    fails(&server, &[], "UnknownIssuer");
    assert_eq!(server.asked(), [] as [&str; 0]);
    let (server, _) = secure("127.0.0.1");
    let (_, another) = secure("127.0.0.1");
    fails(&server, &["--ca", &gate.file("another.pem", another)], "");
    assert_eq!(server.asked(), [] as [&str; 0]);
    let (server, ca) = secure("gw.example");
    fails(&server, &["--ca", &gate.file("named.pem", ca)], "certificate not valid for name");
    assert_eq!(server.asked(), [] as [&str; 0]);
    let (server, ca) = secure("127.0.0.1");
    let ca = gate.file("ca.pem", format!("# of the gate\n{ca}"));
    let done = ask(&format!("https://{}", server.address), &["--ca", &ca]).ok();
    assert_eq!((done.out.as_str(), done.err.as_str()), (TABLE, ""));
    assert_eq!(server.asked()[0], "GET /.vkey/usage HTTP/1.1");
}

#[test]
fn a_server_without_tls_is_distinguished() {
    let server = Server::new(|mut stream| {
        _ = stream.write_all(b"HTTP/1.1 400 No\r\n\r\n");
        // Closing a connection with unread data resets it, and the response is lost.
        _ = io::copy(&mut stream, &mut io::sink());
        String::new()
    });
    let says = "the TLS handshake failed: received corrupt message of type InvalidContentType; ";
    ask(&format!("https://{}", server.address), &[]).refused(3, says);
}

#[test]
fn a_file_of_authorities_holds_certificates() {
    let gate = Gate::new();
    let with = |ca: &str| ask("https://127.0.0.1:1", &["--ca", ca]);
    fails(with(&gate.file("empty", "")), 1, NO_CERTIFICATE);
    fails(with(&gate.file("text", "not a certificate")), 1, NO_CERTIFICATE);
    let broken = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
    fails(with(&gate.file("broken", broken)), 1, NO_CERTIFICATE);
    fails(
        with(&gate.file("another", broken.replace("CERTIFICATE", "PRIVATE KEY"))),
        1,
        NO_CERTIFICATE,
    );
    let huge = gate.file("huge", vec![b' '; (1 << 20) + 1]);
    with(&huge).refused(1, "the file named by --ca is longer than 1048576 bytes");
    with("/no/such/file").refused(3, "the file named by --ca cannot be read");
}

const NO_CERTIFICATE: &str =
    "the file named by --ca contains no PEM certificate; expected that of the authority";
