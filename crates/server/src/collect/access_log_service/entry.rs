//! From an entry of the access log service to the audit line that a file would have.

use std::fmt;
use std::net::Ipv6Addr;

use prost::{DecodeError, Message};
use vkey::audit::{Line, Mask, Outcome};

use super::flags::ResponseFlags;
use super::messages::{AccessLogCommon, Address, Any, HttpAccessLogEntry, Seconds};

/// The filter state with the record.
const RECORD: &str = "wasm.vkey.audit";

/// The type of a filter state of a Wasm module, in an `Any`.
const BYTES_VALUE: &str = "type.googleapis.com/google.protobuf.BytesValue";

/// Why an entry cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not a message of its type.
    Entry(DecodeError),
    /// The record has another type than that of a Wasm module's filter state.
    Type(String),
    /// The record is not text.
    Text,
}

/// The audit line of an entry. `None` if the request goes on.
pub(super) fn audit_line(entry: &[u8]) -> Result<Option<String>, Unreadable> {
    let HttpAccessLogEntry { common_properties, request, response } =
        HttpAccessLogEntry::decode(entry).map_err(Unreadable::Entry)?;
    let AccessLogCommon {
        downstream_remote_address,
        start_time,
        time_to_last_downstream_tx_byte,
        upstream_remote_address,
        response_flags,
        filter_state_objects,
        intermediate_log_entry,
    } = common_properties.unwrap_or_default();
    if intermediate_log_entry {
        return Ok(None);
    }
    let (request, response) = (request.unwrap_or_default(), response.unwrap_or_default());
    let outcome = Outcome {
        start_micros: start_time.and_then(|time| time.nanos()).map(|nanos| nanos / 1000),
        peer: downstream_remote_address.and_then(Address::without_port).map(Into::into),
        status: response.response_code.map(u64::from),
        bytes_in: Some(request.request_body_bytes),
        bytes_out: Some(response.response_body_bytes),
        duration_ns: time_to_last_downstream_tx_byte.and_then(|time| time.nanos()),
        upstream: upstream_remote_address.and_then(Address::with_port).map(Into::into),
        flags: response_flags.as_ref().and_then(ResponseFlags::codes).map(Into::into),
    };
    // The last entry of a map counts, as for every reader of the format.
    let state = filter_state_objects.into_iter().rfind(|object| object.key == RECORD);
    let mask = Mask::default();
    Ok(Some(match state.and_then(|object| object.value) {
        Some(state) => Line::splice(&record(&state)?, &outcome, &mask),
        None => Line { record: None, outcome }.write(&mask),
    }))
}

/// The record in a filter state.
fn record(state: &Any) -> Result<String, Unreadable> {
    if state.type_url != BYTES_VALUE {
        return Err(Unreadable::Type(state.type_url.clone()));
    }
    let bytes = Vec::<u8>::decode(state.value.as_slice()).map_err(Unreadable::Entry)?;
    String::from_utf8(bytes).map_err(|_| Unreadable::Text)
}

// === impl Seconds ===

impl Seconds {
    /// All of it in nanoseconds; `None` before zero.
    fn nanos(&self) -> Option<u64> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let nanos = u64::try_from(self.nanos).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    }
}

// === impl Address ===

impl Address {
    /// As `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`.
    fn without_port(self) -> Option<String> {
        match self.socket_address {
            Some(socket) => Some(socket.address),
            None => self.with_port(),
        }
    }

    /// As `%UPSTREAM_HOST%`.
    fn with_port(self) -> Option<String> {
        let Self { socket_address, pipe, envoy_internal_address } = self;
        if let Some(socket) = socket_address {
            return Some(match socket.address.parse::<Ipv6Addr>() {
                Ok(_) => format!("[{}]:{}", socket.address, socket.port_value),
                Err(_) => format!("{}:{}", socket.address, socket.port_value),
            });
        }
        let internal = envoy_internal_address.map(|internal| {
            format!("envoy://{}/{}", internal.server_listener_name, internal.endpoint_id)
        });
        pipe.map(|pipe| pipe.path).or(internal)
    }
}

// === impl Unreadable ===

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(error) => error.fmt(f),
            Self::Type(url) => write!(f, "the filter state {RECORD} is a {url:?}, not bytes"),
            Self::Text => write!(f, "the filter state {RECORD} is not UTF-8"),
        }
    }
}
