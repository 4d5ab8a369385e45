//! The text that a module gets as its configuration, as the proxies make it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

use super::super::document::{get, typed};

/// The messages that Envoy hands over as text. The module gets any other in the binary form of protobuf, a
/// `Struct` too.
const EXPECTED: &str = "expected a google.protobuf.StringValue with the JSON text as its value; Envoy hands over \
                        a Struct in binary, which the module cannot read";

/// Integers up to this are exact in a double.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The text that the module gets from the `configuration` of a plugin; empty if there is none. The error
/// says what is expected instead.
pub(crate) fn configuration(plugin: &Value) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let Some(message) = get(plugin, "configuration") else {
        return Ok(Zeroizing::default());
    };
    let (kind, content) = typed(message);
    let value = get(content, "value");
    match (kind, value) {
        ("google.protobuf.StringValue", Some(Value::String(text))) => {
            Ok(Zeroizing::new(text.clone().into_bytes()))
        }
        ("google.protobuf.StringValue" | "google.protobuf.BytesValue", None) => {
            Ok(Zeroizing::default())
        }
        ("google.protobuf.BytesValue", Some(Value::String(text))) => {
            STANDARD.decode(text).map(Zeroizing::new).map_err(|_| EXPECTED)
        }
        _ => Err(EXPECTED),
    }
}

/// The `configuration` of a plugin as JSON, without its type.
pub(super) fn content(plugin: &Value) -> Zeroizing<Vec<u8>> {
    let message = get(plugin, "configuration").unwrap_or(&Value::Null);
    let content = get(typed(message).1, "value").unwrap_or(message);
    Zeroizing::new(content.to_string().into_bytes())
}

/// The JSON text that Istio makes of a `google.protobuf.Struct`, in which every number is a double.
pub(super) fn of_struct(value: &Value) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(doubles(value).to_string().into_bytes())
}

fn doubles(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(doubles).collect()),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| (name.clone(), doubles(value));
            Value::Object(Map::from_iter(members.iter().map(member)))
        }
        Value::Number(number) => number.as_f64().map_or(Value::Null, double),
        other => other.clone(),
    }
}

/// A double in JSON: a whole number has no fraction.
fn double(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the number is whole, and within the range"
    )]
    let whole = (number.fract() == 0.0 && number.abs() <= MAX_EXACT).then_some(number as i64);
    match whole {
        Some(whole) => Value::Number(whole.into()),
        None => Number::from_f64(number).map_or(Value::Null, Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(message: &Value) -> Result<String, &'static str> {
        let bytes = configuration(&json!({ "configuration": message }))?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn typed(kind: &str, value: &Value) -> Result<String, &'static str> {
        let kind = format!("type.googleapis.com/google.protobuf.{kind}");
        text(&json!({"@type": kind, "value": value}))
    }

    #[test]
    fn a_string_is_handed_over_as_it_is() {
        assert_eq!(typed("StringValue", &json!("{\"a\": 1, }")).unwrap(), "{\"a\": 1, }");
        assert_eq!(typed("BytesValue", &json!("eyJ9")).unwrap(), "{\"}");
    }

    #[test]
    fn the_numbers_of_a_struct_are_doubles() {
        let numbers = json!({"a": [5, 5.0, 0.5, 9_007_199_254_740_993_u64, null, true, "5"]});
        assert_eq!(
            String::from_utf8_lossy(&of_struct(&numbers)),
            r#"{"a":[5,5,0.5,9007199254740992,null,true,"5"]}"#
        );
    }

    #[test]
    fn other_messages_are_refused() {
        for (kind, value) in [("Struct", json!({})), ("StringValue", json!({})), ("Any", json!(1))]
        {
            assert_eq!(typed(kind, &value).unwrap_err(), EXPECTED);
        }
        assert_eq!(text(&json!({"keyring": []})).unwrap_err(), EXPECTED);
        assert!(configuration(&json!({})).unwrap().is_empty());
    }
}
