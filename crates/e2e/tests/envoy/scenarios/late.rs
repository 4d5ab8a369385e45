//! A machine on which the second is over whenever a request is, the first two times.

use std::collections::BTreeMap;

use vkey::host::MemoryStore;

use crate::keys::now_secs;
use crate::scenario::format::HostKind;
use crate::scenario::memory::InMemory;
use crate::scenario::native::Native;
use crate::scenario::text::shifted;
use crate::scenario::{Configured, Machine, Observed, Sent};

/// How often a request is too late.
const TIMES_LATE: u32 = 2;

pub(crate) struct Late {
    machine: InMemory<Native>,
    now_secs: u64,
    /// Attempts at the request of this step.
    attempts: u32,
}

impl Late {
    pub(crate) fn new(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Self {
        let machine = InMemory::new(config, env, host);
        Self { machine, now_secs: now_secs(), attempts: 0 }
    }
}

impl Machine for Late {
    fn configure(&mut self, worker: u64) -> Configured {
        self.machine.configure(worker)
    }

    fn start(&self, at: i64) -> Option<u64> {
        Some(shifted(self.now_secs, -at))
    }

    fn pins_clock(&self) -> bool {
        false
    }

    fn request(&mut self, worker: u64, sent: &Sent) -> Observed {
        let observed = self.machine.request(worker, sent);
        let late = self.attempts < TIMES_LATE;
        self.attempts = if late { self.attempts + 1 } else { 0 };
        self.now_secs += u64::from(late);
        observed
    }

    fn store(&self) -> Option<&MemoryStore> {
        None
    }
}
