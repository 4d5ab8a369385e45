//! A server that forgives everything that some server forgives. Where it has a choice, it takes the odd spelling.

use serde_json::{Map, Value};

/// What the server runs: the method, what it names, and the arguments. Nothing if it does not understand the body.
pub(crate) fn run(body: &[u8]) -> String {
    let text = decoded(body);
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let mut message = match documents.map_while(Result::ok).last() {
        Some(Value::Array(batch)) => batch.last().cloned().unwrap_or_default(),
        Some(message) => message,
        None => return String::new(),
    };
    message = forgiven(message);
    let Some(method) = message["method"].as_str().map(folded) else {
        return String::new();
    };
    let params = &message["params"];
    let reference = &params["ref"];
    let object = match &*method {
        "tools/call" | "prompts/get" => &params["name"],
        "completion/complete" if reference["uri"].is_string() => &reference["uri"],
        "completion/complete" => &reference["name"],
        "subscriptions/listen" => &params["notifications"]["resourcesubscriptions"],
        _ if method.starts_with("resources/") => &params["uri"],
        _ if method.starts_with("tasks/") => &params["taskid"],
        _ => &Value::Null,
    };
    let object = match object {
        Value::Null => String::new(),
        Value::String(name) => name.clone(),
        // Some take the only one of a list.
        other => other.to_string(),
    };
    let arguments = match &params["arguments"] {
        Value::Null => String::new(),
        arguments => arguments.to_string(),
    };
    format!("{method} {object} {arguments}").trim_end().to_owned()
}

/// The text of UTF-8, with or without a byte order mark or NULs around it, and of UTF-16.
fn decoded(body: &[u8]) -> String {
    let units = |unit: fn([u8; 2]) -> u16| -> String {
        let units = body.as_chunks().0.iter().map(|pair| unit(*pair));
        String::from_utf16_lossy(&units.collect::<Vec<_>>())
    };
    let text = match body {
        [0xFF, 0xFE, ..] | [_, 0, ..] => units(u16::from_le_bytes),
        [0xFE, 0xFF, ..] | [0, _, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    text.trim_matches(['\u{feff}', '\0']).to_owned()
}

/// Folds the names of members, merges prototypes, reads values in texts, and trims these.
fn forgiven(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut all = Map::new();
            for (name, value) in members {
                let (folded, value) = (folded(&name), forgiven(value));
                match value {
                    Value::Object(prototype) if folded == "__proto__" => all.extend(prototype),
                    value if folded != name || !all.contains_key(&folded) => {
                        all.insert(folded, value);
                    }
                    _ => {}
                }
            }
            Value::Object(all)
        }
        Value::Array(elements) => elements.into_iter().map(forgiven).collect(),
        Value::String(text) => {
            let text = text.trim_matches(['\0', ' ', '\n']);
            match serde_json::from_str(text) {
                Ok(Value::String(_)) | Err(_) => text.into(),
                Ok(other) => forgiven(other),
            }
        }
        other => other,
    }
}

fn folded(name: &str) -> String {
    let fold = |char| match char {
        '\0' => None,
        '\u{17f}' => Some('s'),
        '\u{212a}' => Some('k'),
        '\u{130}' | '\u{131}' => Some('i'),
        char => char.to_lowercase().next(),
    };
    name.chars().filter_map(fold).collect()
}
