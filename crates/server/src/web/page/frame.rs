//! What all pages have around their contents.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::{format, package};
use crate::web::Unanswered;
use crate::web::door::Visitor;

/// The pages, as the navigation lists them: path and name.
const PAGES: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/logs", "Log"),
    ("/limits", "Limits"),
    ("/chain", "Chain"),
    ("/alerts", "Alerts"),
    ("/keys", "Keys"),
];

/// A page for a visitor.
pub(super) fn page(visitor: &Visitor, path: &str, title: &str, contents: &Markup) -> Markup {
    let contents = html! {
        header class="top" {
            div class="bar" {
                a class="brand" href="/" { (logo()) "vkey" }
                nav aria-label="Pages" {
                    ul {
                        @for (to, name) in PAGES {
                            li { a href=(to) aria-current=[(to == path).then_some("page")] { (name) } }
                        }
                    }
                }
                (identity(visitor))
            }
        }
        main id="contents" tabindex="-1" { (contents) }
        footer class="bar muted" {
            p { "Times are in UTC. " a href="/openapi.json" { "Description of the API" } }
        }
    };
    let needs_library = path == "/keys" && package::is_present();
    let scripts: &[&str] = if needs_library { &["/keys.js"] } else { &[] };
    document(title, scripts, &contents)
}

/// A document.
pub(super) fn document(title: &str, scripts: &[&str], contents: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · vkey" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                script type="module" src="/app.js" {}
                @for script in scripts { script type="module" src=(script) {} }
            }
            body {
                a class="skip" href="#contents" { "Skip to contents" }
                (contents)
            }
        }
    }
}

fn identity(visitor: &Visitor) -> Markup {
    html! {
        div class="identity" {
            p {
                span class="hidden" { "Signed in as " }
                @match &visitor.user {
                    Some(user) => { (format::text(user)) " of " (format::text(&visitor.tenant)) }
                    None => { "key " (format::text(&visitor.key)) " of " (format::text(&visitor.tenant)) }
                }
            }
            form method="post" action="/logout" { button class="quiet" { "Sign out" } }
        }
    }
}

fn logo() -> Markup {
    html! {
        svg class="logo" viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false" {
            path d="M12 1.5 21 5v6.5c0 5.4-3.7 9.4-9 11-5.3-1.6-9-5.6-9-11V5z" fill="currentColor" {}
            circle class="hole" cx="12" cy="10" r="2.6" {}
            path class="hole" d="M11 11.5h2l.9 5h-3.8z" {}
        }
    }
}

/// A page that says why there is no other.
pub(super) fn refused(
    visitor: &Visitor,
    path: &str,
    status: StatusCode,
    message: &str,
) -> Response {
    let title = if status.is_client_error() { "This cannot be shown" } else { "Not now" };
    let contents = html! {
        h1 { (title) }
        (problem(message))
        p { a href=(path) { "Start again" } }
    };
    (status, Html(page(visitor, path, title, &contents).into_string())).into_response()
}

/// A page that says why the store was not read.
pub(super) fn unanswered(visitor: &Visitor, path: &str, cause: &Unanswered) -> Response {
    let (status, _, message) = cause.parts();
    refused(visitor, path, status, &message)
}

/// A page of one message, for whoever sees it.
pub(super) fn alone(title: &str, message: &str) -> Markup {
    let contents = html! {
        main id="contents" class="login" tabindex="-1" {
            p class="brand" { (logo()) "vkey" }
            div class="card" {
                h1 { (title) }
                p { (message) }
                p { a href="/" { "Overview" } }
                form method="post" action="/logout" { button { "Sign in with another key" } }
            }
        }
    };
    document(title, &[], &contents)
}

/// An error.
pub(super) fn problem(message: &str) -> Markup {
    html! { p class="problem" role="alert" { strong { "Error: " } (format::cut(message, 500)) } }
}

/// The form that asks for a key.
pub(super) fn login(message: Option<&str>) -> Markup {
    let title = "Sign in";
    let contents = html! {
        main id="contents" class="login" tabindex="-1" {
            p class="brand" { (logo()) "vkey" }
            div class="card" {
                h1 { (title) }
                p { "This is the audit trail of your gates. Sign in with a virtual key that may see the usage of others." }
                @if let Some(message) = message { (problem(message)) }
                form method="post" action="/login" {
                    label for="key" { "Virtual key" }
                    input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required
                        aria-describedby="key-hint" autofocus;
                    p id="key-hint" class="hint" {
                        "It begins with " code { "vk1." } " and stays in the memory of the server until you sign out, at most 12 hours. The browser gets a cookie in its place."
                    }
                    button class="primary" { "Sign in" }
                }
            }
        }
    };
    document(title, &[], &contents)
}
