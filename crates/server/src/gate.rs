//! Gates, which say what is left of the limits of a key.

use serde::Deserialize;

use crate::client::{Client, ClientError};

/// The longest usage document that is read: many times what a gate returns.
const MAX_BYTES: u64 = 64 * 1024;

/// A gate, through its usage endpoint.
pub struct Gate {
    client: Client,
}

/// What a gate says about a limit of a key. Money is in micro-USD.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Allowance {
    /// The name, e.g. `quota_requests_day`.
    pub name: String,
    /// The limit; `None` if there is none.
    pub limit: Option<u64>,
    /// What was used of it.
    pub used: u64,
    /// What is left; `None` without a limit.
    pub remaining: Option<u64>,
    /// When it begins anew, in seconds; `None` if it never does.
    pub reset_secs: Option<u64>,
}

/// Why a gate did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateError {
    /// There is no usable response.
    Client(ClientError),
    /// The response is no usage document.
    NoUsage,
}

/// The part of a usage document that is read.
#[derive(Deserialize)]
struct Document {
    /// Absent in documents about the key that asks.
    known: Option<bool>,
    limits: Vec<Allowance>,
}

// === impl Gate ===

impl Gate {
    /// The gate whose usage endpoint a client reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The host, and the port if its URL has one.
    pub fn name(&self) -> &str {
        self.client.authority()
    }

    /// What is left of the limits of a key; `None` if the gate has not counted a request of it.
    ///
    /// # Errors
    ///
    /// [`GateError`]
    pub fn allowances(&self, tenant: &str, key: &str) -> Result<Option<Vec<Allowance>>, GateError> {
        let query = [("tenant", tenant), ("jti", key)];
        let body = self.client.get(&query, MAX_BYTES).map_err(GateError::Client)?;
        let document: Document = serde_json::from_slice(&body).map_err(|_| GateError::NoUsage)?;
        Ok(document.known.unwrap_or(true).then_some(document.limits))
    }
}

// === impl Allowance ===

impl Allowance {
    /// Whether it is an amount of money.
    pub fn is_money(&self) -> bool {
        self.name.contains("_cost_")
    }
}

// === impl GateError ===

impl std::fmt::Display for GateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(ClientError::Status(401)) => f.write_str("its key is not valid there"),
            Self::Client(ClientError::Status(403)) => {
                f.write_str("its key may not see the counts of others there")
            }
            Self::Client(error) => error.fmt(f),
            Self::NoUsage => f.write_str("the response is no usage document"),
        }
    }
}

impl std::error::Error for GateError {}
