//! The npm package for JavaScript, as `make js` builds it.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::web::answers;

/// The files of the package: path and contents. There are none if it was not built before the server.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/package.rs"));

/// Whether this build has the package.
pub(super) fn is_present() -> bool {
    !FILES.is_empty()
}

/// `GET /js/{path}`: a file of the package.
pub(super) async fn file(Path(path): Path<String>) -> Response {
    let file = FILES.iter().find(|(name, _)| *name == path);
    let Some((name, contents)) = file else { return StatusCode::NOT_FOUND.into_response() };
    let r#type = match name.ends_with(".wasm") {
        true => "application/wasm",
        false => "text/javascript; charset=utf-8",
    };
    answers::typed(r#type, *contents)
}
