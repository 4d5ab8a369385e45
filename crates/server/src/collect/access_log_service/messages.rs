//! The messages of the service, with the fields that are read. The reader skips all others.
//!
//! Text that a client may have written is among the skipped fields: Envoy does not check that it is UTF-8, as a string
//! of a message must be.

use prost::Message;

use super::flags::ResponseFlags;

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage`
#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamAccessLogsMessage {
    #[prost(message, optional, tag = "2")]
    pub(super) http_logs: Option<LogEntries>,
    #[prost(message, optional, tag = "3")]
    pub(super) tcp_logs: Option<LogEntries>,
}

/// `StreamAccessLogsMessage.HTTPAccessLogEntries` and `TCPAccessLogEntries`, with each entry as its bytes: one that
/// cannot be read does not take the others with it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LogEntries {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) log_entry: Vec<Vec<u8>>,
}

/// `envoy.data.accesslog.v3.HTTPAccessLogEntry`
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpAccessLogEntry {
    #[prost(message, optional, tag = "1")]
    pub(super) common_properties: Option<AccessLogCommon>,
    #[prost(message, optional, tag = "3")]
    pub(super) request: Option<HttpRequestProperties>,
    #[prost(message, optional, tag = "4")]
    pub(super) response: Option<HttpResponseProperties>,
}

/// `envoy.data.accesslog.v3.AccessLogCommon`
#[derive(Clone, PartialEq, Message)]
pub(super) struct AccessLogCommon {
    #[prost(message, optional, tag = "2")]
    pub(super) downstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "5")]
    pub(super) start_time: Option<Seconds>,
    #[prost(message, optional, tag = "12")]
    pub(super) time_to_last_downstream_tx_byte: Option<Seconds>,
    #[prost(message, optional, tag = "13")]
    pub(super) upstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "16")]
    pub(super) response_flags: Option<ResponseFlags>,
    #[prost(message, repeated, tag = "21")]
    pub(super) filter_state_objects: Vec<FilterStateObject>,
    #[prost(bool, tag = "27")]
    pub(super) intermediate_log_entry: bool,
}

/// An entry of the map `AccessLogCommon.filter_state_objects`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FilterStateObject {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Any>,
}

/// `envoy.data.accesslog.v3.HTTPRequestProperties`
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpRequestProperties {
    #[prost(uint64, tag = "12")]
    pub(super) request_body_bytes: u64,
}

/// `envoy.data.accesslog.v3.HTTPResponseProperties`
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpResponseProperties {
    /// A `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "1")]
    pub(super) response_code: Option<u32>,
    #[prost(uint64, tag = "3")]
    pub(super) response_body_bytes: u64,
}

/// `envoy.config.core.v3.Address`, of which one field is set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(super) socket_address: Option<SocketAddress>,
    #[prost(message, optional, tag = "2")]
    pub(super) pipe: Option<Pipe>,
    #[prost(message, optional, tag = "3")]
    pub(super) envoy_internal_address: Option<EnvoyInternalAddress>,
}

/// `envoy.config.core.v3.SocketAddress`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SocketAddress {
    #[prost(string, tag = "2")]
    pub(super) address: String,
    #[prost(uint32, tag = "3")]
    pub(super) port_value: u32,
}

/// `envoy.config.core.v3.Pipe`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pipe {
    #[prost(string, tag = "1")]
    pub(super) path: String,
}

/// `envoy.config.core.v3.EnvoyInternalAddress`
#[derive(Clone, PartialEq, Message)]
pub(super) struct EnvoyInternalAddress {
    #[prost(string, tag = "1")]
    pub(super) server_listener_name: String,
    #[prost(string, tag = "2")]
    pub(super) endpoint_id: String,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.protobuf.Timestamp` and `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Seconds {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}
