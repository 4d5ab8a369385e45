//! Placeholders, secrets and bytes: how a scenario refers to what its file should not or cannot contain.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vkey::digest::sha256_hex;
use vkey::json::Json;
use vkey::key::mac::hkdf_sha256;
use vkey::key::token::Kid;

/// The compiled-in upstream-TLS policy.
pub(crate) const POLICY: &[u8] = include_bytes!("../../filters/vkey/upstream-tls.json");

/// The values of a scenario's placeholders.
pub(crate) struct Meaning<'a> {
    pub(crate) start: u64,
    /// The number of the repetition of a key or step, counted from 1.
    pub(crate) n: u64,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) keys: &'a BTreeMap<String, String>,
}

impl Meaning<'_> {
    /// Fills the placeholders of a text; `{{n}}` first, because it may be inside another one.
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

    /// Fills the placeholders of a document. A string that is a single time becomes a number.
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

/// A time, shifted by some seconds.
pub(crate) fn shifted(time: u64, seconds: i64) -> u64 {
    time.checked_add_signed(seconds).expect("a time after 1970")
}

/// The value of an environment variable. `@secret:NAME` is a strong secret that is derived from its name, and
/// `@signing_key:NAME:KID` the signing key that it has for a kid, so that no file contains one.
pub(crate) fn env_value(text: &str) -> String {
    if let Some(name) = text.strip_prefix("@secret:") {
        let digits = sha256_hex(format!("vkey scenario {name}").as_bytes());
        return format!("base64:{}", STANDARD.encode(from_hex(&digits)));
    }
    let Some((name, kid)) =
        text.strip_prefix("@signing_key:").and_then(|rest| rest.split_once(':'))
    else {
        return text.to_owned();
    };
    let kid = Kid::parse(kid.as_bytes()).expect("a kid");
    let key = signing_key(&env_value(&format!("@secret:{name}")), &kid);
    format!("base64:{}", STANDARD.encode(key))
}

/// The signing key that a secret has for a kid.
pub(crate) fn signing_key(secret: &str, kid: &Kid) -> [u8; 32] {
    let mut key = [0; 32];
    let info = kid.to_string();
    hkdf_sha256(b"vkey.v1", &secret_bytes(secret), info.as_bytes(), &mut key).expect("one block");
    key
}

/// The bytes of a secret: those of the text, or those encoded after `base64:`.
pub(crate) fn secret_bytes(text: &str) -> Vec<u8> {
    match text.strip_prefix("base64:") {
        Some(encoded) => STANDARD.decode(encoded).expect("base64"),
        None => text.as_bytes().to_vec(),
    }
}

/// Decodes a text of a scenario: each character up to U+00FF is one byte.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let byte = |c: char| u8::try_from(c).unwrap_or_else(|_| panic!("{c:?} is no byte"));
    text.chars().map(byte).collect()
}

/// Encodes bytes for a scenario.
pub(crate) fn from_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The part of a key after its last dot.
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
