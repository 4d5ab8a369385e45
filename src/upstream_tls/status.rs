//! The status of an upstream: its last verdict, since when, and the requests that are refused now.
//!
//! There is one record per cluster that was checked, so only the proxy's configuration makes memory
//! grow.

use crate::decision::DenyReason;
use crate::digest::{is_sha256_hex, sha256, sha256_hex};
use crate::record::{Name, Record, Writer, take, take_text};

use super::{UpstreamHost, Verdict};

/// How long requests to an upstream are refused immediately, in seconds, after one of its responses
/// had to be withheld or showed that the upstream has no gate. Such a request was sent before the
/// check, so the next ones must not be.
const REFUSED_SECS: u64 = 60;

/// The longest name of a cluster that is used unchanged, in bytes.
const MAX_CLUSTER_BYTES: usize = 128;

/// The last verdict on an upstream, and what is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamStatus {
    verdict: Option<Verdict>,
    since_secs: u64,
    withheld: Option<Withheld>,
    /// Until when requests are refused because a response showed no gate, in Unix seconds; 0 for
    /// never.
    ungated_until_secs: u64,
    ungated_scope: RefusalScope,
}

/// Which requests to an upstream are refused: those of this scope and of all scopes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusalScope {
    /// Those to the same host: the name was wrong.
    #[default]
    Host = 0,
    /// Those that need the upstream checked: to a host that the policy verifies, with a credential,
    /// or with a required stamp. Clients choose the host, so refusing one host would not be enough.
    Checked = 1,
    /// All: the route asks the upstream for another host than the client does.
    Every = 2,
}

/// A response that had to be withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Withheld {
    reason: DenyReason,
    host: [u8; HOST_BYTES],
    scope: RefusalScope,
    until_secs: u64,
}

/// Bytes of the SHA-256 of a host that identify it.
const HOST_BYTES: usize = 16;

/// The name of a cluster's status.
pub fn upstream_status_name(cluster: &str) -> Name {
    // No `/`, and no collision: a name that looks like a digest is hashed too.
    let short = cluster.len() <= MAX_CLUSTER_BYTES;
    let plain = short && !cluster.contains('/') && !is_sha256_hex(cluster);
    if plain { Name::new("u", cluster) } else { Name::new("u", &sha256_hex(cluster.as_bytes())) }
}

impl UpstreamStatus {
    /// How the upstream was checked last.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Records a verdict, and returns since when it has been the same, in Unix seconds.
    pub fn record(&mut self, verdict: Verdict, now_secs: u64) -> u64 {
        if self.verdict != Some(verdict) {
            *self = Self { verdict: Some(verdict), since_secs: now_secs, ..*self };
        }
        self.since_secs
    }

    /// Records that a response for a host had to be withheld. Requests are then refused for a
    /// while, whatever the verdict on other connections of the cluster. A wider scope in force is
    /// kept.
    pub fn withhold(
        &mut self,
        reason: DenyReason,
        host: &UpstreamHost<'_>,
        scope: RefusalScope,
        now_secs: u64,
    ) -> u64 {
        let wider = |w: &Withheld| w.scope > scope && is_refused(w.until_secs, now_secs);
        if !self.withheld.as_ref().is_some_and(wider) {
            let until_secs = now_secs.saturating_add(REFUSED_SECS);
            self.withheld = Some(Withheld { reason, host: digest(host), scope, until_secs });
        }
        self.record(Verdict::Refused(reason), now_secs)
    }

    /// Records that a response showed no gate.
    pub fn miss_gate(&mut self, scope: RefusalScope, now_secs: u64) {
        let held = if is_refused(self.ungated_until_secs, now_secs) {
            self.ungated_scope
        } else {
            RefusalScope::Host
        };
        self.ungated_scope = held.max(scope);
        self.ungated_until_secs = now_secs.saturating_add(REFUSED_SECS);
    }

    /// Whether a response showed within the last minute that the upstream has no gate. `checked`: the
    /// route of the request depends on the upstream.
    pub fn misses_gate(&self, checked: bool, now_secs: u64) -> bool {
        let concerned = checked || self.ungated_scope == RefusalScope::Every;
        concerned && is_refused(self.ungated_until_secs, now_secs)
    }

    /// Why requests for a host are refused immediately, if they are. `checked`: the route of the request
    /// depends on the upstream.
    pub fn refusal(
        &self,
        host: &UpstreamHost<'_>,
        checked: bool,
        now_secs: u64,
    ) -> Option<DenyReason> {
        let withheld = self.withheld.filter(|w| is_refused(w.until_secs, now_secs))?;
        let refused = match withheld.scope {
            RefusalScope::Every => true,
            RefusalScope::Checked if checked => true,
            RefusalScope::Checked | RefusalScope::Host => withheld.host == digest(host),
        };
        refused.then_some(withheld.reason)
    }
}

impl RefusalScope {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Host, Self::Checked, Self::Every].into_iter().find(|scope| *scope as u8 == number)
    }
}

/// Whether a time is in the future. A time more than [`REFUSED_SECS`] ahead means that the clock
/// went back.
fn is_refused(until_secs: u64, now_secs: u64) -> bool {
    (1..=REFUSED_SECS).contains(&until_secs.saturating_sub(now_secs))
}

fn digest(host: &UpstreamHost<'_>) -> [u8; HOST_BYTES] {
    let digest = sha256(host.to_string().as_bytes());
    digest.first_chunk().copied().unwrap_or_default()
}

impl Record for UpstreamStatus {
    const VERSION: u8 = 9;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put_text(self.verdict.map_or("", Verdict::word));
        record.put(self.since_secs.to_le_bytes());
        record.put_text(self.withheld.map_or("", |withheld| withheld.reason.code()));
        if let Some(Withheld { host, scope, until_secs, .. }) = self.withheld {
            record.put(host);
            record.put([scope as u8]);
            record.put(until_secs.to_le_bytes());
        }
        record.put(self.ungated_until_secs.to_le_bytes());
        record.put([self.ungated_scope as u8]);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let verdict = match &*take_text(bytes)? {
            "" => None,
            word => Some(Verdict::from_word(word)?),
        };
        let since_secs = u64::from_le_bytes(take(bytes)?);
        let withheld = match &*take_text(bytes)? {
            "" => None,
            code => Some(Withheld {
                reason: DenyReason::from_code(code)?,
                host: take(bytes)?,
                scope: take(bytes).and_then(|[number]| RefusalScope::from_number(number))?,
                until_secs: u64::from_le_bytes(take(bytes)?),
            }),
        };
        let ungated_until_secs = u64::from_le_bytes(take(bytes)?);
        let ungated_scope = take(bytes).and_then(|[number]| RefusalScope::from_number(number))?;
        Some(Self { verdict, since_secs, withheld, ungated_until_secs, ungated_scope })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::record::{decode, encode};

    const PIN: DenyReason = DenyReason::UpstreamPin;
    const HOST: UpstreamHost<'static> = UpstreamHost::Name(Cow::Borrowed("api.openai.com"));
    const OTHER: UpstreamHost<'static> = UpstreamHost::Name(Cow::Borrowed("gw.example"));

    #[test]
    fn a_verdict_has_the_time_of_its_first_report() {
        let mut status = UpstreamStatus::fresh();
        assert_eq!(status.record(Verdict::Verified, 10), 10);
        assert_eq!(status.record(Verdict::Verified, 20), 10);
        assert_eq!(status.record(Verdict::Refused(PIN), 30), 30);
        assert_eq!(status.refusal(&HOST, true, 30), None);
    }

    #[test]
    fn a_withheld_response_refuses_requests_for_a_while() {
        for verified in [true, false] {
            let mut status = UpstreamStatus::fresh();
            status.withhold(PIN, &HOST, RefusalScope::Checked, 100);
            let refusal = |now_secs| status.refusal(&HOST, verified, now_secs);
            assert_eq!(refusal(100), Some(PIN));
            assert_eq!(refusal(100 + REFUSED_SECS - 1), Some(PIN));
            assert_eq!(refusal(100 + REFUSED_SECS), None);
            // The clock was set back.
            assert_eq!(refusal(99), None);
        }
    }

    #[test]
    fn a_withheld_response_refuses_every_verified_host() {
        let mut status = UpstreamStatus::fresh();
        status.withhold(PIN, &HOST, RefusalScope::Checked, 100);
        assert_eq!(status.refusal(&OTHER, true, 100), Some(PIN));
        assert_eq!(status.refusal(&OTHER, false, 100), None);
    }

    #[test]
    fn a_good_connection_does_not_lift_a_refusal() {
        let mut status = UpstreamStatus::fresh();
        status.withhold(PIN, &HOST, RefusalScope::Checked, 100);
        let unproven = Verdict::Refused(DenyReason::UpstreamUnproven);
        let passing = [Verdict::Verified, Verdict::Stamped, Verdict::Skip, Verdict::Unlisted];
        for verdict in passing.into_iter().chain([unproven]) {
            assert_eq!(status.record(verdict, 101), 101);
            assert_eq!(status.refusal(&HOST, true, 102), Some(PIN), "{verdict:?}");
        }
        assert_eq!(status.record(Verdict::Verified, 100 + REFUSED_SECS), 100 + REFUSED_SECS);
    }

    #[test]
    fn a_missing_gate_is_remembered_for_a_while() {
        let mut status = UpstreamStatus::fresh();
        assert!(!status.misses_gate(true, 0) && !status.misses_gate(true, 100));
        status.miss_gate(RefusalScope::Checked, 100);
        let misses = |now_secs| status.misses_gate(true, now_secs);
        assert!(misses(100) && misses(100 + REFUSED_SECS - 1));
        assert!(!misses(100 + REFUSED_SECS) && !misses(99));
        assert!(!status.misses_gate(false, 100));
        assert_eq!(status.refusal(&HOST, true, 100), None);
    }

    #[test]
    fn the_widest_scope_stays_for_its_time() {
        let mut status = UpstreamStatus::fresh();
        status.withhold(PIN, &HOST, RefusalScope::Host, 100);
        assert_eq!(status.refusal(&HOST, false, 101), Some(PIN));
        assert_eq!(status.refusal(&OTHER, true, 101), None);
        status.withhold(PIN, &HOST, RefusalScope::Every, 110);
        status.withhold(PIN, &OTHER, RefusalScope::Host, 120);
        assert_eq!(status.refusal(&OTHER, false, 110 + REFUSED_SECS - 1), Some(PIN));
        assert_eq!(status.refusal(&OTHER, false, 110 + REFUSED_SECS), None);
        status.miss_gate(RefusalScope::Every, 100);
        status.miss_gate(RefusalScope::Checked, 110);
        assert!(status.misses_gate(false, 111));
        status.miss_gate(RefusalScope::Checked, 300);
        assert!(status.misses_gate(true, 301) && !status.misses_gate(false, 301));
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let mut status = UpstreamStatus::fresh();
        status.withhold(PIN, &HOST, RefusalScope::Checked, 100);
        status.miss_gate(RefusalScope::Checked, 100);
        for name in [
            upstream_status_name("outbound|443||api.openai.com"),
            upstream_status_name(&"/".repeat(300)),
        ] {
            assert_eq!(decode(&name, &encode(&name, &status)), Ok(status));
            assert_eq!(
                decode(&name, &encode(&name, &UpstreamStatus::fresh())),
                Ok(UpstreamStatus::fresh())
            );
        }
    }

    #[test]
    fn each_cluster_has_its_own_status() {
        let long = "a".repeat(MAX_CLUSTER_BYTES);
        let digest = sha256_hex(b"a/b");
        let names = ["a", "a/b", &digest, "a/c", &long, &format!("{long}a"), &format!("{long}b")];
        let names = names.map(|cluster| upstream_status_name(cluster).as_str().to_owned());
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), names.len());
        assert!(names.iter().all(|name| name.matches('/').count() == 2 && name.len() < 200));
    }
}
