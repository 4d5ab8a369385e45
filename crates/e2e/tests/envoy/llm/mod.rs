//! Requests to AI services and their responses, on a real Envoy, with a provider that replays.

mod clients;
pub(crate) mod quotas;
mod requests;
mod responses;

use std::fs;

use serde_json::{Value, json};

use crate::keys::{Minter, options};
use crate::support::{Options, Provider, Replay, config, root};

/// The cases of `testdata/vectors/llm/answers.json`.
fn responses() -> Vec<Value> {
    vectors("llm/answers.json")
}

/// The cases of a file in `testdata/vectors`.
pub(crate) fn vectors(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(root().join("testdata/vectors").join(name)).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// The body of a request in a case.
pub(crate) fn body(case: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match (case["body"].as_str(), case["body_b64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        (None, None) => Vec::new(),
    }
}

/// The pieces of a body in a case.
pub(crate) fn pieces(case: &Value) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let decode = base64::engine::general_purpose::STANDARD;
    let texts = |name: &str| case[name].as_array().cloned().unwrap_or_default();
    let text = |piece: &Value| piece.as_str().unwrap().to_owned();
    let plain = texts("chunks").into_iter().map(|piece| text(&piece).into_bytes());
    let encoded = texts("chunks_b64").into_iter().map(|piece| decode.decode(text(&piece)).unwrap());
    plain.chain(encoded).collect()
}

/// What a case says that the provider sends.
fn replay(case: &Value) -> Replay {
    let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
    let headers = case["headers"].as_object().into_iter().flatten();
    let head = headers.fold(Replay::new(status), |replay, (name, value)| {
        replay.header(name, value.as_str().unwrap())
    });
    pieces(case).into_iter().fold(head, Replay::piece)
}

/// The gate in front of a provider, with a plugin configuration of the test's own.
pub(crate) fn in_front_of(
    provider: &Provider,
    label: &str,
    minter: &Minter,
    plugin: Value,
) -> Options {
    let address = provider.address();
    options(label, minter, plugin).edit(move |config| {
        let cluster = config::named(config, "/static_resources/clusters", "echo");
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
        endpoint["endpoint"]["address"] = json!({
            "socket_address": {"address": "127.0.0.1", "port_value": address.port()},
        });
        // Envoy leaves a connection whose response was cut open for a second, and these tests cut thousands.
        config::connection_manager(config, "gate")["delayed_close_timeout"] = json!("0s");
    })
}

/// A body whole, in pieces of one byte, and cut at random in twenty ways, the same in every run.
pub(crate) fn cuts(body: &[u8], seed: usize) -> Vec<Vec<Vec<u8>>> {
    let single = body.iter().map(|byte| vec![*byte]).collect();
    let random = (0..20).map(|way| cut(body, seed * 20 + way));
    let whole = if body.is_empty() { Vec::new() } else { vec![body.to_vec()] };
    [whole, single].into_iter().chain(random).collect()
}

fn cut(body: &[u8], seed: usize) -> Vec<Vec<u8>> {
    let mut state = u64::try_from(seed).unwrap().wrapping_mul(2).wrapping_add(1);
    let mut pieces = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        // A linear congruential generator is random enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = usize::try_from(state >> 33).unwrap() % rest.len().min(64) + 1;
        let (piece, after) = rest.split_at(length);
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}
