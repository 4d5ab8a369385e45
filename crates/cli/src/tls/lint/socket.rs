//! The transport sockets of a cluster: what its connections may be.

use serde_json::Value;

use super::super::document::{get, is_true, items, text, typed};

/// One of the ways in which a cluster connects.
pub(super) struct Branch<'a> {
    /// Where in the cluster it stands.
    pub(super) place: String,
    /// What the connection is.
    pub(super) channel: Channel<'a>,
}

/// What a connection is.
#[derive(Clone, Copy)]
pub(super) enum Channel<'a> {
    /// Without TLS, for the reason given.
    Plain(&'static str),
    /// TLS over QUIC, which is TLS 1.3 or later (RFC 9001, section 4.2), by this `UpstreamTlsContext`.
    Quic(&'a Value),
    /// TLS by this `UpstreamTlsContext`.
    Tls(&'a Value),
    /// Unknown, by this type.
    Unknown(&'a str),
}

/// The ways in which a cluster connects. Which of several is taken depends on the endpoint, so each has
/// to be good.
pub(super) fn branches(cluster: &Value) -> Vec<Branch<'_>> {
    let mut branches = Vec::new();
    let chosen = get(cluster, "transport_socket_matcher").is_some();
    for (index, branch) in items(cluster, "transport_socket_matches").iter().enumerate() {
        let name = text(branch, "name").map(|name| format!(" ({name})")).unwrap_or_default();
        let place = format!("transport_socket_matches[{index}].transport_socket{name}");
        branches.push(Branch { place, channel: channel(get(branch, "transport_socket")) });
        let criteria = get(branch, "match").and_then(Value::as_object);
        if !chosen && criteria.is_none_or(serde_json::Map::is_empty) {
            // It matches every endpoint, so what follows is never reached.
            return branches;
        }
    }
    let place = "transport_socket".to_owned();
    branches.push(Branch { place, channel: channel(get(cluster, "transport_socket")) });
    branches
}

/// The server names that are written down.
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

/// What a transport socket is; many only wrap another.
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

/// Whether the cluster sends each request's authority as the server name, and whether it verifies it.
pub(super) struct PerRequest<'a> {
    /// The server name is the authority.
    pub(super) sni: bool,
    /// The certificate must bear it.
    pub(super) san: bool,
    /// It is taken from this request header instead.
    pub(super) header: Option<&'a str>,
}

impl<'a> PerRequest<'a> {
    /// Reads the options of the cluster's HTTP connections.
    pub(super) fn new(cluster: &'a Value) -> Self {
        let options = http_options(cluster).and_then(|o| get(o, "upstream_http_protocol_options"));
        let options = options.or_else(|| get(cluster, "upstream_http_protocol_options"));
        let is_on = |name| options.is_some_and(|options| is_true(options, name));
        let header = options.and_then(|options| text(options, "override_auto_sni_header"));
        let header = header.filter(|name| !matches!(*name, ":authority" | "host"));
        Self { sni: is_on("auto_sni"), san: is_on("auto_san_validation"), header }
    }
}

/// The options of a cluster's HTTP connections (`HttpProtocolOptions`).
pub(super) fn http_options(cluster: &Value) -> Option<&Value> {
    let options = get(cluster, "typed_extension_protocol_options")?;
    let options = options.get("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")?;
    Some(typed(options).1)
}
