//! What the clusters of attempts are: their stamps are remembered for a moment, for certificates that were seen in them.

use std::cell::{OnceCell, RefCell};

use crate::host::{Host, Property, text_property};
use crate::time::secs;
use crate::upstream_tls::Stamp;

/// How long a stamp is remembered, in seconds. A change of the metadata is seen before that: it gives the cluster new
/// connections, and the first attempt on a new connection asks again.
const REMEMBERED_SECS: u64 = 1;

/// The most clusters that are remembered. All are forgotten when there are more.
const MAX_CLUSTERS: usize = 64;

/// The most certificates that are remembered of a cluster.
const MAX_CERTIFICATES: usize = 16;

/// The stamps of the clusters that were seen. The name of the cluster is read for each attempt: the route may have changed
/// since it was checked, and upstreams of two clusters may have one certificate.
#[derive(Default)]
pub(in crate::gate) struct Clusters(RefCell<Vec<Known>>);

struct Known {
    name: String,
    stamp: Option<Stamp>,
    /// Digests, and when their connections were seen, Unix seconds.
    certificates: Vec<(String, u64)>,
}

/// The cluster of an attempt. What is not known yet is read when it is needed.
pub(in crate::gate) struct AttemptCluster<'a, H> {
    host: &'a H,
    name: OnceCell<Option<String>>,
    stamp: OnceCell<Option<Stamp>>,
    is_recalled: bool,
}

impl Clusters {
    /// The cluster of an attempt on a connection with this certificate. Its stamp is not read if it is remembered.
    pub(in crate::gate) fn of_attempt<'a, H: Host>(
        &self,
        host: &'a H,
        digest: &str,
        now: u64,
    ) -> AttemptCluster<'a, H> {
        let shown = AttemptCluster::shown(host);
        match shown.name().and_then(|name| self.stamp(name, digest, now)) {
            Some(stamp) => AttemptCluster { stamp: stamp.into(), is_recalled: true, ..shown },
            None => shown,
        }
    }

    /// The stamp of a cluster, if this certificate was seen in it.
    fn stamp(&self, name: &str, digest: &str, now: u64) -> Option<Option<Stamp>> {
        let all = self.0.try_borrow().ok()?;
        let known = all.iter().find(|known| known.name == name)?;
        // Without a clock, nothing would be forgotten.
        let fresh = |at: u64| now.abs_diff(at) < REMEMBERED_SECS && now < secs(u64::MAX);
        known.certificates.iter().find(|(of, at)| of == digest && fresh(*at))?;
        Some(known.stamp.clone())
    }

    /// Forgets a cluster whose stamp has changed.
    pub(in crate::gate) fn compare<H: Host>(&self, shown: &AttemptCluster<'_, H>) {
        let (name, stamp) = (shown.name(), shown.stamp());
        if let Ok(mut all) = self.0.try_borrow_mut() {
            all.retain(|known| Some(&known.name) != name || known.stamp.as_ref() == stamp);
        }
    }

    /// Remembers the cluster of a connection that was checked.
    pub(in crate::gate) fn remember<H: Host>(
        &self,
        digest: &str,
        cluster: &AttemptCluster<'_, H>,
        now: u64,
    ) {
        let (Some(name), stamp) = (cluster.name().cloned(), cluster.stamp().cloned()) else {
            return;
        };
        let Ok(mut all) = self.0.try_borrow_mut() else {
            return;
        };
        let place = all.iter().position(|known| known.name == name);
        let known = place.map(|place| all.swap_remove(place)).filter(|known| known.stamp == stamp);
        let mut known = known.unwrap_or_else(|| Known { name, stamp, certificates: Vec::new() });
        known.certificates.retain(|(of, _)| of != digest);
        if known.certificates.len() >= MAX_CERTIFICATES {
            known.certificates.clear();
        }
        known.certificates.push((digest.to_owned(), now));
        if all.len() >= MAX_CLUSTERS {
            all.clear();
        }
        all.push(known);
    }
}

impl<'a, H: Host> AttemptCluster<'a, H> {
    /// The cluster that the host shows.
    pub(in crate::gate) fn shown(host: &'a H) -> Self {
        Self { host, name: OnceCell::new(), stamp: OnceCell::new(), is_recalled: false }
    }

    /// Whether its stamp was remembered.
    pub(in crate::gate) fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// Its name.
    pub(in crate::gate) fn name(&self) -> Option<&String> {
        self.name.get_or_init(|| text_property(self.host, Property::ClusterName)).as_ref()
    }

    /// Its stamp.
    pub(in crate::gate) fn stamp(&self) -> Option<&Stamp> {
        let read = || Stamp::from_metadata(&self.host.property(Property::ClusterMetadata)?);
        self.stamp.get_or_init(read).as_ref()
    }
}
