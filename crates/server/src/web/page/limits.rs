//! What is left of the limits of the keys that are used most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::format::{self, dollars, rounded};
use super::frame;
use super::overview::{cell, share};
use crate::clock::{self, now_secs};
use crate::gate::{Allowance, Gate, GateError};
use crate::store::UsedKey;
use crate::web::door::Visitor;
use crate::web::{Service, Unanswered};

/// The most keys that gates are asked about.
const MAX_KEYS: u64 = 25;

/// The days in which keys were used, today included.
const DAYS: u64 = 30;

const SECS_PER_DAY: u64 = 86_400;

/// How long a gate may take for all keys. The last of them may take longer by the timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the page shows.
pub(super) struct Limits {
    /// The keys, those with the most requests first.
    pub(super) keys: Arc<[UsedKey]>,
    pub(super) gates: Vec<Answers>,
}

/// What a gate says.
pub(super) struct Answers {
    /// The name of the gate.
    pub(super) gate: String,
    /// The limits of each key, as far as the gate was asked; `None` if it has counted no request of the key.
    pub(super) keys: Vec<Option<Vec<Allowance>>>,
    /// Why it was not asked about the others.
    pub(super) error: Option<String>,
}

/// `GET /limits`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    match Limits::read(&service).await {
        Ok(limits) => {
            let page = frame::page(&visitor, "/limits", "Limits", &limits.render());
            Html(page.into_string()).into_response()
        }
        Err(cause) => frame::unanswered(&visitor, "/limits", &cause),
    }
}

// === impl Limits ===

impl Limits {
    /// Asks each gate about the keys that are used most.
    async fn read(service: &Service) -> Result<Self, Unanswered> {
        let from_day = (now_secs() / SECS_PER_DAY).saturating_sub(DAYS - 1);
        let keys = service.read(move |store| store.used_keys(from_day, MAX_KEYS)).await?;
        let keys: Arc<[UsedKey]> = keys.into();
        let ask = |gate: &Arc<Gate>| {
            let (service, gate, keys) = (service.clone(), Arc::clone(gate), Arc::clone(&keys));
            tokio::spawn(async move { service.ask_gates(move || Answers::ask(&gate, &keys)).await })
        };
        // All at once: a gate that is away holds up no other.
        let asked: Vec<_> = service.shared.settings.gates.iter().map(ask).collect();
        let mut gates = Vec::new();
        for gate in asked {
            gates.push(gate.await.map_err(|_| Unanswered::Ending)??);
        }
        Ok(Self { keys, gates })
    }

    pub(super) fn render(&self) -> Markup {
        html! {
            h1 { "Limits" }
            @if self.gates.is_empty() {
                div class="card empty" {
                    h2 { "No gate is asked" }
                    p {
                        "Gates count, and say what is left. Start " code { "vkey serve" } " with "
                        code { "--gate URL" } " and the key for it to see that here."
                    }
                }
            } @else if self.keys.is_empty() {
                div class="card empty" {
                    h2 { "No key was used in the last " (DAYS) " days" }
                    p { "Limits are shown for keys whose requests are in the trail." }
                }
            }
            @for (number, answers) in self.gates.iter().enumerate() {
                (self.section(number, answers))
            }
        }
    }

    fn section(&self, number: usize, answers: &Answers) -> Markup {
        let id = format!("gate-{number}");
        let rows: Vec<_> = self.keys.iter().zip(&answers.keys).collect();
        html! {
            section aria-labelledby=(id) {
                h2 id=(id) { "Gate " (format::text(&answers.gate)) }
                @if let Some(error) = &answers.error {
                    p class="problem" role="status" { "The gate was not asked about all keys: " (format::text(error)) "." }
                }
                @if !rows.is_empty() {
                    div class="card scroll" role="region" aria-labelledby=(id) tabindex="0" {
                        table class="stack" role="table" {
                            caption { "The keys with the most requests of the last " (DAYS) " days. The counts are those of this gate." }
                            thead role="rowgroup" {
                                tr role="row" {
                                    th role="columnheader" scope="col" { "Key and limit" }
                                    @for name in ["Left", "Used", "Of", "Resets in"] {
                                        th role="columnheader" scope="col" class="number" { (name) }
                                    }
                                }
                            }
                            tbody role="rowgroup" {
                                @for (key, limits) in rows { (of_key(key, limits.as_deref())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

// === impl Answers ===

impl Answers {
    fn ask(gate: &Gate, keys: &[UsedKey]) -> Self {
        let gate_name = gate.name().to_owned();
        let mut answers = Self { gate: gate_name, keys: Vec::new(), error: None };
        let begun: Instant = clock::instant();
        for UsedKey { tenant, key } in keys {
            if begun.elapsed() >= TIMEOUT {
                answers.error = Some("it takes too long".to_owned());
                break;
            }
            match gate.allowances(tenant, key) {
                Ok(limits) => answers.keys.push(limits),
                Err(error) => {
                    answers.error = Some(GateError::to_string(&error));
                    break;
                }
            }
        }
        answers
    }
}

/// The rows of a key.
fn of_key(key: &UsedKey, limits: Option<&[Allowance]>) -> Markup {
    let mut limits: Vec<_> = limits.into_iter().flatten().collect();
    limits.sort_by_key(|limit| {
        format::permille(limit.remaining.unwrap_or(u64::MAX), limit.limit.unwrap_or(1))
    });
    html! {
        @if limits.is_empty() {
            tr role="row" {
                (name(key, None))
                td role="cell" class="muted" colspan="4" { "no limit, or no request counted" }
            }
        }
        @for limit in limits {
            tr role="row" {
                (name(key, Some(limit)))
                (cell("left", &amount(limit, limit.remaining)))
                (cell("used", &amount(limit, Some(limit.used))))
                (cell("in all", &amount(limit, limit.limit)))
                (cell("to the next", &resets(limit)))
            }
        }
    }
}

/// The key, and how much is left of a limit.
fn name(key: &UsedKey, limit: Option<&Allowance>) -> Markup {
    let link = |name: &str| format::link("/logs", &[("key", name), ("tenant", &key.tenant)]);
    let left = limit.and_then(|limit| limit.remaining.zip(limit.limit));
    html! {
        th role="rowheader" scope="row" {
            (format::linked(link, &key.key))
            span class="hint" {
                "of " (format::text(&key.tenant))
                @if let Some(limit) = limit { ", " code { (format::text(&limit.name)) } }
            }
            @if let Some((remaining, all)) = left { (share(remaining, all)) }
        }
    }
}

fn amount(limit: &Allowance, amount: Option<u64>) -> String {
    match amount {
        None => "-".to_owned(),
        Some(amount) if limit.is_money() => dollars(amount),
        Some(amount) => rounded(amount),
    }
}

fn resets(limit: &Allowance) -> String {
    let secs = limit.reset_secs.map(Duration::from_secs);
    secs.map_or_else(|| "never".to_owned(), |secs| humantime::format_duration(secs).to_string())
}
