//! How a browser begins and ends a session.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::{ConnectInfo, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::door::{Asked, Purpose, Refused};
use super::sessions::MAX_SECS;
use super::{Service, guard, page};
use crate::clock::now_secs;

/// The form.
#[derive(Deserialize)]
pub(super) struct Key {
    key: String,
}

/// `GET /login`.
pub(super) async fn form() -> Response {
    page::login(None).into_response()
}

/// `POST /login`.
pub(super) async fn enter(
    State(service): State<Service>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(Key { key }): Form<Key>,
) -> Response {
    if is_from_elsewhere(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let key = key.trim().to_owned();
    let asked = Asked {
        purpose: Purpose::Trail,
        credential: key.clone(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        source: client.ip().to_canonical(),
    };
    let visitor = match service.door().ask(asked).await {
        Ok(visitor) => visitor,
        Err(refused) => {
            let status = service.refusal(Purpose::Trail, Some(refused), client.ip()).status();
            let message = match (refused, status) {
                (_, StatusCode::TOO_MANY_REQUESTS) => {
                    "Too many invalid keys came from this address. Wait five minutes."
                }
                (Refused::Unauthenticated, _) => {
                    "This key is not valid here. It needs the audience of this server, and must not have expired."
                }
                (Refused::Forbidden(_), _) => {
                    "This key is valid, and may not see the trail. Its tier needs usage_of_others."
                }
                (Refused::Ending, _) => "The server ends.",
            };
            return (status, page::login(Some(message))).into_response();
        }
    };
    let now_secs = now_secs();
    let ends_secs = visitor.exp_secs.min(now_secs.saturating_add(MAX_SECS));
    let Some(id) = service.sessions().begin(key, ends_secs) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    redirect("/", &cookie(&service, &id, ends_secs.saturating_sub(now_secs)))
}

/// `POST /logout`.
pub(super) async fn leave(State(service): State<Service>, headers: HeaderMap) -> Response {
    if is_from_elsewhere(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(id) = guard::session_id(&headers, service.cookie()) {
        service.sessions().end(id);
    }
    redirect("/login", &cookie(&service, "", 0))
}

/// Whether a browser says that another site sent the form (Fetch Metadata, section 2.4).
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

fn redirect(to: &'static str, cookie: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, to), (SET_COOKIE, cookie)]).into_response()
}

/// The cookie of a session. It is sent to this server alone, never from another site, and no script reads it.
fn cookie(service: &Service, id: &str, secs: u64) -> String {
    let secure = if service.shared.settings.is_encrypted { "; Secure" } else { "" };
    let name = service.cookie();
    format!("{name}={id}; Path=/; Max-Age={secs}; HttpOnly; SameSite=Strict{secure}")
}
