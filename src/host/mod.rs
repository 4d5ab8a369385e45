//! The interface to a proxy: what the library requires of a proxy-wasm host.
//!
//! [`Host`] and [`SharedData`] are the host calls. [`RecordStore`] writes records by compare-and-swap,
//! under the [`Rules`] that the host was found to follow. [`MemoryHost`] is an in-memory host for tests and
//! the command.

mod filter_state;
mod level;
mod memory;
pub(crate) mod rules;
mod store;
pub(crate) mod view;

pub use filter_state::FilterState;
pub use level::Level;
pub use memory::{Arrived, HeaderList, MemoryBody, MemoryHost, MemoryStore};
pub use rules::{Dialect, Rules, UnknownRules, probe_name};
pub use store::{NotCounted, RecordStore, Reset, ResetReason, Snapshot};

use crate::headers::Headers;
use crate::reply::Reply;

/// The status of a failed host call (proxy-wasm ABI 0.2.1, `proxy_status_t`). Hosts return more values than
/// the specification lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError(pub u32);

impl HostError {
    /// The requested item does not exist.
    pub const NOT_FOUND: Self = Self(1);
    /// An argument is invalid.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// An address is outside the module's memory.
    pub const INVALID_MEMORY_ACCESS: Self = Self(6);
    /// Another worker wrote the record after it was read.
    pub const CAS_MISMATCH: Self = Self(8);
    /// The call is not possible at this point.
    pub const INTERNAL_FAILURE: Self = Self(10);
    /// The host does not implement the call.
    pub const UNIMPLEMENTED: Self = Self(12);
}

/// A property that the module reads from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The metadata of the request's cluster, protobuf.
    ClusterMetadata,
    /// The name of the request's cluster.
    ClusterName,
    /// A filter state of the request.
    FilterState(FilterState),
    /// The host by which nginx selected the server, in lower case, without a port.
    NginxHost,
    /// Bytes of the body that nginx sent to the client.
    NginxBodyBytesSent,
    /// The addresses of the upstreams that nginx tried.
    NginxUpstreamAddress,
    /// The version of nginx. No other host has it.
    NginxVersion,
    /// The node id of the proxy.
    NodeId,
    /// SHA-256 of the client certificate, hexadecimal digits.
    PeerCertificateDigest,
    /// Bytes of the request that have come, headers and body.
    RequestTotalSize,
    /// The path and query as the client sent them.
    RequestTarget,
    /// Where the response comes from: `via_upstream`, or details of a local reply.
    ResponseCodeDetails,
    /// Bytes of the body sent to the client.
    ResponseSize,
    /// The peer address and port of the connection. Envoy crashes if an upstream filter reads it for a
    /// mirrored request.
    SourceAddress,
    /// The address and port of the upstream.
    UpstreamAddress,
    /// The upstream's certificate, PEM.
    UpstreamCertificate,
    /// SHA-256 of the upstream's certificate, hexadecimal digits.
    UpstreamCertificateDigest,
    /// The first DNS name of the upstream's certificate.
    UpstreamDnsName,
    /// The local address of the connection to the upstream, once it is up; absent for a Unix socket.
    UpstreamLocalAddress,
    /// The first DNS name of the proxy's client certificate for that connection.
    UpstreamLocalDnsName,
    /// The subject of the proxy's client certificate for that connection.
    UpstreamLocalSubject,
    /// The first URI of the proxy's client certificate for that connection.
    UpstreamLocalUri,
    /// How long the request waited for its connection, once it is up.
    UpstreamReadyDuration,
    /// The TLS version of that connection.
    UpstreamTlsVersion,
    /// The number of this attempt of the request, counted from 1; 0 or absent before the router.
    UpstreamAttempt,
}

/// The shared data of a host: named records, shared by all its workers.
pub trait SharedData {
    /// The record and its compare-and-swap value; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the host has no shared data.
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError>;

    /// Writes a record. Hosts differ in the meaning of `cas` for a record that does not exist: see
    /// [`RecordStore`].
    ///
    /// # Errors
    ///
    /// [`WriteError`] if nothing was written.
    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError>;
}

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Another worker wrote it after it was read.
    CasMismatch,
    /// The host refused.
    Host(HostError),
}

/// A proxy-wasm host, as one HTTP context sees it.
pub trait Host: SharedData {
    /// Whether the module exports the callbacks that nginx calls without checking that they exist. Without
    /// them, all code for nginx is left out.
    const SERVES_NGINX: bool = true;

    /// The rules of the host, as far as they are known. With [`Rules::Bare`], nothing is counted.
    fn rules(&self) -> Rules {
        Rules::Bare
    }

    /// Whether the host is known to be nginx.
    fn is_nginx(&self) -> bool {
        Self::SERVES_NGINX && self.rules() == Rules::Nginx
    }

    /// The longest line that the log does not cut, in bytes; `None` if there is no such limit.
    fn max_line_bytes(&self) -> Option<usize> {
        None
    }

    /// The wall clock in Unix nanoseconds; `None` if the host has no clock.
    fn now_ns(&self) -> Option<u64>;

    /// Random bytes; `None` if the host has none. They make ids unique and keep nothing secret.
    fn random(&self) -> Option<[u8; 16]> {
        None
    }

    /// The headers of the request; `None` if the host does not provide them.
    fn request_headers(&self) -> Option<Headers>;

    /// The current value of the first request header of that name; `None` if there is none.
    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// The current authority of the request; `None` if the host does not provide it.
    fn authority(&self) -> Option<Vec<u8>> {
        self.request_header(b":authority")
    }

    /// Removes all request headers of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it may still be present.
    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError>;

    /// Replaces all request headers of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not set.
    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// The trailers of the request; `None` if the host does not provide them.
    fn request_trailers(&self) -> Option<Headers>;

    /// Removes all request trailers of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it may still be present.
    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError>;

    /// Adds a request header.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not set.
    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// Reads a part of a body: from `start`, at most `max_len` bytes. The host shows the part that the callback is about;
    /// of a request whose headers are held, all that has come. `None` if the host does not show it.
    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>>;

    /// Replaces the first `len` bytes of what the host shows of a body if `start` is 0, and appends if `start` is not
    /// before the end. No header changes with it: see `content-length`.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the body is as it was: Envoy replaces nothing in the middle.
    fn set_body(&self, body: Body, start: usize, len: usize, bytes: &[u8])
    -> Result<(), HostError>;

    /// The current value of the first response header of that name; `None` if there is none.
    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// The status of the response; `None` if there is none. Reading a header is faster than reading a
    /// property.
    fn response_status(&self) -> Option<u64> {
        std::str::from_utf8(&self.response_header(b":status")?).ok()?.parse().ok()
    }

    /// The bytes of a property; `None` if it is absent or empty.
    fn property(&self, property: Property) -> Option<Vec<u8>>;

    /// The bytes of a filter state that another filter has set; `None` if it is absent or empty, or the host has none.
    /// `path`: `filter_state`, NUL and its key.
    fn filter_state(&self, path: &str) -> Option<Vec<u8>>;

    /// Sets a filter state of the request, which other filters and access loggers can read.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not set.
    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError>;

    /// Sends a local reply.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not sent.
    fn send_reply(&self, reply: &Reply) -> Result<(), HostError>;

    /// Resumes a paused request.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it is still paused.
    fn resume_request(&self) -> Result<(), HostError>;

    /// Makes another context of this module the effective one for all following calls.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the context no longer exists.
    fn enter(&self, context: u32) -> Result<(), HostError>;

    /// Posts JSON to a service. Its response comes to the root context of this module: see
    /// [`Gate::on_call_response`](crate::gate::Gate::on_call_response). Returns the number of the call.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not sent: the host knows no such cluster, or makes no calls.
    fn post(&self, _call: &ServiceCall<'_>) -> Result<u32, HostError> {
        Err(HostError::UNIMPLEMENTED)
    }

    /// The status of the response to a call; `None` if no response came in time.
    fn call_status(&self) -> Option<u16> {
        None
    }

    /// Sets the interval of the root context's tick callback, in milliseconds; 0 turns it off.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not set.
    fn set_tick_period(&self, millis: u32) -> Result<(), HostError>;

    /// Removes all response headers of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it may still be present.
    fn remove_response_header(&self, name: &str) -> Result<(), HostError>;

    /// Replaces all response headers of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it was not set.
    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// Defines a metric and returns its id. Hosts return a new id for each call, even for the same name.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the host has no metrics.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError>;

    /// Adds to a counter.
    ///
    /// # Errors
    ///
    /// [`HostError`] if there is no such counter.
    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError>;

    /// Sets a gauge.
    ///
    /// # Errors
    ///
    /// [`HostError`] if there is no such gauge.
    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError>;

    /// The value of a metric: of all workers, where they share it. No bytes are handed over, so this costs a tenth of
    /// reading a property.
    ///
    /// # Errors
    ///
    /// [`HostError`] if there is no such metric.
    fn metric(&self, metric: u32) -> Result<u64, HostError>;

    /// Writes to the proxy's log.
    fn log(&self, level: Level, text: &str);
}

/// A call to a service: a `POST` of JSON.
#[derive(Clone, Copy)]
pub struct ServiceCall<'a> {
    /// The cluster of the proxy.
    pub cluster: &'a str,
    /// The authority.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// The value of the header `authorization`.
    pub authorization: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// How long the response may take, in milliseconds.
    pub timeout_millis: u32,
}

/// What the host must do next with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Continue.
    Continue,
    /// Stop: a local reply was sent, or the request waits.
    Pause,
}

/// A body that a host shows. The numbers are those of the ABI (proxy-wasm 0.2.1, `proxy_buffer_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Body {
    /// The body of the request.
    Request = 0,
    /// The body of the response.
    Response = 1,
    /// The body of the response to a call.
    CallResponse = 4,
}

/// A kind of metric. The numbers are those of the ABI (proxy-wasm 0.2.1, `proxy_metric_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    /// A value that only grows.
    Counter = 0,
    /// The value that was set last.
    Gauge = 1,
}

impl Property {
    /// The path of the property, its parts joined by NUL (Envoy: "Attributes").
    pub fn path(self) -> &'static str {
        match self {
            Self::ClusterMetadata => "xds\0cluster_metadata",
            Self::ClusterName => "xds\0cluster_name",
            Self::NginxBodyBytesSent => "ngx\0body_bytes_sent",
            Self::NginxHost => "ngx\0host",
            Self::NginxUpstreamAddress => "ngx\0upstream_addr",
            Self::NginxVersion => "ngx\0nginx_version",
            Self::NodeId => "xds\0node\0id",
            Self::PeerCertificateDigest => "connection\0sha256_peer_certificate_digest",
            Self::FilterState(state) => state.path(),
            Self::RequestTarget => "request\0path",
            Self::RequestTotalSize => "request\0total_size",
            Self::ResponseCodeDetails => "response\0code_details",
            Self::ResponseSize => "response\0size",
            Self::SourceAddress => "source\0address",
            Self::UpstreamAddress => "upstream\0address",
            Self::UpstreamCertificate => "upstream\0peer_certificate",
            Self::UpstreamCertificateDigest => "upstream\0sha256_peer_certificate_digest",
            Self::UpstreamDnsName => "upstream\0dns_san_peer_certificate",
            Self::UpstreamLocalAddress => "upstream\0local_address",
            Self::UpstreamLocalDnsName => "upstream\0dns_san_local_certificate",
            Self::UpstreamLocalSubject => "upstream\0subject_local_certificate",
            Self::UpstreamLocalUri => "upstream\0uri_san_local_certificate",
            Self::UpstreamReadyDuration => "upstream\0cx_pool_ready_duration",
            Self::UpstreamTlsVersion => "upstream\0tls_version",
            Self::UpstreamAttempt => "upstream\0request_attempt_count",
        }
    }
}

pub(crate) fn text_property(host: &impl Host, property: Property) -> Option<String> {
    String::from_utf8(host.property(property)?).ok()
}

pub(crate) fn number_property(host: &impl Host, property: Property) -> Option<u64> {
    number(&host.property(property)?)
}

/// Decodes a number: Envoy encodes it in eight bytes, little-endian, nginx in decimal digits. Eight digits
/// are not ambiguous: as a little-endian number they would be larger than any count.
fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    bytes.try_into().ok().map(u64::from_le_bytes)
}
