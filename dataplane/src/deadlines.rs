//! Deadlines of a core's sockets, looked through at an interval instead of a timer for each.
//!
//! A deadline that passes shuts its socket down. The operation that waits on the socket then ends
//! by itself and its task sees why: no io operation is ever cancelled, so none can complete into
//! a buffer that has moved on, and a connection past its deadline is never used again.

use nix::sys::socket::{Shutdown, shutdown};
use shared::clock::Nanos;
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What a deadline guards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Waiting for a request; may be ended at any time when the node drains.
    Idle,
    /// Reading: only the reading side is shut down, so that an answer can still say why.
    Reading,
    /// Everything else.
    All,
}

struct Entry {
    fd: RawFd,
    due: u64,
    guard: Guard,
    has_passed: bool,
    is_used: bool,
}

/// All deadlines of a core.
#[derive(Default)]
pub(crate) struct Deadlines {
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<usize>>,
}

/// The deadline of one socket. Has to be dropped before the socket's descriptor is closed.
pub(crate) struct Deadline {
    all: Rc<Deadlines>,
    index: usize,
}

impl Deadlines {
    /// Watches over `fd`, without a time yet.
    pub(crate) fn watch(self: &Rc<Self>, fd: RawFd) -> Deadline {
        let entry = Entry { fd, due: NEVER, guard: Guard::All, has_passed: false, is_used: true };
        let mut entries = self.entries.borrow_mut();
        let index = if let Some(index) = self.free.borrow_mut().pop() {
            entries[index] = entry;
            index
        } else {
            entries.push(entry);
            entries.len() - 1
        };
        Deadline { all: Rc::clone(self), index }
    }

    /// Shuts down every socket whose time has passed.
    pub(crate) fn sweep(&self, now: Nanos) {
        for entry in self.entries.borrow_mut().iter_mut() {
            if entry.due <= now.0 && entry.is_used {
                entry.pass();
            }
        }
    }

    /// Ends every socket that waits for a request.
    pub(crate) fn end_idle(&self) {
        for entry in self.entries.borrow_mut().iter_mut() {
            if entry.guard == Guard::Idle && entry.due != NEVER && entry.is_used {
                entry.pass();
            }
        }
    }
}

impl Entry {
    fn pass(&mut self) {
        self.due = NEVER;
        self.has_passed = true;
        let how = if self.guard == Guard::Reading { Shutdown::Read } else { Shutdown::Both };
        // A socket that is already closed by its peer cannot be shut down, and need not be.
        let _ = shutdown(self.fd, how);
    }
}

impl Deadline {
    fn arm(&self, due: Nanos, guard: Guard) {
        let entry = &mut self.all.entries.borrow_mut()[self.index];
        entry.due = due.0;
        entry.guard = guard;
    }

    /// Sets the time at which the socket ends; an earlier one is replaced.
    #[inline]
    pub(crate) fn set(&self, due: Nanos) {
        self.arm(due, Guard::All);
    }

    /// Sets the time at which reading ends, while an answer can still be written.
    #[inline]
    pub(crate) fn set_reading(&self, due: Nanos) {
        self.arm(due, Guard::Reading);
    }

    /// Sets the time for a socket that waits for a request.
    #[inline]
    pub(crate) fn set_idle(&self, due: Nanos) {
        self.arm(due, Guard::Idle);
    }

    /// Takes the time away.
    #[inline]
    pub(crate) fn clear(&self) {
        self.all.entries.borrow_mut()[self.index].due = NEVER;
    }

    /// The time passed and the socket was shut down.
    #[inline]
    pub(crate) fn has_passed(&self) -> bool {
        self.all.entries.borrow()[self.index].has_passed
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.all.entries.borrow_mut()[self.index].is_used = false;
        self.all.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_passed_deadline_ends_the_socket_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut late = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let on_time = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let deadlines = Rc::new(Deadlines::default());
        let (first, second) = (deadlines.watch(late.as_raw_fd()), deadlines.watch(on_time.as_raw_fd()));
        first.set(Nanos(100));
        second.set(Nanos(101));
        deadlines.sweep(Nanos(100));
        assert!(first.has_passed() && !second.has_passed());
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_dropped_deadline_leaves_the_next_user_of_the_descriptor_alone() {
        let deadlines = Rc::new(Deadlines::default());
        deadlines.watch(-1).set(Nanos(5));
        let next = deadlines.watch(-1);
        deadlines.sweep(Nanos(10));
        assert!(!next.has_passed());
    }
}
