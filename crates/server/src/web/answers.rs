//! The answers of the API: JSON and CSV.

use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use vkey::limits::quota::Period;
use vkey::time::rfc3339;

use crate::ledger::Statement;
use crate::store::{Alert, ChainState, FindingRow, StoredRecord, UsageRow};

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

/// A table, whose rows are flat objects.
pub(super) trait Row: Serialize {
    /// The names of the columns, in their order.
    const COLUMNS: &'static [&'static str];

    /// The cells.
    fn cells(&self) -> Vec<String>;
}

/// A record.
#[derive(Serialize)]
pub(super) struct RecordRow<'a> {
    time: String,
    status: &'static str,
    code: Option<u64>,
    decision: &'a str,
    reason: Option<&'a str>,
    tenant: Option<&'a str>,
    key: Option<&'a str>,
    user: Option<&'a str>,
    model: Option<&'a str>,
    tool: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    request_id: Option<&'a str>,
    tokens: Option<u64>,
    cost_micro_usd: Option<u64>,
    verdict: Option<&'a str>,
    anomaly: Option<&'a str>,
    line: &'a str,
}

/// Totals.
#[derive(Serialize)]
pub(super) struct TotalsRow<'a> {
    /// The key, the tenant, … `null` for requests without one.
    name: Option<&'a str>,
    requests: u64,
    failed: u64,
    refused: u64,
    tokens_in: u64,
    tokens_out: u64,
    tokens: u64,
    cost_micro_usd: u64,
}

/// A chain.
#[derive(Serialize)]
pub(super) struct ChainRow<'a> {
    chain: &'a str,
    host: Option<&'a str>,
    first_time: Option<String>,
    last_time: Option<String>,
    verified: u64,
    records: u64,
    missing: u64,
    anchored: Option<u64>,
    closed: bool,
    gaps: Vec<[u64; 2]>,
}

/// Something that does not verify.
#[derive(Serialize)]
pub(super) struct Finding<'a> {
    time: String,
    kind: &'a str,
    chain: Option<&'a str>,
    seq: Option<u64>,
    text: &'a str,
}

/// An alert.
#[derive(Serialize)]
pub(super) struct AlertRow<'a> {
    id: i64,
    kind: &'a str,
    cause: &'a str,
    tenant: Option<&'a str>,
    key: Option<&'a str>,
    first_time: String,
    last_time: String,
    count: u64,
    text: &'a str,
    delivered_time: Option<String>,
}

/// An account of the ledger.
#[derive(Serialize)]
pub(super) struct AccountRow {
    account: String,
    window: u32,
    /// The last second of the window; `null` for a total.
    until: Option<u64>,
    limit: u64,
    used: u64,
    held: u64,
    left: u64,
    leases: u64,
    at_secs: u64,
}

/// An error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorMembers<'a>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
}

// === impl rows ===

impl<'a> From<&'a StoredRecord> for RecordRow<'a> {
    fn from(record: &'a StoredRecord) -> Self {
        Self {
            time: time(record.ts_micros),
            status: if record.is_failed { "failed" } else { "success" },
            code: record.code,
            decision: &record.decision,
            reason: record.reason.as_deref(),
            tenant: record.tenant.as_deref(),
            key: record.key.as_deref(),
            user: record.user.as_deref(),
            model: record.model.as_deref(),
            tool: record.tool.as_deref(),
            method: record.method.as_deref(),
            path: record.path.as_deref(),
            request_id: record.request_id.as_deref(),
            tokens: record.tokens,
            cost_micro_usd: record.cost,
            verdict: record.verdict.as_deref(),
            anomaly: record.anomaly.as_deref(),
            line: &record.line,
        }
    }
}

impl Row for RecordRow<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "time", "status", "code", "decision", "reason", "tenant", "key", "user", "model", "tool",
        "method", "path", "request_id", "tokens", "cost_micro_usd", "verdict", "anomaly", "line",
    ];

    fn cells(&self) -> Vec<String> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        vec![
            self.time.clone(),
            self.status.to_owned(),
            number(self.code),
            self.decision.to_owned(),
            text(self.reason),
            text(self.tenant),
            text(self.key),
            text(self.user),
            text(self.model),
            text(self.tool),
            text(self.method),
            text(self.path),
            text(self.request_id),
            number(self.tokens),
            number(self.cost_micro_usd),
            text(self.verdict),
            text(self.anomaly),
            self.line.to_owned(),
        ]
    }
}

impl<'a> From<&'a UsageRow> for TotalsRow<'a> {
    fn from(row: &'a UsageRow) -> Self {
        let usage = row.usage;
        Self {
            name: Some(row.name.as_str()).filter(|name| !name.is_empty()),
            requests: usage.requests,
            failed: usage.failed,
            refused: usage.refused,
            tokens_in: usage.tokens_in,
            tokens_out: usage.tokens_out,
            tokens: usage.tokens,
            cost_micro_usd: usage.cost,
        }
    }
}

impl Row for TotalsRow<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "name", "requests", "failed", "refused", "tokens_in", "tokens_out", "tokens",
        "cost_micro_usd",
    ];

    fn cells(&self) -> Vec<String> {
        let numbers = [
            self.requests, self.failed, self.refused, self.tokens_in, self.tokens_out, self.tokens,
            self.cost_micro_usd,
        ];
        let name = self.name.unwrap_or_default().to_owned();
        [name].into_iter().chain(numbers.iter().map(ToString::to_string)).collect()
    }
}

impl<'a> From<&'a ChainState> for ChainRow<'a> {
    fn from(chain: &'a ChainState) -> Self {
        let (first, last) = chain.times.unzip();
        Self {
            chain: &chain.name,
            host: chain.host.as_deref(),
            first_time: first.map(time),
            last_time: last.map(time),
            verified: chain.verified,
            records: chain.records,
            missing: chain.missing,
            anchored: chain.anchored,
            closed: chain.is_closed,
            gaps: chain.gaps.iter().map(|gap| [gap.first, gap.last]).collect(),
        }
    }
}

impl<'a> From<&'a FindingRow> for Finding<'a> {
    fn from(finding: &'a FindingRow) -> Self {
        Self {
            time: rfc3339(finding.at_secs),
            kind: &finding.kind,
            chain: finding.chain.as_deref(),
            seq: finding.seq,
            text: &finding.text,
        }
    }
}

impl<'a> From<&'a Alert> for AlertRow<'a> {
    fn from(alert: &'a Alert) -> Self {
        Self {
            id: alert.id,
            kind: &alert.kind,
            cause: &alert.cause,
            tenant: alert.tenant.as_deref(),
            key: alert.key.as_deref(),
            first_time: rfc3339(alert.first_at_secs),
            last_time: rfc3339(alert.last_at_secs),
            count: alert.count,
            text: &alert.text,
            delivered_time: alert.delivered_at_secs.map(rfc3339),
        }
    }
}

impl From<&Statement> for AccountRow {
    fn from(Statement { account, window, sums }: &Statement) -> Self {
        Self {
            account: account.to_string(),
            window: *window,
            until: last_secs(account.per, *window),
            limit: sums.limit,
            used: sums.used,
            held: sums.held,
            left: sums.left,
            leases: sums.leases,
            at_secs: sums.at_secs,
        }
    }
}

/// The last second of a window, Unix time; `None` for a total.
pub(super) fn last_secs(per: Period, window: u32) -> Option<u64> {
    Some(per.end_secs(window)?.saturating_sub(1))
}

/// A time to the microsecond.
pub(super) fn time(micros: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros);
    humantime::format_rfc3339_micros(time).to_string()
}

// === Answers ===

/// A JSON document.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => typed("application/json", text),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A CSV document (RFC 4180). Every cell is quoted, because some spreadsheets split at semicolons too. One that a spreadsheet would take for a formula begins with an apostrophe.
pub(super) fn csv<R: Row>(rows: &[R], name: &'static str) -> Response {
    let mut writer = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let mut written = writer.write_record(R::COLUMNS);
    for row in rows {
        written = written.and_then(|()| writer.write_record(row.cells().into_iter().map(inert)));
    }
    let text = written.ok().and_then(|()| writer.into_inner().ok());
    let Some(text) = text else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = typed("text/csv; charset=utf-8; header=present", text);
    let name = HeaderValue::from_static(name);
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    response
}

fn inert(cell: String) -> String {
    if cell.starts_with(FORMULA) { format!("'{cell}") } else { cell }
}

/// An error of the API.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let r#type = match status {
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::TOO_MANY_REQUESTS => "limited",
        status if status.is_server_error() => "unavailable",
        _ => "bad_request",
    };
    let mut response = json(&ErrorBody { error: ErrorMembers { message, r#type, code } });
    *response.status_mut() = status;
    response
}

/// A document of a media type.
pub(super) fn typed(r#type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    ([(CONTENT_TYPE, r#type)], body.into()).into_response()
}
