//! `attenuate`: narrows a key without a secret.

use vkey::access::restriction::{Restriction, Slashes};
use vkey::issuing::{KeyFlaw, NOTHING, Review, check_restriction, narrow};
use vkey::json::{Integers, Invalid, Json, Members, Node};
use vkey::key::claims::Claims;
use wasm_bindgen::prelude::*;

use super::NAMES;
use super::edge::{error, invalid, json, now_secs, read, string};

const EMPTY: &str = "caveats: expected a list of at least one restriction";

/// A key that may do what `key` may and all caveats allow, as `vkey attenuate` makes it.
///
/// # Errors
///
/// What the command refuses, and a caveat that restricts nothing.
#[wasm_bindgen(skip_typescript)]
pub fn attenuate(key: &JsValue, caveats: &JsValue, options: &JsValue) -> Result<String, JsValue> {
    let (now_secs, slashes) = read("options", options, |node| {
        let members = node.members(&["now", "keepEscapedSlashes"])?;
        Ok((now_secs(&members)?, slashes(&members)?))
    })?;
    let caveats = read_caveats(&json("caveats", caveats)?, slashes)?;
    if caveats.is_empty() {
        return Err(error(EMPTY));
    }
    let key = string("key", key)?;
    let claims = KeyFlaw::read(&key).map(|key| Claims::parse(key.untrusted_content().0));
    let narrowed = narrow(key, &caveats).map_err(|cannot| error(cannot.sentence(&NAMES)))?;
    let mut review = Review::default();
    if let Ok(Ok(claims)) = claims
        && let Some(valid) = review.life(&claims, now_secs)
    {
        review.caveats(&NAMES, &caveats, &valid);
    }
    check(review)?;
    Ok(narrowed)
}

/// Reads caveats. Rejects those that a gate would not understand, that no request can match or that restrict nothing.
pub(super) fn read_caveats(list: &Json, slashes: Slashes) -> Result<Vec<Json>, JsValue> {
    let Json::Array(list) = list else { return Err(error(EMPTY)) };
    for (index, caveat) in list.iter().enumerate() {
        let name = NAMES.nth_caveat(index);
        check_restriction(caveat, slashes).map_err(|problem| invalid(&name, &problem))?;
        let restriction = Restriction::read(&caveat.root(Integers::Digits));
        if restriction == Ok(Restriction::default()) {
            return Err(error(format!("{name} {NOTHING}")));
        }
    }
    Ok(list.clone())
}

/// Whether the key's tier keeps `%2F` in paths.
pub(super) fn slashes(options: &Members<'_>) -> Result<Slashes, Invalid> {
    let are_kept = options.read("keepEscapedSlashes", Node::bool)?;
    Ok(Slashes::written(are_kept.unwrap_or(false)))
}

/// Refuses a key with which every request would be refused.
pub(super) fn check(review: Review) -> Result<(), JsValue> {
    let Review { refusals, .. } = review;
    if refusals.is_empty() {
        return Ok(());
    }
    Err(error(format!("the key would be refused, and is not made: {}", refusals.join("; "))))
}
