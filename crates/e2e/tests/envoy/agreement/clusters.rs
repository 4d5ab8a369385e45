//! The clusters of every Envoy, each with an upstream of its own.

use serde_json::json;

use crate::gateways::{KNOWN, digest};
use crate::support::tls::{Authority, Cluster, Leaf, Serve, Upstream};

/// A cluster, and what protects it.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) tls: bool,
    pub(super) gated: bool,
    /// The hosts of its stamp.
    pub(super) stamp: Option<&'static [&'static str]>,
    /// The name of its endpoint, by which `auto_host_rewrite` goes.
    pub(super) hostname: Option<&'static str>,
}

const fn kind(name: &'static str) -> Kind {
    Kind { name, tls: false, gated: false, stamp: None, hostname: None }
}

pub(super) const CLUSTERS: [Kind; 8] = [
    kind("plain"),
    Kind { gated: true, ..kind("gated") },
    Kind { stamp: Some(&[]), ..kind("stamped") },
    Kind { stamp: Some(&[]), gated: true, ..kind("stamped-gated") },
    Kind { hostname: Some("endpoint.test"), ..kind("named") },
    Kind { hostname: Some("endpoint.test"), gated: true, stamp: Some(&[]), ..kind("named-gated") },
    Kind { tls: true, gated: true, stamp: Some(&[KNOWN]), ..kind("tls") },
    Kind { tls: true, ..kind("tls-ungated") },
];

impl Kind {
    /// The upstream of the cluster.
    pub(super) fn serve(&self, leaf: &Leaf) -> Upstream {
        if self.tls { Serve::tls(leaf).start() } else { Serve::plain().start() }
    }

    pub(super) fn cluster(&self, upstream: &Upstream, authority: &Authority) -> Cluster {
        let mut cluster = match self.tls {
            true => Cluster::tls(self.name, upstream, authority).sni(KNOWN).san(KNOWN),
            false => Cluster::plain(self.name, upstream),
        };
        if self.gated {
            cluster = cluster.gate();
        }
        if let Some(hosts) = self.stamp {
            cluster = cluster.stamp(&digest(), hosts);
        }
        if let Some(hostname) = self.hostname {
            cluster = cluster.edit(|cluster| {
                let endpoints = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
                endpoints[0]["endpoint"]["hostname"] = json!(hostname);
            });
        }
        cluster
    }
}
