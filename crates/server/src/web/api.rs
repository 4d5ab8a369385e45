//! The API: records, totals and chains, as JSON and CSV.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::answers::{self, AlertRow, ChainRow, Finding, RecordRow, TotalsRow};
use super::parameters::{BadParameter, Format, Parameters};
use super::{Service, Unanswered};
use crate::clock::now_secs;
use crate::ledger::Ledger;
use crate::metrics;

/// The parameters of `/api/audit/logs`.
pub(super) const OF_LOGS: [&str; 17] = [
    "status", "code", "tenant", "key", "user", "reason", "model", "tool", "method", "path",
    "request_id", "anomaly", "from", "to", "limit", "cursor", "format",
];

/// The parameters of `/api/usage`.
const OF_USAGE: [&str; 10] =
    ["by", "tenant", "key", "model", "tool", "reason", "from", "to", "limit", "format"];

/// The most findings that are shown.
const MAX_FINDINGS: u64 = 100;

/// The alerts that are shown: all that the store keeps.
const MAX_ALERTS: u64 = 1000;

/// The description of the API (OpenAPI 3.1).
const DESCRIPTION: &str = include_str!("openapi.json");

#[derive(Serialize)]
struct Logs<'a> {
    records: Vec<RecordRow<'a>>,
    /// The value of `cursor` for those that come next.
    next: Option<String>,
}

#[derive(Serialize)]
struct UsageOf<'a> {
    by: &'static str,
    rows: Vec<TotalsRow<'a>>,
}

#[derive(Serialize)]
struct Chains<'a> {
    /// Whether nothing is known to be missing, changed or contradictory.
    intact: bool,
    chains: Vec<ChainRow<'a>>,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Alerts<'a> {
    alerts: Vec<AlertRow<'a>>,
}

/// `GET /api/audit/logs`.
pub(super) async fn logs(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Unanswered> {
    let parameters = Parameters::parse(query.as_deref(), &OF_LOGS)?;
    let (format, filter) = (parameters.format(accept(&headers))?, parameters.filter()?);
    let found = service.read(move |store| store.records(&filter)).await?;
    let records: Vec<_> = found.records.iter().map(RecordRow::from).collect();
    Ok(match format {
        Format::Csv => answers::csv(&records, "attachment; filename=\"audit.csv\""),
        Format::Json => {
            answers::json(&Logs { records, next: found.next.map(|next| next.to_string()) })
        }
    })
}

/// `GET /api/usage`.
pub(super) async fn usage(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Unanswered> {
    let parameters = Parameters::parse(query.as_deref(), &OF_USAGE)?;
    let (format, (by, filter)) = (parameters.format(accept(&headers))?, parameters.usage()?);
    let rows = service.read(move |store| store.usage(by, &filter)).await?;
    let rows: Vec<_> = rows.iter().map(TotalsRow::from).collect();
    Ok(match format {
        Format::Csv => answers::csv(&rows, "attachment; filename=\"usage.csv\""),
        Format::Json => answers::json(&UsageOf { by: by.name(), rows }),
    })
}

/// `GET /api/chain`.
pub(super) async fn chain(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
) -> Result<Response, Unanswered> {
    Parameters::parse(query.as_deref(), &[])?;
    let (chains, findings, missing) = service
        .read(|store| {
            let missing = store.measures(now_secs())?.missing;
            Ok((store.chains()?, store.findings(MAX_FINDINGS)?, missing))
        })
        .await?;
    Ok(answers::json(&Chains {
        // Of all chains, also those that are too many to be shown.
        intact: findings.is_empty() && missing == 0,
        chains: chains.iter().map(ChainRow::from).collect(),
        findings: findings.iter().map(Finding::from).collect(),
    }))
}

/// `GET /api/alerts`.
pub(super) async fn alerts(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
) -> Result<Response, Unanswered> {
    Parameters::parse(query.as_deref(), &[])?;
    let alerts = service.read(|store| store.alerts(MAX_ALERTS)).await?;
    Ok(answers::json(&Alerts { alerts: alerts.iter().map(AlertRow::from).collect() }))
}

/// `GET /metrics`, in the text format of Prometheus.
pub(super) async fn metrics(State(service): State<Service>) -> Result<Response, Unanswered> {
    let measures = service.read(|store| store.measures(now_secs())).await?;
    let ledger = service.shared.settings.ledger.as_ref().map(Ledger::measures);
    Ok(answers::typed(metrics::CONTENT_TYPE, metrics::render(&measures, ledger.as_ref())))
}

/// `GET /openapi.json`.
pub(super) async fn description() -> Response {
    answers::typed("application/json", DESCRIPTION)
}

/// Any other path of the API.
pub(super) async fn unknown() -> Response {
    let message = "there is no such path; /openapi.json describes the API";
    answers::error(StatusCode::NOT_FOUND, "unknown_path", message)
}

fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(axum::http::header::ACCEPT)?.to_str().ok()
}

impl From<BadParameter> for Unanswered {
    fn from(bad: BadParameter) -> Self {
        Self::Bad(bad.to_string())
    }
}
