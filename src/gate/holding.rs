//! Whether the host lets requests be held until their bodies have been read.
//!
//! A host calls back about the body of a held request only if its configuration says so (Envoy:
//! `allow_on_headers_stop_iteration`), and the module cannot read that configuration. So the first held request of a
//! worker is watched: if the host shows by the size of the request that a part of its body has come, and has not called
//! back about it, the request is refused, and so is every further one that would have to be held. Now and then one of them
//! is watched again, because the configuration of a proxy may change without that of the module.

use std::cell::{Cell, RefCell};

use crate::decision::DenyReason;
use crate::engine::NOT_ON_NGINX;
use crate::exchange::Held;
use crate::host::{Host, Level, Property, number_property};

/// How much of a body is read by one host call, in bytes. The module never has a body as a whole.
pub(super) const MAX_PART_BYTES: usize = 64 << 10;

/// How often a request that is watched is looked at, in milliseconds.
const TICK_MILLIS: u32 = 20;

/// For how long no request is held after one was watched in vain, in nanoseconds.
const REST_NS: u64 = 10_000_000_000;

/// Why a request is refused on a host that does not call back about the bodies of held requests.
pub(super) const NOT_SHOWN: &str = "the gateway must read the body, and its proxy does not show it; the operator sets \
    allow_on_headers_stop_iteration: true in the proxy's configuration of the module";

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

/// Why the body of a request is not read to its end: the reason of the refusal, with a message for people.
pub(super) type Unread = (DenyReason, Option<&'static str>);

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
    pub(super) fn watch(&self, host: &impl Host, held: &mut Held, context: u32) {
        if self.proof.get() == Proof::Shown {
            return;
        }
        if let Some(bytes) = number_property(host, Property::RequestTotalSize)
            && let Ok(mut watched) = self.watched.try_borrow_mut()
            && host.set_tick_period(TICK_MILLIS).is_ok()
        {
            held.watch(bytes);
            watched.push(context);
        }
    }

    /// Forgets that the host has proven itself: a held request has ended about whose body it never called back. The
    /// client may just have left, so the next request is watched.
    pub(super) fn doubt(&self) {
        if self.proof.get() == Proof::Shown {
            self.proof.set(Proof::None);
        }
    }

    /// Records that the host has called back about the body of a held request.
    pub(super) fn prove(&self) {
        self.proof.set(Proof::Shown);
    }

    /// Records that the host keeps back the body of a request.
    pub(super) fn fail(&self, host: &impl Host) {
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
