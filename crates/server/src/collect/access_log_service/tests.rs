//! What comes of messages, good and hostile, without a connection.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use proptest::prelude::*;
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::codegen::Service as _;
use vkey::audit::{AuditKey, AuditRecord, Chain, Mask};
use vkey::decision::Decision;
use vkey::key::keyring::Secret;

use super::flags::ResponseFlags;
use super::messages::{
    AccessLogCommon, Address, Any, EnvoyInternalAddress, FilterStateObject, HttpAccessLogEntry,
    HttpRequestProperties, HttpResponseProperties, LogEntries, Pipe, Seconds, SocketAddress,
};
use super::*;

const BYTES: &str = "type.googleapis.com/google.protobuf.BytesValue";

/// Longer than any of these tests takes.
const DEADLINE: Duration = Duration::from_secs(5);

fn key() -> AuditKey {
    AuditKey::new(&Secret::parse("Audit-secret-1-of-tests").unwrap())
}

/// Records of one chain.
fn records(count: u64) -> Vec<String> {
    let mut chain = Chain::new(key(), &[b"seed"]);
    let record = |number| {
        let decision = Some(Decision::Allow);
        let record =
            AuditRecord { ts_micros: 1_000_000 + number, decision, ..AuditRecord::default() };
        let mut text = record.write(&Mask::default());
        chain.link(&mut text, record.amounts());
        text
    };
    (0..count).map(record).collect()
}

fn unchained() -> String {
    AuditRecord { decision: Some(Decision::Allow), ..AuditRecord::default() }
        .write(&Mask::default())
}

fn socket(address: &str, port_value: u32) -> Option<Address> {
    let socket_address = Some(SocketAddress { address: address.to_owned(), port_value });
    Some(Address { socket_address, ..Address::default() })
}

fn state(type_url: &str, value: &[u8]) -> FilterStateObject {
    let value = Some(Any { type_url: type_url.to_owned(), value: value.to_vec() });
    FilterStateObject { key: "wasm.vkey.audit".to_owned(), value }
}

/// An entry with these filter states.
fn entry(filter_state_objects: Vec<FilterStateObject>) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            downstream_remote_address: socket("192.0.2.7", 1234),
            start_time: Some(Seconds { seconds: 1_700_000_000, nanos: 123_456_789 }),
            time_to_last_downstream_tx_byte: Some(Seconds { seconds: 2, nanos: 3 }),
            upstream_remote_address: socket("2001:db8::1", 443),
            response_flags: Some(ResponseFlags {
                downstream_connection_termination: true,
                ..ResponseFlags::default()
            }),
            filter_state_objects,
            intermediate_log_entry: false,
        }),
        request: Some(HttpRequestProperties { request_body_bytes: 5 }),
        response: Some(HttpResponseProperties { response_code: Some(200), response_body_bytes: 7 }),
    }
}

/// An entry with a record.
fn with_record(record: &str) -> Vec<u8> {
    entry(vec![state(BYTES, &record.as_bytes().to_vec().encode_to_vec())]).encode_to_vec()
}

fn without_record() -> Vec<u8> {
    entry(Vec::new()).encode_to_vec()
}

/// The members of an entry that the proxy knows, as the end of a line.
const OUTCOME: &str = r#"","start":"2023-11-14T22:13:20.123456Z","peer":"192.0.2.7","status":200,"bytes_in":5,"bytes_out":7,"duration_ns":"2000000003","upstream":"[2001:db8::1]:443","flags":"DC"}"#;

fn message(log_entry: Vec<Vec<u8>>) -> Vec<u8> {
    let http_logs = Some(LogEntries { log_entry });
    StreamAccessLogsMessage { http_logs, tcp_logs: None }.encode_to_vec()
}

/// A message as a body has it: with its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap();
    [&[0], len.to_be_bytes().as_slice(), message].concat()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn service(to: &Inlet, only_chained: bool, streams: usize) -> Router {
    let reader = LineReader::new(vec![key()], None);
    let streams = Arc::new(Semaphore::new(streams));
    router(Service { to: to.clone(), reader, only_chained, streams })
}

/// Calls the service, and returns the status that it ends with; see `tonic::Code`.
async fn call(mut service: Router, body: Body) -> Option<u32> {
    let request = axum::http::Request::post(PATH).header("content-type", "application/grpc");
    let response = service.call(request.body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let status = response.headers().get("grpc-status").map(|status| status.to_str().unwrap());
    // One that is good comes after the response.
    status.map(|status| status.parse().unwrap())
}

/// What a body comes to, and the status other than 0.
fn take(body: impl Into<Body>, only_chained: bool) -> (Vec<Item>, Option<u32>) {
    let (to, mut from) = mpsc::channel(1000);
    let status = runtime().block_on(call(service(&to, only_chained, 1), body.into()));
    drop(to);
    let batches = std::iter::from_fn(|| from.try_recv().ok());
    (batches.flat_map(|batch| batch.items).collect(), status)
}

/// What entries come to.
fn items(entries: Vec<Vec<u8>>) -> Vec<Item> {
    let (items, status) = take(framed(&message(entries)), false);
    assert_eq!(status, None);
    items
}

fn line(item: &Item) -> &str {
    match item {
        Item::Record(record) => &record.line,
        other => panic!("{other:?}"),
    }
}

fn finding(item: &Item) -> (&str, &str) {
    match item {
        Item::Finding(kind, text) => (kind, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_becomes_the_line_that_a_file_would_have() {
    let records = records(2);
    let items = items(records.iter().map(|record| with_record(record)).collect());
    assert_eq!(items.len(), 2);
    for (item, record) in items.iter().zip(&records) {
        assert_eq!(line(item), format!(r#"{{"vkey":"{record}{OUTCOME}"#));
    }
    assert_eq!(line(&self::items(vec![without_record()])[0]), format!(r#"{{"vkey":"-{OUTCOME}"#));
}

#[test]
fn what_an_entry_does_not_say_is_null() {
    let found = items(vec![HttpAccessLogEntry::default().encode_to_vec()]);
    let nothing = r#"{"vkey":"-","start":null,"peer":null,"status":null,"bytes_in":0,"bytes_out":0,"duration_ns":null,"upstream":null,"flags":null}"#;
    assert_eq!(line(&found[0]), nothing);
    let before = Some(Seconds { seconds: -1, nanos: 0 });
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, 0), (i64::MIN, i32::MIN)] {
        let mut entry = entry(Vec::new());
        let common = entry.common_properties.as_mut().unwrap();
        common.start_time = Some(Seconds { seconds, nanos });
        common.time_to_last_downstream_tx_byte = before.clone();
        let found = items(vec![entry.encode_to_vec()]);
        assert!(line(&found[0]).contains(r#""start":null"#), "{seconds} {nanos}");
        assert!(line(&found[0]).contains(r#""duration_ns":null"#));
    }
}

#[test]
fn an_address_is_printed_as_envoy_prints_it() {
    let pipe = Some(Pipe { path: "/run/echo".to_owned() });
    let internal = Some(EnvoyInternalAddress {
        server_listener_name: "inner".to_owned(),
        endpoint_id: "7".to_owned(),
    });
    for (address, peer, upstream) in [
        (socket("192.0.2.1", 80), r#""192.0.2.1""#, r#""192.0.2.1:80""#),
        (socket("::1", 80), r#""::1""#, r#""[::1]:80""#),
        (Some(Address { pipe, ..Address::default() }), r#""/run/echo""#, r#""/run/echo""#),
        (
            Some(Address { envoy_internal_address: internal, ..Address::default() }),
            r#""envoy://inner/7""#,
            r#""envoy://inner/7""#,
        ),
        (Some(Address::default()), "null", "null"),
    ] {
        let mut entry = entry(Vec::new());
        let common = entry.common_properties.as_mut().unwrap();
        common.downstream_remote_address = address.clone();
        common.upstream_remote_address = address;
        let found = items(vec![entry.encode_to_vec()]);
        let line = line(&found[0]);
        assert!(line.contains(&format!(r#""peer":{peer},"#)), "{line}");
        assert!(line.contains(&format!(r#""upstream":{upstream},"#)), "{line}");
    }
}

#[test]
fn what_has_no_place_in_a_chain_is_counted_where_a_file_has_it_too() {
    let chained = records(1).remove(0);
    let entries = vec![with_record(&unchained()), without_record(), with_record(&chained)];
    let (found, status) = take(framed(&message(entries.clone())), true);
    assert_eq!(found[..2], [const { Item::Counted("unchained_over_grpc") }; 2]);
    assert_eq!((found.len(), status), (3, None));
    assert!(line(&found[2]).contains(&chained));
    let stored = items(entries);
    assert_eq!(stored.iter().map(line).count(), 3, "{stored:?}");
}

#[test]
fn entries_of_what_goes_on_and_of_connections_are_counted() {
    let mut goes_on = entry(Vec::new());
    goes_on.common_properties.as_mut().unwrap().intermediate_log_entry = true;
    assert_eq!(items(vec![goes_on.encode_to_vec()]), [Item::Counted("intermediate_over_grpc")]);
    let tcp_logs = Some(LogEntries { log_entry: vec![Vec::new(); 2] });
    let message = StreamAccessLogsMessage { http_logs: None, tcp_logs }.encode_to_vec();
    assert_eq!(take(framed(&message), false).0, [const { Item::Counted("tcp_over_grpc") }; 2]);
}

#[test]
fn a_changed_record_is_a_finding() {
    let record = records(1).remove(0).replace("1970", "1971");
    let items = items(vec![with_record(&record)]);
    assert_eq!(finding(&items[0]).0, "changed");
}

/// One bad entry does not take the others with it.
#[test]
fn an_entry_that_cannot_be_read_is_a_finding() {
    let good = with_record(&unchained());
    let record = unchained().into_bytes().encode_to_vec();
    let string = "type.googleapis.com/google.protobuf.StringValue";
    let truncated = &good[..good.len() - 1];
    let bad = [
        (vec![0xff; 40], "failed to decode"),
        (truncated.to_vec(), "failed to decode"),
        (entry(vec![state(string, &record)]).encode_to_vec(), "StringValue"),
        (entry(vec![state("", &record)]).encode_to_vec(), "not bytes"),
        (entry(vec![state(BYTES, &[0x0a, 0xff])]).encode_to_vec(), "failed to decode"),
        (entry(vec![state(BYTES, &vec![0xff; 3].encode_to_vec())]).encode_to_vec(), "not UTF-8"),
        (with_record(""), "version 2"),
        (with_record("2\"}\n{\"vkey\":\"-"), "{\"vkey\":"),
        (with_record("2\",\"anchor\":\"c"), "start"),
    ];
    for (bad, why) in bad {
        let found = items(vec![good.clone(), bad, good.clone()]);
        assert_eq!(found.len(), 3);
        let (kind, text) = finding(&found[1]);
        assert_eq!(kind, "unreadable", "{text}");
        assert!(text.contains(why), "{text}");
        assert!(line(&found[0]) == line(&found[2]));
    }
}

/// The messages before it have been taken. What comes after it cannot be found.
#[test]
fn a_message_that_cannot_be_read_is_a_finding_and_ends_the_stream() {
    let good = framed(&message(vec![with_record(&unchained())]));
    let len = u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 1;
    let too_large = [&[0][..], &len.to_be_bytes(), &[0; 100]].concat();
    let cut = &good[..good.len() - 1];
    let is_compressed = [1, 0, 0, 0, 1, 0].to_vec();
    let garbage = [0xff; 40];
    for (bad, after, code) in [
        (&framed(&garbage)[..], &good[..], 13),
        (&garbage, &good, 13),
        (&framed(&[0x12, 5, 0]), &good, 13),
        (&too_large, &good, 11),
        (&is_compressed, &good, 13),
        (cut, &[], 13),
    ] {
        let (found, status) = take([&good, bad, after].concat(), false);
        assert_eq!((found.len(), status), (2, Some(code)), "{found:?}");
        line(&found[0]);
        assert_eq!(finding(&found[1]).0, "unreadable");
    }
}

#[test]
fn a_connection_that_breaks_is_no_finding() {
    let good = framed(&message(vec![with_record(&unchained())]));
    let frames = [Ok(good), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    let (found, status) = take(Body::from_stream(tokio_stream::iter(frames)), false);
    assert_eq!(found.len(), 1);
    line(&found[0]);
    assert!(status.is_some());
}

/// A stream has no bound, and a batch has one.
#[test]
fn many_entries_are_many_batches() {
    let (to, mut from) = mpsc::channel(100);
    let many = framed(&message(vec![Vec::new(); 2 * MAX_ITEMS + 1]));
    let padded = framed(&[&[0x0a, 0x80, 0x80, 0x40][..], &[0; 1 << 20]].concat());
    let body = [&many[..], &padded, &padded, &padded, &many].concat();
    assert_eq!(runtime().block_on(call(service(&to, true, 1), body.into())), None);
    drop(to);
    let batches = std::iter::from_fn(|| from.try_recv().ok());
    let sizes: Vec<_> = batches.map(|batch| batch.items.len()).collect();
    assert_eq!(sizes, [MAX_ITEMS, MAX_ITEMS, 1, MAX_ITEMS, MAX_ITEMS, 1]);
}

/// A body of messages that counts how many were taken from it.
fn counted(messages: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let frames = tokio_stream::iter(0..messages).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, io::Error>(framed(&message(vec![Vec::new()])))
    });
    (Body::from_stream(frames), taken)
}

#[test]
fn nothing_is_read_while_the_writer_is_behind() {
    let (to, mut from) = mpsc::channel(2);
    let (body, taken) = counted(100);
    runtime().block_on(async {
        let stream = tokio::spawn(call(service(&to, false, 1), body));
        // It goes on whenever it can. All tasks share this thread, so it comes to its end then.
        let settle = async || {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            taken.load(Ordering::Relaxed)
        };
        // Two are sent, and one waits to be.
        assert_eq!(settle().await, 3);
        assert_eq!(settle().await, 3);
        from.recv().await.unwrap();
        assert_eq!(settle().await, 4);
        let rest = async {
            for _ in 1..100 {
                from.recv().await.unwrap();
            }
        };
        timeout(DEADLINE, rest).await.unwrap();
        assert_eq!(timeout(DEADLINE, stream).await.unwrap().unwrap(), None);
    });
}

#[test]
fn a_stream_ends_with_the_writer() {
    let (to, from) = mpsc::channel(1);
    drop(from);
    let (body, taken) = counted(100);
    assert_eq!(runtime().block_on(call(service(&to, false, 1), body)), Some(14));
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

#[test]
fn there_is_a_bound_on_streams() {
    let (to, mut from) = mpsc::channel(1);
    let service = service(&to, false, 1);
    runtime().block_on(async {
        let first = tokio::spawn(call(service.clone(), counted(3).0));
        from.recv().await.unwrap();
        let second = timeout(DEADLINE, call(service.clone(), counted(1).0));
        assert_eq!(second.await, Ok(Some(8)));
        for _ in 1..3 {
            from.recv().await.unwrap();
        }
        assert_eq!(timeout(DEADLINE, first).await.unwrap().unwrap(), None);
        assert_eq!(call(service, counted(1).0).await, None);
    });
}

#[test]
fn no_other_method_is_answered() {
    let (to, _from) = mpsc::channel(1);
    let path = PATH.replace("Stream", "Get");
    let request = axum::http::Request::post(path).body(Body::empty()).unwrap();
    let response = runtime().block_on(service(&to, false, 1).call(request)).unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND, "which is UNIMPLEMENTED in gRPC");
}

proptest! {
    /// Each entry comes to one item, whatever is in it.
    #[test]
    fn no_entry_and_no_message_makes_it_fail(
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut changed = with_record(&records(1)[0]);
        let at = at.index(changed.len());
        changed[at] = byte;
        let found = items(vec![garbage.clone(), changed.clone(), without_record()]);
        prop_assert_eq!(found.len(), 3);
        prop_assert!(matches!(found[2], Item::Record(_)));
        let mut message = message(vec![changed]);
        let at = at.min(message.len() - 1);
        message[at] = byte;
        take([framed(&message), garbage].concat(), true);
    }
}
