//! A bounded queue whose oldest entry makes room for the newest: in gossip, what is newer says
//! what is older and more. One reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The queue.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    arrived: Notify,
    entries_max: usize,
    bytes_max: usize,
}

struct Inner<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Queue<T> {
    /// Room for so many entries, of so many bytes together.
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        let inner = Inner { entries: VecDeque::new(), bytes: 0 };
        Self { inner: Mutex::new(inner), arrived: Notify::new(), entries_max, bytes_max }
    }

    /// Adds an entry of `bytes`; answers how many older ones were dropped for it.
    pub(crate) fn push(&self, entry: T, bytes: usize) -> u64 {
        let mut inner = self.lock();
        inner.entries.push_back((entry, bytes));
        inner.bytes = inner.bytes.saturating_add(bytes);
        let mut dropped = 0;
        while inner.entries.len() > self.entries_max || inner.bytes > self.bytes_max && inner.entries.len() > 1 {
            inner.pop();
            dropped += 1;
        }
        drop(inner);
        self.arrived.notify_one();
        dropped
    }

    /// Waits for the oldest entry. Dropping the future loses none.
    pub(crate) async fn pop(&self) -> T {
        loop {
            if let Some(entry) = self.lock().pop() {
                return entry;
            }
            self.arrived.notified().await;
        }
    }

    /// Drops all entries; answers how many.
    pub(crate) fn clear(&self) -> u64 {
        let mut inner = self.lock();
        inner.bytes = 0;
        std::mem::take(&mut inner.entries).len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a panic elsewhere left behind is whole: every change is made in one step.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn pop(&mut self) -> Option<T> {
        let (entry, bytes) = self.entries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_make_room() {
        let queue = Queue::new(3, 100);
        assert_eq!([1, 2, 3].map(|entry| queue.push(entry, 10)), [0, 0, 0]);
        assert_eq!(queue.push(4, 10), 1, "too many");
        assert_eq!(queue.push(5, 85), 2, "too large");
        assert_eq!(queue.push(6, 15), 1);
        assert_eq!((queue.pop().await, queue.pop().await), (5, 6));
        assert!(queue.is_empty());
        assert_eq!(queue.push(7, 1_000), 0, "the newest stays whatever its size");
        assert_eq!(queue.clear(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let queue = Queue::new(3, 100);
        let (entry, _) = tokio::join!(queue.pop(), async { queue.push(1, 1) });
        assert_eq!(entry, 1);
    }
}
