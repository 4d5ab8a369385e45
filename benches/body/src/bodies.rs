//! Bodies of about a length.

use std::fmt::Write as _;

const ENGLISH: &str = "The proxy reads the request piece by piece, and decides before the last byte has left for the \
                       upstream. It keeps no copy: a body of eight megabytes costs as much memory as a short one. \
                       \\\"How can that be?\\\" you may ask \u{2013} the scanner only remembers where it is.\\n\\n";

/// Source code, escaped.
pub const CODE: &str =
    "fn main() {\\n\\tlet name = \\\"world\\\";\\n\\tprintln!(\\\"Hello, {name}\\\");\\n}\\n";

/// A sentence in Chinese.
pub const CHINESE: &str = "\u{4ee3}\u{7406}\u{9010}\u{6bb5}\u{8bfb}\u{53d6}\u{8bf7}\u{6c42}\u{ff0c}\u{5728}\u{6700}\u{540e}\u{4e00}\u{4e2a}\u{5b57}\u{8282}\u{79bb}\u{5f00}\u{4e4b}\u{524d}\u{505a}\u{51fa}\u{51b3}\u{5b9a}\u{3002}";

/// A schema.
pub const COMPACT: &str = r#"{"type":"function","function":{"name":"get_weather","description":"Weather at a place","parameters":{"type":"object","properties":{"city":{"type":"string"},"unit":{"type":"string","enum":["celsius","fahrenheit"]},"days":{"type":"integer","minimum":1}},"required":["city"],"additionalProperties":false},"strict":true}}"#;

/// The same, indented.
pub const INDENTED: &str = r#"{
      "type": "function",
      "function": {
        "name": "get_weather",
        "description": "Weather at a place",
        "parameters": {
          "type": "object",
          "properties": {
            "city": {
              "type": "string"
            },
            "unit": {
              "type": "string",
              "enum": [
                "celsius",
                "fahrenheit"
              ]
            }
          },
          "required": [
            "city"
          ],
          "additionalProperties": false
        },
        "strict": true
      }
    }"#;

/// A request for a chat: messages of 300 bytes to 3 kB, and some tools.
pub fn chat(len: usize) -> Vec<u8> {
    let mut body =
        String::from(r#"{"model":"gpt-4o-mini","stream":true,"max_tokens":1024,"tools":["#);
    body.push_str(&[COMPACT; 8].join(","));
    body.push_str(r#"],"messages":[{"role":"system","content":"You are a helpful assistant."}"#);
    for turn in 0_usize.. {
        if body.len() >= len {
            break;
        }
        let role = if turn.is_multiple_of(2) { "user" } else { "assistant" };
        let text = ENGLISH.repeat(1 + turn * 7 % 10);
        let _ = write!(body, r#",{{"role":"{role}","content":"{text}"}}"#);
    }
    body.push_str("]}");
    body.into()
}

/// A request with one text.
pub fn text(text: &str, len: usize) -> Vec<u8> {
    let text = text.repeat(len / text.len());
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#).into()
}

/// A request with an image.
pub fn image(len: usize) -> Vec<u8> {
    let image = "iVBORw0KGgo+AAAANSUhEUgAA/wEBAQ".repeat(len / 30);
    let url = format!("data:image/png;base64,{image}");
    text(&url, url.len())
}

/// A request with a list of an item.
pub fn list(item: &str, len: usize) -> Vec<u8> {
    let items = vec![item; len / item.len()].join(",\n    ");
    format!(r#"{{"model":"m","input":[{items}]}}"#).into()
}

/// An object with that many members.
pub fn members(count: usize) -> String {
    let members = Vec::from_iter((0..count).map(|n| format!("\"{n:x}\":0")));
    format!("{{{}}}", members.join(","))
}

/// Non-ASCII characters as escapes.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for unit in text.encode_utf16() {
        let _ = write!(escaped, "\\u{unit:04x}");
    }
    escaped
}

/// A stream of a chat's events.
pub fn events(len: usize) -> Vec<u8> {
    const EVENT: &str = concat!(
        r#"data: {"id":"chatcmpl-BZ1","object":"chat.completion.chunk","created":1790000000,"model":"gpt-4o-mini","#,
        r#""service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" word"},"#,
        "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
    );
    EVENT.repeat(len / EVENT.len()).into()
}

/// A stream of Amazon's messages.
pub fn frames(len: usize) -> Vec<u8> {
    const MESSAGE: &[u8] = include_bytes!("message.bin");
    MESSAGE.repeat(len / MESSAGE.len())
}
