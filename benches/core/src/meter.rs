//! Turns counting on and off, with functions that callgrind knows by name.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::allocator::allocations;
use crate::host::Calls;

/// The functions at whose entry and return callgrind toggles counting, as it names them.
pub(crate) const TOGGLES: [&str; 2] = ["bench_core::meter::inside*", "bench_core::meter::outside*"];

/// The function before which callgrind writes its counts.
pub(crate) const DUMP: &str = "bench_core::meter::dump*";

/// How often [`dump`] was called. Without a body, the function could be merged with another one.
static DUMPS: AtomicU64 = AtomicU64::new(0);

/// Counts allocations and host calls, while callgrind counts instructions.
#[derive(Default)]
pub(crate) struct Meter {
    is_counting: Cell<bool>,
    /// Allocations in counted code since the last scenario, and those among them that do not count.
    allocations: Cell<u64>,
    paused: Cell<u64>,
    rows: RefCell<Vec<Counted>>,
}

/// The counts of a scenario, without instructions.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) scenario: String,
    pub(crate) allocations: u64,
    pub(crate) calls: Calls,
}

impl Meter {
    /// Runs `act`, counted.
    pub(crate) fn count<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_counting.set(true);
        let before = allocations();
        let result = inside(act);
        self.allocations.set(self.allocations.get() + allocations() - before);
        self.is_counting.set(false);
        result
    }

    /// Runs `act` uncounted, even inside counted code: the work of the host is not part of the library.
    pub(crate) fn pause<T>(&self, act: impl FnOnce() -> T) -> T {
        if !self.is_counting.get() {
            return act();
        }
        let before = allocations();
        let result = outside(act);
        self.paused.set(self.paused.get() + allocations() - before);
        result
    }

    /// Ends a scenario, to which all counts since the last one belong.
    pub(crate) fn end(&self, scenario: String, calls: Calls) {
        dump();
        let allocations = self.allocations.take() - self.paused.take();
        self.rows.borrow_mut().push(Counted { scenario, allocations, calls });
    }

    /// All scenarios so far, in the order of callgrind's dumps.
    pub(crate) fn rows(&self) -> Vec<Counted> {
        self.rows.borrow().clone()
    }
}

#[inline(never)]
fn inside<T>(act: impl FnOnce() -> T) -> T {
    // Code after the call keeps it from becoming a jump.
    black_box(act())
}

#[inline(never)]
fn outside<T>(act: impl FnOnce() -> T) -> T {
    black_box(act())
}

#[inline(never)]
fn dump() {
    DUMPS.fetch_add(1, Ordering::Relaxed);
}
