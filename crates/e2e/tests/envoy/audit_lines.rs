//! Audit lines of a real Envoy: one for each request, and JSON whatever the request is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use vkey::audit::Line;
use vkey::decision::Decision;

use crate::http2;
use crate::keys::{Minter, options};
use crate::support::{Connection, Envoy, Request, config, each_envoy};

/// How many requests each Envoy gets in HTTP/1.1, and as many in HTTP/2.
const REQUESTS: usize = 150;

/// Texts that would end a string, a member, a line or an operator of the format.
const BREAKS: [&str; 14] = [
    "\"",
    "\\",
    "\\\"",
    "\",\"decision\":\"allow\",\"x\":\"",
    "\"}",
    "{\"vkey\":\"-\"}",
    "%22",
    "%0a%0d",
    "%RESPONSE_CODE%",
    "%FILTER_STATE(wasm.vkey.audit:PLAIN)%",
    "</script>",
    "\u{7f}",
    "\u{e9}\u{1f511}\u{2028}",
    "",
];

/// A part of a request, as text.
fn part() -> impl Strategy<Value = String> {
    let any = prop_oneof![select(&BREAKS[..]).prop_map(str::to_owned), "[ -~]{0,12}", ".{0,6}"];
    (any.clone(), any).prop_map(|(one, other)| format!("{one}{other}"))
}

/// What a client chooses.
#[derive(Clone, Debug)]
struct Hostile {
    method: String,
    path: String,
    authority: String,
    header: String,
    sub: String,
    has_key: bool,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let method = prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), part()];
    let authority = prop_oneof![Just("gate.test".to_owned()), part()];
    let sub = part().prop_map(|sub| format!("s{}", sub.chars().take(30).collect::<String>()));
    (method, part(), authority, part(), sub, any::<bool>()).prop_map(
        |(method, path, authority, header, sub, has_key)| {
            let path = format!("/v1/{path}");
            Hostile { method, path, authority, header, sub, has_key }
        },
    )
}

/// Sends a request. Envoy rejects many of them, and ends their connections.
fn send_http1(envoy: &Envoy, request: &Hostile, key: &str) {
    let Hostile { method, path, authority, header, has_key, .. } = request;
    let mut sent =
        Request::new(method, path).header("host", authority).header("x-request-id", header);
    if *has_key {
        sent = sent.bearer(key);
    }
    _ = Connection::open(envoy.gate()).try_send(&sent);
}

fn send_http2(envoy: &Envoy, request: &Hostile, key: &str) {
    let Hostile { method, path, authority, header, has_key, .. } = request;
    let bearer = format!("Bearer {key}");
    let mut fields = vec![
        (":method", method.as_str()),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
        ("x-anything", header),
    ];
    fields.extend(has_key.then_some(("authorization", bearer.as_str())));
    _ = http2::send(envoy.gate(), &fields);
}

/// Requests in HTTP/2 that the codec, or what is before the module, rejects.
fn rejected() -> Vec<Vec<(&'static str, &'static str)>> {
    const USUAL: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "gate.test"), (":path", "/v1/x")];
    let with = |more: &[(&'static str, &'static str)]| [&USUAL[..], more].concat();
    let without =
        |name: &str| USUAL.into_iter().filter(|(found, _)| *found != name).collect::<Vec<_>>();
    let mut requests: Vec<_> =
        [":method", ":scheme", ":authority", ":path"].map(without).into_iter().collect();
    requests.extend(
        [
            ("X-Upper", "a"),
            ("", "a"),
            ("a b", "c"),
            ("a\"b", "c"),
            ("a_b", "c"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("content-length", "x"),
            ("content-length", "-1"),
            ("x-a", "b\r\nc: d"),
            ("x-a", "b\0c"),
            ("x-a", "\u{1}\"}"),
            (":path", "/other"),
            (":unknown", "a"),
            (":status", "200"),
            (":protocol", "websocket"),
        ]
        .map(|field| with(&[field])),
    );
    for (name, value) in [
        (":method", "G\"T"),
        (":method", "G T"),
        (":path", "/a b"),
        (":path", "/\"},{\""),
        (":path", "no-slash"),
        (":path", ""),
        (":path", "/v1%2fx"),
        (":authority", "a\"b"),
        (":authority", "a b"),
        (":authority", ""),
    ] {
        let change = |field: (&'static str, &'static str)| {
            if field.0 == name { (name, value) } else { field }
        };
        requests.push(USUAL.map(change).into());
    }
    requests
}

/// Bytes in place of a request in HTTP/1.1. Envoy counts each as a request.
const MALFORMED: [&str; 6] = [
    "GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx: \"\x01\"\r\n\r\n",
    "G\"T / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/3.7\r\nhost: a\r\n\r\n",
    "GET /\"} HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"}\r\n\r\n",
];

fn send_malformed(envoy: &Envoy, bytes: &str) {
    let mut connection = Connection::open(envoy.gate());
    connection.send_raw(bytes.as_bytes()).unwrap();
    while matches!(connection.read_some(), Ok(1..)) {}
}

/// That a line is one JSON object with the members of both halves, and says of its key what the key says.
fn check(line: &str, subs: &BTreeMap<String, String>) -> Line<'static> {
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let read = Line::parse(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let members = json.as_object().unwrap().len();
    assert_eq!(members, if read.record.is_some() { 33 } else { 9 }, "{line}");
    if let Some(record) = &read.record {
        let sub = record.jti.as_ref().map(|jti| subs[&**jti].as_str());
        assert_eq!(record.sub.as_deref(), sub, "{line}");
        let allowed = record.decision == Some(Decision::Allow);
        assert!(!allowed || record.jti.is_some(), "{line}");
    }
    assert!(read.outcome.start_micros.is_some() && read.outcome.peer.is_some(), "{line}");
    read
}

#[test]
fn every_request_has_one_line_and_no_request_breaks_it() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let tiers = json!({"tiers": {"default": {}}});
        let options = options("audit-lines", &main, tiers).on(binary).edit(|config| {
            // Envoy leaves the connection of what it rejects open for a second.
            config::connection_manager(config, "gate")["delayed_close_timeout"] = json!("0s");
        });
        let envoy = Envoy::start(options);
        let (mut runner, mut subs) = (TestRunner::default(), BTreeMap::new());
        for number in 0..2 * REQUESTS {
            let request = hostile().new_tree(&mut runner).unwrap().current();
            let jti = format!("k{number}");
            let key = main.key(&jti, json!({"sub": request.sub}));
            if number % 2 == 0 {
                send_http1(&envoy, &request, &key);
            } else {
                send_http2(&envoy, &request, &key);
            }
            subs.insert(jti, request.sub);
        }
        rejected().iter().for_each(|fields| _ = http2::send(envoy.gate(), fields));
        MALFORMED.iter().for_each(|bytes| send_malformed(&envoy, bytes));
        let requests = envoy.stat("http.gate.downstream_rq_total").unwrap();
        let requests = usize::try_from(requests).unwrap();
        assert!(requests >= REQUESTS, "{requests}");
        envoy.wait_for_access_log(requests);
        envoy.stop();
        let lines = envoy.access_log();
        assert_eq!(lines.len(), requests, "{lines:#?}");
        let lines = Vec::from_iter(lines.iter().map(|line| check(line, &subs)));
        let seen = lines.iter().filter(|line| line.record.is_some()).count();
        assert!(seen > 0 && lines.len() - seen >= 20, "{seen} of {requests}");
    });
}
