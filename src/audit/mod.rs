//! The audit record of a request, and the audit line: its text form.

mod mcp;
mod tag;

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decision::{Decision, DenyReason, UNSEEN};
use crate::json::decimal::push_decimal;
use crate::json::push_quoted;
use crate::json::{Integers, Invalid, Json, Members, Node};

pub use mcp::mcp_member;
pub use tag::HIDDEN_CHARS;
pub(crate) use tag::Tags;

/// The version of the line format: member `v`.
pub const VERSION: u64 = 1;

/// Replaces a value that is not shown, unless configured.
pub const MASK_VALUE: &str = "***REDACTED***";

/// What happened to one request. `None` is written as `null`: not known, or not applicable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditRecord<'a> {
    /// When the module first saw the request, Unix microseconds.
    pub ts_micros: u64,
    /// The node id of the proxy that wrote the line.
    pub host: Option<Cow<'a, str>>,
    /// The request's id, as in the proxy's own logs.
    pub req: Option<Cow<'a, str>>,
    /// The decision; `None` if the module never saw the request.
    pub decision: Option<Decision>,
    /// The id of the key's signing key.
    pub kid: Option<Cow<'a, str>>,
    /// The key.
    pub jti: Option<Cow<'a, str>>,
    /// The key's tenant.
    pub tenant: Option<Cow<'a, str>>,
    /// The subject that the key was issued to.
    pub sub: Option<Cow<'a, str>>,
    /// The key's tier.
    pub tier: Option<Cow<'a, str>>,
    /// The number of caveats in the key.
    pub caveats: Option<u64>,
    /// The address of the client.
    pub src: Option<Cow<'a, str>>,
    /// The HTTP method.
    pub method: Option<Cow<'a, str>>,
    /// The authority as the client wrote it.
    pub authority: Option<Cow<'a, str>>,
    /// The canonical path, or the path as written when it has no canonical form.
    pub path: Option<Cow<'a, str>>,
    /// The names in the query, without their values.
    pub query_keys: Vec<Cow<'a, str>>,
    /// The model asked for.
    pub model: Option<Cow<'a, str>>,
    /// The MCP call: see [`mcp_member`].
    pub mcp: Option<Cow<'a, str>>,
    /// The HTTP status of the response to the client.
    pub status: Option<u64>,
    /// Bytes received from the client.
    pub bytes_in: Option<u64>,
    /// Bytes sent to the client.
    pub bytes_out: Option<u64>,
    /// Tokens of a language model that were used.
    pub tokens: Option<u64>,
    /// What they cost, micro-USD.
    pub cost: Option<u64>,
    /// From the first time the module saw the request to its end.
    pub duration_ns: Option<u64>,
    /// The address of the upstream.
    pub upstream: Option<Cow<'a, str>>,
    /// The verdict on the connection to the upstream.
    pub tls_verdict: Option<Cow<'a, str>>,
    /// SHA-256 of the policy file that the verdict is based on.
    pub tls_policy: Option<Cow<'a, str>>,
    /// The id of the configuration in force.
    pub plan: Option<Cow<'a, str>>,
    /// What is unusual about the use of the key. Only the first such request of a window has it.
    pub anomaly: Option<Cow<'a, str>>,
}

/// Members whose values an audit line does not show.
#[derive(Clone, Debug)]
pub struct Mask {
    members: Box<[&'static str]>,
    value: String,
}

/// The members of a line, in their order.
const MEMBERS: [&str; 30] = [
    "v", "ts", "host", "req", "decision", "reason", "kid", "jti", "tenant", "sub", "tier",
    "caveats", "src", "method", "authority", "path", "query_keys", "model", "mcp", "status",
    "bytes_in", "bytes_out", "tokens", "cost", "duration_ns", "upstream", "tls_verdict",
    "tls_policy", "plan", "anomaly",
];

/// Marks where a value was cut. No path, host or method contains it.
const CUT: &str = "…";

/// Bytes of that mark in a line, where it is escaped.
const CUT_BYTES: usize = 6;

/// Initial capacity: enough for a typical line.
const LINE_BYTES: usize = 1024;

// === impl AuditRecord ===

impl AuditRecord<'_> {
    /// The record as one line of ASCII JSON, without the line end. Values that `mask` covers are replaced,
    /// and so are client texts that could contain a key.
    pub fn write(&self, mask: &Mask) -> String {
        let mut line = Line { text: String::with_capacity(LINE_BYTES), mask };
        line.text.push_str(r#"{"v":1"#);
        line.quoted(r#","ts":"#, &rfc3339(self.ts_micros));
        line.string(r#","host":"#, self.host.as_deref());
        line.client_text(r#","req":"#, self.req.as_deref());
        line.quoted(r#","decision":"#, self.decision.map_or(UNSEEN, Decision::word));
        let reason = self.decision.and_then(Decision::reason);
        line.string(r#","reason":"#, reason.map(DenyReason::code));
        line.string(r#","kid":"#, self.kid.as_deref());
        line.string(r#","jti":"#, self.jti.as_deref());
        line.string(r#","tenant":"#, self.tenant.as_deref());
        line.string(r#","sub":"#, self.sub.as_deref());
        line.string(r#","tier":"#, self.tier.as_deref());
        line.number(r#","caveats":"#, self.caveats);
        line.string(r#","src":"#, self.src.as_deref());
        line.client_text(r#","method":"#, self.method.as_deref());
        line.client_text(r#","authority":"#, self.authority.as_deref());
        line.client_text(r#","path":"#, self.path.as_deref());
        line.strings(r#","query_keys":"#, &self.query_keys);
        line.string(r#","model":"#, self.model.as_deref());
        line.client_text(r#","mcp":"#, self.mcp.as_deref());
        line.number(r#","status":"#, self.status);
        line.number(r#","bytes_in":"#, self.bytes_in);
        line.number(r#","bytes_out":"#, self.bytes_out);
        line.number(r#","tokens":"#, self.tokens);
        line.number(r#","cost":"#, self.cost);
        line.number(r#","duration_ns":"#, self.duration_ns);
        line.string(r#","upstream":"#, self.upstream.as_deref());
        line.string(r#","tls_verdict":"#, self.tls_verdict.as_deref());
        line.string(r#","tls_policy":"#, self.tls_policy.as_deref());
        line.string(r#","plan":"#, self.plan.as_deref());
        line.string(r#","anomaly":"#, self.anomaly.as_deref());
        line.text.push('}');
        line.text
    }
}

impl AuditRecord<'_> {
    /// Like [`AuditRecord::write`], but shortens texts to fit into `max_bytes`: first those of the client,
    /// then the key's subject. Cuts are marked. A line whose other members are too long stays longer.
    pub fn write_within(mut self, mask: &Mask, max_bytes: usize) -> String {
        let mut line = self.write(mask);
        while line.len() > max_bytes && self.query_keys.len() > 1 {
            self.query_keys.truncate(self.query_keys.len() - 2);
            self.query_keys.push(Cow::Borrowed(CUT));
            line = self.write(mask);
        }
        for member in 0..5 {
            let excess = line.len().saturating_sub(max_bytes);
            let (text, is_client_text) = match member {
                0 => (&mut self.path, true),
                1 => (&mut self.authority, true),
                2 => (&mut self.req, true),
                3 => (&mut self.method, true),
                _ => (&mut self.sub, false),
            };
            // A text that is masked because a key begins in it is short already. Cutting it could remove
            // what shows that, and so unmask it.
            let is_shown = |text: &Cow<'_, str>| !(is_client_text && starts_key(text));
            if let Some(text) = text.as_mut().filter(|text| excess > 0 && is_shown(text)) {
                *text = Cow::Owned(shortened(text, excess));
                line = self.write(mask);
            }
        }
        line
    }
}

impl AuditRecord<'static> {
    /// Reads a line that [`AuditRecord::write`] wrote. A masked value is read as its replacement.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if the line has another version or is not an audit line.
    pub fn parse(line: &str) -> Result<Self, Invalid> {
        let json = Json::parse(line.as_bytes())?;
        let root = json.root(Integers::Digits);
        let members = root.members(&MEMBERS)?;
        let version = members.require("v")?;
        if version.integer()? != VERSION {
            return Err(version.expected("version 1"));
        }
        let text = |name| members.read(name, |node| nullable(node, owned)).map(Option::flatten);
        let number =
            |name| members.read(name, |node| nullable(node, Node::integer)).map(Option::flatten);
        Ok(Self {
            ts_micros: micros(&members.require("ts")?)?,
            host: text("host")?,
            req: text("req")?,
            decision: decision(&members)?,
            kid: text("kid")?,
            jti: text("jti")?,
            tenant: text("tenant")?,
            sub: text("sub")?,
            tier: text("tier")?,
            caveats: number("caveats")?,
            src: text("src")?,
            method: text("method")?,
            authority: text("authority")?,
            path: text("path")?,
            query_keys: members.read("query_keys", query_keys)?.unwrap_or_default(),
            model: text("model")?,
            mcp: text("mcp")?,
            status: number("status")?,
            bytes_in: number("bytes_in")?,
            bytes_out: number("bytes_out")?,
            tokens: number("tokens")?,
            cost: number("cost")?,
            duration_ns: number("duration_ns")?,
            upstream: text("upstream")?,
            tls_verdict: text("tls_verdict")?,
            tls_policy: text("tls_policy")?,
            plan: text("plan")?,
            anomaly: text("anomaly")?,
        })
    }
}

// === impl Mask ===

impl Mask {
    /// The members that can be masked: those that identify the caller and the request, not the decision.
    pub const MASKABLE: [&str; 15] = [
        "host", "req", "kid", "jti", "tenant", "sub", "tier", "src", "method", "authority", "path",
        "query_keys", "model", "mcp", "upstream",
    ];

    /// Masks members with a value of the operator's choice.
    pub fn new(members: Box<[&'static str]>, value: Option<String>) -> Self {
        Self { members, value: value.unwrap_or_else(|| MASK_VALUE.to_owned()) }
    }

    /// Whether the member of a label, e.g. `,"jti":`, is masked.
    fn covers(&self, label: &str) -> bool {
        let name = || label.strip_prefix(",\"")?.strip_suffix("\":");
        !self.members.is_empty() && name().is_some_and(|name| self.members.contains(&name))
    }
}

impl Default for Mask {
    fn default() -> Self {
        Self::new(Box::default(), None)
    }
}

// === writing ===

/// A line that is being written. The label of a member is its name with the punctuation around it.
struct Line<'a> {
    text: String,
    mask: &'a Mask,
}

impl Line<'_> {
    fn string(&mut self, label: &str, value: Option<&str>) {
        match value {
            None => self.raw(label, "null"),
            Some(_) if self.mask.covers(label) => self.quoted(label, &self.mask.value),
            Some(value) => self.quoted(label, value),
        }
    }

    /// A string that the client wrote. It is masked if it contains a key that was put in the wrong place.
    fn client_text(&mut self, label: &str, value: Option<&str>) {
        self.string(label, value.map(without_key));
    }

    fn strings(&mut self, label: &str, values: &[Cow<'_, str>]) {
        if self.mask.covers(label) {
            return self.quoted(label, &self.mask.value);
        }
        self.raw(label, "[");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            push_quoted(&mut self.text, without_key(value));
        }
        self.text.push(']');
    }

    fn number(&mut self, label: &str, value: Option<u64>) {
        match value {
            None => self.raw(label, "null"),
            Some(number) => {
                self.raw(label, "");
                push_decimal(&mut self.text, number);
            }
        }
    }

    fn quoted(&mut self, label: &str, value: &str) {
        self.raw(label, "");
        push_quoted(&mut self.text, value);
    }

    fn raw(&mut self, label: &str, value: &str) {
        self.text.push_str(label);
        self.text.push_str(value);
    }
}

/// Cuts the end of a text so that its line becomes shorter by `excess` bytes, and marks the cut.
fn shortened(text: &str, excess: usize) -> String {
    let kept = text.len().saturating_sub(excess.saturating_add(CUT_BYTES));
    let end = (0..=kept).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    [text.get(..end).unwrap_or_default(), CUT].concat()
}

/// The text, or the replacement if it contains the beginning of a key.
fn without_key(text: &str) -> &str {
    if starts_key(text) { MASK_VALUE } else { text }
}

/// Whether a text contains the beginning of a key, its first dot escaped or not, or the encoded JSON object
/// that a JWT starts with.
pub(crate) fn starts_key(text: &str) -> bool {
    let starts =
        |window: &[u8]| matches!(window, [b'v', b'k', b'1', b'.' | b'%'] | [b'e', b'y', b'J', _]);
    text.as_bytes().windows(4).any(starts) || text.ends_with("eyJ")
}

fn rfc3339(micros: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH);
    let mut text = String::new();
    // The only failure is a year past 9999.
    match std::fmt::write(&mut text, format_args!("{}", humantime::format_rfc3339_micros(time))) {
        Ok(()) => text,
        Err(_) => rfc3339(0),
    }
}

// === reading ===

fn nullable<'a, T>(
    node: &Node<'a>,
    read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    if *node.value() == Json::Null { Ok(None) } else { read(node).map(Some) }
}

fn owned(node: &Node<'_>) -> Result<Cow<'static, str>, Invalid> {
    node.string().map(|text| Cow::Owned(text.to_owned()))
}

fn query_keys(node: &Node<'_>) -> Result<Vec<Cow<'static, str>>, Invalid> {
    match node.value().as_str() {
        Some(mask) => Ok(vec![Cow::Owned(mask.to_owned())]),
        None => node.list(owned).map(Into::into),
    }
}

fn decision(members: &Members<'_>) -> Result<Option<Decision>, Invalid> {
    let word = members.require("decision")?;
    let node = members.require("reason")?;
    let code = nullable(&node, Node::string)?;
    let reason =
        code.map(|code| DenyReason::from_code(code).ok_or_else(|| node.expected("a reason code")));
    match (word.string()?, reason.transpose()?) {
        ("allow", None) => Ok(Some(Decision::Allow)),
        (UNSEEN, None) => Ok(None),
        ("preflight", None) => Ok(Some(Decision::Preflight)),
        ("public", None) => Ok(Some(Decision::Public)),
        ("deny", Some(reason)) => Ok(Some(Decision::Deny(reason))),
        ("shadow", Some(reason)) => Ok(Some(Decision::Shadow(reason))),
        _ => Err(word.expected(
            "allow, deny, preflight, public, shadow or unseen, with the reason that belongs to it",
        )),
    }
}

fn micros(node: &Node<'_>) -> Result<u64, Invalid> {
    let time = humantime::parse_rfc3339(node.string()?).ok();
    let since_epoch = time.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    let micros = since_epoch.and_then(|since| u64::try_from(since.as_micros()).ok());
    micros.ok_or_else(|| node.expected("a time, e.g. 2026-01-31T12:00:00.000000Z"))
}

#[cfg(test)]
mod tests;
