//! The exchange: one request from its headers to its audit line, without a host.
//!
//! What a request is at each moment is a type, and a callback takes it from one to the next by value:
//!
//! ```text
//! Unseen ─► Seen ─► Decided ─────────────────────────────► Done
//!           Seen ─► Held ─► Decided
//!           Seen ─► Waiting ─► Decided
//!                   Decided ─► Forwarded ─► Responded ───► Done
//!                              Forwarded ─► Metered ─────► Done
//!                              Forwarded ─► Filtered ────► Done
//! ```
//!
//! [`Seen`] lives within one callback, unless the request is [`Held`] until its body has been read, or [`Waiting`] for
//! a lease. A request that is refused after it was forwarded becomes [`Decided`]
//! again, which consumes its reservations: they cannot be given back twice. Callbacks may come out of order or
//! not at all, so every callback has an answer in every phase: see [`crate::gate`].

mod content;
mod decided;
mod edits;
mod filtering;
mod forwarded;
mod handover;
mod held;
mod metering;
mod seen;
mod step;
mod waiting;

pub use content::Content;
pub use decided::{Decided, Outcome, Usage};
pub use edits::{ATTACHED, Edits, plaintext_until};
pub use filtering::{Filtering, Viewer};
pub use forwarded::{Forwarded, Pending, Refund, Reservations, Route};
pub use handover::{Concluded, Handover, Handovers, Response};
pub use held::{Asked, BodyReader, Held, ReadBody};
pub use metering::{Metering, Used};
pub use seen::{Earlier, Evaluation, Keyless, Request, Seen};
pub use step::Step;
pub use waiting::Waiting;

/// The phase of a request.
#[derive(Debug, Default)]
pub enum Exchange {
    /// The host has not shown the request.
    #[default]
    Unseen,
    /// The headers of the request are held until its body has been read.
    Held(Box<Held>),
    /// The request waits for the first lease of a budget.
    Waiting(Box<Waiting>),
    /// The request was refused, or the module has answered it.
    Decided(Decided),
    /// The request is on its way to the upstream; what to do with the response.
    Forwarded(Forwarded, Pending),
    /// A response to the forwarded request has come, from the upstream or from the proxy itself.
    Responded(Forwarded),
    /// The same, of a request whose usage is settled at the end of its response.
    Metered(Forwarded, Box<Metering>),
    /// The same, of a response whose lists are filtered.
    Filtered(Forwarded, Box<Filtering>),
    /// The request has ended.
    Done,
}

impl Exchange {
    /// Whether the request was forwarded and not refused since.
    pub fn is_forwarded(&self) -> bool {
        self.forwarded().is_some()
    }

    /// The forwarded request.
    pub fn forwarded(&self) -> Option<&Forwarded> {
        match self {
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => Some(request),
            Self::Unseen | Self::Held(_) | Self::Waiting(_) | Self::Decided(_) | Self::Done => None,
        }
    }

    /// The forwarded request.
    pub fn forwarded_mut(&mut self) -> Option<&mut Forwarded> {
        match self {
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => Some(request),
            Self::Unseen | Self::Held(_) | Self::Waiting(_) | Self::Decided(_) | Self::Done => None,
        }
    }

    /// The request with its decision.
    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Self::Decided(decided) => Some(decided),
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => Some(request.decided()),
            Self::Unseen | Self::Held(_) | Self::Waiting(_) | Self::Done => None,
        }
    }

    /// Whether the access loggers have the record of the request, and it is counted.
    pub fn is_recorded(&self) -> bool {
        self.decided().is_some_and(Decided::is_recorded)
    }

    /// Says that the access loggers have the record of the request, and that it is counted.
    pub fn set_recorded(&mut self) {
        match self {
            Self::Decided(decided) => decided.set_recorded(),
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => {
                request.set_recorded();
            }
            Self::Unseen | Self::Held(_) | Self::Waiting(_) | Self::Done => {}
        }
    }

    /// Refuses a forwarded request. Any other stays as it is.
    pub fn refuse(&mut self, refuse: impl FnOnce(Forwarded) -> Decided) {
        *self = match std::mem::take(self) {
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => Self::Decided(refuse(request)),
            other @ (Self::Unseen
            | Self::Held(_)
            | Self::Waiting(_)
            | Self::Decided(_)
            | Self::Done) => other,
        };
    }

    /// Records that a part of the body came. Hosts report the new bytes of a request that was forwarded, and all
    /// bytes so far of one whose headers are held.
    pub fn receive_body(&mut self, bytes: u64) {
        match self {
            Self::Held(held) => held.receive(bytes),
            Self::Waiting(waiting) => waiting.asked.seen.hold_body(bytes),
            Self::Decided(decided) => decided.hold_body(bytes),
            Self::Forwarded(request, _)
            | Self::Responded(request)
            | Self::Metered(request, _)
            | Self::Filtered(request, _) => {
                request.pass_body(bytes);
            }
            Self::Unseen | Self::Done => {}
        }
    }
}
