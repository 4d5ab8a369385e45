//! Upstreams: what both gates know of them, and how a connection to one is judged.

use crate::config::UpstreamTls;
use crate::decision::DenyReason;
use crate::exchange::{ATTACHED, Route};
use crate::gate::metrics::Metrics;
use crate::gate::resets::Resets;
use crate::host::{FilterState, Host, Level, Property, RecordStore, text_property};
use crate::record::{Name, Record, take};
use crate::time::secs;
use crate::upstream_tls::{
    Demand, EffectivePolicy, Policy, RefusalScope, Stamp, UpstreamHost, Verdict,
};

use super::connection::{
    Fingerprint, HostConnection, NameCache, connection_id, is_own_answer, is_up, local_address,
};
use super::credentials::credential_words;
use super::standings::{Judged, Standings};

/// The policy in force on one root context, and what became known under it.
pub(in crate::gate) struct Upstreams {
    policy: EffectivePolicy,
    require_stamp: bool,
    require_gate: bool,
    names: NameCache,
    standings: Standings,
    resets: Resets,
}

/// What a connection comes to.
pub(in crate::gate) struct Conclusion {
    pub(in crate::gate) verdict: Verdict,
    /// The connection, where it was that which was judged.
    pub(in crate::gate) passage: Option<Passage>,
    /// The proxy's end of the connection, where there is one and it has one.
    pub(in crate::gate) address: String,
    /// When the policy's exception ends, where there is one.
    pub(in crate::gate) skip_until_secs: Option<u64>,
    /// The credential that the attempt may have.
    pub(in crate::gate) grant: Option<usize>,
}

/// A connection that was judged, and the host that it was judged for.
#[derive(Debug)]
pub(in crate::gate) struct Passage {
    pub(in crate::gate) fingerprint: Fingerprint,
    pub(in crate::gate) upstream: UpstreamHost<'static>,
}

/// Whether the gate of a cluster was ever configured.
#[derive(Default)]
struct Presence(bool);

impl Upstreams {
    pub(in crate::gate) fn new(policy: Policy, settings: &UpstreamTls) -> Self {
        Self {
            policy: EffectivePolicy::new(policy, settings.tighten.clone()),
            require_stamp: settings.require_stamp,
            require_gate: settings.require_gate,
            names: NameCache::default(),
            standings: Standings::default(),
            resets: Resets::default(),
        }
    }

    /// SHA-256 of the policy that is compiled in.
    pub(in crate::gate) fn digest(&self) -> &str {
        self.policy.file().digest()
    }

    /// Whether the policy verifies connections to a host.
    pub(in crate::gate) fn verifies(&self, host: &UpstreamHost<'_>, now_secs: u64) -> bool {
        matches!(self.policy.demand(host, now_secs), Demand::Verify(_))
    }

    /// Whether the configuration adds rules for a host.
    pub(in crate::gate) fn tightens(&self, host: &UpstreamHost<'_>) -> bool {
        self.policy.tighten().iter().any(|rule| rule.host.matches(host))
    }

    /// Judges the route of a request, as far as can be told before its connection is chosen.
    /// `in_front`: a provider's credential was attached to it.
    ///
    /// # Errors
    ///
    /// [`DenyReason::UpstreamUnproven`] where the cluster needs a stamp or a gate and has none, and the
    /// reason for which the cluster is refused for now.
    pub(in crate::gate) fn judge_route<H: Host>(
        &self,
        host: &H,
        upstream: &UpstreamHost<'_>,
        in_front: bool,
        now_secs: u64,
    ) -> Result<Route, DenyReason> {
        let demand = self.policy.demand(upstream, now_secs);
        let verified = matches!(demand, Demand::Verify(_));
        // nginx shows nothing of its connections, and what it sends cannot be called back.
        let shows_nothing = verified && host.is_nginx();
        let unjudged = in_front && !demand.is_listed();
        let needs_stamp = self.require_stamp || shows_nothing || unjudged;
        // No certificate is for a host that can be read in two ways, and no response can be let through.
        if *upstream == UpstreamHost::Unreadable && verified {
            return Err(DenyReason::UpstreamName);
        }
        if needs_stamp && stamp(host).is_none_or(|stamp| stamp.policy != self.digest()) {
            return Err(DenyReason::UpstreamUnproven);
        }
        // The host that the client names need not be the one that the upstream is asked for.
        let asks = verified || needs_stamp || !self.standings.is_empty();
        let cluster = asks.then(|| text_property(host, Property::ClusterName)).flatten();
        let judged = verified || needs_stamp || in_front;
        if let Some(cluster) = &cluster
            && let Some(reason) = self.refusal(host, cluster, upstream, judged, now_secs)
        {
            return Err(reason);
        }
        let expected = demand.is_listed() || in_front;
        let upstream = expected.then(|| upstream.clone().into_owned());
        Ok(Route { upstream, cluster, verified, needs_stamp, in_front })
    }

    /// Why requests for a host are refused at once by a cluster, where they are. `judged`: the route
    /// depends on the upstream.
    fn refusal<H: Host>(
        &self,
        host: &H,
        cluster: &str,
        upstream: &UpstreamHost<'_>,
        judged: bool,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let standing = self.with_records(host, |store| self.standings.read(store, cluster))?;
        standing.refusal(upstream, judged, now_secs).or_else(|| {
            let ungated = self.require_gate && standing.misses_gate(judged, now_secs);
            (ungated && !self.is_stamped(host, upstream)).then_some(DenyReason::UpstreamUnproven)
        })
    }

    /// Judges the route that a request took in the end, where that is another than the one judged before:
    /// the module's own edits can change it. Why it should not have been taken.
    pub(in crate::gate) fn judge_taken_route<H: Host>(
        &self,
        host: &H,
        route: &Route,
        named: &UpstreamHost<'_>,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let judged = route.cluster.as_deref()?;
        let taken = text_property(host, Property::ClusterName).unwrap_or_default();
        // Where Envoy finds no route any more, or no connection comes up, it answers itself.
        if taken == judged || (is_own_answer(host) && !is_up(host)) {
            return None;
        }
        let reason = self.judge_route(host, named, route.in_front, now_secs).err()?;
        self.with_records(host, |store| {
            self.standings.withhold(store, judged, reason, named, now_secs);
        });
        Some(reason)
    }

    /// Records that a request for a host was sent to a cluster without a gate, where it needs one: for the
    /// cluster that it was sent to, and for the one that its route was judged by. `upstream`: the host that
    /// was asked.
    pub(in crate::gate) fn miss_gate<H: Host>(
        &self,
        host: &H,
        route: &Route,
        upstream: &UpstreamHost<'_>,
        scope: RefusalScope,
        now_secs: u64,
    ) {
        let verified = self.verifies(upstream, now_secs);
        let needed = self.require_gate && verified;
        if !needed || self.is_stamped(host, upstream) {
            return;
        }
        let taken = text_property(host, Property::ClusterName);
        let judged = route.cluster.as_ref();
        let judged = judged.filter(|judged| taken.as_ref() != Some(judged));
        for cluster in taken.iter().chain(judged) {
            self.with_records(host, |store| {
                self.standings.miss_gate(host, store, cluster, scope, now_secs);
            });
        }
    }

    /// Judges the attempt that the host is at before anything of it leaves. `None` while its connection
    /// is not up: until then the authority may change (`auto_host_rewrite`).
    /// `grant` finds the credential that the request may have for its authority.
    pub(in crate::gate) fn judge_attempt(
        &self,
        host: &impl Host,
        grant: impl FnOnce(&[u8]) -> Option<usize>,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let address = local_address(host);
        if address.is_empty() && !is_up(host) {
            return None;
        }
        let address = if address.is_empty() { connection_id(host) } else { address };
        let authority = host.authority().unwrap_or_default();
        let grant = grant(&authority);
        let conclusion = self.judge_connected(host, &authority, grant.is_some(), now_secs)?;
        Some(Conclusion { address, grant, ..conclusion })
    }

    fn judge_connected(
        &self,
        host: &impl Host,
        authority: &[u8],
        has_grant: bool,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let upstream = UpstreamHost::parse_attempt(authority);
        let verifies = matches!(self.policy.demand(&upstream, now_secs), Demand::Verify(_));
        if upstream == UpstreamHost::Unreadable && verifies {
            return Some(Conclusion::refused(DenyReason::UpstreamName));
        }
        let stamp = stamp(host);
        let stamped = stamp.as_ref().is_some_and(|s| s.vouches(self.digest(), &upstream));
        // A stamp for no host at all is that of a cluster whose host is skipped.
        if stamp.is_some_and(|stamp| !stamp.hosts.is_empty() && !stamp.is_for(&upstream)) {
            return Some(Conclusion::refused(DenyReason::UpstreamName));
        }
        if self.require_stamp && !stamped {
            return Some(Conclusion::refused(DenyReason::UpstreamUnproven));
        }
        if let Some(reason) = verifies.then(|| self.withheld(host, &upstream, now_secs)).flatten() {
            return Some(Conclusion::refused(reason));
        }
        let carries_credential = || has_grant || carries_credential(host);
        self.judge_connection(host, &upstream, || stamped, carries_credential, now_secs)
    }

    /// Why a host that the policy verifies is refused for now by the cluster of an attempt.
    fn withheld(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let cluster = text_property(host, Property::ClusterName)?;
        let standing = self.with_records(host, |store| self.standings.read(store, &cluster))?;
        standing.refusal(upstream, true, now_secs)
    }

    /// Reads or writes records, and reports those that had to begin anew.
    fn with_records<H: Host, T>(&self, host: &H, act: impl FnOnce(&RecordStore<'_, H>) -> T) -> T {
        let store = RecordStore::new(host, host.rules());
        let result = act(&store);
        self.resets.report(host, &store);
        result
    }

    /// Judges the connection of an answer that no gate of a cluster has judged. `None` where there is
    /// none: the answer is the proxy's own.
    pub(in crate::gate) fn judge_answer(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        carries_credential: bool,
        now_secs: u64,
    ) -> Option<Conclusion> {
        self.judge_ended(host, upstream, carries_credential, now_secs).or_else(|| {
            if is_own_answer(host) {
                return None;
            }
            // An answer came, and the host does not say over which connection.
            let verdict = match self.is_stamped(host, upstream) {
                true => Verdict::Stamped,
                false => Verdict::Refused(DenyReason::UpstreamUnproven),
            };
            Some(Conclusion::of_policy(verdict, None))
        })
    }

    /// Judges a connection that the gate of its cluster has let pass, by the rules for the host that the
    /// client named; what is refused. The gate has seen that its certificate bears the name of the host
    /// that was asked in the end.
    pub(in crate::gate) fn judge_again(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let Demand::Verify(requirement) = self.policy.demand(upstream, now_secs) else {
            return None;
        };
        let connection = HostConnection::new(host, &self.names).named();
        let verdict =
            requirement.evaluate(upstream, &connection, self.is_stamped(host, upstream))?;
        verdict.refusal().map(Conclusion::refused)
    }

    /// Judges the connection of a request that has ended, with a provider's credential or without.
    /// `None` where the host shows none.
    pub(in crate::gate) fn judge_ended(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        carries_credential: bool,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let stamped = || self.is_stamped(host, upstream);
        self.judge_connection(host, upstream, stamped, || carries_credential, now_secs)
    }

    /// Judges the connection that the host shows; `None` where it shows none. With a provider's credential
    /// no host goes unjudged.
    fn judge_connection(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        stamped: impl FnOnce() -> bool,
        carries_credential: impl FnOnce() -> bool,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let requirement = match self.policy.demand(upstream, now_secs) {
            Demand::Unlisted if carries_credential() => self.policy.default_requirement(),
            Demand::Unlisted => return Some(Conclusion::of_policy(Verdict::Unlisted, None)),
            Demand::Skip(skip) => {
                return Some(Conclusion::of_policy(Verdict::Skip, Some(skip.until_secs)));
            }
            Demand::Verify(requirement) => requirement,
        };
        let connection = HostConnection::new(host, &self.names);
        let verdict = requirement.evaluate(upstream, &connection, stamped())?;
        let fingerprint = connection.fingerprint();
        let passage = Passage { fingerprint, upstream: upstream.clone().into_owned() };
        Some(Conclusion { passage: Some(passage), ..Conclusion::of_policy(verdict, None) })
    }

    /// Whether the cluster's stamp is that of the policy, and for a host.
    fn is_stamped(&self, host: &impl Host, upstream: &UpstreamHost<'_>) -> bool {
        stamp(host).is_some_and(|stamp| stamp.vouches(self.digest(), upstream))
    }

    /// The fingerprint of the connection that the host shows.
    pub(in crate::gate) fn fingerprint(&self, host: &impl Host) -> Fingerprint {
        HostConnection::new(host, &self.names).fingerprint()
    }

    /// Records what an attempt or a response came to. `withheld`: the host for which a request had left
    /// before it was refused, and which requests are refused for that.
    pub(in crate::gate) fn record<H: Host>(
        &self,
        host: &H,
        metrics: &Metrics,
        conclusion: &Conclusion,
        withheld: Option<(&UpstreamHost<'_>, RefusalScope)>,
        now_secs: u64,
    ) {
        if conclusion.verdict == Verdict::Unlisted {
            return;
        }
        let Conclusion { verdict, skip_until_secs, .. } = *conclusion;
        let judged = Judged { verdict, withheld, skip_until_secs, now_secs };
        self.with_records(host, |store| self.standings.judge(host, store, metrics, judged));
    }

    /// Tells all workers that a cluster has a gate.
    pub(in crate::gate) fn announce<H: Host>(&self, host: &H) {
        self.with_records(host, |store| {
            if store.is_available() {
                // Nothing but a warning depends on it.
                _ = store.update(&presence_name(), |presence: &mut Presence| presence.0 = true);
            }
        });
    }

    /// Says at the start what is enforced, and what is not.
    /// `is_nginx`: no connection to an upstream will show.
    pub(in crate::gate) fn explain<H: Host>(&self, host: &H, is_nginx: bool) {
        let file = self.policy.file();
        let (known, rules) = (file.known_hosts().len(), file.upstreams().len());
        let text = format!(
            "vkey: upstream TLS policy {} is in force: {known} known hosts, {rules} rules, {} more by \
             the configuration",
            self.digest(),
            self.policy.tighten().len(),
        );
        host.log(Level::Info, &text);
        if is_nginx {
            host.log(Level::Warn, SHOWS_NOTHING);
        } else if !self.is_announced(host) {
            host.log(Level::Warn, NO_GATE);
        }
    }

    fn is_announced<H: Host>(&self, host: &H) -> bool {
        self.with_records(host, |store| {
            store.is_available() && store.read(&presence_name()).is_ok_and(|Presence(there)| there)
        })
    }
}

const NO_GATE: &str = "vkey: upstream TLS: no cluster has the module as its upstream filter (under this \
    vm_id). Enforced: an answer over a connection that breaks the policy is withheld, and its cluster \
    refused for a minute. Not enforced: that the request, a provider's credential with it, has not left \
    by then. `vkey tls render` writes the filter; `upstream_tls.require_stamp` refuses clusters without";

const SHOWS_NOTHING: &str = "vkey: upstream TLS: this host shows nothing of its connections to \
    upstreams, so requests to hosts that the policy judges, and those that may have a provider's credential, \
    are refused (upstream_unproven)";

impl Conclusion {
    pub(in crate::gate) fn refused(reason: DenyReason) -> Self {
        Self::of_policy(Verdict::Refused(reason), None)
    }

    fn of_policy(verdict: Verdict, skip_until_secs: Option<u64>) -> Self {
        Self { verdict, passage: None, address: String::new(), skip_until_secs, grant: None }
    }
}

impl Record for Presence {
    const VERSION: u8 = 5;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Vec<u8>) {
        record.push(self.0.into());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [there] = take(bytes)?;
        Some(Self(there != 0))
    }
}

/// The second in which a policy's dates are judged. Without a clock no exception is in force.
pub(in crate::gate) fn now_secs(now_ns: Option<u64>) -> u64 {
    secs(now_ns.unwrap_or(u64::MAX))
}

fn presence_name() -> Name {
    Name::new("g", "upstream")
}

/// Whether a provider's credential was attached to an attempt in front of its route. A mirrored request shows nothing of what its gate
/// decided, and may carry what the other carries.
fn carries_credential(host: &impl Host) -> bool {
    host.property(Property::FilterState(FilterState::Decision)).is_none()
        || credential_words(host).split(' ').any(|word| word == ATTACHED)
}

/// The stamp of the cluster that the host has chosen.
fn stamp(host: &impl Host) -> Option<Stamp> {
    Stamp::from_metadata(&host.property(Property::ClusterMetadata)?)
}
