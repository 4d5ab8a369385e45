//! The page: what the trail says, for people. All of it but *Inspect and narrow a key* works without JavaScript.

mod alerts;
mod chain;
mod chart;
mod format;
mod frame;
mod keys;
mod limits;
mod logs;
mod overview;
mod package;
mod record;
#[cfg(test)]
mod tests;
mod words;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{Service, answers};

/// The pages that need a key.
pub(super) fn routes() -> Router<Service> {
    Router::new()
        .route("/", get(overview::show))
        .route("/logs", get(logs::show))
        .route("/requests/{id}", get(record::show))
        .route("/chain", get(chain::show))
        .route("/alerts", get(alerts::show))
        .route("/limits", get(limits::show))
        .route("/keys", get(keys::show))
}

/// What pages are made of. It is the same for everybody.
pub(super) fn assets() -> Router<Service> {
    let file =
        |r#type, text: &'static str| get(move || async move { answers::typed(r#type, text) });
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    Router::new()
        .route("/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/icon.svg", file("image/svg+xml", include_str!("icon.svg")))
        .route("/app.js", file(SCRIPT, include_str!("app.js")))
        .route("/keys.js", file(SCRIPT, include_str!("keys.js")))
        .route("/sentences.js", file(SCRIPT, include_str!("sentences.js")))
        .route("/js/{*path}", get(package::file))
}

/// The page for a request that is refused.
pub(super) fn refused(status: StatusCode) -> Response {
    let (title, message) = match status {
        StatusCode::FORBIDDEN => (
            "This is not for your key",
            "Your key may not see this page. Its tier needs usage_of_others, and its restrictions count here too.",
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            "Too many invalid keys",
            "Too many invalid keys came from this address. Wait five minutes.",
        ),
        _ => ("Not now", "The server ends."),
    };
    (status, Html(frame::alone(title, message).into_string())).into_response()
}

/// Any path without a page.
pub(super) async fn unknown() -> Response {
    let page = frame::alone("No such page", "There is nothing at this address.");
    (StatusCode::NOT_FOUND, Html(page.into_string())).into_response()
}

/// The form that asks for a key.
pub(super) fn login(message: Option<&str>) -> Response {
    Html(frame::login(message).into_string()).into_response()
}
