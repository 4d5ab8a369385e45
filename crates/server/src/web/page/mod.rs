//! The page.

use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::html;

use super::{Service, answers};

/// The pages that need a key.
pub(super) fn routes() -> Router<Service> {
    Router::new().route("/", get(|| async { Html("overview") }))
}

/// What pages are made of. It is the same for everybody.
pub(super) fn assets() -> Router<Service> {
    Router::new().route("/style.css", get(|| async { answers::typed("text/css", "") }))
}

/// The form that asks for a key.
pub(super) fn login(message: Option<&str>) -> Response {
    let page = html! {
        form method="post" action="/login" {
            @if let Some(message) = message { p { (message) } }
            label { "Key" input name="key" type="password" autocomplete="off" required; }
            button { "Sign in" }
        }
    };
    Html(page.into_string()).into_response()
}
