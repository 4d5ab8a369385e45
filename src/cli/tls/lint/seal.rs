//! The seal of a listener: what refuses requests that the module has not allowed.

use super::super::document::{get, text, typed, walk};
use super::finding::Note;
use super::managers::Manager;
use serde_json::Value;

/// The filter state that an allowed request carries.
const SEAL: &str = "wasm.vkey.decision";

/// A listener where nothing refuses what the module has not allowed.
pub(super) fn note(manager: &Manager<'_>) -> Option<Note> {
    let is_sealed = manager.behind.iter().any(refuses_unsealed);
    (!is_sealed).then(|| Note {
        place: manager.listener.to_owned(),
        text: format!(
            "no RBAC filter behind the module refuses requests without the filter state {SEAL}"
        ),
    })
}

fn refuses_unsealed(filter: &Value) -> bool {
    let Some(config) = get(filter, "typed_config") else { return false };
    let mut found = false;
    walk(config, &mut |object| found |= text(object, "key") == Some(SEAL));
    typed(config).0.ends_with(".RBAC") && found
}
