//! The transport sockets of a cluster: the kinds of its connections.

use serde_json::Value;

use super::super::document::{get, is_true, items, text, typed};

/// One of a cluster's transport sockets.
pub(super) struct Branch<'a> {
    /// Its location in the cluster.
    pub(super) place: String,
    /// The kind of connection.
    pub(super) channel: Channel<'a>,
    /// Whether it is for endpoints that no other one matches.
    pub(super) is_default: bool,
}

/// A kind of connection.
#[derive(Clone, Copy)]
pub(super) enum Channel<'a> {
    /// Without TLS, for this reason.
    Plain(&'static str),
    /// TLS over QUIC, which is TLS 1.3 or later (RFC 9001, section 4.2), with this `UpstreamTlsContext`.
    Quic(&'a Value),
    /// TLS with this `UpstreamTlsContext`.
    Tls(&'a Value),
    /// Unknown, with this type.
    Unknown(&'a str),
}

/// The transport sockets of a cluster. The endpoint determines which one is used, so each must be secure.
pub(super) fn branches(cluster: &Value) -> Vec<Branch<'_>> {
    let mut branches = Vec::new();
    let chosen = get(cluster, "transport_socket_matcher").is_some();
    for (index, branch) in items(cluster, "transport_socket_matches").iter().enumerate() {
        let name = text(branch, "name").map(|name| format!(" ({name})")).unwrap_or_default();
        let place = format!("transport_socket_matches[{index}].transport_socket{name}");
        let channel = channel(get(branch, "transport_socket"));
        branches.push(Branch { place, channel, is_default: false });
        let criteria = get(branch, "match").and_then(Value::as_object);
        if !chosen && criteria.is_none_or(serde_json::Map::is_empty) {
            // It matches every endpoint, so the rest is never used.
            return branches;
        }
    }
    let place = "transport_socket".to_owned();
    let channel = channel(get(cluster, "transport_socket"));
    branches.push(Branch { place, channel, is_default: true });
    branches
}

/// The configured server names.
pub(super) fn server_name(cluster: &Value) -> Vec<&str> {
    let contexts = branches(cluster).into_iter().filter_map(|branch| branch.channel.context());
    contexts.filter_map(|context| text(context, "sni")).collect()
}

impl<'a> Channel<'a> {
    /// The `UpstreamTlsContext`.
    pub(super) fn context(self) -> Option<&'a Value> {
        match self {
            Self::Quic(context) | Self::Tls(context) => Some(context),
            Self::Plain(_) | Self::Unknown(_) => None,
        }
    }
}

/// The kind of a transport socket. Many only wrap another one.
fn channel(socket: Option<&Value>) -> Channel<'_> {
    let Some(socket) = socket else {
        return Channel::Plain("there is no transport_socket");
    };
    let Some(config) = get(socket, "typed_config") else {
        return match text(socket, "name") {
            Some(name) if !name.ends_with("raw_buffer") => Channel::Unknown(name),
            _ => Channel::Plain("the transport socket is raw_buffer"),
        };
    };
    let (kind, config) = typed(config);
    match kind.rsplit('.').next().unwrap_or_default() {
        "UpstreamTlsContext" => Channel::Tls(config),
        "QuicUpstreamTransport" => get(config, "upstream_tls_context")
            .map_or(Channel::Plain("the QUIC socket has no upstream_tls_context"), Channel::Quic),
        "RawBuffer" => Channel::Plain("the transport socket is raw_buffer"),
        "StartTlsConfig" | "UpstreamStartTlsConfig" => {
            Channel::Plain("the connection starts in clear text (starttls)")
        }
        "Http11ProxyUpstreamTransport"
        | "InternalUpstreamTransport"
        | "ProxyProtocolUpstreamTransport"
        | "Tap" => channel(get(config, "transport_socket")),
        "Config" if kind.contains(".tcp_stats.") => channel(get(config, "transport_socket")),
        _ => Channel::Unknown(kind),
    }
}

/// Whether the cluster uses the authority of each request as the server name, and verifies it.
pub(super) struct PerRequest<'a> {
    /// The server name is the authority.
    pub(super) sni: bool,
    /// The certificate must have that name.
    pub(super) san: bool,
    /// A request header is used instead.
    pub(super) header: Option<&'a str>,
}

impl<'a> PerRequest<'a> {
    /// Reads the HTTP options of the cluster.
    pub(super) fn new(cluster: &'a Value) -> Self {
        let options = http_options(cluster).and_then(|o| get(o, "upstream_http_protocol_options"));
        let options = options.or_else(|| get(cluster, "upstream_http_protocol_options"));
        let is_on = |name| options.is_some_and(|options| is_true(options, name));
        let header = options.and_then(|options| text(options, "override_auto_sni_header"));
        let header = header.filter(|name| !matches!(*name, ":authority" | "host"));
        Self { sni: is_on("auto_sni"), san: is_on("auto_san_validation"), header }
    }
}

/// The HTTP options of a cluster (`HttpProtocolOptions`).
pub(super) fn http_options(cluster: &Value) -> Option<&Value> {
    let options = get(cluster, "typed_extension_protocol_options")?;
    let options = options.get("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")?;
    Some(typed(options).1)
}
