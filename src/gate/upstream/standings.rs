//! What becomes known of upstreams: counted, shown, and remembered for the next request.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::decision::DenyReason;
use crate::gate::metrics::Metrics;
use crate::host::{Host, Level, Property, RecordStore, text_property};
use crate::upstream_tls::{
    RefusalScope, UpstreamHost, UpstreamStatus, Verdict, upstream_status_name,
};

/// How many clusters have a standing of their own. Proxies name few, but some make one for each host that
/// clients name; the rest share one.
const MAX_CLUSTERS: usize = 256;

/// What the rest is called.
const OTHER: &str = "other";

/// How long a verdict is remembered before it is looked up whether other workers came to another.
const REMEMBERED_SECS: u64 = 10;

/// The last verdict on each cluster that this VM came to, and when, so that hardly more than changes
/// are written.
#[derive(Default)]
pub(in crate::gate) struct Standings(RefCell<BTreeMap<String, (Verdict, u64)>>);

/// A verdict on an upstream.
#[derive(Clone, Copy)]
pub(in crate::gate) struct Judged<'a> {
    pub(in crate::gate) verdict: Verdict,
    /// The host for which a response had to be withheld, because the request was sent before it could be
    /// judged, and which requests are refused for that.
    pub(in crate::gate) withheld: Option<(&'a UpstreamHost<'a>, RefusalScope)>,
    /// When the policy's exception ends, where there is one.
    pub(in crate::gate) skip_until_secs: Option<u64>,
    pub(in crate::gate) now_secs: u64,
}

impl Standings {
    /// Whether anything was judged yet.
    pub(in crate::gate) fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|clusters| clusters.is_empty())
    }

    /// Records a verdict on the cluster of the request that the host is at.
    pub(in crate::gate) fn judge<H: Host>(
        &self,
        host: &H,
        store: &RecordStore<'_, H>,
        metrics: &Metrics,
        judged: Judged<'_>,
    ) {
        let Judged { verdict, now_secs, .. } = judged;
        let withheld = judged.withheld.is_some();
        let Some(cluster) = text_property(host, Property::ClusterName) else {
            return;
        };
        let cluster = self.shared_name(&cluster);
        metrics.count_verdict(host, verdict, cluster);
        if !self.replace(cluster, verdict, now_secs) && !withheld {
            return;
        }
        let (before, since_secs) = write(store, cluster, judged).unwrap_or((None, now_secs));
        if before == Some(verdict) && !withheld {
            return;
        }
        metrics.show_verdict(host, verdict, before, cluster, since_secs);
        if let Some(until_secs) = judged.skip_until_secs {
            metrics.show_skip(host, cluster, until_secs);
        }
        if let Verdict::Refused(reason) = verdict {
            let text = format!("vkey: cluster {cluster:?} breaks the policy: {reason}");
            host.log(Level::Warn, &text);
        }
    }

    /// How a cluster stands; `None` where that cannot be read: it refuses nobody, since the connection is
    /// judged all the same.
    pub(in crate::gate) fn read<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        cluster: &str,
    ) -> Option<UpstreamStatus> {
        store
            .is_available()
            .then(|| store.read(&upstream_status_name(self.shared_name(cluster))).ok())
            .flatten()
    }

    /// Records that a response of a cluster had to be withheld, where it is not the cluster of the request
    /// that the host shows.
    pub(in crate::gate) fn withhold<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        cluster: &str,
        reason: DenyReason,
        upstream: &UpstreamHost<'_>,
        now_secs: u64,
    ) {
        self.update(store, cluster, |standing| {
            _ = standing.withhold(reason, upstream, RefusalScope::Checked, now_secs);
        });
    }

    /// Records that a response of a cluster showed no gate.
    pub(in crate::gate) fn miss_gate<H: Host>(
        &self,
        host: &H,
        store: &RecordStore<'_, H>,
        cluster: &str,
        scope: RefusalScope,
        now_secs: u64,
    ) {
        let misses = |standing: UpstreamStatus| standing.misses_gate(true, now_secs);
        let known = self.read(store, cluster).is_some_and(misses);
        self.update(store, cluster, |standing| standing.miss_gate(scope, now_secs));
        if !known {
            let text = format!(
                "vkey: cluster {cluster:?} has no gate: requests to it for hosts that the policy \
                 verifies are refused for a minute; `vkey tls render` writes the gate"
            );
            host.log(Level::Warn, &text);
        }
    }

    fn update<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        cluster: &str,
        change: impl Fn(&mut UpstreamStatus),
    ) {
        if store.is_available() {
            // What cannot be written refuses nobody; the next response tries again.
            _ = store.update(&upstream_status_name(self.shared_name(cluster)), change);
        }
    }

    /// The name that a cluster's standing has.
    fn shared_name<'a>(&self, cluster: &'a str) -> &'a str {
        let own = self
            .0
            .try_borrow()
            .is_ok_and(|clusters| clusters.contains_key(cluster) || clusters.len() < MAX_CLUSTERS);
        if own { cluster } else { OTHER }
    }

    /// Remembers a verdict; whether it is another than that which was looked up a moment ago.
    fn replace(&self, cluster: &str, verdict: Verdict, now_secs: u64) -> bool {
        let Ok(mut clusters) = self.0.try_borrow_mut() else {
            return true;
        };
        if let Some((known, at_secs)) = clusters.get_mut(cluster) {
            let fresh = now_secs.abs_diff(*at_secs) < REMEMBERED_SECS;
            if *known == verdict && fresh {
                return false;
            }
            (*known, *at_secs) = (verdict, now_secs);
            return true;
        }
        clusters.insert(cluster.to_owned(), (verdict, now_secs));
        true
    }
}

/// What the cluster was judged as before by any worker, and since when it is judged as now; `None`
/// where nothing can be written.
fn write<H: Host>(
    store: &RecordStore<'_, H>,
    cluster: &str,
    judged: Judged<'_>,
) -> Option<(Option<Verdict>, u64)> {
    if !store.is_available() {
        return None;
    }
    let update = |standing: &mut UpstreamStatus| {
        let before = standing.verdict();
        let since_secs = match (judged.verdict, judged.withheld) {
            (Verdict::Refused(reason), Some((upstream, scope))) => {
                standing.withhold(reason, upstream, scope, judged.now_secs)
            }
            (verdict, _) => standing.record(verdict, judged.now_secs),
        };
        (before, since_secs)
    };
    store.update(&upstream_status_name(cluster), update).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Rules;
    use crate::host::{MemoryHost, MemoryStore};

    const PIN: Verdict = Verdict::Refused(DenyReason::UpstreamPin);

    /// A worker, and what it remembers of clusters.
    struct Worker {
        host: MemoryHost,
        standings: Standings,
        metrics: Metrics,
    }

    impl Worker {
        fn new(store: &MemoryStore) -> Self {
            let host = MemoryHost::new(store.clone());
            Self { host, standings: Standings::default(), metrics: Metrics::default() }
        }

        fn judge(&self, cluster: &str, verdict: Verdict, now_secs: u64) {
            self.host.show("xds\0cluster_name", cluster);
            let store = RecordStore::new(&self.host, Rules::Envoy);
            let judged = Judged { verdict, withheld: None, skip_until_secs: None, now_secs };
            self.standings.judge(&self.host, &store, &self.metrics, judged);
        }

        fn since(&self, verdict: Verdict) -> Option<u64> {
            let word = verdict.word();
            let name = format!("vkey_upstream_tls_since_seconds.verdict.{word}.upstream.a");
            self.host.store().metric(&name)
        }
    }

    #[test]
    fn what_another_worker_came_to_shows_after_a_moment() {
        let store = MemoryStore::new(Rules::Envoy);
        let [one, other] = [Worker::new(&store), Worker::new(&store)];
        one.judge("a", Verdict::Verified, 100);
        other.judge("a", PIN, 101);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(0), Some(101)));
        one.judge("a", Verdict::Verified, 109);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(0), Some(101)));
        one.judge("a", Verdict::Verified, 110);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(110), Some(0)));
        // A clock that goes back is no reason to trust what is remembered.
        other.judge("a", PIN, 111);
        one.judge("a", Verdict::Verified, 90);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(90), Some(0)));
    }

    #[test]
    fn clusters_that_are_too_many_share_a_standing() {
        let worker = Worker::new(&MemoryStore::new(Rules::Envoy));
        assert!(worker.standings.is_empty());
        for cluster in 0..=MAX_CLUSTERS {
            assert_eq!(worker.standings.0.borrow().len(), cluster);
            worker.judge(&cluster.to_string(), Verdict::Verified, 100);
        }
        assert_eq!(worker.standings.0.borrow().len(), MAX_CLUSTERS + 1);
        assert!(worker.standings.0.borrow().contains_key(OTHER));
    }

    #[test]
    fn a_cluster_without_a_name_is_not_remembered() {
        let worker = Worker::new(&MemoryStore::new(Rules::Envoy));
        worker.judge("", PIN, 100);
        assert!(worker.standings.is_empty() && worker.host.store().is_empty());
        assert_eq!(worker.host.store().metrics().len(), 0);
    }
}
