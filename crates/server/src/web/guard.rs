//! Checks that a request has a key that may see the trail, or order from the ledger.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::door::{Asked, Purpose, Refused};
use super::{Service, answers, page};
use crate::clock;

/// The scheme of keys in `authorization` (RFC 6750).
const BEARER: &str = "Bearer ";

/// The header of keys that other clients use.
const KEY_HEADER: &str = "x-api-key";

/// The longest key that is looked at, in bytes: no valid one is longer.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// Checks the key of a request for the API.
pub(super) async fn api(
    State(service): State<Service>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match admit(&service, Purpose::Trail, client.ip(), request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => service.refusal(Purpose::Trail, refused, client.ip()),
    }
}

/// Checks the key of a request with orders. Without one, a client certificate is enough, which TLS has checked.
pub(super) async fn leases(
    State(service): State<Service>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if service.shared.settings.has_client_certificates {
        return next.run(request).await;
    }
    of_ledger(&service, Purpose::Leases, client.ip(), request, next).await
}

/// Checks the key of a request for accounts.
pub(super) async fn accounts(
    State(service): State<Service>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    of_ledger(&service, Purpose::Accounts, client.ip(), request, next).await
}

async fn of_ledger(
    service: &Service,
    purpose: Purpose,
    source: IpAddr,
    request: Request,
    next: Next,
) -> Response {
    match admit(service, purpose, source, request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => service.refusal(purpose, refused, source),
    }
}

/// Checks the key of a request for a page. Without one, the browser is sent to the form.
pub(super) async fn page(
    State(service): State<Service>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match admit(&service, Purpose::Trail, client.ip(), request).await {
        Ok(request) => next.run(request).await,
        Err(None) => to_login(),
        Err(Some(Refused::Unauthenticated)) => {
            let refusal =
                service.refusal(Purpose::Trail, Some(Refused::Unauthenticated), client.ip());
            match refusal.status() {
                StatusCode::TOO_MANY_REQUESTS => page::refused(refusal.status()),
                _ => to_login(),
            }
        }
        Err(refused) => {
            page::refused(service.refusal(Purpose::Trail, refused, client.ip()).status())
        }
    }
}

fn to_login() -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, "/login")]).into_response()
}

/// Adds to a request who sent it; `Err(None)` without a key.
async fn admit(
    service: &Service,
    purpose: Purpose,
    source: IpAddr,
    mut request: Request,
) -> Result<Request, Option<Refused>> {
    let asked = asked(service, purpose, source, &request).ok_or(None)?;
    let visitor = service.door().ask(asked).await.map_err(Some)?;
    request.extensions_mut().insert(visitor);
    Ok(request)
}

/// What a request asks for; `None` without a key.
fn asked(service: &Service, purpose: Purpose, source: IpAddr, request: &Request) -> Option<Asked> {
    // Whoever may GET a page may ask for its head.
    let method = match request.method() {
        &Method::HEAD => &Method::GET,
        method => method,
    };
    Some(Asked {
        purpose,
        credential: credential(service, request.headers())?,
        method: method.to_string(),
        path: request.uri().path().to_owned(),
        source: source.to_canonical(),
    })
}

/// The key of a request: in a header, or that of the session.
fn credential(service: &Service, headers: &HeaderMap) -> Option<String> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let sent = header(AUTHORIZATION.as_str())
        .map(|value| value.strip_prefix(BEARER).unwrap_or_default().trim())
        .or_else(|| header(KEY_HEADER));
    match sent {
        Some(key) => (key.len() <= MAX_KEY_BYTES).then(|| key.to_owned()),
        None => {
            service.sessions().credential(session_id(headers, service.cookie())?, clock::now_secs())
        }
    }
}

/// The id of the session that a browser sends.
pub(super) fn session_id<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(cookie)?.strip_prefix('='))
}

impl Service {
    /// The reply to a request that is refused. A source that fails too often is told to wait.
    pub(super) fn refusal(
        &self,
        purpose: Purpose,
        refused: Option<Refused>,
        source: IpAddr,
    ) -> Response {
        match refused {
            Some(Refused::Forbidden(reason)) => answers::error(
                StatusCode::FORBIDDEN,
                reason.code(),
                match purpose {
                    Purpose::Leases => "the key may not order: its restrictions count here too",
                    Purpose::Trail | Purpose::Accounts => {
                        "the key may not see this: its tier needs usage_of_others, and its restrictions count here too"
                    }
                },
            ),
            Some(Refused::Ending) => {
                answers::error(StatusCode::SERVICE_UNAVAILABLE, "ending", "the server ends")
            }
            Some(Refused::Unauthenticated) => match self.failures().add(source, clock::instant()) {
                None => unauthenticated("the key is not valid here"),
                Some(secs) => {
                    let message = "too many invalid keys came from this address";
                    let code = "source_blocked";
                    let mut response = answers::error(StatusCode::TOO_MANY_REQUESTS, code, message);
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
                    response
                }
            },
            None => unauthenticated("a key is needed: authorization: Bearer KEY"),
        }
    }
}

fn unauthenticated(message: &str) -> Response {
    let mut response = answers::error(StatusCode::UNAUTHORIZED, "unauthenticated", message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
