//! An index of the known hosts of a policy by name: every request looks one up among dozens.

use std::collections::BTreeMap;

use crate::access::restriction::HostPattern;

use super::{UpstreamHost, UpstreamPattern};

/// The patterns, and their indices by the name that they are about.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownHosts {
    patterns: Box<[UpstreamPattern]>,
    by_base: BTreeMap<Box<str>, Vec<usize>>,
    /// The indices of patterns that are not about a name.
    others: Vec<usize>,
}

impl KnownHosts {
    pub(super) fn new(patterns: Box<[UpstreamPattern]>) -> Self {
        let mut known = Self { patterns, ..Self::default() };
        for (index, pattern) in known.patterns.iter().enumerate() {
            match pattern.base() {
                Some(base) => known.by_base.entry(base.into()).or_default().push(index),
                None => known.others.push(index),
            }
        }
        known
    }

    pub(super) fn patterns(&self) -> &[UpstreamPattern] {
        &self.patterns
    }

    /// The pattern that overlaps one for hosts, in words.
    pub(super) fn overlap(&self, hosts: &HostPattern) -> Option<String> {
        let Some(hosts) = UpstreamPattern::of(hosts) else {
            return Some("a host that can be read in more than one way".to_owned());
        };
        self.patterns.iter().find(|known| known.overlaps(&hosts)).map(ToString::to_string)
    }

    /// Whether a pattern covers the host. A pattern that covers a name is about that name or one above it.
    pub(super) fn cover(&self, host: &UpstreamHost<'_>) -> bool {
        let covers = |index: &usize| self.patterns.get(*index).is_some_and(|p| p.covers(host));
        if self.others.iter().any(covers) {
            return true;
        }
        let UpstreamHost::Name(name) = host else {
            return false;
        };
        std::iter::successors(Some(&**name), |name| parent(name))
            .filter_map(|base| self.by_base.get(base))
            .flatten()
            .any(covers)
    }
}

/// The parent of a name.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, above)| above)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares every pattern with every host that is its own, a sibling, or below.
    #[test]
    fn the_index_finds_what_the_patterns_cover() {
        let texts = [
            "api.example",
            "*.cloud.example",
            "bedrock.*.aws.example",
            "192.0.2.1",
            "[2001:db8::1]",
            "example.net",
            "*.net.test",
        ];
        let patterns: Box<[_]> = texts.map(|text| UpstreamPattern::parse(text).unwrap()).into();
        let known = KnownHosts::new(patterns.clone());
        let names = [
            "api.example",
            "a.api.example",
            "a.b.api.example",
            "xapi.example",
            "example",
            "cloud.example",
            "x.cloud.example",
            "x.y.cloud.example",
            "bedrock.eu.aws.example",
            "a.bedrock.eu.aws.example",
            "bedrock.aws.example",
            "aws.example",
            "s3.eu.aws.example",
            "192.0.2.1",
            "192.0.2.2",
            "[2001:db8::1]",
            "[2001:db8::2]",
            "example.net",
            "net",
            "b.example.net",
            "net.test",
            "a.net.test",
            "",
        ];
        for name in names {
            let host = UpstreamHost::parse(name.as_bytes());
            let covered = patterns.iter().any(|pattern| pattern.covers(&host));
            assert_eq!(known.cover(&host), covered, "{name}");
        }
        let any = KnownHosts::new(Box::new([UpstreamPattern::Any]));
        assert!(any.cover(&UpstreamHost::parse(b"a.example")));
        assert!(any.cover(&UpstreamHost::Unreadable));
    }
}
