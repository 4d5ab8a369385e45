//! A cluster under check, with what the checks need.

use serde_json::Value;

use vkey::upstream_tls::{Requirement, UpstreamHost, UpstreamPattern};

use super::super::document::text;
use super::finding::{Element, Finding, LintRule};
use super::hosts::{ClusterHost, Source, stamp_hosts};
use super::proxy_config::ProxyConfig;

/// A cluster, and what the policy requires of it.
pub(super) struct ClusterContext<'a, 'p> {
    /// The cluster.
    pub(super) cluster: &'a Value,
    /// The whole configuration.
    pub(super) proxy_config: &'p ProxyConfig<'a>,
    /// The digest of the policy.
    pub(super) digest: &'p str,
    /// The hosts that must be verified, and the requirements for each; never empty.
    pub(super) asked: Vec<(ClusterHost, Requirement<'p>)>,
}

impl ClusterContext<'_, '_> {
    /// The hosts that the connection is for: those of routes if there are any, else those of the cluster's
    /// own stamp, else all.
    pub(super) fn expected(&self) -> Vec<&ClusterHost> {
        let from = |source| Vec::from_iter(self.from(source));
        let routed = from(Source::Route);
        let stamped = from(Source::Stamp);
        if !routed.is_empty() {
            routed
        } else if !stamped.is_empty() && self.stamp_misses().is_none() {
            stamped
        } else {
            self.asked.iter().map(|(named, _)| named).collect()
        }
    }

    /// A host of the cluster that the stamp does not include, known from another source.
    pub(super) fn stamp_misses(&self) -> Option<&ClusterHost> {
        let others = [Source::Route, Source::Sni, Source::Endpoint].into_iter();
        let mut others = others.map(|source| Vec::from_iter(self.from(source)));
        let others = others.find(|hosts| !hosts.is_empty()).unwrap_or_default();
        let stamped = stamp_hosts(self.cluster);
        let stamped: Option<Vec<UpstreamPattern>> = stamped.map(UpstreamPattern::parse).collect();
        let stamped = stamped.unwrap_or_default();
        let is_stamped = |named: &ClusterHost| {
            stamped.iter().any(|pattern| {
                named.pattern.as_ref() == Some(pattern) || pattern.matches(&named.host)
            })
        };
        others.into_iter().find(|named| !is_stamped(named))
    }

    fn from(&self, source: Source) -> impl Iterator<Item = &ClusterHost> {
        self.asked.iter().map(|(named, _)| named).filter(move |named| named.source == source)
    }

    /// A finding for the first host.
    pub(super) fn finding(
        &self,
        rule: LintRule,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        let host = self.asked.first().map_or("", |(named, _)| &named.name);
        self.make(host, rule, reason.into(), fix.into())
    }

    /// A finding for a specific host.
    pub(super) fn finding_for(
        &self,
        named: &ClusterHost,
        rule: LintRule,
        reason: String,
        fix: String,
    ) -> Finding {
        self.make(&named.name, rule, reason, fix)
    }

    fn make(&self, host: &str, rule: LintRule, reason: String, fix: String) -> Finding {
        let name = text(self.cluster, "name").unwrap_or_default().to_owned();
        let element = Element::Cluster { name, host: host.to_owned() };
        Finding { element, rule, reason, fix }
    }
}

/// Whether a host is a name, which can be sent as a server name (RFC 6066, section 3).
pub(super) fn is_name(named: &ClusterHost) -> bool {
    !matches!(named.host, UpstreamHost::Address(_))
}
