//! The functions in JavaScript, in Node and in a browser: the vectors of keys, and a key that is narrowed.

#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "the lints do not know these tests as tests")]

use vkey::issuing::KeyFlaw;
use vkey::json::{Integers, Json, Node};
use vkey_js::{attenuate, explain, inspect, mint};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_test::wasm_bindgen_test;

const VECTORS: &str = include_str!("../../../testdata/vectors/keys.json");
const SECRET: &str = "q8#Zr!2vLw$9xTn@4bKdHm7%eYc3";
const NOW: &str = r#"{"now":1790000000}"#;

#[wasm_bindgen(inline_js = "export const parse = JSON.parse; export const text = JSON.stringify; \
                            export const message = (error) => error instanceof Error ? error.message : '';")]
extern "C" {
    fn parse(text: &str) -> JsValue;
    fn text(value: &JsValue) -> String;
    fn message(error: &JsValue) -> String;
}

fn child() -> String {
    let claims = parse(r#"{"tenant":"acme","lifetime":"1h","jti":"k1"}"#);
    let options = parse(r#"{"ring":"main","now":1790000000}"#);
    let key = mint(&SECRET.into(), &claims, &options).unwrap();
    attenuate(&key.into(), &parse(r#"[{"methods":["GET"]}]"#), &parse(NOW)).unwrap()
}

fn report(method: &str, options: &str) -> Json {
    let request = parse(&format!(r#"{{"method":"{method}","path":"/v1/models"}}"#));
    let report = explain(&child().into(), &request, &parse(options)).unwrap();
    Json::parse(text(&report).as_bytes()).unwrap()
}

#[wasm_bindgen_test]
fn keys_and_nothing_else_are_inspected() {
    let vectors = Json::parse(VECTORS.as_bytes()).unwrap();
    let root = vectors.root(Integers::Digits);
    let members = root.open_members().unwrap();
    let cases = members.require("cases").unwrap();
    let (mut keys, mut others) = (0, 0);
    for case in cases.items().unwrap() {
        let case = case.open_members().unwrap();
        let token = case.read("token", Node::string).unwrap().unwrap();
        match (KeyFlaw::read(token), inspect(&token.into())) {
            (Ok(key), Ok(shown)) => {
                keys += 1;
                assert!(text(&shown).contains(&format!("\"kid\":\"{}\"", key.kid())));
            }
            (Err(flaw), Err(error)) => {
                others += 1;
                assert_eq!(message(&error), flaw.to_string());
            }
            _ => panic!("{token}"),
        }
    }
    assert!(keys > 10 && others > 10, "{keys} {others}");
}

#[wasm_bindgen_test]
fn a_child_is_verified_and_narrower() {
    let verified = format!(r#"{{"now":1790000000,"secret":"{SECRET}"}}"#);
    for (method, options, decision, is_verified) in [
        ("GET", NOW, "allow", false),
        ("POST", NOW, "deny", false),
        ("GET", &verified, "allow", true),
        ("POST", &verified, "deny", true),
    ] {
        let report = report(method, options);
        assert_eq!(report.get("decision").and_then(Json::as_str), Some(decision));
        assert_eq!(report.get("verified"), Some(&Json::Bool(is_verified)));
    }
}

#[wasm_bindgen_test]
fn the_clock_and_the_randomness_are_those_of_javascript() {
    let claims = parse(r#"{"tenant":"acme","lifetime":"1h"}"#);
    let made = || mint(&SECRET.into(), &claims, &parse(r#"{"ring":"main"}"#)).unwrap();
    let (one, other) = (made(), made());
    assert_ne!(one, other);
    let request = parse(r#"{"method":"GET","path":"/"}"#);
    let report = explain(&one.into(), &request, &JsValue::UNDEFINED).unwrap();
    assert!(text(&report).contains(r#""decision":"allow""#));
}
