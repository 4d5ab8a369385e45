//! The chains: what is verified, and what is missing.

use axum::Extension;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::format::{counted, number};
use super::{format, frame, words};
use crate::store::{ChainState, FindingRow, Gap, Reader, StoreError};
use crate::web::Service;
use crate::web::door::Visitor;

/// The most findings that are shown.
const MAX_FINDINGS: u64 = 100;

/// The most gaps of one chain that are shown.
const MAX_GAPS: usize = 10;

/// What is known of the chains.
pub(super) struct Chains {
    chains: Vec<ChainState>,
    findings: Vec<FindingRow>,
}

/// `GET /chain`.
pub(super) async fn show(
    State(service): State<Service>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    match service.read(Chains::read).await {
        Ok(chains) => {
            let page = frame::page(&visitor, "/chain", "Chain", &chains.render());
            Html(page.into_string()).into_response()
        }
        Err(cause) => frame::unanswered(&visitor, "/chain", &cause),
    }
}

// === impl Chains ===

impl Chains {
    pub(super) fn read(store: &Reader) -> Result<Self, StoreError> {
        Ok(Self { chains: store.chains()?, findings: store.findings(MAX_FINDINGS)? })
    }

    fn sum(&self, value: fn(&ChainState) -> u64) -> u64 {
        self.chains.iter().map(value).fold(0, u64::saturating_add)
    }

    fn missing(&self) -> u64 {
        self.sum(|chain| chain.missing)
    }

    /// The class, and the state in words and in a sentence.
    fn state(&self) -> (&'static str, &'static str, String) {
        let count = |length| u64::try_from(length).unwrap_or(u64::MAX);
        let findings = count(self.findings.len());
        let missing = self.missing();
        let in_chains = |records| {
            format!(
                "{} of {}",
                counted(records, "record"),
                counted(count(self.chains.len()), "chain")
            )
        };
        match (missing, findings) {
            (0, 0) if self.chains.is_empty() => (
                "neutral",
                "No chain",
                "No record has a place in a chain, so a missing or changed one would not show."
                    .to_owned(),
            ),
            (0, 0) => (
                "good",
                "Intact",
                format!(
                    "{}: nothing is missing, nothing was changed.",
                    in_chains(self.sum(|chain| chain.records))
                ),
            ),
            (0, _) => (
                "bad",
                "Does not verify",
                format!(
                    "{} in {}.",
                    counted(findings, "finding"),
                    in_chains(self.sum(|chain| chain.records))
                ),
            ),
            (missing, 0) => ("bad", "Records are missing", format!("{} missing.", are(missing))),
            (missing, findings) => (
                "bad",
                "Records are missing",
                format!(
                    "{} missing, and there {}.",
                    are(missing),
                    match findings {
                        1 => "is 1 finding".to_owned(),
                        findings => format!("are {findings} findings"),
                    }
                ),
            ),
        }
    }

    /// The state, in short.
    pub(super) fn card(&self) -> Markup {
        let (class, state, text) = self.state();
        html! {
            div class={ "card state " (class) } {
                h2 { "Chain of records" }
                p class="verdict" { (state) }
                p { (text) " " a href="/chain" { "Details" } }
            }
        }
    }

    /// All that is known.
    pub(super) fn render(&self) -> Markup {
        let (class, state, text) = self.state();
        html! {
            h1 { "Chain" }
            div class={ "card state " (class) } {
                p class="verdict" { (state) }
                p { (text) }
            }
            @if self.chains.is_empty() { (without_chains()) } @else { (self.table()) }
            (self.findings())
            (unknowable())
        }
    }

    fn table(&self) -> Markup {
        html! {
            section aria-labelledby="chains" {
                h2 id="chains" { "Chains" }
                div class="card scroll" role="region" aria-labelledby="chains" tabindex="0" {
                    table class="stack pairs" role="table" { caption { "Each worker of a gate has a chain of its own, and begins another one when it is configured anew. The latest is first." }
                        thead role="rowgroup" {
                            tr role="row" {
                                @for name in ["Chain", "Proxy", "First and last record"] {
                                    th role="columnheader" scope="col" { (name) }
                                }
                                @for name in ["Records", "Verified up to"] {
                                    th role="columnheader" scope="col" class="number" { (name) }
                                }
                                @for name in ["Missing", "Last anchor"] {
                                    th role="columnheader" scope="col" { (name) }
                                }
                            }
                        }
                        tbody role="rowgroup" { @for chain in &self.chains { (row(chain)) } }
                    }
                }
            }
        }
    }

    fn findings(&self) -> Markup {
        html! {
            section aria-labelledby="findings" {
                h2 id="findings" { "Findings" }
                div class="card" {
                    @if self.findings.is_empty() {
                        p class="muted" { "No line was changed, and no two contradict each other." }
                    } @else {
                        div class="scroll" role="region" aria-labelledby="findings" tabindex="0" {
                            table class="stack pairs" role="table" { caption { "What does not verify, the latest first; at most " (MAX_FINDINGS) }
                                thead role="rowgroup" {
                                    tr role="row" {
                                        @for name in ["Found", "Kind", "What it means", "Where"] {
                                            th role="columnheader" scope="col" { (name) }
                                        }
                                    }
                                }
                                tbody role="rowgroup" { @for finding in &self.findings { (finding_row(finding)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn are(missing: u64) -> String {
    let verb = if missing == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(missing, "record"))
}

fn row(chain: &ChainState) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { code { (format::text(&chain.name)) } }
            td role="cell" data-unit="proxy" { @match &chain.host { Some(host) => (format::text(host)), None => span class="muted" { "unnamed" } } }
            td role="cell" class="when" data-unit="first and last record" {
                @if let Some((first, last)) = chain.times {
                    (format::time_of_secs(first / 1_000_000)) br; (format::time_of_secs(last / 1_000_000))
                }
            }
            td role="cell" class="number" data-unit="records" { (number(chain.records)) }
            td role="cell" class="number" data-unit="verified up to" { (number(chain.verified)) }
            td role="cell" data-unit="missing" { (missing(chain)) }
            td role="cell" data-unit="last anchor" {
                @match (chain.is_closed, chain.anchored) {
                    (true, _) => { span class="badge good" { "closed" } " at " (counted(chain.records, "record")) },
                    (false, Some(records)) => { "after " (counted(records, "record")) },
                    (false, None) => span class="muted" { "none yet" },
                }
            }
        }
    }
}

fn missing(chain: &ChainState) -> Markup {
    let rest = chain.gaps.len().saturating_sub(MAX_GAPS);
    html! {
        @if chain.missing == 0 {
            span class="badge good" { "none" }
        } @else {
            span class="badge bad" { (number(chain.missing)) }
            ul class="gaps" {
                @for gap in chain.gaps.iter().take(MAX_GAPS) { li { (gap_text(*gap)) } }
                @if rest > 0 { li class="muted" { "and more: " a href="/api/chain" { "all, as JSON" } } }
            }
        }
    }
}

fn gap_text(Gap { first, last }: Gap) -> String {
    match first == last {
        true => format!("record {}", number(first)),
        false => format!("records {} to {}", number(first), number(last)),
    }
}

fn finding_row(finding: &FindingRow) -> Markup {
    html! {
        tr role="row" {
            td role="cell" class="when" { (format::time_of_secs(finding.at_secs)) }
            td role="cell" { span class="badge bad" { (format::text(&finding.kind)) } }
            td role="cell" class="meaning" {
                (words::finding(&finding.kind).unwrap_or_default())
                span class="hint" { bdi { (format::cut(&finding.text, 600)) } }
            }
            td role="cell" class="meaning" {
                @if let Some(chain) = &finding.chain { "chain " code { (format::text(chain)) } }
                @if let Some(seq) = finding.seq { ", record " (number(seq)) }
            }
        }
    }
}

fn without_chains() -> Markup {
    html! {
        div class="card empty" {
            h2 { "How to begin a chain" }
            p {
                "Give the gate an audit secret: " code { "\"audit\": {\"sink\": \"access_log\", \"secret\": \"${VKEY_AUDIT_SECRET}\"}" }
                ". Then each record has the MAC of the one before it, and one that is missing, added, moved or changed shows here."
            }
        }
    }
}

/// What no chain shows (docs/audit.md, "Verify a trail").
fn unknowable() -> Markup {
    html! {
        section aria-labelledby="unknown" {
            h2 id="unknown" { "What cannot be known" }
            ul class="notes muted" {
                li { "Whether records after the last one of an open chain are missing, except as far as an anchor counts." }
                li { "Whether a whole chain is missing that no log names." }
                li { "What a worker had not written when its proxy was killed." }
                li { "Records that are missing are filled in when a file has them. Until then, those that are on their way count as missing too." }
            }
        }
    }
}
