//! The standing of an upstream: how it was judged last, since when, and for which host it is refused now.
//!
//! There is one record for each cluster that was judged, so only the proxy's configuration makes the
//! memory grow.

use crate::decision::DenyReason;
use crate::mac::{is_sha256_hex, sha256, sha256_hex};
use crate::record::{Name, Record, put_text, take, take_text};

use super::{UpstreamHost, Verdict};

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
    withheld: Option<Withheld>,
}

/// An answer that had to be withheld. Clients name the host, so what one of them brought about is
/// refused to those who name the same host, and to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Withheld {
    reason: DenyReason,
    host: [u8; HOST_BYTES],
    until_secs: u64,
}

/// So much of the SHA-256 of a host tells it from others.
const HOST_BYTES: usize = 16;

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

    /// Takes down a verdict; since when it has been the same.
    pub fn judge(&mut self, verdict: Verdict, now_secs: u64) -> u64 {
        if self.verdict != Some(verdict) {
            *self = Self { verdict: Some(verdict), since_secs: now_secs, ..*self };
        }
        self.since_secs
    }

    /// Takes down that an answer for a host had to be withheld: requests for it are refused for a while,
    /// whatever other connections of the cluster are judged as.
    pub fn withhold(&mut self, reason: DenyReason, host: &UpstreamHost<'_>, now_secs: u64) -> u64 {
        let until_secs = now_secs.saturating_add(REFUSED_SECS);
        self.withheld = Some(Withheld { reason, host: digest(host), until_secs });
        self.judge(Verdict::Refused(reason), now_secs)
    }

    /// Why requests for a host are refused at once, where they are.
    pub fn refusal(&self, host: &UpstreamHost<'_>, now_secs: u64) -> Option<DenyReason> {
        let withheld = self.withheld?;
        let left_secs = withheld.until_secs.saturating_sub(now_secs);
        // More is left only by a clock that went back.
        let refused = (1..=REFUSED_SECS).contains(&left_secs) && withheld.host == digest(host);
        refused.then_some(withheld.reason)
    }
}

fn digest(host: &UpstreamHost<'_>) -> [u8; HOST_BYTES] {
    let digest = sha256(host.to_string().as_bytes());
    digest.first_chunk().copied().unwrap_or_default()
}

impl Record for Standing {
    const VERSION: u8 = 4;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Vec<u8>) {
        put_text(record, self.verdict.map_or("", Verdict::word));
        record.extend_from_slice(&self.since_secs.to_le_bytes());
        put_text(record, self.withheld.map_or("", |withheld| withheld.reason.code()));
        if let Some(Withheld { host, until_secs, .. }) = self.withheld {
            record.extend_from_slice(&host);
            record.extend_from_slice(&until_secs.to_le_bytes());
        }
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
                until_secs: u64::from_le_bytes(take(bytes)?),
            }),
        };
        Some(Self { verdict, since_secs, withheld })
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
    fn a_verdict_stands_since_it_was_first_the_same() {
        let mut standing = Standing::fresh();
        assert_eq!(standing.judge(Verdict::Verified, 10), 10);
        assert_eq!(standing.judge(Verdict::Verified, 20), 10);
        assert_eq!(standing.judge(Verdict::Refused(PIN), 30), 30);
        assert_eq!(standing.refusal(&HOST, 30), None);
    }

    #[test]
    fn what_was_withheld_is_refused_for_a_while() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, &HOST, 100);
        assert_eq!(standing.refusal(&HOST, 100), Some(PIN));
        assert_eq!(standing.refusal(&HOST, 100 + REFUSED_SECS - 1), Some(PIN));
        assert_eq!(standing.refusal(&HOST, 100 + REFUSED_SECS), None);
        // The clock went back.
        assert_eq!(standing.refusal(&HOST, 99), None);
    }

    #[test]
    fn whoever_names_another_host_is_not_refused() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, &HOST, 100);
        assert_eq!(standing.refusal(&OTHER, 100), None);
        standing.withhold(PIN, &OTHER, 101);
        assert_eq!(
            (standing.refusal(&OTHER, 102), standing.refusal(&HOST, 102)),
            (Some(PIN), None)
        );
    }

    #[test]
    fn a_good_connection_does_not_lift_a_refusal() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, &HOST, 100);
        let unproven = Verdict::Refused(DenyReason::UpstreamUnproven);
        let passing = [Verdict::Verified, Verdict::Stamped, Verdict::Skip, Verdict::Unlisted];
        for verdict in passing.into_iter().chain([unproven]) {
            assert_eq!(standing.judge(verdict, 101), 101);
            assert_eq!(standing.refusal(&HOST, 102), Some(PIN), "{verdict:?}");
        }
        assert_eq!(standing.judge(Verdict::Verified, 100 + REFUSED_SECS), 100 + REFUSED_SECS);
    }

    #[test]
    fn a_standing_reads_back() {
        let mut standing = Standing::fresh();
        standing.withhold(PIN, &HOST, 100);
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
