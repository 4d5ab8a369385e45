//! What the upstream gate tells the gate: its verdict on the last attempt.

use crate::decision::DenyReason;
use crate::exchange::{Concluded, Handover};
use crate::host::{FilterState, Host, HostError, Level, Property, number_property, text_property};
use crate::upstream_tls::Verdict;

use super::connection::connection_id;
use super::turn::Turn;

/// Stands for an address if the attempt was refused.
const SENT: &str = "sent";
const UNSENT: &str = "unsent";

/// The verdict on an attempt: a word, a space, and details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gate) enum GateVerdict {
    /// It went on.
    Passed {
        verdict: Verdict,
        /// Where.
        place: Place,
    },
    /// It was refused.
    Refused(Refused),
}

/// The connection that a verdict is about. Envoy shows the connection of the last attempt to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gate) enum Place {
    /// Its local address.
    Address(String),
    /// That of the attempt with this number.
    Attempt(u64),
}

/// An attempt that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) struct Refused {
    pub(in crate::gate) reason: DenyReason,
    /// Whether a byte of the request, in this attempt or an earlier one, may have left.
    pub(in crate::gate) sent: bool,
}

impl GateVerdict {
    /// The verdict on the last attempt of the request; `None` if no upstream gate has one.
    pub(in crate::gate) fn of(host: &impl Host, handover: Option<&Handover>) -> Option<Self> {
        handover
            .and_then(Handover::concluded)
            .map(Self::of_handover)
            .or_else(|| Self::of_filter_state(host))
    }

    fn of_handover(Concluded { attempt, verdict, sent }: Concluded) -> Self {
        match verdict {
            Verdict::Refused(reason) => Self::Refused(Refused { reason, sent }),
            verdict => Self::Passed { verdict, place: Place::Attempt(attempt) },
        }
    }

    fn of_filter_state(host: &impl Host) -> Option<Self> {
        let state = text_property(host, Property::FilterState(FilterState::Upstream))?;
        let (word, rest) = state.split_once(' ')?;
        Some(match Verdict::from_word(word)? {
            Verdict::Refused(reason) => Self::Refused(Refused { reason, sent: rest != UNSENT }),
            verdict => Self::Passed { verdict, place: Place::Address(rest.to_owned()) },
        })
    }

    /// Whether a byte of the request may have been sent.
    pub(in crate::gate) fn is_sent(&self) -> bool {
        match self {
            Self::Passed { .. } => true,
            Self::Refused(refused) => refused.sent,
        }
    }

    /// Tells the gate. A host without filter state has no gate that could ask.
    pub(in crate::gate) fn tell(&self, host: &impl Host, turn: &Turn) {
        let (verdict, address) = match self {
            Self::Passed { verdict, place } => (*verdict, place.address()),
            Self::Refused(Refused { reason, sent }) => {
                (Verdict::Refused(*reason), if *sent { SENT } else { UNSENT })
            }
        };
        if turn.conclude(verdict, self.is_sent()) {
            return;
        }
        let state = [verdict.word(), " ", address].concat();
        if let Err(HostError(status)) = host.set_filter_state(FilterState::Upstream.key(), &state) {
            host.log(
                Level::Debug,
                &format!("vkey: could not set filter state vkey.upstream: host status {status}"),
            );
        }
    }
}

impl Place {
    /// Whether the connection that the host shows is the one that the verdict is about.
    pub(in crate::gate) fn is_shown(&self, host: &impl Host) -> bool {
        match self {
            Self::Address(address) => *address == connection_id(host),
            Self::Attempt(attempt) => {
                number_property(host, Property::UpstreamAttempt) == Some(*attempt)
            }
        }
    }

    fn address(&self) -> &str {
        match self {
            Self::Address(address) => address,
            Self::Attempt(_) => "",
        }
    }
}
