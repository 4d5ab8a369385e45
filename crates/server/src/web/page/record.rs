//! The records of one request, with what each member of their lines means.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{format, frame, logs, words};
use crate::store::{Filter, StoredRecord};
use crate::web::Service;
use crate::web::door::Visitor;

/// The most records of one request that are shown. A gate writes one.
const MAX_RECORDS: u64 = 20;

/// The longest member and the longest line that are shown, in characters. Neither is longer unless it is hostile.
const MAX_VALUE_CHARS: usize = 4096;
const MAX_LINE_CHARS: usize = 32_768;

const MICROS_PER_DAY: u64 = 86_400_000_000;
const NANOS_PER_MICRO: u64 = 1000;

/// `GET /requests/{id}`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    let filter = Filter { request_id: Some(id.clone()), limit: MAX_RECORDS, ..Filter::default() };
    match service.read(move |store| store.records(&filter)).await {
        Err(cause) => frame::unanswered(&visitor, "/logs", &cause),
        Ok(found) if found.records.is_empty() => {
            let message = "No record has this request id. It may have been pruned, or not been collected yet.";
            frame::refused(&visitor, "/logs", StatusCode::NOT_FOUND, message)
        }
        Ok(found) => {
            let contents = render(&id, &found.records);
            Html(frame::page(&visitor, "/logs", "Request", &contents).into_string()).into_response()
        }
    }
}

/// All records with an id.
pub(super) fn render(id: &str, records: &[StoredRecord]) -> Markup {
    html! {
        p class="back" { a href="/logs" { "Log" } }
        h1 { "Request " span class="id" { (format::text(id)) } }
        @if records.len() > 1 {
            p class="muted" { (records.len()) " records have this id. Clients can choose it." }
        }
        @for record in records { (article(record)) }
    }
}

fn article(record: &StoredRecord) -> Markup {
    let line: Option<Map<String, Value>> = serde_json::from_str(&record.line).ok();
    html! {
        article class="card record" {
            h2 { (format::time(record.ts_micros)) }
            p class="summary" { (logs::outcome(record)) }
            (summary(record))
            (neighbours(record))
            @match &line {
                Some(line) => {
                    h3 { "Members of the line" }
                    (members(line))
                }
                None => p class="problem" { "The line cannot be read." }
            }
            h3 { "The line" }
            pre class="line" tabindex="0" aria-label="The audit line" { (format::cut(&record.line, MAX_LINE_CHARS)) }
        }
    }
}

/// Why the request was refused, and what else is to be seen, in sentences.
fn summary(record: &StoredRecord) -> Markup {
    let decision = words::decision(&record.decision);
    let reason = record.reason.as_deref().and_then(words::reason);
    let anomaly = record.anomaly.as_deref().and_then(words::anomaly);
    let verdict = record.verdict.as_deref().map(words::verdict);
    html! {
        ul class="plain" {
            @if let Some(decision) = decision {
                li { "Decision: " (decision) @if let Some(reason) = reason { ": " (reason) } "." }
            }
            @if let Some((meaning, trust)) = verdict {
                li { span class={ "badge " (trust.class()) } { "TLS" } " " (meaning) }
            }
            @if let Some(anomaly) = anomaly { li { span class="badge warn" { "unusual" } " " (anomaly) "." } }
        }
    }
}

/// Links to other records of the same key, user and day.
fn neighbours(record: &StoredRecord) -> Markup {
    let day = format::day(record.ts_micros / MICROS_PER_DAY);
    let next_day = format::day(record.ts_micros / MICROS_PER_DAY + 1);
    let link = |name: &str, value: &str| {
        format::link("/logs", &[(name, value), ("from", &day), ("to", &next_day)])
    };
    let others = [("key", &record.key), ("user", &record.user), ("reason", &record.reason)];
    html! {
        p class="downloads" {
            "That day: "
            @for (name, value) in others {
                @if let Some(value) = value.as_ref().filter(|value| format::is_linked(value)) {
                    a href=(link(name, value)) { "same " (name) } " "
                }
            }
            a href=(link("", "")) { "all" }
        }
    }
}

fn members(line: &Map<String, Value>) -> Markup {
    let known = words::MEMBERS.iter().filter(|(name, _)| line.contains_key(*name));
    let others = line.keys().filter(|name| words::MEMBERS.iter().all(|(known, _)| known != name));
    html! {
        dl class="members" {
            @for (name, meaning) in known { (member(name, meaning, line.get(*name))) }
            @for name in others {
                (member(name, "This version does not know it.", line.get(name)))
            }
        }
    }
}

fn member(name: &str, meaning: &str, value: Option<&Value>) -> Markup {
    html! {
        div {
            dt { code { (format::text(name)) } }
            dd {
                (shown(name, value.unwrap_or(&Value::Null)))
                span class="hint" { (meaning) }
            }
        }
    }
}

fn shown(name: &str, value: &Value) -> Markup {
    let meaning = match (name, value.as_str()) {
        ("reason", Some(code)) => words::reason(code),
        ("decision", Some(word)) => words::decision(word),
        ("tls_verdict", Some(word)) => Some(words::verdict(word).0),
        ("anomaly", Some(word)) => words::anomaly(word),
        _ => None,
    };
    let amount = match (name, value) {
        ("cost", Value::Number(cost)) => cost.as_u64().map(format::dollars),
        ("duration_ns", Value::String(nanos)) => nanos.parse().ok().map(duration),
        _ => None,
    };
    html! {
        span class="value" {
            @match value {
                Value::Null => span class="muted" { "none" },
                Value::String(text) if text.is_empty() => span class="muted" { "empty" },
                Value::String(text) => bdi { (format::cut(text, MAX_VALUE_CHARS)) },
                other => code { (format::cut(&other.to_string(), MAX_VALUE_CHARS)) },
            }
            @if let Some(amount) = amount { " = " (amount) }
            @if let Some(meaning) = meaning { span class="meaning" { ": " (meaning) } }
        }
    }
}

/// A duration in nanoseconds, in milliseconds.
fn duration(nanos: u64) -> String {
    let micros = nanos / NANOS_PER_MICRO;
    format!("{}.{:03} ms", format::number(micros / 1000), micros % 1000)
}
