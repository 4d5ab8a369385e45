//! The endpoints of clusters.

use serde_json::Value;

use super::super::document::{at, get, is_choice, items, text, typed};

/// An endpoint, with what selects its transport socket.
pub(super) struct Endpoint<'a> {
    /// Its configuration.
    pub(super) config: &'a Value,
    /// Its own metadata.
    pub(super) metadata: Option<&'a Value>,
    /// The metadata of its locality.
    pub(super) locality_metadata: Option<&'a Value>,
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// From the cluster itself.
    Inline,
    /// From each connection or request.
    Runtime,
    /// From the endpoint discovery service (EDS).
    Separate,
}

impl Discovery {
    /// Where the endpoints of a cluster come from.
    pub(super) fn of(cluster: &Value) -> Self {
        if let Some(custom) = get(cluster, "cluster_type") {
            let kind = get(custom, "typed_config").map_or("", |config| typed(config).0);
            let name = text(custom, "name").unwrap_or_default();
            return Self::of_extension(if kind.is_empty() { name } else { kind });
        }
        if is_choice(cluster, "type", "EDS", 3) {
            Self::Separate
        } else if is_choice(cluster, "type", "ORIGINAL_DST", 4) {
            Self::Runtime
        } else {
            Self::Inline
        }
    }

    fn of_extension(name: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| name.ends_with(word));
        if has(&[".eds", ".EdsCluster"]) {
            Self::Separate
        } else if has(&[".static", ".strict_dns", ".logical_dns", ".dns", ".DnsCluster"]) {
            Self::Inline
        } else {
            Self::Runtime
        }
    }
}

impl Endpoint<'_> {
    /// Whether it says where to connect.
    pub(super) fn is_readable(&self) -> bool {
        let kinds = ["pipe", "envoy_internal_address"];
        let address = get(self.config, "address");
        address.is_some_and(|address| {
            kinds.iter().any(|kind| get(address, kind).is_some())
                || at(address, &["socket_address", "address"]).is_some()
        })
    }
}

/// The endpoints in a `ClusterLoadAssignment`.
pub(super) fn endpoints(assignment: &Value) -> impl Iterator<Item = Endpoint<'_>> {
    let named = get(assignment, "named_endpoints");
    items(assignment, "endpoints").iter().flat_map(move |locality| {
        let locality_metadata = get(locality, "metadata");
        items(locality, "lb_endpoints").iter().filter_map(move |item| {
            let by_name = || named?.get(text(item, "endpoint_name")?);
            let config = get(item, "endpoint").or_else(by_name)?;
            Some(Endpoint { config, metadata: get(item, "metadata"), locality_metadata })
        })
    })
}

/// Whether an assignment refers to endpoints elsewhere (LEDS).
pub(super) fn is_partial(assignment: &Value) -> bool {
    let is_elsewhere = |locality| get(locality, "leds_cluster_locality_config").is_some();
    items(assignment, "endpoints").iter().any(is_elsewhere)
}
