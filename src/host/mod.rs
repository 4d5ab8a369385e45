//! The seam to a proxy: what the library asks of a proxy-wasm host, and what it does there.
//!
//! [`Gate`] is what a root context holds, [`Gate::on_request_headers`] and [`Gate::on_log`] are what
//! its HTTP contexts do. [`RecordStore`] writes records by compare-and-swap, [`Admission`] counts and
//! limits by them. [`MemoryHost`] is the one host
//! that lives in memory.

mod admission;
mod gate;
mod judged;
mod memory;
mod metrics;
mod store;

pub use admission::{Admission, Admitted};
pub use gate::{Action, Gate, Refused};
pub use memory::{HeaderList, MemoryHost, MemoryStore};
pub use store::{NotCounted, RecordStore};

use crate::config::Level;
use crate::decision::Reply;
use crate::headers::Headers;

/// A status that says a host call did not do what was asked (proxy-wasm ABI 0.2.1, `proxy_status_t`;
/// hosts return more than the specification lists).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError(pub u32);

/// What a host knows and the module asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The id of the proxy's node.
    NodeId,
    /// SHA-256 of the client's certificate, hexadecimal digits.
    PeerCertificateDigest,
    /// Bytes received from the client.
    RequestTotalSize,
    /// Bytes sent to the client.
    ResponseTotalSize,
    /// The address and port of the connection's other end.
    SourceAddress,
    /// The address and port of the upstream.
    UpstreamAddress,
}

/// The shared data of a host: records under names, seen by all its workers.
pub trait SharedData {
    /// The record and its compare-and-swap value; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`HostError`] when the host has no shared data.
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError>;

    /// Writes a record. Hosts differ in what `cas` means for a record that is not there:
    /// see [`RecordStore`].
    ///
    /// # Errors
    ///
    /// [`WriteError`] when nothing was written.
    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError>;
}

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Another worker wrote it since it was read.
    CasMismatch,
    /// The host refuses.
    Host(HostError),
}

/// A proxy-wasm host, seen from one HTTP context.
pub trait Host: SharedData {
    /// The wall clock, Unix nanoseconds.
    fn now_ns(&self) -> Option<u64>;

    /// The request's headers; `None` when the host shows none.
    fn request_headers(&self) -> Option<Headers>;

    /// Removes every header of that name from the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it may still be there.
    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError>;

    /// Adds a header to the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is not there.
    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// The status the client was answered with; `None` when it was not. A header of the answer, which
    /// hosts find faster than a property.
    fn response_status(&self) -> Option<u64>;

    /// A property's bytes; `None` when it is absent or empty.
    fn property(&self, property: Property) -> Option<Vec<u8>>;

    /// Sets a property of the request that the proxy's other filters and its access loggers see.
    ///
    /// # Errors
    ///
    /// [`HostError`] when they do not.
    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError>;

    /// Answers the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when the host does not.
    fn send_reply(&self, reply: &Reply) -> Result<(), HostError>;

    /// Sets a header of the answer in the place of whatever the upstream sent.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is not there.
    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// Makes a metric known and gives its number. Hosts make a new number each time.
    ///
    /// # Errors
    ///
    /// [`HostError`] when the host has no metrics.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError>;

    /// Adds to a counter.
    ///
    /// # Errors
    ///
    /// [`HostError`] when there is no such counter.
    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError>;

    /// Sets a gauge.
    ///
    /// # Errors
    ///
    /// [`HostError`] when there is no such gauge.
    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError>;

    /// Writes to the proxy's log.
    fn log(&self, level: Level, text: &str);
}

/// A kind of metric. The numbers are the ABI's (proxy-wasm 0.2.1, `proxy_metric_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    /// It only grows.
    Counter = 0,
    /// It is what it was last set to.
    Gauge = 1,
}

impl Property {
    /// The path of the property, its parts joined by NUL (Envoy: "Attributes").
    pub fn path(self) -> &'static str {
        match self {
            Self::NodeId => "xds\0node\0id",
            Self::PeerCertificateDigest => "connection\0sha256_peer_certificate_digest",
            Self::RequestTotalSize => "request\0total_size",
            Self::ResponseTotalSize => "response\0total_size",
            Self::SourceAddress => "source\0address",
            Self::UpstreamAddress => "upstream\0address",
        }
    }
}

/// A number as hosts encode it: Envoy in eight bytes, little-endian; nginx in decimal digits. Eight
/// digits can be told from a number, which would be larger than any count.
fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    bytes.try_into().ok().map(u64::from_le_bytes)
}
