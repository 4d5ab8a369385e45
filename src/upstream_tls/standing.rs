//! The standing of an upstream: how it was judged last, since when, and whether it is refused for now.
//!
//! There is one record for each cluster that was judged, so only the proxy's configuration makes the
//! memory grow.

use crate::decision::DenyReason;
use crate::mac::{is_sha256_hex, sha256_hex};
use crate::record::{Name, Record, put_text, take, take_text};

use super::Verdict;

/// How long requests to an upstream are refused at once after an answer of it had to be withheld. What
/// was withheld was sent before it could be judged, so the next one is not tried at once.
const REFUSED_SECS: u64 = 60;

/// The longest name of a cluster that is taken as it is.
const MAX_CLUSTER_BYTES: usize = 128;

/// How an upstream was judged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    verdict: Option<Verdict>,
    since_secs: u64,
    refused_until_secs: u64,
}

/// The name of a cluster's standing.
pub fn standing_name(cluster: &str) -> Name {
    // No `/`, and no room for another cluster's name: what looks like a digest gets one of its own.
    let short = cluster.len() <= MAX_CLUSTER_BYTES;
    let plain = short && !cluster.contains('/') && !is_sha256_hex(cluster);
    if plain { Name::new("u", cluster) } else { Name::new("u", &sha256_hex(cluster.as_bytes())) }
}

impl Standing {
    /// How the upstream was judged last.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Takes down a verdict; since when it has been the same. One that lets pass does not lift what is
    /// refused for now: it may be on another of the cluster's endpoints.
    pub fn judge(&mut self, verdict: Verdict, now_secs: u64) -> u64 {
        if verdict.refusal().is_none() && self.refusal(now_secs).is_some() {
            return now_secs;
        }
        if self.verdict != Some(verdict) {
            *self = Self { verdict: Some(verdict), since_secs: now_secs, ..*self };
        }
        self.since_secs
    }

    /// Takes down that an answer had to be withheld: requests are refused for a while.
    pub fn withhold(&mut self, reason: DenyReason, now_secs: u64) -> u64 {
        self.refused_until_secs = now_secs.saturating_add(REFUSED_SECS);
        self.judge(Verdict::Refused(reason), now_secs)
    }

    /// Why requests are refused at once, where they are.
    pub fn refusal(&self, now_secs: u64) -> Option<DenyReason> {
        let left_secs = self.refused_until_secs.saturating_sub(now_secs);
        // More is left only by a clock that went back.
        let refused = (1..=REFUSED_SECS).contains(&left_secs);
        self.verdict.and_then(Verdict::refusal).filter(|_| refused)
    }
}

impl Record for Standing {
    const VERSION: u8 = 4;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Vec<u8>) {
        put_text(record, self.verdict.map_or("", Verdict::word));
        record.extend_from_slice(&self.since_secs.to_le_bytes());
        record.extend_from_slice(&self.refused_until_secs.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let verdict = match &*take_text(bytes)? {
            "" => None,
            word => Some(Verdict::from_word(word)?),
        };
        let since_secs = u64::from_le_bytes(take(bytes)?);
        let refused_until_secs = u64::from_le_bytes(take(bytes)?);
        Some(Self { verdict, since_secs, refused_until_secs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{decode, encode};

    const PIN: DenyReason = DenyReason::UpstreamPin;

    #[test]
    fn a_verdict_stands_since_it_was_first_the_same() {
        let mut standing = Standing::fresh();
        assert_eq!(standing.judge(Verdict::Verified, 10), 10);
        assert_eq!(standing.judge(Verdict::Verified, 20), 10);
        assert_eq!(standing.judge(Verdict::Refused(PIN), 30), 30);
        assert_eq!(standing.refusal(30), None);
    }

    #[test]
    fn what_was_withheld_is_refused_for_a_while() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, 100);
        assert_eq!(standing.refusal(100), Some(PIN));
        // Another connection of the cluster may be good.
        standing.judge(Verdict::Verified, 101);
        assert_eq!(standing.refusal(100 + REFUSED_SECS - 1), Some(PIN));
        assert_eq!(standing.refusal(100 + REFUSED_SECS), None);
    }

    #[test]
    fn a_good_connection_does_not_lift_a_refusal() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, 100);
        for verdict in [Verdict::Verified, Verdict::Stamped, Verdict::Skip, Verdict::Unlisted] {
            assert_eq!(standing.judge(verdict, 101), 101);
            assert_eq!(standing.refusal(102), Some(PIN), "{verdict:?}");
        }
        let name = DenyReason::UpstreamName;
        assert_eq!(standing.judge(Verdict::Refused(name), 103), 103);
        assert_eq!(standing.refusal(104), Some(name));
        assert_eq!(standing.judge(Verdict::Verified, 100 + REFUSED_SECS), 100 + REFUSED_SECS);
        assert_eq!(standing.refusal(101), None);
    }

    #[test]
    fn a_standing_reads_back() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, 100);
        for name in [standing_name("outbound|443||api.openai.com"), standing_name(&"/".repeat(300))]
        {
            assert_eq!(decode(&name, &encode(&name, &standing)), Ok(standing));
            assert_eq!(decode(&name, &encode(&name, &Standing::fresh())), Ok(Standing::fresh()));
        }
    }

    #[test]
    fn each_cluster_has_a_standing_of_its_own() {
        let long = "a".repeat(MAX_CLUSTER_BYTES);
        let digest = sha256_hex(b"a/b");
        let names = ["a", "a/b", &digest, "a/c", &long, &format!("{long}a"), &format!("{long}b")];
        let names = names.map(|cluster| standing_name(cluster).as_str().to_owned());
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), names.len());
        assert!(names.iter().all(|name| name.matches('/').count() == 2 && name.len() < 200));
    }
}
