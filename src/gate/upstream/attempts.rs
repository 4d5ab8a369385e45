//! The check of an attempt before any of it is sent.
//!
//! Most attempts go over a connection of the pool, in a cluster and with a certificate that were seen a moment ago. For
//! them the host is asked for four properties: what the gate of the listener has written, the name of the cluster, the
//! digest of the certificate and the version of TLS. These are of the attempt itself, so nothing that another one showed is
//! relied on.

use crate::decision::DenyReason;
use crate::host::Host;
use crate::upstream_tls::{Carried, Demand, UpstreamHost, Verdict};

use super::clusters::AttemptCluster;
use super::connection::{HostConnection, connection_id, is_up, local_address};
use super::credentials::{Granted, attached};
use super::turn::Turn;
use super::verdicts::{Conclusion, Upstreams};

/// An attempt whose connection is up.
struct Checking<'a, H> {
    host: &'a H,
    turn: &'a Turn,
    upstream: &'a UpstreamHost<'a>,
    cluster: &'a AttemptCluster<'a, H>,
    now_secs: u64,
}

impl Upstreams {
    /// Checks the current attempt before any of it is sent. `None` while its connection is not up: until then the
    /// authority may change (`auto_host_rewrite`). `grant` finds the credential that the request may have for its
    /// authority.
    pub(in crate::gate) fn check_attempt(
        &self,
        host: &impl Host,
        turn: &Turn,
        grant: impl FnOnce(&[u8]) -> Option<Granted>,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let connection = HostConnection::new(host, &self.names);
        let address = place(host, turn, &connection)?;
        let authority = host.authority().unwrap_or_default();
        let upstream = UpstreamHost::parse_attempt(&authority);
        // A new connection may be that of a cluster that has changed.
        let is_pooled = turn.handover().is_some() && !turn.has_waited();
        let cluster = match is_pooled.then(|| connection.digest()).flatten() {
            Some(digest) => self.clusters.of_attempt(host, digest, now_secs),
            None => AttemptCluster::shown(host),
        };
        let attempt = Checking { host, turn, upstream: &upstream, cluster: &cluster, now_secs };
        let grant = grant(&authority);
        let conclusion = self.check_connected(&attempt, connection, grant)?;
        let name = match conclusion.verdict {
            Verdict::Unlisted => None,
            _ => cluster.name().cloned(),
        };
        Some(Conclusion { address, grant, cluster: name, ..conclusion })
    }

    fn check_connected<H: Host>(
        &self,
        attempt: &Checking<'_, H>,
        connection: HostConnection<'_, H>,
        grant: Option<Granted>,
    ) -> Option<Conclusion> {
        let &Checking { host, turn, upstream, cluster, now_secs } = attempt;
        let verifies = matches!(self.policy.demand(upstream, now_secs), Demand::Verify(_));
        if *upstream == UpstreamHost::Unreadable && verifies {
            return Some(Conclusion::refused(DenyReason::UpstreamName));
        }
        if turn.handover().is_some() {
            self.clusters.compare(cluster);
        }
        let stamp = cluster.stamp();
        let stamped = stamp.is_some_and(|stamp| stamp.holds_for(self.digest(), upstream));
        // A stamp without hosts is that of a cluster whose host is skipped.
        if stamp.is_some_and(|stamp| !stamp.hosts.is_empty() && !stamp.is_for(upstream)) {
            return Some(Conclusion::refused(DenyReason::UpstreamName));
        }
        if self.require_stamp && !stamped {
            return Some(Conclusion::refused(DenyReason::UpstreamUnproven));
        }
        let withheld = || {
            let status = self.status(host, cluster.name()?, now_secs)?;
            status.refusal(upstream, true, now_secs)
        };
        if let Some(reason) = verifies.then(withheld).flatten() {
            return Some(Conclusion::refused(reason));
        }
        let carried = || match grant.map(|granted| granted.carried) {
            Some(Carried::VERIFIED_ONLY) => Carried::VERIFIED_ONLY,
            granted => attached(host, turn.words(), upstream).and(granted.unwrap_or_default()),
        };
        let conclusion =
            self.check_connection(connection, upstream, || stamped, carried, now_secs)?;
        self.remember(attempt, &conclusion);
        Some(conclusion)
    }

    /// Remembers the cluster of a connection that passed.
    fn remember<H: Host>(&self, attempt: &Checking<'_, H>, conclusion: &Conclusion) {
        let &Checking { turn, cluster, now_secs, .. } = attempt;
        let passed = matches!(conclusion.verdict, Verdict::Verified | Verdict::Stamped);
        let digest = conclusion.passage.as_ref().and_then(|passage| passage.fingerprint.digest());
        let is_new = passed && turn.handover().is_some() && !cluster.is_recalled();
        if let Some(digest) = digest.filter(|_| is_new) {
            self.clusters.remember(digest, cluster, now_secs);
        }
    }
}

/// What tells the connection of an attempt from those of others; `None` while it is not up. A certificate shows that the
/// handshake is done, and the turn of an attempt tells its connection from others without an address.
fn place<H: Host>(host: &H, turn: &Turn, connection: &HostConnection<'_, H>) -> Option<String> {
    if turn.handover().is_some() && connection.digest().is_some() {
        return Some(String::new());
    }
    let address = local_address(host);
    if !address.is_empty() {
        return Some(address);
    }
    is_up(host).then(|| connection_id(host))
}
