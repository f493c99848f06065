//! Counts allocations, for a build that measures them: the root package's feature `count-allocations` makes
//! [`Counting`] the allocator. No other build allocates through this file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    // Neither lazily made nor dropped, so that an allocator may ask for it at any time.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

static CORES: Sum = Sum::new();
static OTHERS: Sum = Sum::new();

/// Calls that asked for memory or for more of it, and the bytes that they asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Calls.
    pub calls: u64,
    /// Bytes; of a block that grew, its whole new size.
    pub bytes: u64,
}

/// From here on this thread's allocations are a core's.
pub fn count_as_core() {
    SERVES.set(true);
}

/// What was counted since the program began: on the cores' threads, and on all others. Both are nothing
/// where [`Counting`] is not the allocator.
pub fn counted() -> (Allocations, Allocations) {
    (CORES.read(), OTHERS.read())
}

/// The system's allocator, counted.
pub struct Counting;

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; all it does beside counting is to call the system's")]
// SAFETY: each method hands its arguments to the same method of `System` and returns what came back, so it
// promises what `System` promises. Counting allocates nothing and cannot panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: our caller's promise about `layout`, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: our caller's promise about `layout`, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: our caller's promises, passed on; every block came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: our caller's promises, passed on; every block came from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(bytes: usize) {
    let is_core = SERVES.try_with(Cell::get).unwrap_or(false);
    let sum = if is_core { &CORES } else { &OTHERS };
    // Read when the threads have ended, or as a glance.
    sum.calls.fetch_add(1, Ordering::Relaxed);
    sum.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
}

struct Sum {
    calls: AtomicU64,
    bytes: AtomicU64,
}

impl Sum {
    const fn new() -> Self {
        Self { calls: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn read(&self) -> Allocations {
        Allocations { calls: self.calls.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn a_core_is_counted_apart_from_the_others() {
        // Only this test counts as a core, whatever runs beside it.
        count_as_core();
        let before = counted().0;
        let mut text = black_box(Vec::<u8>::with_capacity(100));
        text.reserve_exact(200);
        drop(black_box(text));
        let after = counted().0;
        SERVES.set(false);
        assert_eq!((after.calls - before.calls, after.bytes - before.bytes), (2, 300));
        let others = counted().1.calls;
        drop(black_box(Box::new(7_u64)));
        assert!(counted().1.calls > others);
        assert_eq!(counted().0, after);
    }
}
