//! The headers of every answer.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Nothing comes from elsewhere, nothing is inline, and nobody frames the page. The page compiles the library for
/// JavaScript, which is WebAssembly.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
    connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Adds the headers that protect a page and the answers of the API.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let text = HeaderValue::from_static;
    headers.insert(CONTENT_SECURITY_POLICY, text(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, text("nosniff"));
    headers.insert(X_FRAME_OPTIONS, text("DENY"));
    headers.insert(REFERRER_POLICY, text("no-referrer"));
    headers.insert("cross-origin-opener-policy", text("same-origin"));
    headers.insert("cross-origin-resource-policy", text("same-origin"));
    headers.insert("permissions-policy", text("camera=(), geolocation=(), microphone=()"));
    headers.entry(CACHE_CONTROL).or_insert(text("no-store"));
    response
}

/// Ends a request whose body does not come, or whose answer takes too long.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// Tells browsers to use TLS alone from now on.
pub(super) async fn require_tls(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, year);
    response
}
