//! What the upstream gate tells the gate: its verdict on the last attempt.

use crate::decision::DenyReason;
use crate::host::{FilterState, Host, HostError, Level, Property, text_property};
use crate::upstream_tls::Verdict;

/// Stands for an address if the attempt was refused.
const SENT: &str = "sent";
const UNSENT: &str = "unsent";

/// The verdict on an attempt: a word, a space, and details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gate) enum GateVerdict {
    /// It went on.
    Passed {
        verdict: Verdict,
        /// The local address of the connection that the verdict is about.
        address: String,
    },
    /// It was refused.
    Refused(Refused),
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
    pub(in crate::gate) fn of(host: &impl Host) -> Option<Self> {
        let state = text_property(host, Property::FilterState(FilterState::Upstream))?;
        let (word, rest) = state.split_once(' ')?;
        Some(match Verdict::from_word(word)? {
            Verdict::Refused(reason) => Self::Refused(Refused { reason, sent: rest != UNSENT }),
            verdict => Self::Passed { verdict, address: rest.to_owned() },
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
    pub(in crate::gate) fn tell(&self, host: &impl Host) {
        let state = match self {
            Self::Passed { verdict, address } => [verdict.word(), " ", address].concat(),
            Self::Refused(Refused { reason, sent }) => {
                [reason.code(), " ", if *sent { SENT } else { UNSENT }].concat()
            }
        };
        if let Err(HostError(status)) = host.set_filter_state(FilterState::Upstream.key(), &state) {
            host.log(
                Level::Debug,
                &format!("vkey: could not set filter state vkey.upstream: host status {status}"),
            );
        }
    }
}
