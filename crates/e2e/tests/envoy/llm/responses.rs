//! The vectors of responses on a real Envoy: what is charged for each, however it is cut, and that the client gets every
//! byte.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{cuts, in_front_of, pieces, responses};
use crate::keys::Minter;
use crate::load::usage;
use crate::support::{
    Connection, Envoy, Latch, Options, Provider, Replay, Request, Response, config, each_envoy,
    wait_for,
};

/// More than any case uses, so that a reservation shows.
const MAX_TOKENS: u64 = 400_000;

/// A request of a format, and whether it asks for a stream.
fn request(format: &str, stream: bool) -> Option<(String, Value)> {
    let messages = json!([{"role": "user", "content": "hello"}]);
    let chat = json!({"model": "m", "messages": messages, "max_tokens": MAX_TOKENS});
    let claude = json!({
        "anthropic_version": "bedrock-2023-05-31", "messages": messages, "max_tokens": MAX_TOKENS,
    });
    let parts = json!([{"role": "user", "parts": [{"text": "hello"}]}]);
    let converse = json!([{"role": "user", "content": [{"text": "hello"}]}]);
    let gemini = json!({"contents": parts, "generationConfig": {"maxOutputTokens": MAX_TOKENS}});
    let (path, mut body) = match (format, stream) {
        ("openai.chat", _) => ("/v1/chat/completions", chat),
        ("openai.completions", _) => {
            ("/v1/completions", json!({"model": "m", "prompt": "hello", "max_tokens": MAX_TOKENS}))
        }
        ("openai.embeddings", _) => ("/v1/embeddings", json!({"model": "m", "input": "hello"})),
        ("openai.images", _) => {
            ("/v1/images/generations", json!({"model": "m", "prompt": "hello"}))
        }
        ("openai.responses", _) => (
            "/v1/responses",
            json!({"model": "m", "input": "hello", "max_output_tokens": MAX_TOKENS}),
        ),
        ("anthropic.messages", _) => ("/v1/messages", chat),
        ("anthropic.count_tokens", _) => {
            ("/v1/messages/count_tokens", json!({"model": "m", "messages": messages}))
        }
        ("gemini.generate", false) => ("/v1beta/models/m:generateContent", gemini),
        ("gemini.generate", true) => ("/v1beta/models/m:streamGenerateContent?alt=sse", gemini),
        ("bedrock.converse", _) => {
            let path = if stream { "/model/m/converse-stream" } else { "/model/m/converse" };
            (path, json!({"messages": converse, "inferenceConfig": {"maxTokens": MAX_TOKENS}}))
        }
        ("bedrock.invoke", false) => ("/model/m/invoke", claude),
        ("bedrock.invoke", true) => ("/model/m/invoke-with-response-stream", claude),
        ("cohere.chat", _) => ("/v2/chat", chat),
        ("ollama.chat", _) => ("/api/chat", json!({"model": "m", "messages": messages})),
        // A multipart request, which a key with a quota cannot send.
        _ => return None,
    };
    if path.starts_with("/v1/") || path == "/v2/chat" {
        body["stream"] = json!(stream);
    }
    if format == "openai.chat" && stream {
        // Without it the gate would ask for it, and remove the event again.
        body["stream_options"] = json!({"include_usage": true});
    }
    Some((path.to_owned(), body))
}

/// What the provider sends next, and what it waits for before.
#[derive(Default)]
struct Script {
    next: Mutex<Option<(Arc<Latch>, Replay)>>,
    taken: AtomicUsize,
}

impl Script {
    fn set(&self, latch: &Arc<Latch>, replay: Replay) {
        *self.next.lock().unwrap() = Some((Arc::clone(latch), replay));
    }

    fn take(&self) -> Replay {
        let (latch, replay) = self.next.lock().unwrap().take().expect("one request at a time");
        self.taken.fetch_add(1, Ordering::SeqCst);
        latch.wait();
        replay
    }
}

struct Bench {
    envoy: Envoy,
    script: Arc<Script>,
    main: Minter,
    /// What a request of a format reserves, by whether it asks for a stream.
    reserved: BTreeMap<(String, bool), u64>,
    keys: usize,
    _provider: Provider,
}

impl Bench {
    fn start(label: &str, edit: impl FnOnce(Options) -> Options) -> Self {
        let script = Arc::new(Script::default());
        let of_provider = Arc::clone(&script);
        let provider = Provider::start(move |_| of_provider.take());
        let main = Minter::new("main", None);
        let tier = json!({"quotas": [{"tokens": 1_000_000_000, "per": "total"}]});
        let plugin = json!({
            "tiers": {"default": tier},
            "llm": {"paths": ["/v1/**", "/v1beta/**", "/v2/**", "/api/**", "/model/**"]},
        });
        let envoy = Envoy::start(edit(in_front_of(&provider, label, &main, plugin)));
        let reserved = BTreeMap::new();
        Self { envoy, script, main, reserved, keys: 0, _provider: provider }
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        self.main.key(&format!("k{}", self.keys), json!({}))
    }

    fn used(&self, key: &str) -> u64 {
        let usage = usage(&mut Connection::open(self.envoy.gate()), key, "");
        usage["limits"][0]["used"].as_u64().unwrap()
    }

    /// What a request of a format reserves, as the quota shows it while the provider is silent.
    fn reserved(&mut self, format: &str, stream: bool) -> u64 {
        let id = (format.to_owned(), stream);
        if let Some(reserved) = self.reserved.get(&id) {
            return *reserved;
        }
        let (key, latch) = (self.key(), Latch::new());
        self.script.set(&latch, Replay::json("{}"));
        let mut connection = self.send(&key, format, stream);
        self.wait_until_counted(&key);
        let reserved = self.used(&key);
        latch.open();
        assert_eq!(connection.read_response().unwrap().status, 200);
        self.reserved.insert(id, reserved);
        reserved
    }

    fn send(&self, key: &str, format: &str, stream: bool) -> Connection {
        let (path, body) = request(format, stream).unwrap();
        let request = Request::new("POST", path).bearer(key).body(body.to_string());
        let mut connection = Connection::open(self.envoy.gate());
        let wire = request.header("content-type", "application/json").encode();
        connection.send_raw(&wire).unwrap();
        connection
    }

    /// Sends a request and returns what the client got. Without pieces the provider says nothing, not even a status.
    fn exchange(
        &mut self,
        case: &Value,
        pieces: &[Vec<u8>],
        end: &str,
    ) -> (String, io::Result<Response>) {
        let (format, stream) = (case["format"].as_str().unwrap(), case["stream"] == true);
        let (key, latch) = (self.key(), Latch::new());
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let headers = case["headers"].as_object().into_iter().flatten();
        let head = headers.fold(Replay::new(status.max(200)), |replay, (name, value)| {
            replay.header(name, value.as_str().unwrap())
        });
        let replay = pieces.iter().fold(head, |replay, piece| replay.piece(piece.clone()));
        let replay = match end {
            "complete" => replay,
            "upstream_reset" => replay.reset(),
            _ => replay.silence(),
        };
        self.script.set(&latch, replay);
        if !pieces.is_empty() {
            latch.open();
        }
        let taken = || self.script.taken.load(Ordering::SeqCst);
        let before = taken();
        let mut connection = self.send(&key, format, stream);
        if end == "client_disconnect" {
            wait_for(|| (taken() > before).then_some(()), || "nothing was sent".to_owned());
            let bytes: usize = pieces.iter().map(Vec::len).sum();
            let mut came = 0;
            while came < bytes {
                came += connection.read_some().unwrap();
            }
            drop(connection);
            latch.open();
            return (key, Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let response = connection.read_response();
        latch.open();
        (key, response)
    }

    fn wait_until_counted(&self, key: &str) {
        let seen = || usage(&mut Connection::open(self.envoy.gate()), key, "")["seen"] == 1;
        wait_for(|| seen().then_some(()), || "the request is not counted".to_owned());
    }

    fn expect(&mut self, case: &Value, key: &str) {
        let (format, stream) = (case["format"].as_str().unwrap(), case["stream"] == true);
        let reserved = self.reserved(format, stream);
        let total = case["expect"]["usage"]["total"].as_u64().unwrap_or(0);
        let expected = match case["expect"]["settle"].as_str().unwrap() {
            "usage" => total,
            "at_least" => total.max(reserved),
            "keep" => reserved,
            _ => 0,
        };
        let used = || self.used(key);
        let name = &case["name"];
        wait_for(
            || (used() == expected).then_some(()),
            || format!("{name}: {} instead of {expected}; {reserved} were reserved", used()),
        );
    }
}

/// Those that end as the provider ends them, or because the client leaves.
#[test]
fn every_response_is_charged_however_it_is_cut() {
    each_envoy(|binary| {
        let mut bench = Bench::start("llm-responses", |options| options.on(binary));
        let mut tried = 0;
        for (number, case) in responses().iter().enumerate() {
            let format = case["format"].as_str().unwrap();
            let end = case["end"].as_str().unwrap_or("complete");
            if request(format, false).is_none() || end.starts_with("local_reply") {
                continue;
            }
            let whole = pieces(case).concat();
            let as_given = std::iter::once(pieces(case)).chain(cuts(&whole, number));
            for pieces in as_given {
                let (key, response) = bench.exchange(case, &pieces, end);
                if end == "complete" {
                    let response = response.unwrap();
                    assert_eq!(response.body, whole, "{}", case["name"]);
                }
                bench.expect(case, &key);
                tried += 1;
            }
        }
        assert!(tried > 1_000, "{tried}");
    });
}

/// Envoy's own replies: nothing is charged if nothing was sent, and what was reserved if the provider may have begun.
#[test]
fn a_reply_of_the_proxy_is_charged_if_the_request_was_sent() {
    let cases = responses();
    let of = |end: &str| cases.iter().find(|case| case["end"] == end).unwrap().clone();
    each_envoy(|binary| {
        let mut bench = Bench::start("llm-timeout", |options| {
            options.on(binary).edit(|config| {
                let gate = config::connection_manager(config, "gate");
                gate["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] =
                    json!("0.3s");
            })
        });
        let case = of("local_reply_after_send");
        let (key, response) = bench.exchange(&case, &[], "silent");
        assert_eq!(response.unwrap().status, 504);
        bench.expect(&case, &key);
        let case = of("local_reply_before_send");
        let mut bench = Bench::start("llm-unconnected", |options| {
            options.on(binary).edit(|config| {
                let cluster = config::named(config, "/static_resources/clusters", "echo");
                // Nobody listens on that port.
                cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
                    ["socket_address"]["port_value"] = json!(1);
            })
        });
        bench.reserved.insert(("openai.chat".to_owned(), false), MAX_TOKENS);
        let (key, response) = bench.exchange(&case, &[], "silent");
        assert_eq!(response.unwrap().status, 503);
        bench.expect(&case, &key);
    });
}
