//! The vectors of requests on a real Envoy: what a body asks for decides, however it is cut, and what is judged is what
//! the provider gets.

use serde_json::{Value, json};

use super::{body, cuts, in_front_of, vectors};
use crate::keys::{Minter, records};
use crate::support::{Connection, Envoy, Provider, Replay, Response, each_envoy};

/// A request of the vectors, chunked: each piece is a chunk, and is sent on its own.
fn send(connection: &mut Connection, case: &Value, key: &str, pieces: &[Vec<u8>]) -> Response {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: gate.test\r\nauthorization: Bearer {key}\r\n",
        case["method"].as_str().unwrap(),
        case["path"].as_str().unwrap(),
    );
    for (name, values) in case["headers"].as_object().unwrap() {
        let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
        for value in values {
            head.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap()));
        }
    }
    let has_body = !pieces.is_empty();
    head.push_str(if has_body { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
    connection.send_raw(head.as_bytes()).unwrap();
    for piece in pieces {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        // The gate may have refused what came so far, and closed the connection.
        if connection.send_raw(&chunk).is_err() {
            break;
        }
    }
    if has_body {
        _ = connection.send_raw(b"0\r\n\r\n");
    }
    connection.read_response().unwrap_or_else(|error| panic!("{}: {error}", case["name"]))
}

/// All models that the request could make run.
fn models(expect: &Value) -> Vec<Value> {
    match (expect["models"].as_array(), &expect["model"]) {
        (Some(models), _) => models.clone(),
        (None, Value::Null) => Vec::new(),
        (None, model) => vec![model.clone()],
    }
}

/// What a key that may use the models `may` gets for a case: a status and a reason.
fn expected(case: &Value, may: &[Value]) -> (u16, Option<&'static str>) {
    let expect = &case["expect"];
    let asked = models(expect);
    let all = !asked.is_empty() && asked.iter().all(|model| may.contains(model) || may[0] == "*");
    match expect["error"].as_str() {
        Some("path_ambiguous") => (400, Some("path_ambiguous")),
        Some(_) => (400, Some("body_unreadable")),
        // Listed in `llm.unmetered`.
        None if case["path"] == "/v1/models" => (200, None),
        None if all && expect["open_ended"] != true => (200, None),
        None => (403, Some("model")),
    }
}

/// Every case with three keys: for its very models, for all models, and for another model.
#[test]
fn every_request_is_decided_by_its_body() {
    let cases = vectors("llm/requests.json");
    each_envoy(|binary| {
        let provider = Provider::start(|_| Replay::json("{}"));
        let main = Minter::new("main", None);
        let plugin = json!({"tiers": {"default": {}}});
        let envoy = Envoy::start(in_front_of(&provider, "llm-requests", &main, plugin).on(binary));
        let mut sent = 0;
        let mut refused = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let mut may = vec![vec![json!("*")], vec![json!("another-model")]];
            may.extend(Some(models(&case["expect"])).filter(|models| !models.is_empty()));
            for (of_case, models) in may.iter().enumerate() {
                let only = json!({"only": {"models": models}});
                let key = main.key(&format!("k{number}-{of_case}"), only);
                let (status, reason) = expected(case, models);
                // Whole with each key, and each way of cutting it with one of them.
                let of_key = |(way, _): &(usize, _)| *way == 0 || way % may.len() == of_case;
                let ways = cuts(&body(case), number).into_iter().enumerate().filter(of_key);
                for (_, pieces) in ways {
                    let before = provider.received_len();
                    let mut connection = Connection::open(envoy.gate());
                    let response = send(&mut connection, case, &key, &pieces);
                    sent += 1;
                    assert_eq!(response.status, status, "{} {models:?} {response:?}", case["name"]);
                    let received = provider.received();
                    if status == 200 {
                        assert_eq!(received.len(), before + 1);
                        assert_eq!(received[before].body, body(case), "{}", case["name"]);
                        continue;
                    }
                    assert_eq!(received.len(), before, "{}", case["name"]);
                    // Envoy itself refuses such a path.
                    if reason != Some("path_ambiguous") {
                        assert!(response.text().contains(reason.unwrap()), "{response:?}");
                        refused.push(reason);
                    }
                }
            }
        }
        let records = records(&envoy, sent);
        let denied = records.iter().filter_map(|record| record.decision?.reason());
        let denied: Vec<_> = denied.map(|reason| Some(reason.code())).collect();
        assert_eq!(denied, refused);
    });
}
