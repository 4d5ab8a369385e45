//! A cluster that is linted, and what there is to say of it.

use serde_json::Value;

use vkey::upstream_tls::{Requirement, UpstreamHost, UpstreamPattern};

use super::super::document::text;
use super::finding::{Element, Finding, Rule};
use super::hosts::{Named, Source, stamp_hosts};
use super::proxy_config::Scene;

/// A cluster in the light of the policy.
pub(super) struct Case<'a, 'p> {
    /// The cluster.
    pub(super) cluster: &'a Value,
    /// The rest of the configuration.
    pub(super) scene: &'p Scene<'a>,
    /// The digest of the policy.
    pub(super) digest: &'p str,
    /// The hosts that have to be verified, and what is asked for each; never empty.
    pub(super) asked: Vec<(Named, Requirement<'p>)>,
}

impl Case<'_, '_> {
    /// The hosts that the connection is for: those of the routes where there are some, else those of a
    /// stamp that is the cluster's, else all.
    pub(super) fn expected(&self) -> Vec<&Named> {
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

    /// A host of the cluster, as others than the stamp say, that the stamp is not for.
    pub(super) fn stamp_misses(&self) -> Option<&Named> {
        let others = [Source::Route, Source::Sni, Source::Endpoint].into_iter();
        let mut others = others.map(|source| Vec::from_iter(self.from(source)));
        let others = others.find(|hosts| !hosts.is_empty()).unwrap_or_default();
        let stamped = stamp_hosts(self.cluster);
        let stamped: Option<Vec<UpstreamPattern>> = stamped.map(UpstreamPattern::parse).collect();
        let stamped = stamped.unwrap_or_default();
        let is_stamped = |named: &Named| {
            stamped.iter().any(|pattern| {
                named.pattern.as_ref() == Some(pattern) || pattern.matches(&named.host)
            })
        };
        others.into_iter().find(|named| !is_stamped(named))
    }

    fn from(&self, source: Source) -> impl Iterator<Item = &Named> {
        self.asked.iter().map(|(named, _)| named).filter(move |named| named.source == source)
    }

    /// A finding for the first host.
    pub(super) fn finding(
        &self,
        rule: Rule,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        let host = self.asked.first().map_or("", |(named, _)| &named.name);
        self.make(host, rule, reason.into(), fix.into())
    }

    /// A finding for a certain host.
    pub(super) fn finding_for(
        &self,
        named: &Named,
        rule: Rule,
        reason: String,
        fix: String,
    ) -> Finding {
        self.make(&named.name, rule, reason, fix)
    }

    fn make(&self, host: &str, rule: Rule, reason: String, fix: String) -> Finding {
        let name = text(self.cluster, "name").unwrap_or_default().to_owned();
        let element = Element::Cluster { name, host: host.to_owned() };
        Finding { element, rule, reason, fix }
    }
}

/// Whether a host is a name, which a server name can be sent for (RFC 6066, section 3).
pub(super) fn is_name(named: &Named) -> bool {
    !matches!(named.host, UpstreamHost::Address(_))
}
