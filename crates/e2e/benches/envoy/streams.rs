//! Streams of a chat, from a provider that sends an event only when the client has received the one before. So Envoy
//! gets each event as a piece of its own, however slow it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::support::origin::Received;
use crate::support::tls::Cluster;
use crate::support::{Latch, Provider, Replay, Request, Response};

/// The header with the number of a stream, by which the provider finds it.
const NUMBER: &str = "x-stream";

/// One piece of a stream.
pub(crate) const EVENT: &str = concat!(
    r#"data: {"id":"chatcmpl-BqXw0fVbN6J1","object":"chat.completion.chunk","created":1751500000,"#,
    r#""model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" river"},"#,
    r#""finish_reason":null}],"usage":null}"#,
    "\n\n"
);

/// The event with the usage of a stream, and the last one. They come as one piece.
const USAGE: &str = concat!(
    r#"data: {"id":"chatcmpl-BqXw0fVbN6J1","object":"chat.completion.chunk","created":1751500000,"#,
    r#""model":"gpt-4o-mini","choices":[],"#,
    r#""usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}"#,
    "\n\n"
);
const DONE: &str = "data: [DONE]\n\n";

/// The tokens that each stream reports.
const TOKENS: u64 = 21;

/// What a client asks for.
#[derive(Clone, Copy)]
pub(crate) struct Chat {
    /// How many pieces the provider sends before the usage.
    pub(crate) pieces: usize,
    /// Whether the client asks for the usage. If it does not, the gate must ask in its place, and remove the event.
    pub(crate) includes_usage: bool,
    /// Whether the usage is charged to the key.
    pub(crate) is_metered: bool,
}

/// The provider.
pub(crate) struct Streams {
    provider: Provider,
    expected: Arc<Expected>,
    next: AtomicU64,
}

/// The latches of the streams that will be asked for, by their numbers.
type Expected = Mutex<BTreeMap<String, Vec<Arc<Latch>>>>;

/// The client's side of a stream.
pub(crate) struct Stream {
    number: String,
    /// Before each piece, and before the end.
    latches: Vec<Arc<Latch>>,
    opened: usize,
}

// === impl Chat ===

impl Chat {
    pub(crate) const PATH: &str = "/v1/chat/completions";

    /// The request, without a credential.
    pub(crate) fn request(self) -> Request {
        let mut body = json!({
            "model": "gpt-4o-mini", "max_tokens": 256, "stream": true,
            "messages": [{"role": "user", "content": "Name three rivers."}],
        });
        if self.includes_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let request = Request::new("POST", Self::PATH).body(body.to_string());
        request.header("content-type", "application/json")
    }

    /// Checks what a client has received.
    ///
    /// # Errors
    ///
    /// When it is another body, or came in other pieces.
    pub(crate) fn check(self, stream: &Stream, answer: &Response) -> Result<(), String> {
        let usage = if self.includes_usage { USAGE } else { "" };
        if answer.text() != format!("{}{usage}{DONE}", EVENT.repeat(self.pieces)) {
            return Err(format!("a stream of {} pieces is answered with {answer:?}", self.pieces));
        }
        if stream.opened != stream.latches.len() {
            let (came, sent) = (stream.opened, stream.latches.len());
            return Err(format!("a head and a body of {sent} parts in all came in {came} parts"));
        }
        Ok(())
    }
}

// === impl Streams ===

impl Streams {
    /// Serves until it is dropped.
    pub(crate) fn start() -> Self {
        let expected = Arc::<Expected>::default();
        let shared = Arc::clone(&expected);
        let provider = Provider::start(move |request| replay(request, &shared));
        Self { provider, expected, next: AtomicU64::new(0) }
    }

    /// A cluster that leads to it.
    pub(crate) fn cluster(&self, name: &str) -> Cluster {
        Cluster::plain_at(name, self.provider.address())
    }

    /// A stream of this number of pieces, to be named in a request.
    pub(crate) fn expect(&self, chat: Chat) -> Stream {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        // Those before the usage and before the end too.
        let latches: Vec<_> = (0..chat.pieces + 2).map(|_| Latch::new()).collect();
        lock(&self.expected).insert(number.clone(), latches.clone());
        Stream { number, latches, opened: 0 }
    }
}

/// A provider reports the usage only if it is asked to. This one refuses all other requests, so that a gate that does not
/// ask is noticed.
fn replay(request: &Received, expected: &Expected) -> Replay {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if body["stream_options"]["include_usage"] != true {
        return Replay::new(400).header("content-length", "0");
    }
    let number = request.header(NUMBER).unwrap_or_default();
    let Some(latches) = lock(expected).remove(&number) else {
        return Replay::new(404).header("content-length", "0");
    };
    let pieces = latches.len().saturating_sub(2);
    let tail = format!("{USAGE}{DONE}").into_bytes();
    let bodies = (0..pieces).map(|_| EVENT.into()).chain([tail, Vec::new()]);
    let steps = latches.iter().zip(bodies);
    steps.fold(Replay::events(), |replay, (latch, body)| replay.wait(latch).piece(body))
}

// === impl Stream ===

impl Stream {
    /// Names the stream in its request.
    pub(crate) fn named(&self, request: Request) -> Request {
        request.header(NUMBER, &self.number)
    }

    /// Lets the provider send what comes next.
    pub(crate) fn go_on(&mut self) {
        if let Some(latch) = self.latches.get(self.opened) {
            latch.open();
        }
        self.opened += 1;
    }
}

/// A request for the usage of a key, without a credential.
pub(crate) fn usage_request() -> Request {
    Request::new("GET", "/.vkey/usage")
}

/// Checks the usage of a key that has asked for this number of streams and for nothing else.
///
/// # Errors
///
/// When it was charged other tokens than the streams have reported.
pub(crate) fn check_usage(usage: &Value, streams: u64) -> Result<(), String> {
    let limits = usage["limits"].as_array().into_iter().flatten();
    let quota = limits.into_iter().find(|limit| limit["name"] == "tier_tokens_total");
    match quota.and_then(|quota| quota["used"].as_u64()) {
        Some(used) if used == streams * TOKENS => Ok(()),
        _ => Err(format!("{streams} streams of {TOKENS} tokens each are charged as {usage}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
