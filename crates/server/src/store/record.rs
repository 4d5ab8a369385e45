//! Records as the store keeps them.

use vkey::audit::{AuditRecord, Line, Outcome, TokenSource};
use vkey::decision::{Decision, DenyReason};

/// The least HTTP status that is an error (RFC 9110, section 15).
const FIRST_ERROR: u64 = 400;

/// The word for the decision on a request that the gate never saw.
const UNSEEN: &str = "unseen";

/// The record of a request, in the columns of the store. `None`: not known, or not applicable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the gate first saw the request, or when it began; Unix microseconds.
    pub ts_micros: u64,
    /// The decision, as in the audit line.
    pub decision: &'static str,
    /// Why it was refused.
    pub reason: Option<&'static str>,
    /// Whether it was refused, or its response is an error.
    pub is_failed: bool,
    /// The key's tenant.
    pub tenant: Option<String>,
    /// The id of the key.
    pub key: Option<String>,
    /// The key's subject.
    pub user: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The MCP tool that was called.
    pub tool: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The HTTP status.
    pub code: Option<u64>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The tokens that were charged.
    pub tokens: Option<TokenCounts>,
    /// What they cost, micro-USD.
    pub cost: Option<u64>,
    /// The verdict on the connection to the upstream.
    pub verdict: Option<String>,
    /// What was unusual about the use of the key.
    pub anomaly: Option<String>,
    /// The place in its chain.
    pub link: Option<Place>,
    /// The audit line.
    pub line: String,
}

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// What it sent.
    pub input: u64,
    /// What it got.
    pub output: u64,
    /// What was charged.
    pub total: u64,
}

/// The place of a record in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The id of the chain.
    pub chain: String,
    /// The number of the record, counted from 0.
    pub seq: u64,
    /// The MAC of the record before it.
    pub prev: String,
    /// The MAC of the record.
    pub mac: String,
    /// The node id of the proxy.
    pub host: Option<String>,
}

// === impl Record ===

impl Record {
    /// The record of an audit line, which is kept with it as `text`.
    pub fn new(line: &Line<'_>, text: String) -> Self {
        let Line { record, outcome } = line;
        let record = record.as_ref();
        let decision = record.and_then(|record| record.decision);
        let own = |member: fn(&AuditRecord<'_>) -> Option<String>| record.and_then(member);
        Self {
            ts_micros: record.map_or(outcome.start_micros.unwrap_or(0), |record| record.ts_micros),
            decision: decision.map_or(UNSEEN, Decision::word),
            reason: decision.and_then(Decision::reason).map(DenyReason::code),
            is_failed: is_failed(decision, outcome),
            tenant: own(|record| text_of(record.tenant.as_deref())),
            key: own(|record| text_of(record.jti.as_deref())),
            user: own(|record| text_of(record.sub.as_deref())),
            model: own(|record| record.model.as_deref().map(asked_model)),
            tool: own(|record| record.mcp.as_deref().and_then(called_tool)),
            method: own(|record| text_of(record.method.as_deref())),
            path: own(|record| text_of(record.path.as_deref())),
            code: outcome.status,
            request_id: own(|record| text_of(record.req.as_deref())),
            tokens: record.and_then(token_counts),
            cost: record.map(|record| record.amounts().cost).filter(|cost| *cost > 0),
            verdict: own(|record| text_of(record.tls_verdict.as_deref())),
            anomaly: own(|record| text_of(record.anomaly.as_deref())),
            link: record.and_then(place),
            line: text,
        }
    }

    /// Whether the gate refused it.
    pub fn is_refused(&self) -> bool {
        self.decision == "deny"
    }
}

fn is_failed(decision: Option<Decision>, outcome: &Outcome<'_>) -> bool {
    let is_refused = decision.is_some_and(|decision| !decision.forwards());
    is_refused || outcome.status.is_some_and(|status| status >= FIRST_ERROR)
}

fn text_of(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// The model that was asked for, of a member that may name more: see `AuditRecord::model`.
fn asked_model(member: &str) -> String {
    let asked = member.split('\u{2192}').next().unwrap_or_default();
    let first = match asked.rsplit_once(" +") {
        Some((first, more)) if more.bytes().all(|byte| byte.is_ascii_digit()) => first,
        _ => asked,
    };
    first.to_owned()
}

/// The tool of a call, of the member that `vkey::audit::mcp_member` writes.
fn called_tool(member: &str) -> Option<String> {
    let mut words = member.split(' ');
    (words.next()? == "tools/call").then_some(())?;
    words.next().filter(|name| *name != "-").map(str::to_owned)
}

fn token_counts(record: &AuditRecord<'_>) -> Option<TokenCounts> {
    let tokens = record.tokens?;
    let usage = tokens.usage;
    let charged = tokens.source != TokenSource::Nothing;
    charged.then_some(TokenCounts { input: usage.input, output: usage.output, total: usage.total })
}

fn place(record: &AuditRecord<'_>) -> Option<Place> {
    let link = record.link.as_ref()?;
    Some(Place {
        chain: link.chain.clone().into_owned(),
        seq: link.seq,
        prev: link.prev.clone().into_owned(),
        mac: link.mac.clone().into_owned(),
        host: text_of(record.host.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_that_was_asked_for_is_taken_from_the_member() {
        for (member, model) in [
            ("gpt-4o", "gpt-4o"),
            ("gpt-4o +2", "gpt-4o"),
            ("gpt-4o\u{2192}gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-4o +1\u{2192}other", "gpt-4o"),
            ("a +b", "a +b"),
        ] {
            assert_eq!(asked_model(member), model, "{member}");
        }
    }

    #[test]
    fn only_a_call_of_a_tool_has_a_tool() {
        assert_eq!(called_tool("tools/call search main 2025-06-18").as_deref(), Some("search"));
        for member in
            ["tools/list - main 2025-06-18", "tools/call - main -", "prompts/get x - -", ""]
        {
            assert_eq!(called_tool(member), None, "{member}");
        }
    }
}
