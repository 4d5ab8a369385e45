//! Why the module refuses the key of a session, for its operator. The client learns only that it is invalid.

use std::fmt;

use vkey::decision::{Decision, DenyClass, DenyReason};

use super::super::embedded::decision_in;

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyRefusal(pub(super) DenyReason);

impl KeyRefusal {
    /// Why the module refused the key of the request with this audit line, if it did.
    pub(super) fn in_line(line: &str) -> Option<Self> {
        let Some(Decision::Deny(reason)) = decision_in(line) else {
            return None;
        };
        (reason.class() == DenyClass::Unauthenticated).then_some(Self(reason))
    }

    /// What the operator can do.
    fn advice(self) -> &'static str {
        match self.0 {
            DenyReason::KeyMissing | DenyReason::KeyConflict | DenyReason::KeyMalformed => {
                "check that --key-file or --key-env holds what `vkey mint` printed, and nothing else; `vkey explain` \
                 says what no gate accepts in it"
            }
            DenyReason::KeyUnknown => {
                "`vkey inspect` shows its ring; use the configuration of that ring, or mint a key of a ring of \
                 this one"
            }
            DenyReason::KeySignature => {
                "use the secret that it was minted with (--secret-file, or the variable of the ring), or mint \
                 another one"
            }
            DenyReason::KeyNotYetValid => {
                "`vkey inspect` shows when it becomes valid; check the clock of this machine"
            }
            DenyReason::KeyExpired | DenyReason::KeyRetired => "mint another one",
            DenyReason::KeyRevoked => {
                "mint another one; `revoked` and the states of the rings in the configuration show what is revoked"
            }
            DenyReason::KeyAudience => {
                "mint one with --aud for the `audience` of the configuration"
            }
            DenyReason::TierUnknown => {
                "add its tier and its tenant to the configuration, or mint one with others"
            }
            DenyReason::Source => "name an address that it allows with --source",
            DenyReason::Host => "name a host that it allows with --authority",
            DenyReason::Method => "messages are POST requests: allow that method",
            DenyReason::NotReady => {
                "it has limits, and `--host bare` counts nothing: use another host"
            }
            DenyReason::McpCall => {
                "its restrictions do not allow this server: name it in mcp.routes, or the path of another route by --path"
            }
            DenyReason::BodyUnreadable => {
                "no message can be read: `--host nginx` shows none, and body.max_bytes must be enough for one"
            }
            reason if reason.class() == DenyClass::Limited => {
                "the limit has no room for a single message: raise it"
            }
            _ => "`vkey inspect` shows its restrictions, and `vkey explain` how they are evaluated",
        }
    }
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reason) = self;
        write!(f, "the key is refused: {reason}: {}; {}", reason.message(), self.advice())
    }
}
