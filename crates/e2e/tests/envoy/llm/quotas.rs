//! Quotas of tokens over all workers: reserved at the request, settled at the end of the response, and never less than
//! what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::in_front_of;
use crate::keys::Minter;
use crate::load::{CONNECTIONS, WORKERS, connect, number, usage};
use crate::support::origin::Received;
use crate::support::{Connection, Envoy, Latch, Provider, Replay, Request, each_envoy, wait_for};

/// What a request asks for at most.
const MAX_TOKENS: u64 = 100;

/// The limit of the quotas that only count.
const PLENTY: u64 = 1_000_000_000;

/// A request for a stream of a chat. `case` tells the provider what to send.
pub(crate) fn chat(key: &str, case: &str) -> Request {
    let body = json!({
        "model": "gpt-4o-mini",
        "max_tokens": MAX_TOKENS,
        "stream": true,
        "messages": [{"role": "user", "content": "Name three rivers."}],
    });
    Request::new("POST", format!("/v1/chat/completions?case={case}"))
        .header("content-type", "application/json")
        .bearer(key)
        .body(body.to_string())
}

pub(crate) fn case_of(request: &Received) -> String {
    request.target().split_once("?case=").unwrap().1.to_owned()
}

pub(crate) fn word(text: &str) -> String {
    let delta = json!({"content": text});
    let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
    format!("data: {}\n\n", json!({"id": "c", "model": "gpt-4o-mini", "choices": [choice]}))
}

/// The end of a stream: the usage and `[DONE]`.
pub(crate) fn used(total: u64) -> String {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": total - 1, "total_tokens": total});
    format!("data: {}\n\ndata: [DONE]\n\n", json!({"id": "c", "choices": [], "usage": usage}))
}

fn tier(tokens: u64) -> Value {
    json!({"quotas": [{"tokens": tokens, "per": "total"}]})
}

/// What is used of a quota of a key, as the key itself is told.
fn tokens_used(connection: &mut Connection, key: &str) -> u64 {
    let usage = usage(connection, key, "");
    let limits = usage["limits"].as_array().unwrap();
    let tokens = limits.iter().find(|limit| limit["name"] == "tier_tokens_total").unwrap();
    tokens["used"].as_u64().unwrap()
}

fn wait_for_use(envoy: &Envoy, key: &str, expected: u64) {
    let used = || tokens_used(&mut Connection::open(envoy.gate()), key);
    wait_for(|| (used() == expected).then_some(()), || format!("{} and never {expected}", used()));
}

/// What one request reserves, as the quota shows it while the provider is silent.
fn reserve(main: &Minter, envoy: &Envoy, latch: &Latch) -> u64 {
    let key = main.key("measured", json!({"tier": "plenty"}));
    let mut connection = Connection::open(envoy.gate());
    connection.send_raw(&chat(&key, "held").encode()).unwrap();
    let mut other = Connection::open(envoy.gate());
    let used = || tokens_used(&mut Connection::open(envoy.gate()), &key);
    wait_for(|| (used() > 0).then_some(()), || "nothing is reserved".to_owned());
    let reserved = tokens_used(&mut other, &key);
    latch.open();
    assert_eq!(connection.read_response().unwrap().status, 200);
    reserved
}

/// 64 streams at once, over four workers: exactly as many are admitted as the quota has room for what they reserve, and
/// after their end the quota has what they reported.
#[test]
fn as_many_streams_are_admitted_as_the_quota_has_room_for() {
    const ADMITTED: u64 = 23;
    const USED: u64 = 31;
    each_envoy(|binary| {
        let (first, latch) = (Latch::new(), Latch::new());
        let latches = (Arc::clone(&first), Arc::clone(&latch));
        let provider = Provider::start(move |request| {
            let latch = if case_of(request) == "held" { &latches.0 } else { &latches.1 };
            Replay::events().piece(word("Rhine")).wait(latch).piece(used(USED))
        });
        let main = Minter::new("main", None);
        // How much is reserved is only known once the gate runs, and the limit of the quota before.
        let reserved = {
            let plugin = json!({"tiers": {"plenty": tier(PLENTY)}});
            let envoy =
                Envoy::start(in_front_of(&provider, "llm-reserve", &main, plugin).on(binary));
            reserve(&main, &envoy, &first)
        };
        assert!(reserved > MAX_TOKENS, "{reserved}");
        let limit = reserved * ADMITTED + reserved - 1;
        let plugin = json!({"tiers": {"default": tier(limit)}});
        let options = in_front_of(&provider, "llm-admitted", &main, plugin);
        let envoy = Envoy::start(options.on(binary).concurrency(WORKERS));
        let key = main.key("one", json!({}));
        let before = provider.received_len();
        let mut connections = connect(&envoy);
        let wire = chat(&key, "all").encode();
        for connection in &mut connections {
            connection.send_raw(&wire).unwrap();
        }
        let reading: Vec<_> = connections
            .into_iter()
            .map(|mut connection| thread::spawn(move || connection.read_response().unwrap().status))
            .collect();
        let all = || {
            let usage = usage(&mut Connection::open(envoy.gate()), &key, "");
            (usage["seen"].as_u64() == Some(number(CONNECTIONS))).then_some(usage)
        };
        let counted = wait_for(all, || "not all are counted".to_owned());
        assert_eq!(counted["allowed"], ADMITTED, "{counted}");
        assert_eq!(tokens_used(&mut Connection::open(envoy.gate()), &key), ADMITTED * reserved);
        latch.open();
        let statuses: Vec<u16> = reading.into_iter().map(|thread| thread.join().unwrap()).collect();
        let of = |status: u16| number(statuses.iter().filter(|found| **found == status).count());
        assert_eq!((of(200), of(429)), (ADMITTED, number(CONNECTIONS) - ADMITTED));
        wait_for_use(&envoy, &key, ADMITTED * USED);
        assert_eq!(number(provider.received_len() - before), ADMITTED);
    });
}

/// However early a client leaves, it pays for what it was sent, and for what it reserved.
#[test]
fn a_client_that_leaves_pays_for_what_it_was_sent() {
    const WORDS: usize = 8;
    /// Longer than what is reserved, after the first words.
    const WORD_BYTES: usize = 400;
    each_envoy(|binary| {
        let provider = Provider::start(move |request| {
            let words: usize = case_of(request).parse().unwrap();
            let text = "x".repeat(WORD_BYTES);
            let sent = (0..words).fold(Replay::events(), |sent, _| sent.piece(word(&text)));
            sent.silence()
        });
        let main = Minter::new("main", None);
        let plugin = json!({"tiers": {"default": tier(PLENTY)}});
        let envoy = Envoy::start(in_front_of(&provider, "llm-leaves", &main, plugin).on(binary));
        for words in 1..=WORDS {
            let key = main.key(&format!("leaves-{words}"), json!({}));
            let mut connection = Connection::open(envoy.gate());
            connection.send_raw(&chat(&key, &words.to_string()).encode()).unwrap();
            let mut came = 0;
            while came < words * WORD_BYTES {
                came += connection.read_some().unwrap();
            }
            let reserved = tokens_used(&mut Connection::open(envoy.gate()), &key);
            drop(connection);
            // One line per request, and the one for its usage: the stream has ended.
            envoy.wait_for_access_log(words * 2);
            let paid = tokens_used(&mut Connection::open(envoy.gate()), &key);
            let sent = number(words * WORD_BYTES / 4);
            assert!(paid >= reserved && paid >= sent, "{words} words: {paid}, {reserved}, {sent}");
            // The next round counts the lines again.
            envoy.wait_for_access_log(words * 3);
        }
    });
}

/// Ten thousand streams of every kind, over four workers: the quota has the sum of what each comes to.
#[test]
fn nothing_is_lost_over_many_mixed_streams() {
    const STREAMS: usize = 10_000;
    const KINDS: [&str; 5] = ["usage", "missing", "refused", "reset", "held"];
    // Closed until it is known what a request reserves.
    let open = Latch::new();
    let of_provider = Arc::clone(&open);
    let provider = Provider::start(move |request| match &*case_of(request) {
        "missing" => Replay::events().piece(word("Rhine")).piece("data: [DONE]\n\n"),
        "refused" => Replay::new(500).header("content-length", "0"),
        "reset" => Replay::events().piece(word("Rhine")).reset(),
        "held" => Replay::events().piece(word("Rhine")).wait(&of_provider).piece(used(7)),
        _ => Replay::events().piece(word("Rhine")).piece(used(50)),
    });
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"default": tier(PLENTY), "plenty": tier(PLENTY)}});
    let options = in_front_of(&provider, "llm-mixed", &main, plugin);
    let envoy = Envoy::start(options.concurrency(WORKERS));
    let reserved = reserve(&main, &envoy, &open);
    let key = main.key("mixed", json!({}));
    let next = Arc::new(AtomicU64::new(0));
    let (gate, address) = (envoy.gate(), key.clone());
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (next, key) = (Arc::clone(&next), address.clone());
            thread::spawn(move || {
                let mut connection = Connection::open(gate);
                loop {
                    let at = usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap();
                    if at >= STREAMS {
                        return;
                    }
                    let request = chat(&key, KINDS[at % KINDS.len()]);
                    if connection.try_send(&request).is_err() {
                        connection = Connection::open(gate);
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let each = number(STREAMS / KINDS.len());
    // A response without usage, or one that is cut, costs what was reserved; one of an error costs nothing.
    wait_for_use(&envoy, &key, each * (50 + reserved + reserved + 7));
    let seen = usage(&mut Connection::open(envoy.gate()), &key, "")["seen"].as_u64();
    assert_eq!(seen, Some(number(STREAMS)));
}

/// A stream of 100 MB takes no more memory of the proxy than one of 5 MB.
#[test]
fn a_long_stream_takes_no_more_memory() {
    const WORD_BYTES: usize = 50_000;
    const SHORT: usize = 100;
    const LONG: usize = 2_000;
    each_envoy(|binary| {
        let event = word(&"x".repeat(WORD_BYTES));
        let provider = Provider::start(move |request| {
            let words: usize = case_of(request).parse().unwrap();
            let sent = (0..words).fold(Replay::events(), |sent, _| sent.piece(event.clone()));
            sent.piece(used(40))
        });
        let main = Minter::new("main", None);
        let plugin = json!({"tiers": {"default": tier(PLENTY)}});
        let envoy = Envoy::start(in_front_of(&provider, "llm-long", &main, plugin).on(binary));
        let key = main.key("long", json!({}));
        let stream = |words: usize| {
            let response = envoy.send(&chat(&key, &words.to_string()));
            assert_eq!(response.status, 200);
            assert!(response.body.len() > words * WORD_BYTES, "{}", response.body.len());
        };
        (0..4).for_each(|_| stream(SHORT));
        let before = envoy.resident_bytes();
        stream(LONG);
        let after = envoy.resident_bytes();
        assert!(after < before + (16 << 20), "{before} {after}");
        wait_for_use(&envoy, &key, 5 * 40);
    });
}
