//! What the clusters of attempts are: remembered for a moment for certificates that were seen in them.

use std::cell::{OnceCell, RefCell};

use crate::host::{Host, Property, text_property};
use crate::time::secs;
use crate::upstream_tls::Stamp;

/// How long a cluster is remembered, in seconds. A change of its metadata is seen before that: it gives the cluster new
/// connections, and the first attempt on a new connection asks again.
const REMEMBERED_SECS: u64 = 1;

/// The most clusters that are remembered. All are forgotten when there are more.
const MAX_CLUSTERS: usize = 64;

/// The most certificates that are remembered of a cluster.
const MAX_CERTIFICATES: usize = 16;

/// The clusters that were seen, by the name that the route was checked against.
///
/// That name alone would prove nothing: the route may have changed since. So a cluster is remembered together with the
/// digests of the certificates that its connections had. Whoever presents a certificate has its private key, so an upstream
/// of another cluster is not taken for one of this cluster.
#[derive(Default)]
pub(in crate::gate) struct Clusters(RefCell<Vec<Known>>);

struct Known {
    checked: String,
    cluster: Facts,
    /// Digests, and when their connections were seen, Unix seconds.
    certificates: Vec<(String, u64)>,
}

/// What a host shows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    name: Option<String>,
    stamp: Option<Stamp>,
}

/// The cluster of an attempt. What is not known yet is read when it is needed.
pub(in crate::gate) struct AttemptCluster<'a, H> {
    host: &'a H,
    name: OnceCell<Option<String>>,
    stamp: OnceCell<Option<Stamp>>,
    is_recalled: bool,
}

impl Clusters {
    /// The cluster of an attempt whose route was checked against `checked`, if this certificate was seen in it.
    pub(in crate::gate) fn recall<'a, H: Host>(
        &self,
        host: &'a H,
        checked: &str,
        digest: &str,
        now: u64,
    ) -> Option<AttemptCluster<'a, H>> {
        let all = self.0.try_borrow().ok()?;
        let known = all.iter().find(|known| known.checked == checked)?;
        // Without a clock, nothing would be forgotten.
        let fresh = |at: u64| now.abs_diff(at) < REMEMBERED_SECS && now < secs(u64::MAX);
        known.certificates.iter().find(|(of, at)| of == digest && fresh(*at))?;
        let Facts { name, stamp } = known.cluster.clone();
        Some(AttemptCluster { host, name: name.into(), stamp: stamp.into(), is_recalled: true })
    }

    /// Forgets a cluster whose stamp has changed.
    pub(in crate::gate) fn compare<H: Host>(&self, checked: &str, shown: &AttemptCluster<'_, H>) {
        let stamp = shown.stamp();
        if let Ok(mut all) = self.0.try_borrow_mut() {
            all.retain(|known| known.checked != checked || known.cluster.stamp.as_ref() == stamp);
        }
    }

    /// Remembers the cluster of a connection that was checked.
    pub(in crate::gate) fn remember<H: Host>(
        &self,
        checked: &str,
        digest: &str,
        cluster: &AttemptCluster<'_, H>,
        now: u64,
    ) {
        let facts = Facts { name: cluster.name().cloned(), stamp: cluster.stamp().cloned() };
        let Ok(mut all) = self.0.try_borrow_mut() else {
            return;
        };
        let place = all.iter().position(|known| known.checked == checked);
        let known =
            place.map(|place| all.swap_remove(place)).filter(|known| known.cluster == facts);
        let new =
            || Known { checked: checked.to_owned(), cluster: facts, certificates: Vec::new() };
        let mut known = known.unwrap_or_else(new);
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

    /// Whether it was remembered.
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
