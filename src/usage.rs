//! What a key is told of its own use.

use crate::cell::Cell;
use crate::json::Json;
use crate::key::Key;

/// The usage answer: one JSON object.
pub fn answer(key: &Key, cell: &Cell) -> String {
    let claims = key.claims();
    let denied = cell.denied().map(|(class, count)| (class.name().to_owned(), count.into()));
    Json::object([
        ("jti", claims.jti.as_str().into()),
        ("tenant", claims.tenant.as_str().into()),
        ("tier", claims.tier().into()),
        ("seen", cell.seen().into()),
        ("allowed", cell.allowed().into()),
        ("denied", Json::Object(denied.collect())),
        ("limits", Json::Array(Vec::new())),
    ])
    .to_string()
}
