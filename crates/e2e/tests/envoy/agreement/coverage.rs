//! How often each outcome occurred, so that nothing passes because it was never tried.

use std::collections::BTreeMap;

use super::clusters::Kind;
use super::proxy::{HostRewrite, PathRewrite, Target};
use super::router::Routed;

#[derive(Debug, Default)]
pub(super) struct Coverage(BTreeMap<String, u64>);

const RARE: &[&str] = &[
    "allowed without a cluster",
    "allowed without a route",
    "denied header_mismatch",
    "denied host",
    "denied key_conflict",
    "denied key_missing",
    "denied key_signature",
    "denied method",
    "denied path",
    "denied path_ambiguous",
    "denied upstream_name",
    "denied upstream_plaintext",
    "denied upstream_unproven",
    "refused by the proxy",
];

const COMMON: &[&str] = &[
    "absolute form",
    "authority changed by the proxy",
    "cluster by header",
    "cluster gated",
    "cluster stamped",
    "cluster tls",
    "host rewritten by auto",
    "host rewritten by header",
    "host rewritten by literal",
    "key restricted",
    "override kept",
    "override removed",
    "path changed by the proxy",
    "path rewritten by prefix",
    "path rewritten by regex",
    "retry header removed",
    "route by header",
    "route changed by edits",
    "route exact",
    "route prefix",
    "route regex",
    "route separated",
    "stamp required",
    "virtual host any",
    "virtual host exact",
    "virtual host prefix",
    "virtual host suffix",
];

impl Coverage {
    pub(super) fn count(&mut self, outcome: impl Into<String>) {
        *self.0.entry(outcome.into()).or_default() += 1;
    }

    pub(super) fn count_if(&mut self, occurred: bool, outcome: &str) {
        if occurred {
            self.count(outcome);
        }
    }

    /// Counts the route of a request that went on.
    pub(super) fn count_route(&mut self, routed: &Routed<'_>) {
        let Routed { domain, route, .. } = routed;
        self.count(match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => "virtual host any",
            (Some(_), _) => "virtual host suffix",
            (_, Some(_)) => "virtual host prefix",
            (None, None) => "virtual host exact",
        });
        self.count(format!("route {}", route.path.kind()));
        self.count_if(!route.headers.is_empty(), "route by header");
        self.count_if(matches!(route.target, Target::Header(_)), "cluster by header");
        let rewrite = route.path_rewrite.map(|rewrite| match rewrite {
            PathRewrite::Prefix(_) => "path rewritten by prefix",
            PathRewrite::Regex(_) => "path rewritten by regex",
        });
        rewrite.into_iter().for_each(|rewrite| self.count(rewrite));
        let rewrite = route.host_rewrite.map(|rewrite| match rewrite {
            HostRewrite::Literal(_) => "host rewritten by literal",
            HostRewrite::Header(_) => "host rewritten by header",
            HostRewrite::Auto => "host rewritten by auto",
        });
        rewrite.into_iter().for_each(|rewrite| self.count(rewrite));
    }

    pub(super) fn count_cluster(&mut self, kind: &Kind) {
        self.count_if(kind.gated, "cluster gated");
        self.count_if(kind.stamp.is_some(), "cluster stamped");
        self.count_if(kind.tls, "cluster tls");
    }

    /// Checks that every outcome occurred often enough.
    pub(super) fn assert_complete(&self, requests: u64) {
        let least = |least: u64, name: &str| {
            let count = self.0.get(name).copied().unwrap_or_default();
            assert!(count >= least, "{name}: {count} of at least {least} in {self:#?}");
        };
        // Each one makes the module refuse more requests for a minute.
        least(20, "response withheld");
        RARE.iter().for_each(|name| least(50, name));
        COMMON.iter().for_each(|name| least(100, name));
        least(requests / 4, "allowed");
    }
}
