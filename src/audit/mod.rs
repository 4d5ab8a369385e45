//! The audit record of a request, and the audit line: the record and how the request ended, as text.
//!
//! A line has two halves. The module writes the record. The proxy's access log writes the outcome, and the record
//! into it: see [`ACCESS_LOG_FORMAT`]. Where there is no such log, the module writes both.

mod chain;
mod mcp;
mod read;
mod tag;
mod tokens;
mod write;

use std::borrow::Cow;

use crate::decision::Decision;

pub use chain::{
    Amounts, Anchor, AnchorContext, AuditKey, Chain, DEFAULT_ANCHOR_EVERY, LINK_BYTES,
    MAX_ANCHOR_EVERY, Totals,
};
pub use mcp::mcp_member;
pub use tag::HIDDEN_CHARS;
pub(crate) use tag::Tags;
pub use tokens::{TokenSource, Tokens};
pub use write::Prepared;
pub(crate) use write::starts_key;

/// The version of the line format: member `vkey`.
pub const VERSION: &str = "2";

/// Stands in `vkey` for the record of a request that the module never saw: what Envoy prints for an absent filter
/// state.
pub const NO_RECORD: &str = "-";

/// The format of Envoy's access log that prints audit lines, without the line end.
pub const ACCESS_LOG_FORMAT: &str = concat!(
    r#"{"vkey":"%FILTER_STATE(wasm.vkey.audit:PLAIN)%","start":"%START_TIME%","#,
    r#""peer":"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%","status":%RESPONSE_CODE%,"#,
    r#""bytes_in":%BYTES_RECEIVED%,"bytes_out":%BYTES_SENT%,"#,
    r#""duration_ns":"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%","upstream":"%UPSTREAM_HOST%","#,
    r#""flags":"%RESPONSE_FLAGS%"}"#
);

/// Replaces a value that is not shown, unless configured.
pub const MASK_VALUE: &str = "***REDACTED***";

/// What the module knows of one request. `None` is written as `null`: not known, or not applicable.
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
    /// The model that was asked for first; ` +n` for `n` more, and `→` with the model that the response names, if that is
    /// another one.
    pub model: Option<Cow<'a, str>>,
    /// The MCP call: see [`mcp_member`].
    pub mcp: Option<Cow<'a, str>>,
    /// The tokens that were charged.
    pub tokens: Option<Tokens>,
    /// What they cost, micro-USD.
    pub cost: Option<u64>,
    /// The verdict on the connection to the upstream.
    pub tls_verdict: Option<Cow<'a, str>>,
    /// SHA-256 of the policy file that the verdict is based on.
    pub tls_policy: Option<Cow<'a, str>>,
    /// What is unusual about the use of the key. Only the first such request of a window has it.
    pub anomaly: Option<Cow<'a, str>>,
    /// The request was charged to what the configuration leaves to this proxy while the ledger does not respond. Records of
    /// other requests do not have the member.
    pub is_local: bool,
    /// The id of the configuration in force. `None` is written as an empty string, so that a record always ends in a
    /// string.
    pub plan: Option<Cow<'a, str>>,
    /// The place of the record in its chain; `None` without an audit secret. [`Chain::link`] writes it.
    pub link: Option<Link<'a>>,
}

/// The place of a record in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The id of the chain.
    pub chain: Cow<'a, str>,
    /// The number of the record, counted from 0.
    pub seq: u64,
    /// The MAC of the record before it; empty for the first.
    pub prev: Cow<'a, str>,
    /// The MAC of the record.
    pub mac: Cow<'a, str>,
}

/// How one request ended, as the proxy knows it. `None`: not known, or not applicable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome<'a> {
    /// When the request began, Unix microseconds.
    pub start_micros: Option<u64>,
    /// The address of the other end of the connection.
    pub peer: Option<Cow<'a, str>>,
    /// The HTTP status of the response to the client.
    pub status: Option<u64>,
    /// Bytes of the body received from the client.
    pub bytes_in: Option<u64>,
    /// Bytes of the body sent to the client.
    pub bytes_out: Option<u64>,
    /// From the beginning of the request to its end.
    pub duration_ns: Option<u64>,
    /// The address of the upstream.
    pub upstream: Option<Cow<'a, str>>,
    /// Envoy's flags of the response (`%RESPONSE_FLAGS%`).
    pub flags: Option<Cow<'a, str>>,
}

/// An audit line: the record of a request, and how the request ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line<'a> {
    /// What the module knows; `None` if the module never saw the request, and the proxy wrote the line.
    pub record: Option<AuditRecord<'a>>,
    /// How the request ended.
    pub outcome: Outcome<'a>,
}

/// A line of an audit trail.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The audit line of a request.
    Line(Box<Line<'static>>),
    /// An anchor of a chain.
    Anchor(Anchor),
}

/// Members whose values an audit line does not show.
#[derive(Clone, Debug)]
pub struct Mask {
    members: Box<[&'static str]>,
    value: String,
}

/// The members of a line, in their order.
const MEMBERS: [&str; 38] = [
    "vkey", "ts", "host", "req", "decision", "reason", "kid", "jti", "tenant", "sub", "tier",
    "caveats", "src", "method", "authority", "path", "query_keys", "model", "mcp", "tokens",
    "cost", "tls_verdict", "tls_policy", "anomaly", "budget", "plan", "chain", "seq", "prev",
    "mac", "start", "peer", "status", "bytes_in", "bytes_out", "duration_ns", "upstream", "flags",
];

// === impl AuditRecord ===

impl AuditRecord<'_> {
    /// What the record adds to the totals of its chain.
    pub fn amounts(&self) -> Amounts {
        let charged = self.tokens.filter(|tokens| tokens.source != TokenSource::Nothing);
        Amounts {
            decision: self.decision,
            tokens: charged.map_or(0, |tokens| tokens.usage.total),
            cost: charged.and(self.cost).unwrap_or(0),
        }
    }
}

// === impl Mask ===

impl Mask {
    /// The members that can be masked: those that identify the caller and the request, not the decision.
    pub const MASKABLE: [&str; 16] = [
        "host", "req", "kid", "jti", "tenant", "sub", "tier", "src", "method", "authority", "path",
        "query_keys", "model", "mcp", "peer", "upstream",
    ];

    /// Of those, the members that the proxy writes, unless the module writes whole lines.
    pub const OF_OUTCOME: [&str; 2] = ["peer", "upstream"];

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

#[cfg(test)]
mod tests;
