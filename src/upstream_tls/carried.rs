//! The provider credential of an attempt, as far as its connection depends on it.

use crate::decision::DenyReason;

use super::{Demand, Verdict};

/// Whether an attempt carries a provider credential, or is to get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carried {
    /// A credential, which may go without TLS to a host that no rule is for until this time, Unix seconds; 0: never.
    Credential(u64),
    /// None.
    #[default]
    Nothing,
}

impl Carried {
    /// A credential that goes over a verified connection only.
    pub const VERIFIED_ONLY: Self = Self::Credential(0);

    /// Whether it is a credential.
    pub fn is_credential(self) -> bool {
        self != Self::Nothing
    }

    /// What an attempt carries that carries both: each must be allowed to go without TLS.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, carried) | (carried, Self::Nothing) => carried,
            (Self::Credential(one), Self::Credential(other)) => Self::Credential(one.min(other)),
        }
    }

    /// The same, on the way to another host than the one that it is for.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        self.and(if self.is_credential() { Self::VERIFIED_ONLY } else { Self::Nothing })
    }

    /// Until when it may go without TLS, Unix seconds.
    pub fn until_secs(self) -> Option<u64> {
        match self {
            Self::Credential(until_secs) => Some(until_secs),
            Self::Nothing => None,
        }
    }

    /// Whether it was attached before routing to a host that nothing but the stamp of the cluster vouches for.
    pub fn needs_stamp(self, demand: &Demand<'_>, now_secs: u64) -> bool {
        self.is_credential() && !demand.is_covered() && !self.may_be_plaintext(now_secs)
    }

    /// Whether it may go without TLS.
    pub fn may_be_plaintext(self, now_secs: u64) -> bool {
        matches!(self, Self::Credential(until_secs) if now_secs < until_secs)
    }

    /// Whether it was allowed to go without TLS and no longer is.
    pub fn has_expired(self, now_secs: u64) -> bool {
        matches!(self, Self::Credential(until_secs @ 1..) if now_secs >= until_secs)
    }

    /// The verdict on a connection to a host that no rule is for. `verdict` is that of the policy's default.
    pub fn judge(self, verdict: Verdict, now_secs: u64) -> Verdict {
        match verdict {
            Verdict::Refused(DenyReason::UpstreamPlaintext) if self.may_be_plaintext(now_secs) => {
                Verdict::Plaintext
            }
            Verdict::Refused(DenyReason::UpstreamPlaintext) if self.has_expired(now_secs) => {
                Verdict::Refused(DenyReason::UpstreamUnproven)
            }
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAINTEXT: Verdict = Verdict::Refused(DenyReason::UpstreamPlaintext);

    #[test]
    fn an_exception_is_about_connections_without_tls_and_ends() {
        let carried = Carried::Credential(100);
        assert_eq!(carried.judge(PLAINTEXT, 99), Verdict::Plaintext);
        let ended = Verdict::Refused(DenyReason::UpstreamUnproven);
        for now_secs in [100, 101, u64::MAX] {
            assert_eq!(carried.judge(PLAINTEXT, now_secs), ended);
        }
        for verdict in [
            Verdict::Verified,
            Verdict::Stamped,
            Verdict::Refused(DenyReason::UpstreamName),
            Verdict::Refused(DenyReason::UpstreamVersion),
        ] {
            assert_eq!(carried.judge(verdict, 99), verdict);
            assert_eq!(carried.judge(verdict, 100), verdict);
        }
        for other in [Carried::VERIFIED_ONLY, Carried::Nothing, carried.elsewhere()] {
            assert_eq!(other.judge(PLAINTEXT, 0), PLAINTEXT);
        }
    }

    #[test]
    fn every_credential_of_an_attempt_needs_the_exception() {
        let [one, other] = [100, 200].map(Carried::Credential);
        assert_eq!(one.and(other), one);
        assert_eq!(one.and(Carried::VERIFIED_ONLY), Carried::VERIFIED_ONLY);
        assert_eq!(Carried::Nothing.and(other), other);
        assert_eq!(Carried::Nothing.elsewhere(), Carried::Nothing);
        assert_eq!(other.elsewhere(), Carried::VERIFIED_ONLY);
    }
}
