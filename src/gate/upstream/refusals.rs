//! Which clusters are refused for now, read again only when a worker has changed that.

use std::cell::{OnceCell, RefCell};

use crate::host::{Host, MetricKind};
use crate::upstream_tls::UpstreamStatus;

/// Counts the changes. Reading it hands over no bytes, so it costs a tenth of reading a record.
const CHANGES: &str = "vkey_upstream_tls_refusals_total";

/// How long a status is remembered, in seconds. A worker of another VM may count its changes elsewhere: before Envoy 1.39
/// the metrics of a cluster's filters are the cluster's own.
const REMEMBERED_SECS: u64 = 1;

/// The most statuses that are remembered. All are forgotten when there are more.
const MAX_CLUSTERS: usize = 64;

/// The statuses that this worker has read.
#[derive(Default)]
pub(in crate::gate) struct Refusals {
    changes: OnceCell<Option<u32>>,
    known: RefCell<Vec<(String, Known)>>,
}

#[derive(Clone, Copy)]
struct Known {
    status: Option<UpstreamStatus>,
    /// The number of changes before it was read.
    changes: u64,
    at_secs: u64,
}

impl Refusals {
    /// The status of a cluster, which `read` reads.
    pub(in crate::gate) fn status<H: Host>(
        &self,
        host: &H,
        read: impl FnOnce() -> Option<UpstreamStatus>,
        cluster: &str,
        now_secs: u64,
    ) -> Option<UpstreamStatus> {
        let Some(changes) = self.number(host).and_then(|number| host.metric(number).ok()) else {
            return read();
        };
        let is_current = |known: &Known| {
            known.changes == changes && now_secs.abs_diff(known.at_secs) < REMEMBERED_SECS
        };
        if let Some(known) = self.known(cluster).filter(is_current) {
            return known.status;
        }
        let status = read();
        if let Ok(mut all) = self.known.try_borrow_mut() {
            all.retain(|(name, _)| name != cluster);
            if all.len() >= MAX_CLUSTERS {
                all.clear();
            }
            all.push((cluster.to_owned(), Known { status, changes, at_secs: now_secs }));
        }
        status
    }

    fn known(&self, cluster: &str) -> Option<Known> {
        let all = self.known.try_borrow().ok()?;
        all.iter().find(|(name, _)| name == cluster).map(|(_, known)| *known)
    }

    /// Tells all workers that a status changed what is refused.
    pub(in crate::gate) fn announce(&self, host: &impl Host) {
        if let Some(number) = self.number(host) {
            _ = host.increment_metric(number, 1);
        }
    }

    /// The host must not be called while the cell is initialised: it may call back.
    fn number(&self, host: &impl Host) -> Option<u32> {
        if self.changes.get().is_none() {
            _ = self.changes.set(host.define_metric(MetricKind::Counter, CHANGES).ok());
        }
        self.changes.get().copied().flatten()
    }
}
