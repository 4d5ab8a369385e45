//! The log: records that a question selects, the latest first.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::{format, frame, words};
use crate::store::{Found, StoredRecord};
use crate::web::api::OF_LOGS;
use crate::web::door::Visitor;
use crate::web::parameters::{BadParameter, MAX_VALUE_BYTES, Parameters};
use crate::web::{Service, Unanswered};

/// How many records a page may have, as the form offers them.
const LIMITS: [&str; 4] = ["50", "100", "250", "1000"];

/// The fields of the form that take texts: parameter, label and example.
const FIELDS: [(&str, &str, &str); 5] = [
    ("tenant", "Tenant", "acme"),
    ("key", "Key", "k_dUfwGlm4rs"),
    ("user", "User", "ci"),
    ("from", "From", "2026-01-31"),
    ("to", "Before", "2026-01-31T12:00:00Z"),
];

/// The fields that are needed less often.
const MORE_FIELDS: [(&str, &str, &str); 7] = [
    ("path", "Path", "/v1/*"),
    ("method", "Method", "POST"),
    ("code", "HTTP status", "429"),
    ("reason", "Reason", "quota"),
    ("model", "Model", "gpt-4o"),
    ("tool", "MCP tool", "search"),
    ("request_id", "Request id", "6fd0…"),
];

/// What a page of the log shows.
struct Log<'a> {
    parameters: &'a [(String, String)],
    answer: Answer,
}

/// What the store or the parameters answered.
pub(super) enum Answer {
    Records(Found),
    Bad(String),
}

/// `GET /logs`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = match filter(query.as_deref()) {
        Err(bad) => Ok(Answer::Bad(bad.to_string())),
        Ok(filter) => service.read(move |store| store.records(&filter)).await.map(Answer::Records),
    };
    let answer = match answer {
        Err(Unanswered::Bad(message)) => Answer::Bad(message),
        Err(cause) => return frame::unanswered(&visitor, "/logs", &cause),
        Ok(answer) => answer,
    };
    let status = match answer {
        Answer::Bad(_) => StatusCode::BAD_REQUEST,
        Answer::Records(_) => StatusCode::OK,
    };
    let contents = render(query.as_deref(), answer);
    (status, Html(frame::page(&visitor, "/logs", "Log", &contents).into_string())).into_response()
}

/// The answer to a query.
pub(super) fn render(query: Option<&str>, answer: Answer) -> Markup {
    Log { parameters: &said(query), answer }.render()
}

/// The filter of a query. `format` belongs to the API alone.
fn filter(query: Option<&str>) -> Result<crate::store::Filter, BadParameter> {
    let known: Vec<&str> = OF_LOGS.into_iter().filter(|name| *name != "format").collect();
    Parameters::parse(query, &known)?.filter()
}

/// What a query says, valid or not: the form shows it again, unless it is too long to be valid.
fn said(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let known = pairs.filter(|(name, value)| {
        OF_LOGS.contains(&&**name) && (1..=MAX_VALUE_BYTES).contains(&value.len())
    });
    known.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

// === impl Log ===

impl Log<'_> {
    fn render(&self) -> Markup {
        html! {
            h1 { "Log" }
            @if let Answer::Bad(message) = &self.answer { (frame::problem(message)) }
            (self.form())
            @if let Answer::Records(found) = &self.answer { (self.results(found)) }
        }
    }

    /// The value of a parameter.
    fn value(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// A link to the same question with other values of some parameters.
    fn link(&self, path: &str, changed: &[(&str, &str)]) -> String {
        let kept = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let kept = kept.filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        let pairs: Vec<_> = kept.chain(changed.iter().copied()).collect();
        format::link(path, &pairs)
    }

    fn form(&self) -> Markup {
        let is_open = MORE_FIELDS.iter().any(|(name, ..)| !self.value(name).is_empty())
            || !self.value("anomaly").is_empty()
            || !self.value("limit").is_empty();
        html! {
            form class="card filters" action="/logs" aria-label="Filters" {
                div class="fields" {
                    (self.choice("status", "Outcome", &[("", "All"), ("success", "Success"), ("failed", "Failed")]))
                    @for (name, label, example) in FIELDS { (self.field(name, label, example)) }
                }
                details open[is_open] {
                    summary { "More filters" }
                    div class="fields" {
                        @for (name, label, example) in MORE_FIELDS { (self.field(name, label, example)) }
                        (self.choice("anomaly", "Use of the key", &[("", "All"), ("any", "Unusual only")]))
                        (self.choice("limit", "Records per page", &LIMITS.map(|limit| match limit {
                            "100" => ("", "100"),
                            limit => (limit, limit),
                        })))
                    }
                }
                p class="hint" {
                    "Values are compared as a whole; a path may end with *. Times are in UTC: 2026-01-31, 2026-01-31T12:00:00Z."
                }
                div class="actions" {
                    button class="primary" { "Show" }
                    a class="quiet" href="/logs" { "Clear" }
                }
            }
        }
    }

    fn field(&self, name: &str, label: &str, example: &str) -> Markup {
        let id = format!("filter-{name}");
        html! {
            div class="field" {
                label for=(id) { (label) }
                input id=(id) name=(name) value=(self.value(name)) placeholder=(example) autocomplete="off"
                    spellcheck="false" autocapitalize="none";
            }
        }
    }

    fn choice(&self, name: &str, label: &str, options: &[(&str, &str)]) -> Markup {
        let id = format!("filter-{name}");
        let value = self.value(name);
        let is_known = options.iter().any(|(option, _)| *option == value);
        html! {
            div class="field" {
                label for=(id) { (label) }
                select id=(id) name=(name) {
                    @for (option, text) in options {
                        option value=(option) selected[*option == value] { (text) }
                    }
                    // A value that the form does not offer is kept.
                    @if !is_known { option value=(value) selected { (format::cut(value, 40)) } }
                }
            }
        }
    }

    fn results(&self, found: &Found) -> Markup {
        let has_earlier = !self.value("cursor").is_empty();
        let next = found.next.map(|next| next.to_string());
        html! {
            section aria-labelledby="records" {
                div class="title" {
                    h2 id="records" { (title(found, has_earlier)) }
                    p class="downloads" {
                        a href=(self.link("/api/audit/logs", &[("format", "json")])) { "JSON" }
                        " "
                        a href=(self.link("/api/audit/logs", &[("format", "csv")])) { "CSV" }
                    }
                }
                @if found.records.is_empty() { (self.nothing()) } @else { (table(&found.records)) }
                nav class="pages" aria-label="Pages of the log" {
                    @if has_earlier { a href=(self.link("/logs", &[("cursor", "")])) { "Latest" } }
                    @if let Some(next) = &next {
                        a class="next" href=(self.link("/logs", &[("cursor", next)])) rel="next" { "Earlier records" }
                    }
                }
            }
        }
    }

    fn nothing(&self) -> Markup {
        html! {
            div class="card empty" {
                @if self.parameters.is_empty() {
                    p { "There are no records yet. The collector takes them from the access log of the gate: send a request through it." }
                } @else {
                    p { "No record is like this. Remove a filter, or " a href="/logs" { "show all" } "." }
                }
            }
        }
    }
}

fn title(found: &Found, has_earlier: bool) -> String {
    let count = u64::try_from(found.records.len()).unwrap_or(u64::MAX);
    let what = format::counted(count, "record");
    match (count, found.next.is_some(), has_earlier) {
        (0, ..) => "No records".to_owned(),
        (_, _, true) => format!("{what} before those"),
        (_, true, false) => format!("The latest {what}"),
        (_, false, false) => what,
    }
}

/// A table of records. On narrow screens the style sheet makes each row a block, so the roles are stated.
fn table(records: &[StoredRecord]) -> Markup {
    html! {
        div class="card log" {
            table role="table" {
                caption class="hidden" { "Records, the latest first" }
                thead role="rowgroup" {
                    tr role="row" {
                        @for name in ["Time", "Outcome", "Request", "Who"] {
                            th role="columnheader" scope="col" { (name) }
                        }
                        @for name in ["Tokens", "Spend"] {
                            th role="columnheader" scope="col" class="number" { (name) }
                        }
                    }
                }
                tbody role="rowgroup" { @for record in records { (row(record)) } }
            }
        }
    }
}

fn row(record: &StoredRecord) -> Markup {
    html! {
        tr role="row" {
            td role="cell" class="when" {
                @match record.request_id.as_deref().filter(|id| format::is_linked(id)) {
                    Some(id) => a href=(request_link(id)) { (format::time(record.ts_micros)) },
                    None => (format::time(record.ts_micros)),
                }
                @if let Some(id) = &record.request_id { span class="hint id" { (format::text(id)) } }
            }
            td role="cell" class="outcome" { (outcome(record)) }
            td role="cell" class="request" {
                span class="line" {
                    @if let Some(method) = &record.method { b { (format::text(method)) } " " }
                    @if let Some(path) = &record.path { (format::text(path)) }
                }
                @if let Some(model) = &record.model { span class="hint" { "model " (format::text(model)) } }
                @if let Some(tool) = &record.tool { span class="hint" { "tool " (format::text(tool)) } }
            }
            td role="cell" class="who" { (who(record)) }
            (amount("tokens", record.tokens.map(format::number)))
            (amount("", record.cost.map(format::dollars)))
        }
    }
}

fn amount(unit: &str, amount: Option<String>) -> Markup {
    html! {
        td role="cell" class={ "number" (if amount.is_none() { " none" } else { "" }) } {
            @match amount {
                Some(amount) => { (amount) @if !unit.is_empty() { span class="unit" { " " (unit) } } },
                None => "–",
            }
        }
    }
}

/// How a request ended.
pub(super) fn outcome(record: &StoredRecord) -> Markup {
    let (class, text) = match record.decision.as_str() {
        "deny" => ("bad", "refused"),
        "shadow" => ("warn", "shadow"),
        "unseen" if record.is_failed => ("warn", "unseen"),
        "unseen" => ("neutral", "unseen"),
        _ if record.is_failed => ("warn", "error"),
        "allow" => ("good", "allowed"),
        other => ("neutral", other),
    };
    html! {
        span class={ "badge " (class) } { (format::text(text)) }
        @if let Some(code) = record.code { " " span class="code" { (code) } }
        @if let Some(reason) = &record.reason {
            span class="hint" title=[words::reason(reason)] { (format::text(reason)) }
        }
        @if let Some(anomaly) = &record.anomaly {
            span class="hint warn" title=[words::anomaly(anomaly)] { "unusual: " (format::text(anomaly)) }
        }
    }
}

fn who(record: &StoredRecord) -> Markup {
    let linked = |name: &str, value: &str| {
        format::linked(|value| format::link("/logs", &[(name, value)]), value)
    };
    html! {
        @match (&record.tenant, &record.user, &record.key) {
            (None, None, None) => span class="muted" { "no valid key" },
            (tenant, user, key) => {
                @if let Some(tenant) = tenant { (linked("tenant", tenant)) }
                @if let Some(user) = user { " " (linked("user", user)) }
                @if let Some(key) = key { span class="hint" { (linked("key", key)) } }
            }
        }
    }
}

/// Where the records of a request are. Gates write ids of these characters alone; what else is in a log may have
/// other ones, which no path holds safely.
fn request_link(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    let is_name = !id.is_empty() && id.bytes().all(is_plain) && id.bytes().any(|byte| byte != b'.');
    match is_name {
        true => format!("/requests/{id}"),
        false => format::link("/logs", &[("request_id", id)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_id_that_is_no_path_is_found_by_a_question() {
        for id in ["..", ".", "a/b", "a?b", "a%2fb", "é", ""] {
            assert!(request_link(id).starts_with("/logs"), "{id}");
        }
        assert_eq!(request_link("6fd0-1.a_b:c"), "/requests/6fd0-1.a_b:c");
    }

    #[test]
    fn the_form_shows_what_is_invalid_and_knows_no_format() {
        let page = |query| render(Some(query), Answer::Bad(String::new())).into_string();
        assert!(page("from=yesterday").contains("name=\"from\" value=\"yesterday\""));
        assert!(
            filter(Some("format=csv")).is_err() && filter(Some("status=failed&limit=9")).is_ok()
        );
    }
}
