//! The ledger of budgets: orders of proxies, and accounts.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use serde::Serialize;

use vkey::ledger::{ACCOUNTS_PATH, LEASES_PATH, lease_id};

use super::answers::{self, AccountRow, last_secs};
use super::parameters::{Accounts, Parameters};
use super::{Service, Unanswered, guard};
use crate::clock::now_secs;
use crate::ledger::{Ledger, LedgerError, Posted, Receipted, parse};

/// The longest body with orders, in bytes: several times as long as that of the most orders.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The parameters of [`ACCOUNTS_PATH`].
const OF_ACCOUNTS: [&str; 4] = ["account", "window", "tenant", "jti"];

#[derive(Serialize)]
struct Receipts {
    receipts: Vec<ReceiptRow>,
    scarce: Vec<String>,
}

#[derive(Serialize)]
struct ReceiptRow {
    lease: String,
    number: u32,
    granted: u64,
    left: u64,
    /// The last second of the window; `null` for a total.
    until: Option<u64>,
}

#[derive(Serialize)]
struct AccountRows {
    accounts: Vec<AccountRow>,
    /// Whether there are more than are shown.
    more: bool,
}

/// The routes, whose guards need the service. Without a ledger they say so to everyone.
pub(super) fn routes(service: &Service) -> Router<Service> {
    if service.shared.settings.ledger.is_none() {
        return Router::new().route("/v1/ledger/{*path}", any(none));
    }
    let leases = Router::new()
        .route(LEASES_PATH, post(leases))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(service.clone(), guard::leases));
    let accounts = Router::new()
        .route(ACCOUNTS_PATH, get(accounts))
        .layer(from_fn_with_state(service.clone(), guard::accounts));
    leases.merge(accounts).route("/v1/ledger/{*path}", any(super::api::unknown))
}

/// What a client is told of an error. Where the ledger is concerns nobody who asks.
pub(super) fn message(error: &LedgerError) -> String {
    match error {
        LedgerError::Unreachable(_) => "the ledger cannot reach its store".to_owned(),
        LedgerError::Contended | LedgerError::Overloaded | LedgerError::Ending => error.to_string(),
        _ => "the ledger cannot use its store".to_owned(),
    }
}

async fn none() -> Unanswered {
    Unanswered::NoLedger
}

/// `POST /v1/ledger/leases`.
async fn leases(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Unanswered> {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            return Ok(answers::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &message));
        }
        // The client has left, or breaks HTTP.
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let orders = match parse(&body, now_secs()) {
        Ok(orders) => orders,
        Err(invalid) => {
            let message = invalid.to_string();
            return Ok(answers::error(StatusCode::BAD_REQUEST, "orders", &message));
        }
    };
    let ends: Vec<_> = orders.iter().map(end).collect();
    let receipted = service.ledger()?.take(orders).await?;
    Ok(answers::json(&receipts(receipted, ends)))
}

/// `GET /v1/ledger/accounts`.
async fn accounts(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
) -> Result<Response, Unanswered> {
    let parameters = Parameters::parse(query.as_deref(), &OF_ACCOUNTS)?;
    let ledger = service.ledger()?;
    let (statements, more) = match parameters.accounts()? {
        Accounts::One(account, window) => match ledger.account(account, window).await? {
            Some(statement) => (vec![statement], false),
            None => return Ok(no_account()),
        },
        Accounts::OfTenant(tenant, jti) => {
            let listing = ledger.accounts(tenant, jti).await?;
            (listing.statements, listing.has_more)
        }
    };
    let accounts = statements.iter().map(AccountRow::from).collect();
    Ok(answers::json(&AccountRows { accounts, more }))
}

fn no_account() -> Response {
    let message = "nothing of this budget was ordered in this window";
    answers::error(StatusCode::NOT_FOUND, "unknown_account", message)
}

fn end(posted: &Posted) -> Option<u64> {
    last_secs(posted.account.per, posted.order.window)
}

fn receipts(Receipted { receipts, scarce }: Receipted, ends: Vec<Option<u64>>) -> Receipts {
    let rows = receipts.into_iter().zip(ends).map(|(receipt, until)| ReceiptRow {
        lease: lease_id(receipt.lease),
        number: receipt.number,
        granted: receipt.granted,
        left: receipt.left,
        until,
    });
    Receipts { receipts: rows.collect(), scarce }
}

// === impl Service ===

impl Service {
    fn ledger(&self) -> Result<Ledger, Unanswered> {
        self.shared.settings.ledger.clone().ok_or(Unanswered::NoLedger)
    }
}

impl From<LedgerError> for Unanswered {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}
