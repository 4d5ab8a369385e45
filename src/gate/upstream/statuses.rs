//! Verdicts on upstreams: counted, shown as metrics, and remembered for the next request.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::decision::DenyReason;
use crate::gate::metrics::Metrics;
use crate::host::{Host, Level, RecordStore};
use crate::upstream_tls::{
    RefusalScope, UpstreamHost, UpstreamStatus, Verdict, upstream_status_name,
};

/// How many clusters have a status of their own. Proxies name few, but some make one for each host that
/// clients name; the rest share one.
const MAX_CLUSTERS: usize = 256;

/// The name that the rest shares.
const OTHER: &str = "other";

/// How long a verdict is remembered, in seconds, before the record is read again for the verdicts of other workers.
const REMEMBERED_SECS: u64 = 10;

/// The last verdict of this VM on each cluster, and its time, so that little more than changes is written.
#[derive(Default)]
pub(in crate::gate) struct Statuses(RefCell<BTreeMap<String, (Verdict, u64)>>);

/// A verdict on an upstream.
#[derive(Clone, Copy)]
pub(in crate::gate) struct Outcome<'a> {
    pub(in crate::gate) verdict: Verdict,
    /// The authority for which a response was withheld, because the request was sent before its connection could be
    /// checked, and which requests are refused for that.
    pub(in crate::gate) withheld: Option<(&'a UpstreamHost<'a>, RefusalScope)>,
    /// When the exception of the policy ends, if there is one.
    pub(in crate::gate) skip_until_secs: Option<u64>,
    pub(in crate::gate) now_secs: u64,
}

impl Statuses {
    /// Whether there is no verdict yet.
    pub(in crate::gate) fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|clusters| clusters.is_empty())
    }

    /// Records a verdict on a cluster.
    pub(in crate::gate) fn record<H: Host>(
        &self,
        host: &H,
        store: &RecordStore<'_, H>,
        metrics: &Metrics,
        cluster: &str,
        outcome: Outcome<'_>,
    ) {
        let Outcome { verdict, now_secs, .. } = outcome;
        let withheld = outcome.withheld.is_some();
        let cluster = self.shared_name(cluster);
        metrics.count_verdict(host, verdict, cluster);
        if !self.replace(cluster, verdict, now_secs) && !withheld {
            return;
        }
        let (before, since_secs) = write(store, cluster, outcome).unwrap_or((None, now_secs));
        if before == Some(verdict) && !withheld {
            return;
        }
        metrics.show_verdict(host, verdict, before, cluster, since_secs);
        if let Some(until_secs) = outcome.skip_until_secs {
            metrics.show_skip(host, cluster, until_secs);
        }
        if let Verdict::Refused(reason) = verdict {
            let text = format!("vkey: cluster {cluster:?} breaks the policy: {reason}");
            host.log(Level::Warn, &text);
        }
    }

    /// The status of a cluster. `None` if it cannot be read: that refuses nobody, because the connection is checked
    /// anyway.
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

    /// Records that a response was withheld from a cluster other than that of the current request.
    pub(in crate::gate) fn withhold<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        cluster: &str,
        reason: DenyReason,
        upstream: &UpstreamHost<'_>,
        now_secs: u64,
    ) {
        self.update(store, cluster, |status| {
            _ = status.withhold(reason, upstream, RefusalScope::Checked, now_secs);
        });
    }

    /// Records that a response came from a cluster without an upstream gate.
    pub(in crate::gate) fn record_missing_gate<H: Host>(
        &self,
        host: &H,
        store: &RecordStore<'_, H>,
        cluster: &str,
        scope: RefusalScope,
        now_secs: u64,
    ) {
        let misses = |status: UpstreamStatus| status.misses_gate(true, now_secs);
        let known = self.read(store, cluster).is_some_and(misses);
        self.update(store, cluster, |status| status.miss_gate(scope, now_secs));
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
            // A status that cannot be written refuses nobody. The next response tries again.
            _ = store.update(&upstream_status_name(self.shared_name(cluster)), change);
        }
    }

    /// The name that a cluster's status has.
    fn shared_name<'a>(&self, cluster: &'a str) -> &'a str {
        let own = self
            .0
            .try_borrow()
            .is_ok_and(|clusters| clusters.contains_key(cluster) || clusters.len() < MAX_CLUSTERS);
        if own { cluster } else { OTHER }
    }

    /// Remembers a verdict. Returns whether it differs from the one remembered, or that is too old.
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

/// Writes a verdict. Returns the verdict before, of any worker, and since when the current one holds; `None` if nothing
/// can be written.
fn write<H: Host>(
    store: &RecordStore<'_, H>,
    cluster: &str,
    outcome: Outcome<'_>,
) -> Option<(Option<Verdict>, u64)> {
    if !store.is_available() {
        return None;
    }
    let update = |status: &mut UpstreamStatus| {
        let before = status.verdict();
        let since_secs = match (outcome.verdict, outcome.withheld) {
            (Verdict::Refused(reason), Some((upstream, scope))) => {
                status.withhold(reason, upstream, scope, outcome.now_secs)
            }
            (verdict, _) => status.record(verdict, outcome.now_secs),
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
        statuses: Statuses,
        metrics: Metrics,
    }

    impl Worker {
        fn new(store: &MemoryStore) -> Self {
            let host = MemoryHost::new(store.clone());
            Self { host, statuses: Statuses::default(), metrics: Metrics::default() }
        }

        fn record(&self, cluster: &str, verdict: Verdict, now_secs: u64) {
            let store = RecordStore::new(&self.host, Rules::Envoy);
            let outcome = Outcome { verdict, withheld: None, skip_until_secs: None, now_secs };
            self.statuses.record(&self.host, &store, &self.metrics, cluster, outcome);
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
        one.record("a", Verdict::Verified, 100);
        other.record("a", PIN, 101);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(0), Some(101)));
        one.record("a", Verdict::Verified, 109);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(0), Some(101)));
        one.record("a", Verdict::Verified, 110);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(110), Some(0)));
        // A clock that goes back is no reason to trust what is remembered.
        other.record("a", PIN, 111);
        one.record("a", Verdict::Verified, 90);
        assert_eq!((one.since(Verdict::Verified), one.since(PIN)), (Some(90), Some(0)));
    }

    #[test]
    fn clusters_that_are_too_many_share_a_standing() {
        let worker = Worker::new(&MemoryStore::new(Rules::Envoy));
        assert!(worker.statuses.is_empty());
        for cluster in 0..=MAX_CLUSTERS {
            assert_eq!(worker.statuses.0.borrow().len(), cluster);
            worker.record(&cluster.to_string(), Verdict::Verified, 100);
        }
        assert_eq!(worker.statuses.0.borrow().len(), MAX_CLUSTERS + 1);
        assert!(worker.statuses.0.borrow().contains_key(OTHER));
    }
}
