//! What gets alerts: a URL that takes JSON.

use serde_json::json;

use vkey::time::rfc3339;

use crate::client::{Client, ClientError};
use crate::store::Alert;

/// The version of the JSON object.
const VERSION: u64 = 1;

/// A receiver of alerts.
pub struct Receiver {
    client: Client,
}

// === impl Receiver ===

impl Receiver {
    /// The receiver that a client reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Posts an alert. It was taken if the receiver returned a status of 2xx.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn deliver(&self, alert: &Alert) -> Result<(), ClientError> {
        self.client.post(message(alert))
    }
}

/// The JSON object of an alert.
fn message(alert: &Alert) -> String {
    let Alert { id, kind, cause, tenant, key, first_at_secs, last_at_secs, count, text, .. } =
        alert;
    json!({
        "version": VERSION,
        // An id alone may come again when a backup was restored.
        "id": format!("{first_at_secs}-{id}"),
        "kind": kind,
        "cause": cause,
        "tenant": tenant,
        "key": key,
        "first_at": rfc3339(*first_at_secs),
        "last_at": rfc3339(*last_at_secs),
        "count": count,
        "text": text,
    })
    .to_string()
}
