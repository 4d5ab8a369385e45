//! The chain of audit records. Each record contains the MAC of the one before it, so that a missing, added, moved or
//! changed record shows. From time to time an anchor says how far the chain has come, so that a missing end shows too.
//!
//! A MAC is HMAC-SHA256 over the text of its record or anchor: what stands between `{"vkey":"` and `,"mac":"`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::decision::Decision;
use crate::json::decimal::push_decimal;
use crate::json::push_quoted;
use crate::key::keyring::Secret;
use crate::key::mac::{SigningKey, same_tag_text};
use crate::time::push_rfc3339;

use super::VERSION;
use super::write::OPEN;

/// The number of records between two anchors, unless configured.
pub const DEFAULT_ANCHOR_EVERY: u64 = 1000;

/// The greatest number of records between two anchors.
pub const MAX_ANCHOR_EVERY: u64 = 1_000_000;

/// What the audit key is derived for. No kid is a ring's name alone, so no ring has this key.
const KEY_INFO: &str = "audit";

/// Bytes of randomness in the id of a chain.
const ID_BYTES: usize = 12;

/// Characters of a MAC in a line: 32 bytes in base64url, unpadded (RFC 4648, section 5).
const MAC_CHARS: usize = 43;

/// The most bytes that a link adds to a record.
pub const LINK_BYTES: usize = 170;

/// What the MAC of a record or an anchor follows.
const MAC_LABEL: &str = r#","mac":""#;

/// The key of audit trails. It has no `Debug`.
#[derive(Clone)]
pub struct AuditKey(SigningKey);

/// A chain at its present end. Every worker has its own, and a new one with each configuration.
pub struct Chain {
    key: AuditKey,
    id: String,
    /// The number of the next record, counted from 0.
    seq: u64,
    /// The MAC of the last record; empty before the first.
    last: String,
    totals: Totals,
}

/// What the records of a chain come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records of requests that a key allowed.
    pub allow: u64,
    /// Records of refused requests.
    pub deny: u64,
    /// Records of forwarded preflights.
    pub preflight: u64,
    /// Records of requests that needed no key.
    pub public: u64,
    /// Records of requests that the shadow mode forwarded although they would be refused.
    pub shadow: u64,
    /// Tokens that were charged.
    pub tokens: u64,
    /// What they cost, micro-USD.
    pub cost: u64,
}

/// What a record adds to the totals of its chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amounts {
    /// The decision; `None` if the module never saw the request.
    pub decision: Option<Decision>,
    /// Tokens that were charged.
    pub tokens: u64,
    /// What they cost, micro-USD.
    pub cost: u64,
}

/// The content of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The id of the chain.
    pub chain: String,
    /// When it was written, Unix microseconds.
    pub ts_micros: u64,
    /// The node id of the proxy.
    pub host: Option<String>,
    /// The number of records that the chain had.
    pub records: u64,
    /// The MAC of the last of them.
    pub last: String,
    /// What they came to.
    pub totals: Totals,
    /// The id of the configuration that was in force.
    pub plan: String,
    /// Whether the chain ended there.
    pub is_end: bool,
}

/// When and where an anchor is written.
#[derive(Clone, Copy, Debug)]
pub struct AnchorContext<'a> {
    /// The time, Unix microseconds.
    pub ts_micros: u64,
    /// The member `host`: see [`super::AuditRecord::host_members`].
    pub host_members: &'a str,
    /// The id of the configuration in force.
    pub plan: &'a str,
    /// Whether the chain ends here.
    pub is_end: bool,
}

// === impl AuditKey ===

impl AuditKey {
    /// The audit key that is derived from a secret.
    pub fn new(secret: &Secret) -> Self {
        Self(secret.extract().derive(KEY_INFO))
    }

    /// Whether a line contains the MAC of its record or anchor, whatever stands before and after it. `None` if it
    /// contains no MAC.
    pub fn verifies(&self, line: &str) -> Option<bool> {
        let (_, text) = line.split_once(OPEN)?;
        let (text, rest) = text.split_once(MAC_LABEL)?;
        let (mac, _) = rest.split_once('"')?;
        Some(same_tag_text(self.mac(text).as_bytes(), mac.as_bytes()))
    }

    fn mac(&self, text: &str) -> String {
        let mut mac = String::with_capacity(MAC_CHARS);
        URL_SAFE_NO_PAD.encode_string(self.0.sign(&[text.as_bytes()]).expose(), &mut mac);
        mac
    }
}

// === impl Chain ===

impl Chain {
    /// A chain without records. `seed`: what no other chain has, of any length; the id does not show it.
    pub fn new(key: AuditKey, seed: &[&[u8]]) -> Self {
        let digest = key.0.sign(seed);
        let id = digest.expose().get(..ID_BYTES).unwrap_or_default();
        let id = URL_SAFE_NO_PAD.encode(id);
        Self { key, id, seq: 0, last: String::new(), totals: Totals::default() }
    }

    /// The number of records.
    pub fn len(&self) -> u64 {
        self.seq
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.seq == 0
    }

    /// What the records come to.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Appends to a written record its place in the chain, and takes it as the last one.
    pub fn link(&mut self, record: &mut String, amounts: Amounts) {
        record.reserve(LINK_BYTES);
        record.push_str(r#"","chain":""#);
        record.push_str(&self.id);
        record.push_str(r#"","seq":"#);
        push_decimal(record, self.seq);
        record.push_str(r#","prev":""#);
        record.push_str(&self.last);
        record.push('"');
        self.last = self.seal(record);
        self.seq = self.seq.saturating_add(1);
        self.totals.add(amounts);
    }

    /// The line of an anchor: what the chain has come to.
    pub fn anchor(&self, at: &AnchorContext<'_>) -> String {
        let mut text = [VERSION, r#"","anchor":""#, &self.id, r#"","ts":""#].concat();
        push_rfc3339(&mut text, at.ts_micros);
        text.push('"');
        text.push_str(at.host_members);
        text.push_str(r#","records":"#);
        push_decimal(&mut text, self.seq);
        text.push_str(r#","last":""#);
        text.push_str(&self.last);
        text.push('"');
        for (name, total) in Totals::NAMES.iter().zip(self.totals.values()) {
            text.push_str(",\"");
            text.push_str(name);
            text.push_str("\":");
            push_decimal(&mut text, total);
        }
        text.push_str(r#","plan":"#);
        push_quoted(&mut text, at.plan);
        text.push_str(if at.is_end { r#","end":true"# } else { r#","end":false"# });
        self.seal(&mut text);
        [OPEN, &text, r#""}"#].concat()
    }

    /// Appends the MAC of the text, without the closing quote. Returns it.
    fn seal(&self, text: &mut String) -> String {
        let mac = self.key.mac(text);
        text.push_str(MAC_LABEL);
        text.push_str(&mac);
        mac
    }
}

// === impl Totals ===

impl Totals {
    /// The names of the members in an anchor, in their order.
    pub(super) const NAMES: [&str; 7] =
        ["allow", "deny", "preflight", "public", "shadow", "tokens", "cost"];

    /// The totals with the values of these members.
    pub(super) fn from_values(values: [u64; 7]) -> Self {
        let [allow, deny, preflight, public, shadow, tokens, cost] = values;
        Self { allow, deny, preflight, public, shadow, tokens, cost }
    }

    fn values(&self) -> [u64; 7] {
        let Self { allow, deny, preflight, public, shadow, tokens, cost } = *self;
        [allow, deny, preflight, public, shadow, tokens, cost]
    }

    /// Adds what a record says.
    pub fn add(&mut self, amounts: Amounts) {
        let count = match amounts.decision {
            None => None,
            Some(Decision::Allow) => Some(&mut self.allow),
            Some(Decision::Deny(_)) => Some(&mut self.deny),
            Some(Decision::Preflight) => Some(&mut self.preflight),
            Some(Decision::Public) => Some(&mut self.public),
            Some(Decision::Shadow(_)) => Some(&mut self.shadow),
        };
        if let Some(count) = count {
            *count = count.saturating_add(1);
        }
        self.tokens = self.tokens.saturating_add(amounts.tokens);
        self.cost = self.cost.saturating_add(amounts.cost);
    }
}
