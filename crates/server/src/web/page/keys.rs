//! *Inspect and narrow a key*: the browser does it, and the key never leaves it.

use axum::Extension;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::{frame, package};
use crate::web::door::Visitor;

/// The fields of the form to narrow a key that take lists: id, label, example and hint.
const FIELDS: [(&str, &str, &str, &str); 6] = [
    ("methods", "Methods", "GET, POST", "In capitals"),
    ("paths", "Paths", "/v1/chat/*", "* within a segment, ** across segments"),
    ("models", "Models", "gpt-4o*", "* is any characters"),
    ("tools", "MCP tools", "search, read_*", "* is any characters"),
    ("hosts", "Hosts", "api.example.com", "Without a port"),
    ("sources", "Client addresses", "10.0.0.0/8", "Addresses or networks"),
];

/// When a narrowed key may expire: seconds and name.
const LIFETIMES: [(&str, &str); 6] = [
    ("0", "With the key"),
    ("600", "In 10 minutes"),
    ("3600", "In 1 hour"),
    ("86400", "In 1 day"),
    ("604800", "In 7 days"),
    ("2592000", "In 30 days"),
];

/// `GET /keys`.
pub(super) async fn show(Extension(visitor): Extension<Visitor>) -> Response {
    let contents = render(package::is_present());
    Html(frame::page(&visitor, "/keys", "Keys", &contents).into_string()).into_response()
}

/// The tool, if this build has the package that it needs.
pub(super) fn render(has_package: bool) -> Markup {
    html! {
        h1 { "Inspect and narrow a key" }
        @if has_package { (tool()) } @else { (absent()) }
    }
}

fn absent() -> Markup {
    html! {
        div class="card empty" {
            p {
                "This build of the server has no JavaScript library, which inspects and narrows keys in the browser. "
                "Use the commands " code { "vkey inspect" } " and " code { "vkey attenuate" } ", or a build made with " code { "make build" } "."
            }
        }
    }
}

fn tool() -> Markup {
    html! {
        p { "The key stays in this browser: no request has it, and the server never sees it." }
        noscript { p class="problem" { "This needs JavaScript. " code { "vkey inspect" } " and " code { "vkey attenuate" } " do the same." } }
        p id="tool-problem" class="problem" role="alert" hidden {}
        p id="loading" class="muted" hidden { "Loading the library…" }
        div id="tool" class="keys" hidden {
            div class="card" {
                label for="virtual-key" { "Virtual key" }
                // Nothing here has a name or is in a form that is sent.
                textarea id="virtual-key" rows="4" autocomplete="off" autocapitalize="none" spellcheck="false"
                    placeholder="vk1.…" aria-describedby="virtual-key-hint" {}
                p id="virtual-key-hint" class="hint" { "Only a gate knows whether a key is genuine: nothing is verified here." }
                p id="key-problem" class="problem" role="alert" hidden {}
            }
            section id="said" class="card" aria-labelledby="said-title" hidden {
                h2 id="said-title" { "What the key says" }
                div id="description" aria-live="polite" {}
            }
            section id="narrow" class="card" aria-labelledby="narrow-title" hidden { (narrowing()) }
            section id="child" class="card" aria-labelledby="child-title" hidden {
                h2 id="child-title" tabindex="-1" { "The narrowed key" }
                label for="child-key" { "Hand this one on" }
                textarea id="child-key" rows="4" readonly spellcheck="false" {}
                div class="actions" {
                    button id="copy" type="button" { "Copy" }
                    span id="copied" class="hint" role="status" {}
                }
                div id="child-description" {}
            }
        }
    }
}

fn narrowing() -> Markup {
    html! {
        h2 id="narrow-title" { "Narrow it" }
        p class="muted" { "The narrowed key may do what this key may and all of this allows. Whoever has it can narrow it more, and nobody can widen it." }
        form id="narrow-form" {
            div class="fields" {
                div class="field" {
                    label for="expires" { "Expires" }
                    select id="expires" {
                        @for (secs, name) in LIFETIMES { option value=(secs) { (name) } }
                    }
                }
                @for (id, label, example, hint) in FIELDS {
                    div class="field" {
                        label for=(id) { (label) }
                        input id=(id) placeholder=(example) autocomplete="off" autocapitalize="none" spellcheck="false"
                            aria-describedby={ (id) "-hint" };
                        p class="hint" id={ (id) "-hint" } { (hint) }
                    }
                }
                fieldset class="field" {
                    legend { "Quota" }
                    div class="row" {
                        input id="quota" inputmode="decimal" placeholder="100" autocomplete="off" aria-label="Amount";
                        select id="quota-unit" aria-label="Unit" {
                            option value="requests" { "requests" }
                            option value="tokens" { "tokens" }
                            option value="cost_usd" { "US dollars" }
                        }
                        select id="quota-per" aria-label="Period" {
                            @for (value, name) in [("minute", "a minute"), ("hour", "an hour"), ("day", "a day"), ("week", "a week"), ("month", "a month"), ("total", "in total")] {
                                option value=(value) selected[value == "day"] { (name) }
                            }
                        }
                    }
                }
            }
            p class="hint" { "Several values are separated by commas. Empty fields do not restrict." }
            p id="narrow-problem" class="problem" role="alert" hidden {}
            button class="primary" { "Narrow" }
        }
    }
}
