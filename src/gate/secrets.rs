//! Secrets of rings in filter states, where another filter puts them: so they change without a restart of the proxy.

use std::cell::{Cell, RefCell};

use zeroize::Zeroizing;

use crate::bytes::same_bytes;
use crate::engine::Engine;
use crate::host::{Host, Level};
use crate::key::keyring::{InvalidSecret, Secret};
use crate::time::{NANOS_PER_SEC, secs};

use super::metrics::Metrics;

/// How long what was read holds. Reading a secret costs as much as reading a header.
const LOOK_NS: u64 = NANOS_PER_SEC;

/// The secrets that are in filter states, and when they were read.
#[derive(Default)]
pub(super) struct Secrets {
    rings: Vec<Ring>,
    looked_at_ns: Cell<Option<u64>>,
}

/// A ring whose secret is in a filter state.
struct Ring {
    name: String,
    /// The key of the filter state.
    key: String,
    /// The path of the property that contains it, its parts joined by NUL.
    path: String,
    /// What was read last, and `None` in it if it was absent; `None` before the first look.
    last: RefCell<Option<Option<Zeroizing<Vec<u8>>>>>,
}

// === impl Secrets ===

impl Secrets {
    /// The secrets of rings, with the keys of their filter states.
    pub(super) fn new(filter_states: &[(String, String)]) -> Self {
        let ring = |(name, key): &(String, String)| Ring {
            name: name.clone(),
            key: key.clone(),
            path: ["filter_state\0", key].concat(),
            last: RefCell::default(),
        };
        Self { rings: filter_states.iter().map(ring).collect(), looked_at_ns: Cell::default() }
    }

    /// Gives the engine the secrets that the filter states of a request have. They are at most a second old; while no ring
    /// is ready, each request is looked at.
    /// `usable`: the rules of the host are known.
    pub(super) fn refresh(
        &self,
        host: &impl Host,
        engine: &mut Engine,
        (metrics, usable): (&Metrics, bool),
        now_ns: u64,
    ) {
        let looked = self.looked_at_ns.get();
        let is_fresh = looked.is_some_and(|at_ns| now_ns.abs_diff(at_ns) < LOOK_NS);
        if self.rings.is_empty() || (is_fresh && engine.keyring().is_ready()) {
            return;
        }
        self.looked_at_ns.set(Some(now_ns));
        self.rings.iter().for_each(|ring| ring.refresh(host, engine));
        // At each look, because another worker may have begun again, with no secret yet.
        metrics.show_rings(host, engine.keyring().rings());
        metrics.show_ready(host, usable && engine.keyring().accepts_keys(secs(now_ns)));
    }
}

// === impl Ring ===

impl Ring {
    /// Gives the engine the secret if it has changed.
    fn refresh(&self, host: &impl Host, engine: &mut Engine) {
        let found = host.filter_state(&self.path).map(Zeroizing::new);
        let mut last = self.last.borrow_mut();
        let is_same = match (&*last, &found) {
            (Some(Some(last)), Some(found)) => same_bytes(last, found),
            (Some(None), None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        let secret = found.as_ref().map(|bytes| read(bytes));
        self.log(host, secret.as_ref());
        engine.set_secret(&self.name, secret.and_then(Result::ok).as_ref());
        *last = Some(found);
    }

    fn log(&self, host: &impl Host, secret: Option<&Result<Secret, InvalidSecret>>) {
        let Self { name, key, .. } = self;
        let reason;
        let (level, what) = match secret {
            Some(Ok(_)) => (Level::Info, " has another secret"),
            Some(Err(invalid)) => {
                reason = [" is not ready: ", &invalid.to_string()].concat();
                (Level::Error, reason.as_str())
            }
            None => (Level::Error, " is not ready: the state is absent or empty"),
        };
        host.log(level, &["vkey: ring ", name, what, " (filter state ", key, ")"].concat());
    }
}

/// Reads a secret as a file has it: a line end after it is not part of it.
fn read(bytes: &[u8]) -> Result<Secret, InvalidSecret> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    Secret::parse_unguessable(std::str::from_utf8(bytes).unwrap_or_default())
}
