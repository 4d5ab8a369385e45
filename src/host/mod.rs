//! The seam to a proxy: what the library asks of a proxy-wasm host.
//!
//! [`Host`] and [`SharedData`] are what a host does. [`RecordStore`] writes records by compare-and-swap, by the
//! [`Rules`] that the host was found to follow. [`MemoryHost`] is the one host that lives in memory.

mod filter_state;
mod level;
mod memory;
pub(crate) mod rules;
mod store;
pub(crate) mod view;

pub use filter_state::FilterState;
pub use level::Level;
pub use memory::{HeaderList, MemoryHost, MemoryStore};
pub use rules::{Dialect, Rules, UnknownRules, probe_name};
pub use store::{NotCounted, RecordStore, Reset, ResetReason, Snapshot};

use crate::headers::Headers;
use crate::reply::Reply;

/// A status that says a host call did not do what was asked (proxy-wasm ABI 0.2.1, `proxy_status_t`;
/// hosts return more than the specification lists).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError(pub u32);

impl HostError {
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(1);
    /// An argument that the host cannot make sense of.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// An address outside the module's memory.
    pub const INVALID_MEMORY_ACCESS: Self = Self(6);
    /// Another worker wrote the record since it was read.
    pub const CAS_MISMATCH: Self = Self(8);
    /// The module is not as far yet.
    pub const INTERNAL_FAILURE: Self = Self(10);
    /// The host has no such call.
    pub const UNIMPLEMENTED: Self = Self(12);
}

/// What a host knows and the module asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The metadata of the cluster that the request goes to, protobuf.
    ClusterMetadata,
    /// The name of that cluster.
    ClusterName,
    /// A filter state of the request.
    FilterState(FilterState),
    /// The host that nginx has chosen its server by, in lower case, without a port.
    NginxHost,
    /// The addresses of the upstreams that nginx has tried.
    NginxUpstreamAddress,
    /// The version of nginx, which no other host has.
    NginxVersion,
    /// The id of the proxy's node.
    NodeId,
    /// SHA-256 of the client's certificate, hexadecimal digits.
    PeerCertificateDigest,
    /// The path and query as the client sent them.
    RequestTarget,
    /// Bytes received from the client.
    RequestTotalSize,
    /// Where the answer comes from; `via_upstream` where it is not the proxy's own.
    ResponseCodeDetails,
    /// Bytes sent to the client.
    ResponseTotalSize,
    /// The address and port of the connection's other end. Envoy crashes when an upstream filter asks
    /// for it on a mirrored request.
    SourceAddress,
    /// The address and port of the upstream.
    UpstreamAddress,
    /// The upstream's certificate, PEM.
    UpstreamCertificate,
    /// SHA-256 of the upstream's certificate, hexadecimal digits.
    UpstreamCertificateDigest,
    /// The first DNS name of the upstream's certificate.
    UpstreamDnsName,
    /// The proxy's end of the connection to the upstream, once it is up; none for a Unix socket.
    UpstreamLocalAddress,
    /// The first DNS name of the proxy's own certificate for that connection.
    UpstreamLocalDnsName,
    /// The subject of the proxy's own certificate for that connection.
    UpstreamLocalSubject,
    /// The first URI of the proxy's own certificate for that connection.
    UpstreamLocalUri,
    /// How long the request waited for its connection, once that is up.
    UpstreamReadyDuration,
    /// The version of TLS of that connection.
    UpstreamTlsVersion,
    /// Which attempt of the request this is, counted from 1; 0 or nothing in front of the router.
    UpstreamAttempt,
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
    /// Whether the module has the callbacks that nginx calls without asking whether they are there.
    /// Without them all that is for nginx alone is left out.
    const SERVES_NGINX: bool = true;

    /// The rules that the host follows, as far as they are known; [`Rules::Bare`] counts nothing.
    fn rules(&self) -> Rules {
        Rules::Bare
    }

    /// Whether the host is nginx, as far as that is known.
    fn is_nginx(&self) -> bool {
        Self::SERVES_NGINX && self.rules() == Rules::Nginx
    }

    /// How long a line in the log may be, in bytes; `None` where the host cuts none.
    fn max_line_bytes(&self) -> Option<usize> {
        None
    }

    /// The wall clock, Unix nanoseconds.
    fn now_ns(&self) -> Option<u64>;

    /// The request's headers; `None` when the host shows none.
    fn request_headers(&self) -> Option<Headers>;

    /// The first header of that name in the request as it is now; `None` when the host shows none.
    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// The authority of the request as it is now; `None` when the host shows none.
    fn authority(&self) -> Option<Vec<u8>> {
        self.request_header(b":authority")
    }

    /// Removes every header of that name from the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it may still be there.
    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError>;

    /// Sets a header of the request in the place of all of that name.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is not there.
    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// The request's trailers; `None` when the host shows none.
    fn request_trailers(&self) -> Option<Headers>;

    /// Removes every trailer of that name from the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it may still be there.
    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError>;

    /// Adds a header to the request.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is not there.
    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError>;

    /// The first header of that name in the response as it is now; `None` when the host shows none.
    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// The status of the response; `None` where there is none. Hosts find a header faster than a property.
    fn response_status(&self) -> Option<u64> {
        std::str::from_utf8(&self.response_header(b":status")?).ok()?.parse().ok()
    }

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

    /// Lets a request that was held go on.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it is still held.
    fn resume_request(&self) -> Result<(), HostError>;

    /// Makes another context of this module the one that all other calls are about.
    ///
    /// # Errors
    ///
    /// [`HostError`] when there is no such context any more.
    fn enter(&self, context: u32) -> Result<(), HostError>;

    /// Has the root context called back every so often; never with 0.
    ///
    /// # Errors
    ///
    /// [`HostError`] when it will not be.
    fn set_tick_period(&self, millis: u32) -> Result<(), HostError>;

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

/// What the host does next with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Continue,
    /// It was answered.
    Pause,
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
            Self::ClusterMetadata => "xds\0cluster_metadata",
            Self::ClusterName => "xds\0cluster_name",
            Self::NginxHost => "ngx\0host",
            Self::NginxUpstreamAddress => "ngx\0upstream_addr",
            Self::NginxVersion => "ngx\0nginx_version",
            Self::NodeId => "xds\0node\0id",
            Self::PeerCertificateDigest => "connection\0sha256_peer_certificate_digest",
            Self::FilterState(state) => state.path(),
            Self::RequestTarget => "request\0path",
            Self::RequestTotalSize => "request\0total_size",
            Self::ResponseCodeDetails => "response\0code_details",
            Self::ResponseTotalSize => "response\0total_size",
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

/// A number as hosts encode it: Envoy in eight bytes, little-endian; nginx in decimal digits. Eight
/// digits can be told from a number, which would be larger than any count.
fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    bytes.try_into().ok().map(u64::from_le_bytes)
}
