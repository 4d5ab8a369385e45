//! The server: the API and the page.

mod answers;
mod api;
mod door;
mod failures;
mod guard;
mod headers;
mod ledger;
mod login;
mod page;
mod parameters;
mod sessions;
mod tls;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::clock;
use crate::gate::Gate;
use crate::ledger::{Ledger, LedgerError};
use crate::store::{Reader, StoreError};
use failures::Failures;
use sessions::Sessions;

pub use door::{Door, Doorkeeper, Engines, door};
pub use tls::{TlsError, server_config};

/// The most questions to the store at a time.
const MAX_READERS: usize = 4;

/// The most gates that are asked at a time.
const MAX_GATES: usize = 8;

/// How long a question to the store may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest body of a request, in bytes: a form with a key.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// What the server needs.
pub struct Settings {
    /// The store.
    pub store: PathBuf,
    /// Who decides on keys.
    pub door: Door,
    /// The gates that say what is left of limits.
    pub gates: Vec<Arc<Gate>>,
    /// The ledger of budgets.
    pub ledger: Option<Ledger>,
    /// Whether clients connect with TLS.
    pub is_encrypted: bool,
    /// Whether TLS accepts only clients with a certificate.
    pub has_client_certificates: bool,
    /// Whether the server ends: then questions to the store are not answered to their end.
    pub is_ending: Arc<AtomicBool>,
}

/// The server, as its handlers share it.
#[derive(Clone)]
struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    sessions: Mutex<Sessions>,
    failures: Mutex<Failures>,
    /// Readers that nobody uses.
    idle: Mutex<Vec<Reader>>,
    /// The turns of questions to the store, and to gates.
    readers: Arc<Semaphore>,
    askers: Arc<Semaphore>,
}

/// Why a request has no answer.
enum Unanswered {
    /// The request cannot be meant.
    Bad(String),
    /// The store cannot be read.
    Store(StoreError),
    /// This server has no ledger.
    NoLedger,
    /// The ledger does not respond.
    Ledger(LedgerError),
    /// The server ends, or a thread of it has.
    Ending,
}

/// The routes of the server.
pub fn router(settings: Settings) -> Router {
    let is_encrypted = settings.is_encrypted;
    let service = Service {
        shared: Arc::new(Shared {
            settings,
            sessions: Mutex::default(),
            failures: Mutex::default(),
            idle: Mutex::default(),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            askers: Arc::new(Semaphore::new(MAX_GATES)),
        }),
    };
    let api = Router::new()
        .route("/api/audit/logs", get(api::logs))
        .route("/api/usage", get(api::usage))
        .route("/api/chain", get(api::chain))
        .route("/api/alerts", get(api::alerts))
        .route("/api/{*path}", get(api::unknown))
        .route("/metrics", get(api::metrics))
        .layer(from_fn_with_state(service.clone(), guard::api));
    let pages = page::routes().layer(from_fn_with_state(service.clone(), guard::page));
    let open = Router::new()
        .route("/openapi.json", get(api::description))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/login", get(login::form).post(login::enter))
        .route("/logout", post(login::leave))
        .merge(page::assets());
    let routes = api
        .merge(pages)
        .merge(open)
        .merge(ledger::routes(&service))
        .fallback(page::unknown)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(headers::limit_time))
        .layer(from_fn(headers::protect));
    let routes = if is_encrypted { routes.layer(from_fn(headers::require_tls)) } else { routes };
    routes.with_state(service)
}

// === impl Service ===

impl Service {
    fn door(&self) -> &Door {
        &self.shared.settings.door
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the cookie. With TLS, browsers take it only from this host (RFC 6265bis, section 4.1.3.2).
    fn cookie(&self) -> &'static str {
        if self.shared.settings.is_encrypted { "__Host-vkey" } else { "vkey" }
    }

    /// Asks gates, on a thread that may wait.
    async fn ask_gates<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        in_turn(&self.shared.askers, question).await
    }

    /// Asks the store, on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let shared = Arc::clone(&self.shared);
        let answer = in_turn(&self.shared.readers, move || shared.ask(question)).await?;
        answer.map_err(Unanswered::Store)
    }
}

/// Does what may wait, on a thread of its own, when there is a turn. The turn ends with the work, also if nobody waits for
/// it any more.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| Unanswered::Ending)?;
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Unanswered::Ending)
}

// === impl Shared ===

impl Shared {
    fn ask<T>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let mut reader = idle.map_or_else(|| Reader::open(&self.settings.store), Ok)?;
        let (begun, is_ending) = (clock::instant(), Arc::clone(&self.settings.is_ending));
        reader.interrupt_when(move || {
            begun.elapsed() >= QUESTION_TIMEOUT || is_ending.load(Ordering::Relaxed)
        })?;
        let answer = question(&reader)?;
        self.idle().push(reader);
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Unanswered ===

impl Unanswered {
    /// The status, the code and the message of the answer.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (code, message) = match self {
            Self::Bad(message) => return (StatusCode::BAD_REQUEST, "parameter", message.clone()),
            Self::Store(error @ StoreError::Interrupted) => ("too_slow", error.to_string()),
            // Where it is concerns nobody who asks.
            Self::Store(StoreError::File(..)) => ("store", "the store cannot be opened".to_owned()),
            Self::Store(error) => ("store", error.to_string()),
            Self::NoLedger => {
                let message = "this server has no ledger; start `vkey serve` with --ledger";
                return (StatusCode::NOT_FOUND, "no_ledger", message.to_owned());
            }
            Self::Ledger(error) => (error.code(), ledger::message(error)),
            Self::Ending => ("ending", "the server ends".to_owned()),
        };
        (StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        answers::error(status, code, &message)
    }
}
