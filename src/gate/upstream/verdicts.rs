//! Upstreams: what both gates know of them, and how a connection to one is checked.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{Hindrance, UpstreamTls};
use crate::decision::DenyReason;
use crate::exchange::{Handover, Handovers, Response, Route};
use crate::gate::metrics::Metrics;
use crate::gate::resets::Resets;
use crate::host::{Host, Level, Property, RecordStore, Rules, text_property};
use crate::time::secs;
use crate::upstream_tls::{
    Carried, Demand, EffectivePolicy, Policy, RefusalScope, Stamp, UpstreamHost, UpstreamStatus,
    Verdict,
};

use super::clusters::Clusters;
use super::connection::{Fingerprint, HostConnection, NameCache, is_local_reply, is_up};
use super::credentials::Granted;
use super::notices::{is_noticed, notice};
use super::refusals::Refusals;
use super::statuses::{Outcome, Statuses};

/// The policy of one root context, and the verdicts under it.
pub(in crate::gate) struct Upstreams {
    pub(super) policy: EffectivePolicy,
    pub(super) require_stamp: bool,
    require_gate: bool,
    pub(super) names: NameCache,
    pub(super) clusters: Clusters,
    statuses: Statuses,
    refusals: Refusals,
    resets: Resets,
    handovers: Rc<Handovers>,
    /// The last authority on whose route nothing depends: the policy has no rule for it. That does not change with time.
    unruled: RefCell<Vec<u8>>,
    /// The ends of exceptions that this VM has logged, Unix seconds.
    ended: RefCell<Vec<u64>>,
}

/// The most such ends that are logged: requests may ask for them in turns.
const MAX_ENDED: usize = 64;

/// The result of checking a connection.
pub(in crate::gate) struct Conclusion {
    pub(in crate::gate) verdict: Verdict,
    /// The connection that was checked, if the verdict is about one.
    pub(in crate::gate) passage: Option<Passage>,
    /// What tells the connection from those of other attempts. It is empty if the turn of the attempt does.
    pub(in crate::gate) address: String,
    /// The cluster, if its name was read.
    pub(in crate::gate) cluster: Option<String>,
    /// When the exception that let it pass ends, if there is one.
    pub(in crate::gate) skip_until_secs: Option<u64>,
    /// The credential that the attempt may have.
    pub(in crate::gate) grant: Option<Granted>,
}

/// A connection that was checked, and the authority that it was checked for.
#[derive(Debug)]
pub(in crate::gate) struct Passage {
    pub(in crate::gate) fingerprint: Fingerprint,
    pub(in crate::gate) upstream: UpstreamHost<'static>,
}

impl Upstreams {
    pub(in crate::gate) fn new(policy: Policy, settings: &UpstreamTls) -> Self {
        Self {
            policy: EffectivePolicy::new(policy, settings.tighten.clone()),
            require_stamp: settings.require_stamp,
            require_gate: settings.require_gate,
            names: NameCache::default(),
            clusters: Clusters::default(),
            statuses: Statuses::default(),
            refusals: Refusals::default(),
            resets: Resets::default(),
            handovers: Rc::default(),
            unruled: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    /// Shares the handovers of the VM.
    pub(in crate::gate) fn share(&mut self, handovers: &Rc<Handovers>) {
        self.handovers = Rc::clone(handovers);
    }

    /// The handovers of the VM.
    pub(in crate::gate) fn handovers(&self) -> &Rc<Handovers> {
        &self.handovers
    }

    /// Opens the handover of a request that takes this route; see [`Handovers::open`].
    pub(in crate::gate) fn hand_over(&self, now_ns: u64) -> Option<Rc<Handover>> {
        self.handovers.open(now_ns)
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

    /// The route of a request for an authority, or why nothing may be sent on it: see [`Upstreams::check_route`].
    ///
    /// # Errors
    ///
    /// Those of [`Upstreams::check_route`].
    pub(in crate::gate) fn route<H: Host>(
        &self,
        host: &H,
        authority: &[u8],
        attached: Carried,
        now_secs: u64,
    ) -> Result<Route, DenyReason> {
        if attached == Carried::Nothing && self.is_unruled(authority) {
            return Ok(Route::default());
        }
        let upstream = UpstreamHost::parse(authority);
        let route = self.check_route(host, &upstream, attached, now_secs)?;
        if attached == Carried::Nothing
            && !route.awaits_verdict
            && let Ok(mut unruled) = self.unruled.try_borrow_mut()
        {
            authority.clone_into(&mut unruled);
        }
        Ok(route)
    }

    /// Whether it is known that nothing depends on the route of an authority.
    fn is_unruled(&self, authority: &[u8]) -> bool {
        let is_known = self.unruled.try_borrow().is_ok_and(|unruled| *unruled == *authority);
        is_known && !authority.is_empty() && self.statuses.is_empty()
    }

    /// Checks the route of a request, before its connection is chosen. `attached`: the provider's credential that is
    /// attached to it.
    ///
    /// # Errors
    ///
    /// [`DenyReason::UpstreamUnproven`] if the cluster lacks a stamp or an upstream gate that it needs, or else the
    /// reason for which the cluster is refused for now.
    pub(in crate::gate) fn check_route<H: Host>(
        &self,
        host: &H,
        upstream: &UpstreamHost<'_>,
        attached: Carried,
        now_secs: u64,
    ) -> Result<Route, DenyReason> {
        let in_front = attached.is_credential();
        let demand = self.policy.demand(upstream, now_secs);
        let verified = demand.is_verified();
        // nginx shows nothing of its connections, and a sent request cannot be recalled.
        let shows_nothing = verified && host.is_nginx();
        let uncovered = attached.needs_stamp(&demand, now_secs);
        let needs_stamp = self.require_stamp || shows_nothing || uncovered;
        // No certificate matches an ambiguous authority, so no response could pass.
        if *upstream == UpstreamHost::Unreadable && verified {
            return Err(DenyReason::UpstreamName);
        }
        if needs_stamp && stamp(host).is_none_or(|stamp| stamp.policy != self.digest()) {
            return Err(DenyReason::UpstreamUnproven);
        }
        // The authority that the client names may be rewritten before it is sent.
        let asks = verified || needs_stamp || !self.statuses.is_empty();
        let cluster = asks.then(|| text_property(host, Property::ClusterName)).flatten();
        let checked = verified || needs_stamp || in_front;
        if let Some(cluster) = &cluster
            && let Some(reason) = self.refusal(host, cluster, upstream, checked, now_secs)
        {
            return Err(reason);
        }
        let expected = demand.is_covered() || in_front;
        let upstream = expected.then(|| upstream.clone().into_owned());
        let awaits_verdict =
            expected || needs_stamp || !self.statuses.is_empty() || host.rules() == Rules::Bare;
        Ok(Route { upstream, cluster, verified, needs_stamp, attached, awaits_verdict })
    }

    /// Why requests for a host are refused at once by a cluster, where they are. `checked`: the route
    /// depends on the upstream.
    fn refusal<H: Host>(
        &self,
        host: &H,
        cluster: &str,
        upstream: &UpstreamHost<'_>,
        checked: bool,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let status = self.status(host, cluster, now_secs)?;
        status.refusal(upstream, checked, now_secs).or_else(|| {
            let ungated = self.require_gate && status.misses_gate(checked, now_secs);
            (ungated && !self.is_stamped(host, upstream)).then_some(DenyReason::UpstreamUnproven)
        })
    }

    /// The status of a cluster; `None` if it cannot be read.
    pub(super) fn status<H: Host>(
        &self,
        host: &H,
        cluster: &str,
        now_secs: u64,
    ) -> Option<UpstreamStatus> {
        let read = || self.with_records(host, |store| self.statuses.read(store, cluster));
        self.refusals.status(host, read, cluster, now_secs)
    }

    /// Checks the route that a request took, if it differs from the one checked before: the edits of the module can
    /// change it. Returns why the route should not have been taken.
    pub(in crate::gate) fn check_taken_route<H: Host>(
        &self,
        host: &H,
        route: &Route,
        named: &UpstreamHost<'_>,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let checked = route.cluster.as_deref()?;
        let taken = text_property(host, Property::ClusterName).unwrap_or_default();
        // If Envoy no longer finds a route, or cannot connect, it replies itself.
        if taken == checked || (is_local_reply(host) && !is_up(host)) {
            return None;
        }
        let reason = self.check_route(host, named, route.attached, now_secs).err()?;
        self.with_records(host, |store| {
            self.statuses.withhold(store, checked, reason, named, now_secs);
        });
        self.refusals.announce(host);
        Some(reason)
    }

    /// Records that a request was sent to a cluster without an upstream gate although it needs one: for that cluster,
    /// and for the one that its route was checked against. `upstream`: the authority that was sent.
    pub(in crate::gate) fn record_missing_gate<H: Host>(
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
        let checked = route.cluster.as_ref().filter(|checked| taken.as_ref() != Some(checked));
        for cluster in taken.iter().chain(checked) {
            self.with_records(host, |store| {
                self.statuses.record_missing_gate(host, store, cluster, scope, now_secs);
            });
            self.refusals.announce(host);
        }
    }

    /// Reads or writes records, and reports those that were reset.
    fn with_records<H: Host, T>(&self, host: &H, act: impl FnOnce(&RecordStore<'_, H>) -> T) -> T {
        let store = RecordStore::new(host, host.rules());
        let result = act(&store);
        self.resets.report(host, &store);
        result
    }

    /// Checks the connection of a response that no upstream gate has checked. `None` if there is no connection: the
    /// response is a local reply.
    pub(in crate::gate) fn check_ungated(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        carried: Carried,
        now_secs: u64,
    ) -> Option<Conclusion> {
        self.check_ended(host, upstream, carried, now_secs).or_else(|| {
            if is_local_reply(host) {
                return None;
            }
            // A response came, and the host does not show its connection.
            let unlisted = matches!(self.policy.demand(upstream, now_secs), Demand::Unlisted);
            let verdict = match self.is_stamped(host, upstream) {
                true => Verdict::Stamped,
                false if unlisted && carried.may_be_plaintext(now_secs) => Verdict::Plaintext,
                false => Verdict::Refused(DenyReason::UpstreamUnproven),
            };
            Some(Conclusion::of_policy(verdict, None))
        })
    }

    /// Checks a connection that the upstream gate has passed, by the rules for the authority that the client named.
    /// Returns a conclusion only if it refuses. The upstream gate has verified that the certificate names the authority
    /// that was sent.
    pub(in crate::gate) fn check_again(
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

    /// Checks the connection of a request that has ended, with a provider's credential or without. `None` if the host
    /// shows no connection.
    pub(in crate::gate) fn check_ended(
        &self,
        host: &impl Host,
        upstream: &UpstreamHost<'_>,
        carried: Carried,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let connection = HostConnection::new(host, &self.names);
        let stamped = || self.is_stamped(host, upstream);
        self.check_connection(connection, upstream, stamped, || carried, now_secs)
    }

    /// Checks the connection that the host shows; `None` if it shows none. With a provider's credential, unlisted hosts
    /// are checked too.
    pub(super) fn check_connection<H: Host>(
        &self,
        connection: HostConnection<'_, H>,
        upstream: &UpstreamHost<'_>,
        stamped: impl FnOnce() -> bool,
        carried: impl FnOnce() -> Carried,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let (requirement, carried) = match self.policy.demand(upstream, now_secs) {
            Demand::Unlisted => match carried() {
                Carried::Nothing => return Some(Conclusion::of_policy(Verdict::Unlisted, None)),
                carried => (self.policy.default_requirement(), carried),
            },
            Demand::Skip(skip) => {
                return Some(Conclusion::of_policy(Verdict::Skip, Some(skip.until_secs)));
            }
            Demand::Verify(requirement) => (requirement, Carried::Nothing),
        };
        let verdict = requirement.evaluate(upstream, &connection, stamped())?;
        let verdict = carried.judge(verdict, now_secs);
        let fingerprint = connection.fingerprint();
        let passage = Passage { fingerprint, upstream: upstream.clone().into_owned() };
        let skip_until_secs = carried.until_secs().filter(|_| verdict == Verdict::Plaintext);
        let conclusion = Conclusion::of_policy(verdict, skip_until_secs);
        Some(Conclusion { passage: Some(passage), ..conclusion })
    }

    /// Whether the cluster has the stamp of the policy for this upstream.
    fn is_stamped(&self, host: &impl Host, upstream: &UpstreamHost<'_>) -> bool {
        stamp(host).is_some_and(|stamp| stamp.holds_for(self.digest(), upstream))
    }

    /// Whether the host shows the connection that was checked. A certificate says more of a connection than all else, so
    /// `by_certificate` asks for nothing but its digest, if it has one.
    pub(in crate::gate) fn is_same(
        &self,
        host: &impl Host,
        passage: &Passage,
        by_certificate: bool,
    ) -> bool {
        let connection = HostConnection::new(host, &self.names);
        (by_certificate && passage.fingerprint.has_certificate(&connection))
            || passage.fingerprint.is_of(connection)
    }

    /// What the gate of a cluster says of a response.
    pub(in crate::gate) fn response(
        &self,
        verdict: Verdict,
        upstream: Option<UpstreamHost<'static>>,
    ) -> Response {
        Response { verdict, upstream, rules: self.policy.shared_rules() }
    }

    /// The verdict on a response that the gate of its cluster has checked by the same rules for the same host.
    pub(in crate::gate) fn is_settled(&self, response: &Response, host: &UpstreamHost<'_>) -> bool {
        response.is_checked_for(host, self.policy.tighten())
    }

    /// Records the conclusion on an attempt or a response. `withheld`: the authority of a request that was sent before
    /// it was refused, and which requests are refused for that.
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
        let &Conclusion { verdict, skip_until_secs, ref cluster, .. } = conclusion;
        let shown = || text_property(host, Property::ClusterName).map(Cow::Owned);
        let Some(cluster) = cluster.as_deref().map(Cow::Borrowed).or_else(shown) else {
            return;
        };
        let outcome = Outcome { verdict, withheld, skip_until_secs, now_secs };
        self.with_records(host, |store| {
            self.statuses.record(host, store, metrics, &cluster, outcome);
        });
        if withheld.is_some() {
            self.refusals.announce(host);
        }
    }

    /// Tells all workers that a cluster has an upstream gate.
    pub(in crate::gate) fn announce<H: Host>(&self, host: &H) {
        // Nothing but a warning depends on it.
        self.with_records(host, |store| notice(store, HAS_GATE));
    }

    /// Whether a worker has announced an upstream gate, as far as shared data says.
    pub(in crate::gate) fn knows_gate<H: Host>(&self, host: &H) -> bool {
        self.with_records(host, |store| is_noticed(store, HAS_GATE))
    }

    /// Logs at the start what is enforced, and what is not. `is_nginx`: the host never shows a connection to an
    /// upstream.
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
        } else if !self.knows_gate(host) {
            self.warn_once(host, NO_UPSTREAM_GATE);
        }
    }

    /// Logs which credentials do not go out, each hindrance once in a process.
    pub(in crate::gate) fn warn_of<H: Host>(&self, host: &H, hindrances: &[Hindrance]) {
        for hindrance in hindrances {
            self.warn_once(host, &["vkey: ", &hindrance.to_string()].concat());
        }
    }

    /// Logs once that the exception of a credential has ended.
    pub(in crate::gate) fn warn_of_end<H: Host>(
        &self,
        host: &H,
        credential: &str,
        until_secs: u64,
    ) {
        let is_new = self.ended.try_borrow_mut().is_ok_and(|mut ended| {
            let is_new = !ended.contains(&until_secs) && ended.len() < MAX_ENDED;
            if is_new {
                ended.push(until_secs);
            }
            is_new
        });
        if is_new {
            self.warn_of(host, &[Hindrance::ended(credential, until_secs)]);
        }
    }

    fn warn_once<H: Host>(&self, host: &H, text: &str) {
        if self.with_records(host, |store| notice(store, text)) {
            host.log(Level::Warn, text);
        }
    }
}

/// The notice that an upstream gate was configured.
const HAS_GATE: &str = "a cluster has an upstream gate";

/// Logged by the first worker that starts while no cluster has an upstream gate.
pub const NO_UPSTREAM_GATE: &str = "vkey: upstream TLS: no cluster has the module as its upstream filter (under this \
    vm_id). Enforced: a response over a connection that breaks the policy is withheld, and its cluster refused \
    for a minute. Not enforced: that the request, a provider's credential with it, has not left by then. Add the \
    filter with `vkey tls render`, or set upstream_tls.require_stamp";

const SHOWS_NOTHING: &str = "vkey: upstream TLS: this host shows nothing of its connections to upstreams: \
    requests to hosts that the policy verifies, and requests that may have a provider's credential, are refused \
    (upstream_unproven)";

impl Conclusion {
    pub(in crate::gate) fn refused(reason: DenyReason) -> Self {
        Self::of_policy(Verdict::Refused(reason), None)
    }

    fn of_policy(verdict: Verdict, skip_until_secs: Option<u64>) -> Self {
        let address = String::new();
        Self { verdict, passage: None, address, cluster: None, skip_until_secs, grant: None }
    }
}

/// The time for the dates of a policy, in Unix seconds. Without a clock no exception is in force.
pub(in crate::gate) fn now_secs(now_ns: Option<u64>) -> u64 {
    secs(now_ns.unwrap_or(u64::MAX))
}

/// The stamp of the chosen cluster.
fn stamp(host: &impl Host) -> Option<Stamp> {
    Stamp::from_metadata(&host.property(Property::ClusterMetadata)?)
}
