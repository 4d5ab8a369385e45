//! The overview: what all requests of a period come to.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::chart::{self, Point};
use super::format::{self, counted, dollars, number, percent, permille, rounded};
use super::words::Trust;
use super::{alerts, chain, frame, words};
use crate::clock::now_secs;
use crate::store::{By, Overview as Hour, Reader, StoreError, Usage, UsageFilter, UsageRow};
use crate::web::Service;
use crate::web::door::Visitor;
use crate::web::parameters::Parameters;

/// The most rows of a table.
const MAX_ROWS: u64 = 10;

const HOURS_PER_DAY: u64 = 24;
const SECS_PER_HOUR: u64 = 3600;

/// How far back the page looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    Days(u64),
}

/// What the page shows.
pub(super) struct Contents {
    period: Period,
    now_hour: u64,
    hours: Vec<Hour>,
    days: Vec<UsageRow>,
    tables: Vec<(Kind, Vec<UsageRow>)>,
    verdicts: Vec<UsageRow>,
    chain: chain::Chains,
    alerts: alerts::Alerts,
}

/// What a table is about.
struct Kind {
    by: By,
    title: &'static str,
    name: &'static str,
    /// What stands for no name.
    nameless: &'static str,
    empty: &'static str,
}

const PERIODS: [(&str, &str, Period); 4] = [
    ("24h", "24 hours", Period::Day),
    ("7d", "7 days", Period::Days(7)),
    ("30d", "30 days", Period::Days(30)),
    ("90d", "90 days", Period::Days(90)),
];

/// `GET /`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
) -> Response {
    let period = match period(query.as_deref()) {
        Ok(period) => period,
        Err(message) => {
            let status = axum::http::StatusCode::BAD_REQUEST;
            return frame::refused(&visitor, "/", status, &message);
        }
    };
    let now_hour = now_secs() / SECS_PER_HOUR;
    match service.read(move |store| Contents::read(store, period, now_hour)).await {
        Ok(contents) => {
            let page = frame::page(&visitor, "/", "Overview", &contents.render());
            Html(page.into_string()).into_response()
        }
        Err(cause) => frame::unanswered(&visitor, "/", &cause),
    }
}

fn period(query: Option<&str>) -> Result<Period, String> {
    let parameters = Parameters::parse(query, &["period"]).map_err(|error| error.to_string())?;
    let Some(asked) = parameters.get("period") else { return Ok(Period::Days(30)) };
    let found = PERIODS.iter().find(|(word, ..)| *word == asked);
    let found = found.map(|(_, _, period)| *period);
    found.ok_or_else(|| "the parameter `period` must be 24h, 7d, 30d or 90d".to_owned())
}

// === impl Contents ===

impl Contents {
    pub(super) fn read(store: &Reader, period: Period, now_hour: u64) -> Result<Self, StoreError> {
        let from_day = period.first_day(now_hour);
        let filter =
            |limit| UsageFilter { from_day: Some(from_day), limit, ..UsageFilter::default() };
        let mut tables = Vec::new();
        for kind in Kind::all() {
            let rows = store.usage(kind.by, &filter(MAX_ROWS + 2))?;
            tables.push((kind, rows));
        }
        Ok(Self {
            period,
            now_hour,
            hours: store.hours(now_hour.saturating_sub(HOURS_PER_DAY - 1))?,
            days: store.usage(By::Day, &filter(u64::from(u16::MAX)))?,
            tables,
            verdicts: store.usage(By::Verdict, &filter(u64::from(u16::MAX)))?,
            chain: chain::Chains::read(store)?,
            alerts: alerts::Alerts::read(store, now_hour * SECS_PER_HOUR)?,
        })
    }

    pub(super) fn render(&self) -> Markup {
        html! {
            div class="title" {
                h1 { "Overview" }
                (self.periods())
            }
            @if self.total().requests == 0 { (self.nothing()) }
            section class="states" aria-label="State" {
                (self.chain.card())
                (self.alerts.card())
                (upstream_card(&self.verdicts, self.table_days().as_deref()))
            }
            section aria-labelledby="totals" {
                h2 id="totals" { (self.period.title()) }
                (self.tiles())
            }
            section aria-label="Requests over time" class=(if self.period == Period::Day { "charts one" } else { "charts" }) {
                (chart::figure("Last 24 hours", "hour", &self.hour_points()))
                @if let Period::Days(days) = self.period {
                    (chart::figure(&format!("Last {days} days"), "day", &self.day_points(days)))
                }
            }
            section aria-labelledby="shares" {
                h2 id="shares" { "Who and what" }
                @if let Some(days) = self.table_days() {
                    p class="muted" { (days) " Totals by name are kept by day." }
                }
                div class="tables" {
                    @for (kind, rows) in &self.tables { (self.table(kind, rows)) }
                }
            }
            (verdicts(&self.verdicts))
        }
    }

    fn periods(&self) -> Markup {
        html! {
            nav class="periods" aria-label="Period" {
                ul {
                    @for (word, name, period) in PERIODS {
                        li {
                            a href={ "/?period=" (word) } aria-current=[(period == self.period).then_some("true")] { (name) }
                        }
                    }
                }
            }
        }
    }

    fn nothing(&self) -> Markup {
        html! {
            div class="card empty" {
                h2 { "No requests in this period" }
                p {
                    "The collector takes records from the access log of the gate. Send a request through the gate, or choose a longer period. "
                    "If there should be some, check that " code { "vkey serve" } " follows the right file, or that the access logger of the gate sends to it."
                }
            }
        }
    }

    /// Which days the tables are about, if they are about more than the period.
    fn table_days(&self) -> Option<String> {
        let is_day = self.period == Period::Day;
        is_day.then(|| format!("Since {} 00:00.", format::day(self.first_day())))
    }

    fn first_day(&self) -> u64 {
        self.period.first_day(self.now_hour)
    }

    /// What all requests of the period come to. Without a name that is one row.
    fn total(&self) -> Usage {
        let add = u64::saturating_add;
        match self.period {
            Period::Day => self.hours.iter().fold(Usage::default(), |sum, hour| Usage {
                requests: add(sum.requests, hour.requests),
                failed: add(sum.failed, hour.failed),
                refused: add(sum.refused, hour.refused),
                tokens: add(sum.tokens, hour.tokens),
                cost: add(sum.cost, hour.cost),
                ..sum
            }),
            Period::Days(_) => self.days.iter().fold(Usage::default(), |sum, day| Usage {
                requests: add(sum.requests, day.usage.requests),
                failed: add(sum.failed, day.usage.failed),
                refused: add(sum.refused, day.usage.refused),
                tokens_in: add(sum.tokens_in, day.usage.tokens_in),
                tokens_out: add(sum.tokens_out, day.usage.tokens_out),
                tokens: add(sum.tokens, day.usage.tokens),
                cost: add(sum.cost, day.usage.cost),
            }),
        }
    }

    fn tiles(&self) -> Markup {
        let total = self.total();
        let errors = total.failed.saturating_sub(total.refused);
        let since = format::day(self.first_day());
        let share = |part| format!("{} of requests", percent(part, total.requests));
        let parts = match (self.period, total.tokens) {
            (Period::Days(_), 1..) => {
                format!("{} in, {} out", rounded(total.tokens_in), rounded(total.tokens_out))
            }
            _ => "charged".to_owned(),
        };
        let log = |status| format::link("/logs", &[("status", status), ("from", &since)]);
        html! {
            dl class="tiles" {
                (tile("Requests", &rounded(total.requests), "", Some(&log(""))))
                (tile("Refused", &rounded(total.refused), &share(total.refused), Some(&log("failed"))))
                (tile("Error responses", &rounded(errors), &share(errors), Some(&log("failed"))))
                (tile("Tokens", &rounded(total.tokens), &parts, None))
                (tile("Spend", &dollars(total.cost), "at the prices of the gate", None))
            }
        }
    }

    fn hour_points(&self) -> Vec<Point> {
        let first = self.now_hour.saturating_sub(HOURS_PER_DAY - 1);
        (first..=self.now_hour)
            .map(|hour| {
                let sums = self.hours.iter().find(|row| row.hour == hour);
                let sums = sums.copied().unwrap_or_default();
                Point {
                    when: format::hour(hour),
                    label: format!("{:02}:00", hour % HOURS_PER_DAY),
                    requests: sums.requests,
                    failed: sums.failed,
                    refused: sums.refused,
                }
            })
            .collect()
    }

    fn day_points(&self, days: u64) -> Vec<Point> {
        let today = self.now_hour / HOURS_PER_DAY;
        let first = today.saturating_sub(days.saturating_sub(1));
        (first..=today)
            .map(|day| {
                let when = format::day(day);
                let sums = self.days.iter().find(|row| row.name == when);
                let sums = sums.map(|row| row.usage).unwrap_or_default();
                Point {
                    label: when.get(5..).unwrap_or_default().to_owned(),
                    when,
                    requests: sums.requests,
                    failed: sums.failed,
                    refused: sums.refused,
                }
            })
            .collect()
    }

    fn table(&self, kind: &Kind, rows: &[UsageRow]) -> Markup {
        // What has no reason was not refused, and what has no tool is no call of one.
        let is_shown = |row: &&UsageRow| {
            !row.name.is_empty() || !matches!(kind.by, By::Reason | By::Tool | By::Model)
        };
        let rows: Vec<&UsageRow> = rows.iter().filter(is_shown).collect();
        let shown = rows.len().min(usize::try_from(MAX_ROWS).unwrap_or(usize::MAX));
        let is_cut = rows.len() > shown;
        let costs = kind.by != By::Reason;
        let most = rows.iter().map(|row| row.usage.requests).max().unwrap_or(0);
        html! {
            div class="card" {
                h3 { (kind.title) }
                @if rows.is_empty() {
                    p class="muted" { (kind.empty) }
                } @else {
                    div class="scroll" role="region" aria-label=(kind.title) tabindex="0" {
                        table class="stack" role="table" {
                            caption class="hidden" { (kind.title) ", by the number of requests" }
                            thead role="rowgroup" {
                                tr role="row" {
                                    th role="columnheader" scope="col" { (kind.name) }
                                    th role="columnheader" scope="col" class="number" { "Requests" }
                                    @if costs {
                                        @for name in ["Refused", "Tokens", "Spend"] {
                                            th role="columnheader" scope="col" class="number" { (name) }
                                        }
                                    }
                                }
                            }
                            tbody role="rowgroup" {
                                @for row in rows.iter().take(shown) { (self.row(kind, row, most)) }
                            }
                        }
                    }
                    @if is_cut {
                        p class="more" {
                            a href=(self.usage_link(kind)) { "All, as CSV" }
                        }
                    }
                }
            }
        }
    }

    fn row(&self, kind: &Kind, row: &UsageRow, most: u64) -> Markup {
        let usage = row.usage;
        html! {
            tr role="row" {
                th role="rowheader" scope="row" {
                    @if row.name.is_empty() {
                        span class="muted" { (kind.nameless) }
                    } @else if row.name == "(other)" {
                        span class="muted" { "others" }
                    } @else {
                        (format::linked(|name| self.log_link(kind, name), &row.name))
                    }
                    @if kind.by == By::Reason {
                        span class="hint" { (words::reason(&row.name).unwrap_or_default()) }
                    }
                    (share(usage.requests, most))
                }
                (cell("requests", &rounded(usage.requests)))
                @if kind.by != By::Reason {
                    (cell("refused", &rounded(usage.refused)))
                    (cell("tokens", &rounded(usage.tokens)))
                    (cell("spend", &dollars(usage.cost)))
                }
            }
        }
    }

    fn log_link(&self, kind: &Kind, name: &str) -> String {
        let from = format::day(self.first_day());
        format::link("/logs", &[(kind.by.name(), name), ("from", &from)])
    }

    fn usage_link(&self, kind: &Kind) -> String {
        let from = format::day(self.first_day());
        let parameters = [("by", kind.by.name()), ("from", from.as_str()), ("format", "csv")];
        format::link("/api/usage", &parameters)
    }
}

/// A number. On narrow screens its unit is below it.
pub(super) fn cell(unit: &'static str, text: &str) -> Markup {
    html! { td role="cell" class="number" data-unit=(unit) { (text) } }
}

fn tile(name: &str, value: &str, detail: &str, link: Option<&str>) -> Markup {
    html! {
        div class="card tile" {
            dt { (name) }
            dd {
                @match link {
                    Some(link) => a class="value" href=(link) { (value) },
                    None => span class="value" { (value) },
                }
                @if !detail.is_empty() { span class="muted" { (detail) } }
            }
        }
    }
}

/// How large a part is beside the most.
pub(super) fn share(part: u64, most: u64) -> Markup {
    let width = permille(part, most).max(5);
    html! {
        svg class="share" viewBox="0 0 1000 4" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect width=(width) height="4" rx="2" {}
        }
    }
}

/// The state of the verification of upstreams, in short.
fn upstream_card(verdicts: &[UsageRow], days: Option<&str>) -> Markup {
    let count = |chosen: fn(Trust) -> bool| -> u64 {
        let rows = verdicts.iter().filter(|row| !row.name.is_empty());
        let rows = rows.filter(|row| chosen(words::verdict(&row.name).1));
        rows.map(|row| row.usage.requests).fold(0, u64::saturating_add)
    };
    let refused = count(|trust| trust == Trust::Refused);
    let skipped = count(|trust| trust == Trust::Skipped);
    let unlisted = count(|trust| trust == Trust::Unlisted);
    let proven = count(|trust| trust == Trust::Proven);
    let (class, state) = match (refused, skipped, unlisted, proven) {
        (1.., ..) => ("bad", "Connections were refused"),
        (_, 1.., ..) => ("warn", "Not all connections are verified"),
        (0, 0, 0, 0) => ("neutral", "No connections yet"),
        (0, 0, _, 0) => ("neutral", "No rule for these upstreams"),
        _ => ("good", "Verified"),
    };
    let parts = [
        (refused, "refused because the connection violated the policy"),
        (skipped, "without verification, as an exception allows"),
        (proven, "over verified connections"),
        (unlisted, "to hosts without a rule"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> =
        parts.map(|(count, what)| format!("{} {what}", counted(*count, "request"))).collect();
    let text = match parts.is_empty() {
        true => "No request of this period has a verdict on its upstream.".to_owned(),
        false => format!("{}.", parts.join(", ")),
    };
    html! {
        div class={ "card state " (class) } {
            h2 { "Upstream TLS" }
            p class="verdict" { (state) }
            p { @if let Some(days) = days { (days) " " } (text) " " a href="#upstream-tls" { "Details" } }
        }
    }
}

/// The verdicts on upstreams.
fn verdicts(rows: &[UsageRow]) -> Markup {
    let rows: Vec<&UsageRow> = rows.iter().filter(|row| !row.name.is_empty()).collect();
    let most = rows.iter().map(|row| row.usage.requests).max().unwrap_or(0);
    html! {
        section aria-labelledby="upstream-tls" {
            h2 id="upstream-tls" { "Upstream TLS" }
            div class="card" {
                @if rows.is_empty() {
                    p class="muted" {
                        "No verdict on an upstream. A gate has one when a request reaches an upstream through a cluster with an upstream gate."
                    }
                } @else {
                    div class="scroll" role="region" aria-label="Verdicts" tabindex="0" {
                        table class="stack" role="table" {
                            caption { "Verdicts on connections to upstreams" }
                            thead role="rowgroup" {
                                tr role="row" {
                                    th role="columnheader" scope="col" { "Verdict" }
                                    th role="columnheader" scope="col" { "What it means" }
                                    th role="columnheader" scope="col" class="number" { "Requests" }
                                }
                            }
                            tbody role="rowgroup" { @for row in rows { (verdict_row(row, most)) } }
                        }
                    }
                }
            }
        }
    }
}

fn verdict_row(row: &UsageRow, most: u64) -> Markup {
    let (meaning, trust) = words::verdict(&row.name);
    html! {
        tr role="row" {
            th role="rowheader" scope="row" {
                span class={ "badge " (trust.class()) } { (format::text(&row.name)) }
                (share(row.usage.requests, most))
            }
            td role="cell" class="meaning" { (meaning) }
            (cell("requests", &number(row.usage.requests)))
        }
    }
}

// === impl Period ===

impl Period {
    fn first_day(self, now_hour: u64) -> u64 {
        let today = now_hour / HOURS_PER_DAY;
        match self {
            Self::Day => now_hour.saturating_sub(HOURS_PER_DAY - 1) / HOURS_PER_DAY,
            Self::Days(days) => today.saturating_sub(days.saturating_sub(1)),
        }
    }

    fn title(self) -> String {
        match self {
            Self::Day => "Last 24 hours".to_owned(),
            Self::Days(days) => format!("Last {days} days"),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// All tables, in their order.
    fn all() -> [Self; 5] {
        let kind = |by, title, name, nameless, empty| Self { by, title, name, nameless, empty };
        [
            kind(By::Tenant, "Tenants", "Tenant", "no valid key", "No requests."),
            kind(
                By::Model,
                "Models",
                "Model",
                "",
                "No request named a model. Gates read models if llm is configured.",
            ),
            kind(By::Key, "Keys", "Key", "no valid key", "No requests."),
            kind(By::Reason, "Reasons of refusals", "Reason", "", "Nothing was refused."),
            kind(
                By::Tool,
                "MCP tools",
                "Tool",
                "",
                "No tool was called. Gates read MCP messages if mcp is configured.",
            ),
        ]
    }
}
