//! Messages of clients: what a body says decides, however it is cut, and what is judged is what the server gets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vkey::decision::{Decision, DenyReason};

use super::{Client, NUMBER, in_parallel, plugin};
use crate::keys::{Minter, records};
use crate::llm::{body, cuts, in_front_of, vectors};
use crate::support::{Envoy, Provider, Replay, Response, each_envoy};

/// The one case in which the conformance suite of MCP has another code than its file says.
const INVALID_PARAMS: &str = "modern/no _meta";

/// The one case with a readable response, which nothing answers.
const OF_CLIENT: &str = "modern/response from a client";

/// Bodies that `serde_json` does not read, and that are JSON or may be.
const STRANGE: [&str; 3] = ["parse/gzip", "parse/depth", "parse/lone surrogate name"];

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Everything,
    /// What the case names, and nothing else.
    TheseObjects,
    OtherObjects,
    OtherMethods,
    OtherServers,
}

/// A refusal: the HTTP status, and what its body says.
struct Refused {
    status: u16,
    reason: DenyReason,
    code: i64,
    /// The bytes in the body; `None` for an empty body.
    id: Option<String>,
}

/// A case, sent with one key.
struct Sent<'a> {
    number: usize,
    case: &'a Value,
    may: May,
}

impl May {
    const ALL: [Self; 5] = [
        Self::Everything,
        Self::TheseObjects,
        Self::OtherObjects,
        Self::OtherMethods,
        Self::OtherServers,
    ];

    /// The claims of such a key. `None`: it says nothing about the case, or the same as another one.
    fn claims(self, expect: &Value) -> Option<Value> {
        let method = expect["method"].as_str().unwrap_or_default();
        let kind = match expect["type"].as_str() {
            Some("tool") => Some("tools"),
            Some("resource") => Some("resources"),
            Some("prompt") => Some("prompts"),
            _ => None,
        };
        let is_readable = expect.get("error").is_none();
        // No client could connect without these.
        let is_implied = matches!(method, "" | "initialize" | "ping" | "server/discover")
            || method.starts_with("notifications/");
        let other = json!(["another*"]);
        let mcp = match self {
            Self::Everything => return Some(json!({})),
            Self::TheseObjects => json!({kind?: expect["names"].clone()}),
            Self::OtherObjects if kind.is_some() => {
                json!({"tools": other, "resources": other, "prompts": other})
            }
            Self::OtherMethods if !is_implied => json!({"methods": other}),
            Self::OtherServers if is_readable => json!({"servers": other}),
            Self::OtherObjects | Self::OtherMethods | Self::OtherServers => return None,
        };
        Some(json!({"only": {"mcp": mcp}}))
    }
}

impl Sent<'_> {
    fn jti(&self) -> String {
        format!("k{}-{:?}", self.number, self.may)
    }

    /// What the gate says instead of the server.
    fn refused(&self) -> Option<Refused> {
        let expect = &self.case["expect"];
        let body = body(self.case);
        // Of a body that is not read there is no id.
        let id = || serde_json::from_slice::<Value>(&body).unwrap()["id"].to_string();
        let null = || "null".to_owned();
        let (status, reason, code, id) = match expect["error"].as_str() {
            Some("body_unreadable") if self.case["name"] == OF_CLIENT => {
                (400, DenyReason::BodyUnreadable, -32600, None)
            }
            Some("body_unreadable") => {
                let read = serde_json::from_slice::<Value>(&body).ok();
                let is_strange = STRANGE.iter().any(|name| self.case["name"] == *name);
                let code = if read.is_some() || is_strange { -32600 } else { -32700 };
                (400, DenyReason::BodyUnreadable, code, Some(null()))
            }
            Some("header_mismatch") if self.case["name"] == INVALID_PARAMS => {
                (400, DenyReason::BodyUnreadable, -32602, Some(id()))
            }
            Some("header_mismatch") => (400, DenyReason::HeaderMismatch, -32020, Some(id())),
            Some("method") => (405, DenyReason::Method, -32601, Some(null())),
            Some(other) => panic!("{other}"),
            None if matches!(self.may, May::Everything | May::TheseObjects) => return None,
            None => {
                let (status, id) = match expect["kind"].as_str().unwrap() {
                    "request" => (200, expect["id"].as_str().map(str::to_owned)),
                    "notification" | "response" => (403, None),
                    _ => (403, Some(null())),
                };
                (status, DenyReason::McpCall, 403, id)
            }
        };
        Some(Refused { status, reason, code, id })
    }

    /// The words of the member `mcp` of its audit line, without the last one: the revision.
    fn audited(&self) -> Option<String> {
        let expect = &self.case["expect"];
        let method = expect["method"].as_str()?;
        let object = expect["names"][0].as_str().unwrap_or("-").replace(' ', "%20");
        Some(format!("{method} {object} main"))
    }

    fn send(&self, client: &mut Client, key: &str, number: &str, pieces: &[Vec<u8>]) -> Response {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("authorization", &*bearer), (NUMBER, number)];
        for (name, values) in self.case["headers"].as_object().unwrap() {
            let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
            headers.extend(values.iter().map(|value| (name.as_str(), value.as_str().unwrap())));
        }
        // Only with its session does a response of a client pass.
        if self.case["expect"]["kind"] == "response" {
            headers.push(("mcp-session-id", "s1"));
        }
        client.send(self.case["http"].as_str().unwrap(), &headers, pieces)
    }
}

impl Refused {
    fn check(&self, response: &Response, told: &str) {
        assert_eq!(response.status, self.status, "{told}");
        let Some(id) = &self.id else {
            assert_eq!(response.text(), "", "{told}");
            return;
        };
        let begin = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"#, self.code);
        assert!(response.text().starts_with(&begin), "{begin} {told}");
        assert_eq!(response.json()["error"]["data"]["reason"], self.reason.code(), "{told}");
    }
}

/// What reached the server, by the number of the request.
type Arrived = Mutex<HashMap<String, Vec<u8>>>;

/// A server that notes each body.
fn server(arrived: &Arc<Arrived>) -> Provider {
    let arrived = Arc::clone(arrived);
    Provider::start(move |request| {
        let number = request.header(NUMBER).unwrap();
        let earlier = arrived.lock().unwrap().insert(number, request.body.clone());
        assert_eq!(earlier, None);
        Replay::json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    })
}

/// Every case with keys for everything, for what it names, and for other objects, methods and servers.
#[test]
fn every_message_is_decided_by_its_body() {
    let cases = vectors("mcp/requests.json");
    assert_eq!(cases.len(), 102);
    let mut all = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let keys = May::ALL.into_iter().filter(|may| may.claims(&case["expect"]).is_some());
        all.extend(keys.map(|may| Sent { number, case, may }));
    }
    each_envoy(|binary| {
        let arrived = Arc::default();
        let server = server(&arrived);
        let main = Minter::new("main", None);
        let options = in_front_of(&server, "mcp-requests", &main, plugin());
        let envoy = Envoy::start(options.on(binary));
        let (tried, passed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        in_parallel(envoy.gate(), all.len(), |client, index| {
            let sent = &all[index];
            let (body, refused) = (body(sent.case), sent.refused());
            let key = main.key(&sent.jti(), sent.may.claims(&sent.case["expect"]).unwrap());
            for (way, pieces) in cuts(&body, sent.number).iter().enumerate() {
                let number = format!("{index}-{way}");
                let response = sent.send(client, &key, &number, pieces);
                let told = format!("{} {:?} {way} {response:?}", sent.case["name"], sent.may);
                tried.fetch_add(1, Ordering::SeqCst);
                let came = arrived.lock().unwrap().remove(&number);
                match &refused {
                    Some(refused) => {
                        assert_eq!(came, None, "{told}");
                        refused.check(&response, &told);
                    }
                    None => {
                        assert_eq!(response.status, 200, "{told}");
                        assert_eq!(came.as_ref(), Some(&body), "{told}");
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        let tried = tried.into_inner();
        assert!(tried > 4_000, "{tried}");
        // Nothing came late either.
        assert_eq!(server.received_len(), passed.into_inner());
        let sent: HashMap<_, _> = all.iter().map(|sent| (sent.jti(), sent)).collect();
        for record in records(&envoy, tried) {
            let sent = sent[record.jti.as_deref().unwrap()];
            let decision = match sent.refused() {
                Some(refused) => Decision::Deny(refused.reason),
                None => Decision::Allow,
            };
            assert_eq!(record.decision, Some(decision), "{record:?}");
            if sent.case["expect"].get("error").is_none() {
                let words = record.mcp.as_deref().and_then(|mcp| mcp.rsplit_once(' '));
                let words = words.map(|(words, _)| words.to_owned());
                assert_eq!(words, sent.audited(), "{record:?}");
            }
        }
    });
}
