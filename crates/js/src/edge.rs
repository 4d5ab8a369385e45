//! Values of JavaScript, its clock and its randomness.

#[cfg(feature = "write")]
use base64::Engine as _;
#[cfg(feature = "write")]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use vkey::json::{Integers, Invalid, Json, Members, Node};
use vkey::time::LAST_SECS;
use wasm_bindgen::prelude::*;

#[cfg(feature = "write")]
/// The length of a key's random id in bytes, as in the command.
const ID_BYTES: u32 = 12;

#[wasm_bindgen(module = "/src/edge.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn stringify(value: &JsValue) -> Result<String, JsValue>;
    #[cfg(feature = "read")]
    fn parse(text: &str) -> JsValue;
    fn now() -> f64;
    #[cfg(feature = "write")]
    #[wasm_bindgen(catch)]
    fn random(bytes: u32) -> Result<Vec<u8>, JsValue>;
}

/// An `Error` with this message.
pub(crate) fn error(message: impl AsRef<str>) -> JsValue {
    JsError::new(message.as_ref()).into()
}

/// An `Error` that names the argument in which a member is wrong.
pub(crate) fn invalid(argument: &str, invalid: &Invalid) -> JsValue {
    error(format!("{argument}: {invalid}"))
}

/// A string that is an argument.
pub(crate) fn string(argument: &str, value: &JsValue) -> Result<String, JsValue> {
    value.as_string().ok_or_else(|| error(format!("{argument}: expected a string")))
}

/// An argument as JSON; an empty object if it is left out.
pub(crate) fn json(argument: &str, value: &JsValue) -> Result<Json, JsValue> {
    if value.is_undefined() {
        return Ok(Json::Object(Vec::new()));
    }
    Json::parse(stringify(value)?.as_bytes()).map_err(|problem| invalid(argument, &problem))
}

/// JSON as a value.
#[cfg(feature = "read")]
pub(crate) fn value(json: &Json) -> JsValue {
    parse(&json.to_string())
}

/// The member `now`, or the time of JavaScript's clock. Unix seconds.
pub(crate) fn now_secs(options: &Members<'_>) -> Result<u64, Invalid> {
    let given = options.read("now", Node::time)?;
    Ok(given.unwrap_or_else(clock_secs))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
fn clock_secs() -> u64 {
    ((now() / 1000.0) as u64).min(LAST_SECS)
}

/// A new key id.
#[cfg(feature = "write")]
pub(crate) fn random_id() -> Result<String, JsValue> {
    Ok(format!("k_{}", URL_SAFE_NO_PAD.encode(random(ID_BYTES)?)))
}

/// The members of an argument, read by `read`.
pub(crate) fn read<T>(
    argument: &str,
    value: &JsValue,
    read: impl FnOnce(&Node<'_>) -> Result<T, Invalid>,
) -> Result<T, JsValue> {
    let json = json(argument, value)?;
    read(&json.root(Integers::Digits)).map_err(|problem| invalid(argument, &problem))
}
