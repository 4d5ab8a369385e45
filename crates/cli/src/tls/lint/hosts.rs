//! The hosts that a cluster is for, and what the policy asks for them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use vkey::upstream_tls::{Demand, EffectivePolicy, Stamp, UpstreamHost, UpstreamPattern};

use super::super::document::{at, items, text};
use super::proxy_config::Scene;
use super::socket::server_name;

/// What says that a cluster is for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The host of an endpoint, or the one in the name that Istio gives a cluster.
    Endpoint,
    /// Nothing: the cluster could be for any host.
    Nothing,
    /// The authority that a route sends.
    Route,
    /// The server name that the connection asks for.
    Sni,
    /// The cluster's stamp.
    Stamp,
}

/// A host that a cluster is for.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// As it is shown: the one spelling of a policy, or what was written where there is none.
    pub(super) name: String,
    /// The host; of a pattern, one of its hosts.
    pub(super) host: UpstreamHost<'static>,
    /// The pattern, if it has a spelling.
    pub(super) pattern: Option<UpstreamPattern>,
    /// Where it stands.
    pub(super) source: Source,
}

/// A host, and what the policy asks of a connection to it.
#[derive(Clone, Debug)]
pub(super) struct Subject<'p> {
    /// The host.
    pub(super) named: Named,
    /// What is asked.
    pub(super) demand: Demand<'p>,
}

/// The hosts of a cluster that the policy is about.
pub(super) fn subjects<'p>(
    hosts: Vec<Named>,
    policy: &'p EffectivePolicy,
    now_secs: u64,
) -> Vec<Subject<'p>> {
    let mut seen = BTreeSet::new();
    let all = hosts.into_iter().flat_map(|named| expand(named, policy));
    let all = all.filter(|named| seen.insert((named.source, named.name.clone())));
    let subjects = all.map(|named| {
        let demand = policy.demand(&named.host, now_secs);
        Subject { named, demand }
    });
    subjects.filter(|subject| subject.demand.is_listed()).collect()
}

/// Every host that anything says a cluster is for. Addresses count where there is no name: requests are
/// for names.
pub(super) fn hosts<'a>(cluster: &'a Value, scene: &Scene<'a>) -> Vec<Named> {
    let stamped = stamp_hosts(cluster).filter_map(|host| Named::new(host, Source::Stamp));
    let routed = scene.authorities.of(cluster);
    let routed = routed.filter_map(|authority| Named::new(authority, Source::Route));
    let sni = server_name(cluster).into_iter().filter_map(|sni| Named::new(sni, Source::Sni));
    let endpoints = endpoint_names(cluster, scene).into_iter().chain(istio_host(cluster));
    let endpoints = endpoints.filter_map(|name| Named::new(name, Source::Endpoint));
    let all = Vec::from_iter(stamped.chain(routed).chain(sni).chain(endpoints));
    let is_address = |named: &Named| matches!(named.host, UpstreamHost::Address(_));
    if all.is_empty() {
        return vec![Named::nothing()];
    }
    if all.iter().all(is_address) {
        return all;
    }
    // An address that a stamp, a route or a server name says is meant; that of an endpoint is where
    // a name was found.
    let kept = |named: &Named| named.source != Source::Endpoint || !is_address(named);
    all.into_iter().filter(kept).collect()
}

/// The hosts that stand in a cluster's stamp.
pub(super) fn stamp_hosts(cluster: &Value) -> impl Iterator<Item = &str> {
    let stamp = at(cluster, &["metadata", "filter_metadata", Stamp::NAMESPACE]);
    let hosts = stamp.map_or(&[][..], |stamp| items(stamp, Stamp::HOSTS));
    hosts.iter().filter_map(Value::as_str)
}

/// The host in a name of Istio's, `outbound|PORT|SUBSET|HOST`; the endpoints are mostly addresses.
fn istio_host(cluster: &Value) -> Option<&str> {
    let parts = text(cluster, "name")?.strip_prefix("outbound|")?;
    parts.splitn(3, '|').nth(2).filter(|host| !host.is_empty())
}

/// The names, or addresses, of a cluster's endpoints.
pub(super) fn endpoint_names<'a>(cluster: &'a Value, scene: &Scene<'a>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for endpoint in scene.endpoints(cluster) {
        let address = at(endpoint, &["address", "socket_address"]);
        let address = address.and_then(|address| text(address, "address"));
        let hostname = text(endpoint, "hostname");
        names.extend(address.filter(|text| hostname.is_none() || text.parse::<IpAddr>().is_err()));
        names.extend(hostname);
    }
    names
}

/// A pattern, and the hosts in it that the policy has rules for.
fn expand(named: Named, policy: &EffectivePolicy) -> Vec<Named> {
    let Some(pattern @ UpstreamPattern::Suffix(_)) = named.pattern.clone() else {
        return vec![named];
    };
    let file = policy.file();
    let rules = file.upstreams().iter().chain(policy.tighten()).map(|rule| &rule.host);
    let inner = file.known_hosts().iter().chain(rules).filter_map(|rule| {
        let inner = Named::new(&rule.to_string(), named.source)?;
        (*rule != pattern && pattern.matches(&inner.host)).then_some(inner)
    });
    let inner = Vec::from_iter(inner);
    [vec![named], inner].concat()
}

impl Named {
    /// Reads a host, an authority, or a pattern; `None` for patterns that say nothing about whose hosts
    /// they match, as `*` and `api.*`.
    pub(super) fn new(text: &str, source: Source) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some(suffix) = lower.strip_prefix("*.") {
            let host = parse(&format!("any.{suffix}"));
            let pattern = UpstreamPattern::parse(&format!("*.{}", base(suffix)));
            let name = pattern.as_ref().map_or(lower.clone(), UpstreamPattern::to_string);
            return Some(Self { name, host, pattern, source });
        }
        // Of a virtual host: every host, or those that begin or end in a text.
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

    /// A cluster of which nothing says what it is for.
    fn nothing() -> Self {
        // No policy lists such a name (RFC 6761, section 6.4), so only what holds for all hosts holds.
        let host = UpstreamHost::Name(Cow::Borrowed("unnamed.invalid"));
        Self { name: "-".to_owned(), host, pattern: None, source: Source::Nothing }
    }

    /// Whether it stands for many hosts.
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self.pattern, Some(UpstreamPattern::Suffix(_)))
    }

    /// Whether what is called `name` is this host, or among those of this pattern.
    pub(super) fn is_or_holds(&self, other: &Self) -> bool {
        match (&self.pattern, &other.pattern) {
            (Some(own), Some(pattern)) => own == pattern || own.matches(&other.host),
            _ => false,
        }
    }
}

/// Without port and without a dot at the end.
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

/// An IPv6 address as it stands in an authority; where Envoy takes addresses they have no brackets.
fn literal(text: &str) -> Cow<'_, str> {
    let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    if is_v6 { Cow::Owned(format!("[{text}]")) } else { Cow::Borrowed(text) }
}
