//! `inspect`: the content of a key, unverified.

use vkey::issuing::{Inspection, KeyFlaw};
use vkey::json::Json;
use wasm_bindgen::prelude::*;

use super::edge::{error, string, value};

/// The parts of a key, as `vkey inspect` shows them.
///
/// # Errors
///
/// If it is not a key.
#[wasm_bindgen(skip_typescript)]
pub fn inspect(key: &JsValue) -> Result<JsValue, JsValue> {
    let key = string("key", key)?;
    let key = KeyFlaw::read(&key).map_err(|flaw| error(flaw.to_string()))?;
    let Inspection { lines, notes, is_understood } = Inspection::of(&key);
    let (claims, caveats) = key.untrusted_content();
    let content = |text: &[u8]| Json::parse(text).unwrap_or(Json::Null);
    let texts = |list: &[String]| list.iter().map(|text| Json::from(text.as_str())).collect();
    let kid = key.kid();
    Ok(value(&Json::object([
        ("kid", kid.as_str().into()),
        ("ring", kid.ring().into()),
        ("epoch", u64::from(kid.epoch()).into()),
        ("claims", content(claims)),
        ("caveats", Json::Array(caveats.map(content).collect())),
        ("understood", Json::Bool(is_understood)),
        ("notes", Json::Array(texts(&notes))),
        ("text", lines.join("\n").as_str().into()),
    ])))
}
