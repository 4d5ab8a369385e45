//! Lists of servers: a client sees what its key may use, however the response is cut, and however it ends.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Client, NUMBER, in_parallel, plugin};
use crate::keys::Minter;
use crate::llm::{cuts, in_front_of, pieces, vectors};
use crate::support::{Envoy, Options, Provider, Replay, Response, config, each_envoy};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How a server says that its response is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Length,
    LastChunk,
    Trailers,
}

/// A response of a server.
struct Sent {
    case: Value,
    pieces: Vec<Vec<u8>>,
    end: End,
}

impl Sent {
    /// All cases, as the file has them, behind white space, whole, in bytes and cut at random, each with its last chunk and
    /// with trailers.
    fn all() -> Vec<Self> {
        let cases = vectors("mcp/lists.json");
        assert_eq!(cases.len(), 26);
        let mut all = Vec::new();
        for (number, case) in cases.into_iter().enumerate() {
            let given = pieces(&case);
            let ways = cuts(&given.concat(), number);
            let whole = ways[0].clone();
            // It may still be JSON or a stream.
            let behind = [vec![b"\n".to_vec()], given.clone()].concat();
            for pieces in [given, behind].into_iter().chain(ways) {
                for end in [End::LastChunk, End::Trailers] {
                    all.push(Self { case: case.clone(), pieces: pieces.clone(), end });
                }
            }
            all.push(Self { case, pieces: whole, end: End::Length });
        }
        all
    }

    fn replay(&self) -> Replay {
        let status = u16::try_from(self.case["status"].as_u64().unwrap()).unwrap();
        let mut replay = Replay::new(status)
            .header("cache-control", "public, max-age=60")
            .header("etag", "\"1\"");
        for (name, value) in self.case["headers"].as_object().unwrap() {
            replay = replay.header(name, value.as_str().unwrap());
        }
        let length: usize = self.pieces.iter().map(Vec::len).sum();
        replay = match self.end {
            End::Length => replay.header("content-length", &length.to_string()),
            End::LastChunk => replay,
            End::Trailers => replay.trailer("x-end", "1"),
        };
        self.pieces.iter().cloned().fold(replay, Replay::piece)
    }

    /// The claims of the key of its client. A kind of which the case says nothing is open.
    fn claims(&self) -> Value {
        let kinds = ["tools", "resources", "prompts"].map(|kind| {
            let globs = self.case["allow"].get(kind).cloned();
            (kind.to_owned(), globs.unwrap_or_else(|| json!(["*"])))
        });
        json!({"only": {"mcp": serde_json::Map::from_iter(kinds)}})
    }

    fn ask(&self, client: &mut Client, key: &str, number: &str) -> Response {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("authorization", &*bearer), (NUMBER, number)];
        let method = self.case["request"].as_str().unwrap();
        if method == "GET" {
            headers.push(("accept", "text/event-stream"));
            return client.send("GET", &headers, &[]);
        }
        headers.push(("content-type", "application/json"));
        let mut params = json!({});
        if method == "tools/call" {
            params["name"] = self.case["allow"]["tools"][0].clone();
        }
        if self.case["era"] == "modern" {
            let revision = "2026-07-28";
            headers.extend([("mcp-protocol-version", revision), ("mcp-method", method)]);
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": revision});
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        client.send("POST", &headers, &[body.to_string().into_bytes()])
    }

    fn is_blocked(&self) -> bool {
        self.case["expect"]["error"] == "blocked"
    }

    fn check(&self, response: &Response) {
        let expect = &self.case["expect"];
        let told = format!("{} {:?} {:?} {response:?}", self.case["name"], self.end, self.pieces);
        assert_eq!(response.status, 200, "{told}");
        let is_list = self.case["request"] != "tools/call";
        let cached = if is_list { "private, no-store" } else { "public, max-age=60" };
        assert_eq!(response.header("cache-control").as_deref(), Some(cached), "{told}");
        assert_eq!(response.header("etag").is_some(), !is_list, "{told}");
        // They have passed the gate, so they have ended the body for it.
        let trailers: &[&str] = if self.end == End::Trailers { &["x-end: 1"] } else { &[] };
        assert_eq!(response.trailers, trailers, "{told}");
        if self.is_blocked() {
            let error = &response.json()["error"];
            assert_eq!(error["code"], 502, "{told}");
            assert_eq!(error["data"]["reason"], "body_unreadable", "{told}");
            assert_eq!(response.header("content-encoding"), None, "{told}");
            assert!(!response.text().contains("delete_all"), "{told}");
        } else if expect.get("events").is_some() {
            assert_eq!(events(&response.text()), expect["events"], "{told}");
        } else {
            assert_eq!(response.json(), expect["json"], "{told}");
        }
    }
}

/// The events of a stream, as the file has them. Comments are no part of them.
fn events(stream: &str) -> Value {
    let mut events = Vec::new();
    for event in stream.replace("\r\n", "\n").split_terminator("\n\n") {
        let mut read = json!({});
        for line in event.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            let (field, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            match (field, value) {
                ("data", "") => read["text"] = json!(""),
                ("data", _) => {
                    assert!(read.get("json").is_none(), "data in two lines: {event}");
                    read["json"] = serde_json::from_str(value).unwrap();
                }
                _ => read[field] = json!(value),
            }
        }
        events.push(read);
    }
    events.retain(|event| *event != json!({}));
    Value::Array(events)
}

/// Trailers pass from the server to the client.
fn with_trailers(options: Options) -> Options {
    options.edit(|config| {
        let manager = config::connection_manager(config, "gate");
        manager["http_protocol_options"]["enable_trailers"] = json!(true);
        let cluster = config::named(config, "/static_resources/clusters", "echo");
        cluster["typed_extension_protocol_options"][OPTIONS] = json!({
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
        });
    })
}

#[test]
fn every_list_has_only_what_its_key_may_use() {
    each_envoy(|binary| {
        let of_server = Sent::all();
        let server = Provider::start(move |request| {
            let number: usize = request.header(NUMBER).unwrap().parse().unwrap();
            of_server[number].replay()
        });
        let all = Sent::all();
        let main = Minter::new("main", None);
        let options = in_front_of(&server, "mcp-lists", &main, plugin());
        let envoy = Envoy::start(with_trailers(options).on(binary));
        let blocked = AtomicU64::new(0);
        in_parallel(envoy.gate(), all.len(), |client, number| {
            let sent = &all[number];
            let key = main.key(&format!("k{number}"), sent.claims());
            sent.check(&sent.ask(client, &key, &number.to_string()));
            blocked.fetch_add(sent.is_blocked().into(), Ordering::SeqCst);
        });
        let counted = envoy.stat("wasmcustom.vkey_mcp_lists_blocked_total");
        assert_eq!(counted, Some(blocked.into_inner()));
    });
}
