//! An allocator whose price does not depend on what came before, and that counts.
//!
//! The C library's splits and joins blocks: a scenario would become dearer or cheaper because of another one.
//! Here a block is a power of two, taken from the blocks of its size that were given back, or else from the
//! rest of a slab.
#![allow(unsafe_code, reason = "an allocator is")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The smallest block is 2^4 bytes, the largest 2^16; what is larger is the system's.
const SHIFTS: std::ops::RangeInclusive<usize> = 4..=16;

/// So large that few scenarios meet the end of one.
const SLAB_BYTES: usize = 1 << 20;

#[global_allocator]
static ALLOCATOR: Pools = Pools {
    allocations: AtomicU64::new(0),
    is_locked: AtomicBool::new(false),
    pools: UnsafeCell::new([Pool { free: null_mut(), rest: null_mut(), left: 0 }; 17]),
};

struct Pools {
    allocations: AtomicU64,
    is_locked: AtomicBool,
    /// By the logarithm of the size of their blocks.
    pools: UnsafeCell<[Pool; 17]>,
}

/// Blocks of one size.
#[derive(Clone, Copy)]
struct Pool {
    /// Blocks that were given back; each holds the address of the next one.
    free: *mut *mut u8,
    /// What is left of the slab, and how many bytes that is.
    rest: *mut u8,
    left: usize,
}

/// How often memory was asked for, also for more of what is there.
pub(crate) fn allocations() -> u64 {
    ALLOCATOR.allocations.load(Ordering::Relaxed)
}

impl Pools {
    fn count(&self) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs something with the pool of a size, alone.
    fn with_pool<T>(&self, shift: usize, act: impl FnOnce(&mut Pool) -> T) -> T {
        while self.is_locked.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: whoever set the flag is alone here until it is cleared, and nothing in here allocates
        // from the pools.
        let result = act(unsafe { &mut (*self.pools.get())[shift] });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

impl Pool {
    fn take(&mut self, shift: usize) -> *mut u8 {
        if !self.free.is_null() {
            let block = self.free;
            // SAFETY: a block that was given back is at least as large as a pointer, aligned like one,
            // and holds the next one.
            self.free = unsafe { *block }.cast();
            return block.cast();
        }
        let bytes = 1 << shift;
        if self.left == 0 {
            // A slab is aligned as its blocks are.
            let Ok(layout) = Layout::from_size_align(SLAB_BYTES, bytes) else {
                return null_mut();
            };
            // SAFETY: the size is not zero.
            self.rest = unsafe { System.alloc(layout) };
            if self.rest.is_null() {
                return null_mut();
            }
            self.left = SLAB_BYTES;
        }
        let block = self.rest;
        // SAFETY: the rest of a slab is a whole number of blocks, and there is one.
        self.rest = unsafe { block.add(bytes) };
        self.left -= bytes;
        block
    }

    fn give_back(&mut self, block: *mut u8) {
        let block: *mut *mut u8 = block.cast();
        // SAFETY: a block is at least as large as a pointer and aligned like one, and nobody else uses it
        // any more.
        unsafe { *block = self.free.cast() };
        self.free = block;
    }
}

/// The logarithm of the size of the block for a layout; `None` where it is the system's.
fn shift(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align()).max(1 << SHIFTS.start());
    let shift = usize::BITS - (bytes - 1).leading_zeros();
    usize::try_from(shift).ok().filter(|shift| SHIFTS.contains(shift))
}

// SAFETY: the pools are reached with the flag set only.
unsafe impl Sync for Pools {}

// SAFETY: a block is as large as its layout demands, aligned to its own size, and handed out once until it
// is given back; a layout always leads to the same pool.
unsafe impl GlobalAlloc for Pools {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        match shift(layout) {
            Some(shift) => self.with_pool(shift, |pool| pool.take(shift)),
            // SAFETY: the caller keeps to the rules of this function.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match shift(layout) {
            Some(shift) => self.with_pool(shift, |pool| pool.give_back(block)),
            // SAFETY: as above; the block came from there.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is no more than a layout may have.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if shift(layout).is_some() && shift(layout) == shift(wanted) {
            self.count();
            return block;
        }
        // SAFETY: the block is as large as its layout says, the new one as large as it is wanted, and they
        // are two.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
