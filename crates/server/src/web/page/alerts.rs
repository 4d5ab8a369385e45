//! The alerts.

use axum::Extension;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::format::{counted, number};
use super::{format, frame};
use crate::clock::now_secs;
use crate::store::{Alert, Reader, StoreError};
use crate::web::Service;
use crate::web::door::Visitor;

/// The alerts that are shown: all that the store keeps.
const MAX_ALERTS: u64 = 1000;

const SECS_PER_DAY: u64 = 86_400;

/// The alerts of the store.
pub(super) struct Alerts {
    alerts: Vec<Alert>,
    now_secs: u64,
}

/// `GET /alerts`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    match service.read(|store| Alerts::read(store, now_secs())).await {
        Ok(alerts) => {
            let page = frame::page(&visitor, "/alerts", "Alerts", &alerts.render());
            Html(page.into_string()).into_response()
        }
        Err(cause) => frame::unanswered(&visitor, "/alerts", &cause),
    }
}

// === impl Alerts ===

impl Alerts {
    pub(super) fn read(store: &Reader, now_secs: u64) -> Result<Self, StoreError> {
        Ok(Self { alerts: store.alerts(MAX_ALERTS)?, now_secs })
    }

    /// Those whose cause occurred in the last day.
    fn recent(&self) -> usize {
        let since = self.now_secs.saturating_sub(SECS_PER_DAY);
        self.alerts.iter().filter(|alert| alert.last_at_secs >= since).count()
    }

    /// The state, in short.
    pub(super) fn card(&self) -> Markup {
        let recent = u64::try_from(self.recent()).unwrap_or(u64::MAX);
        let class = if recent == 0 { "good" } else { "bad" };
        html! {
            div class={ "card state " (class) } {
                h2 { "Alerts" }
                p class="verdict" {
                    @if recent == 0 { "None in the last 24 hours" } @else { (counted(recent, "alert")) " in the last 24 hours" }
                }
                p {
                    @if let Some(latest) = self.alerts.first() { "The latest: " (format::text(&latest.text)) ". " }
                    a href="/alerts" { "Details" }
                }
            }
        }
    }

    fn render(&self) -> Markup {
        html! {
            h1 { "Alerts" }
            (self.card())
            @if self.alerts.is_empty() {
                p class="muted" { "An alert is raised for floods of failures, unusual use of a key, refused upstreams, and chains that do not verify." }
            } @else {
                (self.table())
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            section aria-labelledby="alerts" {
                h2 id="alerts" { "All alerts" }
                div class="card scroll" role="region" aria-labelledby="alerts" tabindex="0" {
                    table class="stack pairs" role="table" {
                        caption { "One for each cause and hour. The latest is first." }
                        thead role="rowgroup" {
                            tr role="row" {
                                th role="columnheader" scope="col" { "First and last time" }
                                th role="columnheader" scope="col" { "What happened" }
                                th role="columnheader" scope="col" { "Kind" }
                                th role="columnheader" scope="col" class="number" { "Count" }
                                th role="columnheader" scope="col" { "Delivered" }
                            }
                        }
                        tbody role="rowgroup" { @for alert in &self.alerts { (row(alert)) } }
                    }
                }
            }
        }
    }
}

fn row(alert: &Alert) -> Markup {
    html! {
        tr role="row" {
            td role="cell" class="when" {
                (time(alert.first_at_secs)) br; (time(alert.last_at_secs))
            }
            td role="cell" class="meaning" { (format::text(&alert.text)) }
            td role="cell" { span class="badge" { (alert.kind) } }
            td role="cell" class="number" { (number(alert.count)) }
            td role="cell" {
                @match alert.delivered_at_secs {
                    Some(at) => (time(at)),
                    None => "no",
                }
            }
        }
    }
}

fn time(secs: u64) -> Markup {
    format::time_of_secs(secs)
}
