//! What is counted, and what is not: functions that callgrind knows by name.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::allocator::allocations;
use crate::host::Calls;

/// The functions that switch counting on and off as they are entered and left, as callgrind names them.
pub(crate) const TOGGLES: [&str; 2] = ["bench_core::meter::inside*", "bench_core::meter::outside*"];

/// The function before which callgrind writes down what it counted.
pub(crate) const DUMP: &str = "bench_core::meter::dump*";

/// How often [`dump`] was called. Without a body of its own it could be taken for another function.
static DUMPS: AtomicU64 = AtomicU64::new(0);

/// What is counted of the library. Callgrind counts instructions, this the rest.
#[derive(Default)]
pub(crate) struct Meter {
    is_counting: Cell<bool>,
    /// Allocations since the last scenario ended, and those among them that are not counted.
    allocations: Cell<u64>,
    paused: Cell<u64>,
    rows: RefCell<Vec<Counted>>,
}

/// What was counted of a scenario besides instructions.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) scenario: String,
    pub(crate) allocations: u64,
    pub(crate) calls: Calls,
}

impl Meter {
    /// Runs something that is counted.
    pub(crate) fn count<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_counting.set(true);
        let before = allocations();
        let result = inside(act);
        self.allocations.set(self.allocations.get() + allocations() - before);
        self.is_counting.set(false);
        result
    }

    /// Runs something that is not, also where it is called by something that is: what a host does is no
    /// part of the library.
    pub(crate) fn pause<T>(&self, act: impl FnOnce() -> T) -> T {
        if !self.is_counting.get() {
            return act();
        }
        let before = allocations();
        let result = outside(act);
        self.paused.set(self.paused.get() + allocations() - before);
        result
    }

    /// Ends a scenario: all that was counted since the last one belongs to it.
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
    // Something is left to do behind the call, so that it does not become a jump.
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
