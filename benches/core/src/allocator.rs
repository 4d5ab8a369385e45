//! An allocator that counts, and whose cost does not depend on earlier allocations.
//!
//! The C library's allocator splits and joins blocks, so one scenario would change the cost of another.
//! Here the size of a block is a power of two. Blocks are taken from the free ones of their size, or from
//! the rest of a slab.
#![allow(unsafe_code, reason = "an allocator is")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The smallest block is 2^4 bytes, the largest 2^16. The system allocates larger ones.
const SHIFTS: std::ops::RangeInclusive<usize> = 4..=16;

/// Large enough that few scenarios reach the end of one.
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
    /// Indexed by the logarithm of the block size.
    pools: UnsafeCell<[Pool; 17]>,
}

/// Blocks of one size.
#[derive(Clone, Copy)]
struct Pool {
    /// The free blocks; each contains the address of the next one.
    free: *mut *mut u8,
    /// The rest of the slab, and its length in bytes.
    rest: *mut u8,
    left: usize,
}

/// The number of allocations and reallocations.
pub(crate) fn allocations() -> u64 {
    ALLOCATOR.allocations.load(Ordering::Relaxed)
}

impl Pools {
    fn count(&self) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `act` with exclusive access to the pool of a size.
    fn with_pool<T>(&self, shift: usize, act: impl FnOnce(&mut Pool) -> T) -> T {
        while self.is_locked.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: only the thread that set the flag is here until it is cleared, and nothing in here
        // allocates from the pools.
        let result = act(unsafe { &mut (*self.pools.get())[shift] });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

impl Pool {
    fn take(&mut self, shift: usize) -> *mut u8 {
        if !self.free.is_null() {
            let block = self.free;
            // SAFETY: a free block is at least as large as a pointer, aligned like one, and contains the
            // next one.
            self.free = unsafe { *block }.cast();
            return block.cast();
        }
        let bytes = 1 << shift;
        if self.left == 0 {
            // A slab has the alignment of its blocks.
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
        // SAFETY: a block is at least as large as a pointer and aligned like one, and nothing else uses it
        // any more.
        unsafe { *block = self.free.cast() };
        self.free = block;
    }
}

/// The logarithm of the block size for a layout; `None` if the system allocates it.
fn shift(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align()).max(1 << SHIFTS.start());
    let shift = usize::BITS - (bytes - 1).leading_zeros();
    usize::try_from(shift).ok().filter(|shift| SHIFTS.contains(shift))
}

// SAFETY: the pools are accessed only with the flag set.
unsafe impl Sync for Pools {}

// SAFETY: a block is as large as its layout requires, aligned to its own size, and in use only once until
// it is freed; a layout always belongs to the same pool.
unsafe impl GlobalAlloc for Pools {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        match shift(layout) {
            Some(shift) => self.with_pool(shift, |pool| pool.take(shift)),
            // SAFETY: the caller keeps the contract of this function.
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
        // SAFETY: the caller guarantees that the size is valid for a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if shift(layout).is_some() && shift(layout) == shift(wanted) {
            self.count();
            return block;
        }
        // SAFETY: the block has the size of its layout, the new one the requested size, and they do not
        // overlap.
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
