//! Whether the host lets requests be held until their bodies have been read.
//!
//! A host calls back about the body of a held request only if its configuration says so (Envoy:
//! `allow_on_headers_stop_iteration`), and the module cannot read that configuration. So the held requests of a worker
//! are watched until the first callback about the body of one of them, which proves the host for good. If the host shows
//! by the size of a request that a part of its body has come, and does not call back about it for some seconds, the
//! request is refused, and so is every further one that would have to be held. Now and then they are watched again,
//! because the configuration of a proxy may change without that of the module.
//!
//! A filter before this one may delay a body too, e.g. until a service has answered. It must do so for less than those
//! seconds, as long as the worker has not proven itself. A proof is not forgotten: clients that leave before their bodies
//! look the same as a host that has stopped to call back, and could bring about a refusal of everybody's requests. If
//! the option is removed under a worker that has proven itself, held requests wait for the deadline of the proxy, and
//! nothing of them is sent.

use std::cell::{Cell, RefCell};

use crate::body::json::Unreadable;
use crate::config::BodySettings;
use crate::decision::DenyReason;
use crate::engine::NOT_ON_NGINX;
use crate::exchange::Held;
use crate::host::{Host, Level, Property, number_property};

use super::ticker::Ticker;

/// How much of a body is read by one host call, in bytes. The module never has a body as a whole.
pub(super) const MAX_PART_BYTES: usize = 64 << 10;

/// How often a request that is watched is looked at, in milliseconds.
pub(super) const TICK_MILLIS: u32 = 100;

/// The shortest time between two looks, in nanoseconds: a tick may come early.
pub(super) const LOOK_NS: u64 = 90_000_000;

/// How often a request must be found with a part of its body that the host has not called back about: for 2 s. A worker
/// that is busy looks less often, and is then slow to call back too.
pub(super) const MAX_LOOKS: u32 = 20;

/// For how long no request is held after one was watched in vain, in nanoseconds.
const REST_NS: u64 = 10_000_000_000;

/// Why a request is refused on a host that does not call back about the bodies of held requests.
pub(super) const NOT_SHOWN: &str = "the gate must read the body, and its proxy does not show it; the operator sets \
    allow_on_headers_stop_iteration: true in the proxy's configuration of the module, and lets no filter before it hold \
    bodies for seconds";

/// What one root context knows about its host: whether it calls back about the bodies of held requests.
#[derive(Default)]
pub(super) struct Holding {
    proof: Cell<Proof>,
    /// The contexts of the requests that are watched.
    watched: RefCell<Vec<u32>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Proof {
    #[default]
    None,
    /// It does.
    Shown,
    /// It does not. Until this time in Unix nanoseconds no request is held.
    Failed { until_ns: u64 },
}

/// Why the body of a request is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It cannot be read, perhaps because of a known member.
    Unreadable(Unreadable, Option<&'static str>),
    /// It is larger than the gate reads.
    TooLarge,
    /// The host does not let the gate read it first. For people, why.
    NotHeld(&'static str),
    /// The host contradicts itself.
    NotReady,
}

// === impl Unread ===

impl Unread {
    /// The reason of the refusal.
    pub(super) fn reason(self) -> DenyReason {
        match self {
            Self::Unreadable(..) | Self::NotHeld(_) => DenyReason::BodyUnreadable,
            Self::TooLarge => DenyReason::BodyTooLarge,
            Self::NotReady => DenyReason::NotReady,
        }
    }

    /// The message for people, if it differs from that of the reason.
    pub(super) fn message(self) -> Option<&'static str> {
        match self {
            Self::Unreadable(cause, _) => Some(cause.message()),
            Self::NotHeld(why) => Some(why),
            Self::TooLarge | Self::NotReady => None,
        }
    }

    /// What follows the message: which bound is exceeded, or where the body cannot be read.
    pub(super) fn detail(self, settings: &BodySettings) -> Option<String> {
        match self {
            Self::Unreadable(cause, member) => cause.detail(settings.limits(), member),
            Self::TooLarge => Some(settings.size_bound()),
            Self::NotHeld(_) | Self::NotReady => None,
        }
    }

    /// Whether the body is not JSON.
    pub(super) fn is_not_json(self) -> bool {
        matches!(self, Self::Unreadable(cause, _) if cause.is_not_json())
    }
}

// === impl Holding ===

impl Holding {
    /// Why a request cannot be held, if it cannot.
    pub(super) fn refusal(&self, host: &impl Host, now_ns: u64) -> Option<&'static str> {
        match self.proof.get() {
            _ if host.is_nginx() => Some(NOT_ON_NGINX),
            Proof::Failed { until_ns } if now_ns < until_ns => Some(NOT_SHOWN),
            Proof::None | Proof::Shown | Proof::Failed { .. } => None,
        }
    }

    /// Watches a request, unless the host has proven itself. A host that shows no sizes or has no tick proves nothing.
    pub(super) fn watch(&self, host: &impl Host, ticker: &Ticker, held: &mut Held, context: u32) {
        if self.proof.get() == Proof::Shown {
            return;
        }
        if let Some(bytes) = number_property(host, Property::RequestTotalSize)
            && let Ok(mut watched) = self.watched.try_borrow_mut()
            && ticker.hasten(host, TICK_MILLIS).is_ok()
        {
            held.watch(bytes);
            watched.push(context);
        }
    }

    /// Whether requests are watched.
    pub(super) fn watches(&self) -> bool {
        self.watched.try_borrow().is_ok_and(|watched| !watched.is_empty())
    }

    /// Records that the host has called back about the body of a held request.
    pub(super) fn prove(&self) {
        self.proof.set(Proof::Shown);
    }

    /// Records that the host keeps back the body of a request, unless it has called back about that of another.
    pub(super) fn fail(&self, host: &impl Host) {
        if self.proof.get() == Proof::Shown {
            return;
        }
        if !matches!(self.proof.get(), Proof::Failed { .. }) {
            host.log(Level::Error, &["vkey: a body cannot be read: ", NOT_SHOWN].concat());
        }
        let until_ns = host.now_ns().unwrap_or(0).saturating_add(REST_NS);
        self.proof.set(Proof::Failed { until_ns });
    }

    /// Forgets the requests that are watched and do not stay so. Returns whether none is left.
    pub(super) fn retain(&self, stays: impl Fn(u32) -> bool) -> bool {
        let watched = self.watched.take();
        let stays = |context: &u32| self.proof.get() != Proof::Shown && stays(*context);
        let stay: Vec<u32> = watched.into_iter().filter(stays).collect();
        self.watched.try_borrow_mut().is_ok_and(|mut watched| {
            watched.extend(stay);
            watched.is_empty()
        })
    }
}
