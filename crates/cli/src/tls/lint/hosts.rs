//! The hosts of a cluster, and what the policy requires for them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use vkey::upstream_tls::{Demand, EffectivePolicy, Stamp, UpstreamHost, UpstreamPattern};

use super::super::document::{at, get, items, text};
use super::finding::Element;
use super::proxy_config::ProxyConfig;
use super::socket::server_name;

/// How a host of a cluster is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// From an endpoint, or from the name that Istio gave the cluster.
    Endpoint,
    /// Unknown: the cluster may be for any host.
    Nothing,
    /// From the authority that a route sends.
    Route,
    /// From the server name of the connection.
    Sni,
    /// From the cluster's stamp.
    Stamp,
}

/// A host of a cluster.
#[derive(Clone, Debug)]
pub(super) struct ClusterHost {
    /// The name for display: in the policy's spelling, or as written if it has none.
    pub(super) name: String,
    /// The host; for a pattern, one host that it matches.
    pub(super) host: UpstreamHost<'static>,
    /// The pattern, if the host is a valid one.
    pub(super) pattern: Option<UpstreamPattern>,
    /// How it is known.
    pub(super) source: Source,
}

/// A host, and what the policy requires of a connection to it.
#[derive(Clone, Debug)]
pub(super) struct CoveredHost<'p> {
    /// The host.
    pub(super) named: ClusterHost,
    /// The requirements.
    pub(super) demand: Demand<'p>,
}

/// The hosts of a cluster that the policy covers.
pub(super) fn subjects<'p>(
    hosts: Vec<ClusterHost>,
    policy: &'p EffectivePolicy,
    now_secs: u64,
) -> Vec<CoveredHost<'p>> {
    let mut seen = BTreeSet::new();
    let all = hosts.into_iter().flat_map(|named| expand(named, policy));
    let all = all.filter(|named| seen.insert((named.source, named.name.clone())));
    let subjects = all.map(|named| {
        let demand = policy.demand(&named.host, now_secs);
        CoveredHost { named, demand }
    });
    subjects.filter(|subject| subject.demand.is_covered()).collect()
}

/// Every host that a cluster is known to be for. Addresses count only if there is no name, because requests
/// are for names.
pub(super) fn hosts<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Vec<ClusterHost> {
    let stamped = stamp_hosts(cluster).filter_map(|host| ClusterHost::new(host, Source::Stamp));
    let routed = proxy_config.authorities.of(cluster);
    let routed = routed.filter_map(|authority| ClusterHost::new(authority, Source::Route));
    let sni = server_name(cluster).into_iter().filter_map(|sni| ClusterHost::new(sni, Source::Sni));
    let endpoints = endpoint_names(cluster, proxy_config).into_iter().chain(istio_host(cluster));
    let endpoints = endpoints.filter_map(|name| ClusterHost::new(name, Source::Endpoint));
    let all = Vec::from_iter(stamped.chain(routed).chain(sni).chain(endpoints));
    let is_address = |named: &ClusterHost| matches!(named.host, UpstreamHost::Address(_));
    if all.is_empty() {
        return vec![ClusterHost::nothing()];
    }
    if all.iter().all(is_address) {
        return all;
    }
    // An address in a stamp, a route or a server name is intended; one of an endpoint only tells where a name
    // was found.
    let kept = |named: &ClusterHost| named.source != Source::Endpoint || !is_address(named);
    all.into_iter().filter(kept).collect()
}

/// The hosts in a cluster's stamp.
pub(super) fn stamp_hosts(cluster: &Value) -> impl Iterator<Item = &str> {
    let stamp = at(cluster, &["metadata", "filter_metadata", Stamp::NAMESPACE]);
    let hosts = stamp.map_or(&[][..], |stamp| items(stamp, Stamp::HOSTS));
    hosts.iter().filter_map(Value::as_str)
}

/// The host in a cluster name of Istio, `outbound|PORT|SUBSET|HOST`; the endpoints are usually addresses.
fn istio_host(cluster: &Value) -> Option<&str> {
    let parts = text(cluster, "name")?.strip_prefix("outbound|")?;
    parts.splitn(3, '|').nth(2).filter(|host| !host.is_empty())
}

/// The names, or else addresses, of a cluster's endpoints, and of its hosts as in version 2 of the API.
pub(super) fn endpoint_names<'a>(
    cluster: &'a Value,
    proxy_config: &ProxyConfig<'a>,
) -> Vec<&'a str> {
    let mut names = Vec::new();
    for host in items(cluster, "hosts") {
        names.extend(get(host, "socket_address").and_then(|address| text(address, "address")));
    }
    for endpoint in proxy_config.endpoints(cluster) {
        let address = at(endpoint.config, &["address", "socket_address"]);
        let address = address.and_then(|address| text(address, "address"));
        let hostname = text(endpoint.config, "hostname");
        names.extend(address.filter(|text| hostname.is_none() || text.parse::<IpAddr>().is_err()));
        names.extend(hostname);
    }
    names
}

/// A pattern, and the hosts in it that the policy has rules for.
fn expand(named: ClusterHost, policy: &EffectivePolicy) -> Vec<ClusterHost> {
    let Some(pattern @ UpstreamPattern::Suffix(_)) = named.pattern.clone() else {
        return vec![named];
    };
    let file = policy.file();
    let rules = file.upstreams().iter().chain(policy.tighten().iter()).map(|rule| &rule.host);
    let inner = file.known_hosts().iter().chain(rules).filter_map(|rule| {
        let inner = ClusterHost::new(&rule.to_string(), named.source)?;
        (*rule != pattern && pattern.matches(&inner.host)).then_some(inner)
    });
    let inner = Vec::from_iter(inner);
    [vec![named], inner].concat()
}

impl ClusterHost {
    /// Parses a host, an authority, or a pattern; `None` for patterns that do not identify hosts, e.g. `*`
    /// and `api.*`.
    pub(super) fn new(text: &str, source: Source) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some(suffix) = lower.strip_prefix("*.") {
            let host = parse(&format!("any.{suffix}"));
            let pattern = UpstreamPattern::parse(&format!("*.{}", base(suffix)));
            let name = pattern.as_ref().map_or(lower.clone(), UpstreamPattern::to_string);
            return Some(Self { name, host, pattern, source });
        }
        // Domains of a virtual host: all hosts, or those with a prefix or a suffix.
        if lower.contains('*') {
            return None;
        }
        let host = parse(&literal(text));
        let pattern = match &host {
            UpstreamHost::Unreadable => None,
            UpstreamHost::Address(address) => Some(UpstreamPattern::Address(*address)),
            UpstreamHost::Name(name) => Some(UpstreamPattern::Name(name.to_string())),
        };
        let name = pattern.as_ref().map_or_else(|| text.to_owned(), UpstreamPattern::to_string);
        Some(Self { name, host, pattern, source })
    }

    /// A cluster whose hosts are unknown.
    fn nothing() -> Self {
        // A policy cannot list this name (RFC 6761, section 6.4), so only rules for all hosts apply.
        let host = UpstreamHost::Name(Cow::Borrowed("unnamed.invalid"));
        Self {
            name: Element::UNKNOWN_HOST.to_owned(),
            host,
            pattern: None,
            source: Source::Nothing,
        }
    }

    /// Whether it stands for many hosts.
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self.pattern, Some(UpstreamPattern::Suffix(_)))
    }

    /// Whether the other is this host, or is matched by this pattern.
    pub(super) fn is_or_holds(&self, other: &Self) -> bool {
        match (&self.pattern, &other.pattern) {
            (Some(own), Some(pattern)) => own == pattern || own.matches(&other.host),
            _ => false,
        }
    }
}

/// Without the port and a trailing dot.
fn base(suffix: &str) -> String {
    parse(suffix).to_string()
}

fn parse(text: &str) -> UpstreamHost<'static> {
    match UpstreamHost::parse(text.as_bytes()) {
        UpstreamHost::Address(address) => UpstreamHost::Address(address),
        UpstreamHost::Name(name) => UpstreamHost::Name(Cow::Owned(name.into_owned())),
        UpstreamHost::Unreadable => UpstreamHost::Unreadable,
    }
}

/// An IPv6 address as written in an authority. Where Envoy takes addresses, they have no brackets.
fn literal(text: &str) -> Cow<'_, str> {
    let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    if is_v6 { Cow::Owned(format!("[{text}]")) } else { Cow::Borrowed(text) }
}
