//! Placeholders, secrets and bytes: how a scenario writes what a file should not or cannot hold.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vkey::digest::sha256_hex;
use vkey::json::Json;

/// The upstream-TLS policy that the module is built with.
pub(crate) const POLICY: &[u8] = include_bytes!("../../filters/vkey/upstream-tls.json");

/// What the placeholders of a scenario stand for.
pub(crate) struct Meaning<'a> {
    pub(crate) start: u64,
    /// Which of a number of equal keys or of a step's repetitions it is, counted from 1.
    pub(crate) n: u64,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) keys: &'a BTreeMap<String, String>,
}

impl Meaning<'_> {
    /// A text with its placeholders filled; `{{n}}` first, because it may stand in another.
    pub(crate) fn fill(&self, text: &str) -> String {
        let numbered = text.replace("{{n}}", &self.n.to_string());
        let mut filled = String::new();
        let mut rest = numbered.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (placeholder, after) = after.split_once("}}").expect("}} after {{");
            filled.push_str(before);
            filled.push_str(&self.value(placeholder));
            rest = after;
        }
        filled + rest
    }

    /// A document with its placeholders filled; a text that is one time becomes a number.
    pub(crate) fn fill_json(&self, json: &Json) -> Json {
        match json {
            Json::String(text) => match self.lone_time(text) {
                Some(time) => time.into(),
                None => Json::String(self.fill(text)),
            },
            Json::Array(items) => Json::Array(items.iter().map(|i| self.fill_json(i)).collect()),
            Json::Object(members) => {
                let fill = |(name, value): &(String, Json)| (name.clone(), self.fill_json(value));
                Json::Object(members.iter().map(fill).collect())
            }
            other => other.clone(),
        }
    }

    fn value(&self, placeholder: &str) -> String {
        if let Some(time) = self.time(placeholder) {
            return time.to_string();
        }
        let (word, rest) = placeholder.split_once(' ').unwrap_or((placeholder, ""));
        let found = match word {
            "key" => self.keys.get(rest).cloned(),
            "tag" => self.keys.get(rest).map(|key| tag(key).to_owned()),
            "tag_part" => self.tag_part(rest),
            "key_base64" => self.keys.get(rest).map(|key| STANDARD.encode(key)),
            "env" => self.env.get(rest).cloned(),
            "policy" => Some(sha256_hex(POLICY)),
            "times" => rest
                .split_once(' ')
                .map(|(count, text)| text.repeat(count.parse().expect("a count"))),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("nothing is meant by {{{{{placeholder}}}}}"))
    }

    /// `FROM LEN NAME`: characters of a key's tag.
    fn tag_part(&self, rest: &str) -> Option<String> {
        let [from, len, name] = rest.splitn(3, ' ').collect::<Vec<_>>().try_into().ok()?;
        let from: usize = from.parse().ok()?;
        let to = from + len.parse::<usize>().ok()?;
        tag(self.keys.get(name)?).get(from..to).map(str::to_owned)
    }

    fn lone_time(&self, text: &str) -> Option<u64> {
        self.time(text.strip_prefix("{{")?.strip_suffix("}}")?)
    }

    /// `start`, `start+60`, `start-60`.
    fn time(&self, placeholder: &str) -> Option<u64> {
        let shift = placeholder.strip_prefix("start")?;
        let shift: i64 = if shift.is_empty() { 0 } else { shift.parse().ok()? };
        Some(shifted(self.start, shift))
    }
}

/// A time some seconds after another, or before.
pub(crate) fn shifted(time: u64, seconds: i64) -> u64 {
    time.checked_add_signed(seconds).expect("a time after 1970")
}

/// The value of an environment variable. `@secret:NAME` is a strong secret that stands in no file.
pub(crate) fn env_value(text: &str) -> String {
    match text.strip_prefix("@secret:") {
        Some(name) => {
            let digits = sha256_hex(format!("vkey scenario {name}").as_bytes());
            format!("base64:{}", STANDARD.encode(from_hex(&digits)))
        }
        None => text.to_owned(),
    }
}

/// The bytes that sign: of a text itself, or those after `base64:`.
pub(crate) fn secret_bytes(text: &str) -> Vec<u8> {
    match text.strip_prefix("base64:") {
        Some(encoded) => STANDARD.decode(encoded).expect("base64"),
        None => text.as_bytes().to_vec(),
    }
}

/// Text as a scenario means it: each character up to U+00FF is one byte.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let byte = |c: char| u8::try_from(c).unwrap_or_else(|_| panic!("{c:?} is no byte"));
    text.chars().map(byte).collect()
}

/// Bytes as a scenario writes them.
pub(crate) fn from_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// What stands behind the last dot of a key.
pub(crate) fn tag(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or_default()
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The member at a path of names.
pub(crate) fn member<'a>(json: Option<&'a Json>, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(json?, |json, name| json.get(name))
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let pair = |pair: &[u8]| u8::from_str_radix(&from_bytes(pair), 16).expect("digits");
    pairs.map(pair).collect()
}
