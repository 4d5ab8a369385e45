//! Requests to AI services, and the facts that are read from them.

use serde_json::json;
use vkey::body::Declared;
use vkey::body::json::Limits;
use vkey::body::request::{RequestFacts, RequestReader, Target};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::pieces::pieces;
use super::*;

/// The tokens that are reserved for a candidate without a bound.
const DEFAULT: u64 = 1_000_003;

pub(crate) fn body(case: &Value) -> Vec<u8> {
    match case["body_b64"].as_str() {
        Some(text) => STANDARD.decode(text).unwrap(),
        None => case["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    }
}

/// The headers of a case; a list of values is as many headers.
pub(crate) fn headers(case: &Value) -> Vec<(&str, &str)> {
    let mut headers = Vec::new();
    for (name, values) in case["headers"].as_object().unwrap() {
        let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
        headers.extend(values.iter().map(|value| (name.as_str(), value.as_str().unwrap())));
    }
    headers
}

fn declared(case: &Value) -> Declared {
    let headers = headers(case);
    Declared::read(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// The facts, or the code of the refusal.
fn facts(case: &Value, pieces: &[&[u8]]) -> Result<RequestFacts, &'static str> {
    let path = case["path"].as_str().unwrap().as_bytes();
    CanonicalPath::parse(path).map_err(|_| "path_ambiguous")?;
    let target = Target::parse(case["method"].as_str().unwrap(), path);
    let target = target.map_err(|_| "path_ambiguous")?;
    read(target, declared(case), pieces).map_err(|_| "body_unreadable")
}

fn read(
    target: Target,
    declared: Declared,
    pieces: &[&[u8]],
) -> Result<RequestFacts, vkey::body::json::Unreadable> {
    let mut reader = RequestReader::new(target, declared, Limits::default())?;
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

/// The facts as a vector has them, defaults left out.
fn shown(facts: &RequestFacts) -> Value {
    let mut shown = json!({"format": facts.format.name(), "model": facts.model()});
    let models: Vec<&str> = facts.models.iter().map(|name| &**name).collect();
    if models.len() > 1 {
        shown["models"] = json!(models);
    }
    for (name, value) in
        [("open_ended", facts.open_ended), ("stream", facts.stream), ("deferred", facts.deferred)]
    {
        if value {
            shown[name] = json!(true);
        }
    }
    if let Some(bound) = facts.max_output {
        shown["max_output"] = json!(bound);
    }
    if facts.candidates != 1 {
        shown["candidates"] = json!(facts.candidates);
    }
    if !facts.hosted_mcp.is_empty() {
        let servers: Vec<&str> = facts.hosted_mcp.iter().map(|server| &**server).collect();
        shown["hosted_mcp"] = json!(servers);
    }
    let reserved = facts.reserve_output(DEFAULT);
    if reserved != DEFAULT * facts.candidates {
        shown["reserve_output"] = json!(reserved);
    }
    shown
}

#[test]
fn facts_of_requests() {
    let file = vectors!("llm/requests.json");
    let all = cases(&file["cases"], 111);
    for case in all {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expect"]);
        let body = body(case);
        for (way, pieces) in pieces(&body).iter().enumerate() {
            let read = facts(case, pieces);
            let read = read.as_ref().map_or_else(|error| json!({"error": error}), shown);
            assert_eq!(read, *expected, "{name}, cut in way {way}");
        }
    }
}

#[test]
fn bodies_that_make_streams_report_their_usage() {
    let file = vectors!("llm/include_usage.json");
    for case in cases(&file["cases"], 9) {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expect"]);
        let path = match case["format"].as_str().unwrap() {
            "openai.chat" => "/v1/chat/completions",
            other => panic!("no path for {other}"),
        };
        let body = body(case);
        for (way, pieces) in pieces(&body).iter().enumerate() {
            let target = Target::parse("POST", path.as_bytes()).unwrap();
            let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
            let changed = read(target, declared, pieces).map(|facts| changed(&body, &facts));
            let changed = match changed {
                Ok((body, strip)) => json!({"body": body, "strip": strip}),
                Err(_) => json!({"error": "body_unreadable"}),
            };
            assert_eq!(changed, *expected, "{name}, cut in way {way}");
        }
    }
}

fn changed(body: &[u8], facts: &RequestFacts) -> (String, bool) {
    let mut body = String::from_utf8(body.to_vec()).unwrap();
    let Some(inject) = &facts.inject else { return (body, false) };
    let at = |offset: u64| usize::try_from(offset).unwrap();
    body.replace_range(at(inject.at.start)..at(inject.at.end), inject.text);
    (body, inject.strips)
}
