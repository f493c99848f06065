//! What the connections of one thread share, and what all threads share. No sockets.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::clock::{Clock, Nanos};

use super::{
    Options,
    dialect::Id,
    fault::{Dice, Fault},
    ledger::{Ledger, Verdict},
};

/// A new buffer. One usual request or event fits: thousands of streams that are due at once have a
/// buffer each until the kernel has taken their bytes.
const BUFFER_BYTES: usize = 4 * 1024;
/// Buffers that a thread keeps for the next request.
const POOLED_BUFFERS_MAX: usize = 256;
/// A buffer that grew beyond this is given back to the allocator instead of to the pool.
const POOLED_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Provider {
    options: Options,
    keys: HashSet<String>,
    clock: Clock,
    ledger: Mutex<Ledger>,
    gauges: Gauges,
}

/// Numbers that go up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Connections that are open.
    pub(crate) connections: AtomicU64,
    /// Streams that are being written.
    pub(crate) streams: AtomicU64,
}

impl Provider {
    /// A provider as `options` describe it. Its clock starts now.
    pub(crate) fn new(options: Options) -> Arc<Self> {
        let ledger = Ledger::new(&options.limit, options.log_rows);
        Arc::new(Self {
            keys: options.api_key.iter().cloned().collect(),
            clock: Clock::start(),
            ledger: Mutex::new(ledger),
            gauges: Gauges::default(),
            options,
        })
    }
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Core {
    provider: Arc<Provider>,
    dice: RefCell<Dice>,
    next_id: Cell<u64>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

impl Core {
    /// The share of thread number `thread`.
    pub(crate) fn new(provider: Arc<Provider>, thread: usize) -> Self {
        // Threads throw different dice, and give different numbers to their answers.
        let dice = Dice::new(provider.options.seed.wrapping_add(thread as u64));
        Self {
            provider,
            dice: RefCell::new(dice),
            next_id: Cell::new((thread as u64) << 48),
            buffers: RefCell::default(),
        }
    }

    /// The command line.
    pub(crate) fn options(&self) -> &Options {
        &self.provider.options
    }

    /// The counts. Held for a moment only: all threads wait for it.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change of the ledger is complete in itself, so one that a panic left is still true.
        self.provider.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers that go up and down.
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.provider.gauges
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Nanos {
        self.provider.clock.now()
    }

    /// Time of day.
    pub(crate) fn wall(&self) -> Duration {
        self.provider.clock.wall()
    }

    /// Is `key` one of the accepted ones, or is every one accepted?
    pub(crate) fn accepts(&self, key: &str) -> bool {
        self.provider.keys.is_empty() || self.provider.keys.contains(key)
    }

    /// Admits or refuses. The time is read under the lock, so the log is in order.
    pub(crate) fn admit(&self, key: &str, model: &str, tokens: u32) -> Verdict {
        let mut ledger = self.ledger();
        let now = self.now();
        ledger.admit(if key.is_empty() { "(none)" } else { key }, model, tokens, now)
    }

    /// Forgets all counts, the log, and what the limits have seen.
    pub(crate) fn reset(&self) {
        let options = self.options();
        *self.ledger() = Ledger::new(&options.limit, options.log_rows);
    }

    /// The fault that chance has for the next request.
    pub(crate) fn draw_fault(&self) -> Option<Fault> {
        let rules = &self.options().fault;
        if rules.is_empty() { None } else { self.dice.borrow_mut().draw(rules) }
    }

    /// Sixty-four random bits.
    pub(crate) fn throw(&self) -> u64 {
        self.dice.borrow_mut().throw()
    }

    /// A new number for an answer.
    pub(crate) fn next_id(&self) -> Id {
        let id = self.next_id.get().wrapping_add(1);
        self.next_id.set(id);
        Id(id)
    }

    /// An empty buffer.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if (BUFFER_BYTES..=POOLED_BUFFER_BYTES_MAX).contains(&buffer.capacity()) && buffers.len() < POOLED_BUFFERS_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

/// Counts one in a gauge for as long as it lives.
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    /// One more in `gauge`.
    pub(crate) fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
