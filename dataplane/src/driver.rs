//! Which of monoio's drivers a core runs on: `io_uring` where the kernel allows it, epoll where it
//! does not. monoio's own choice is silent; ours says which and why.

use io_uring::IoUring;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use std::io;

/// Submission entries of a core's ring. Completions get eight times as many: one for every
/// connection that could become ready in the same turn.
const SUBMISSION_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 8 * SUBMISSION_ENTRIES;

/// Set to any value, it makes the node use epoll. monoio knows the same name.
pub const FORCE_EPOLL: &str = "MONOIO_FORCE_LEGACY_DRIVER";

/// A driver that works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `io_uring`, and whether the kernel runs completions only when we ask (6.1 and later).
    Uring {
        /// `DEFER_TASKRUN` and `SINGLE_ISSUER` are there.
        defers: bool,
    },
    /// epoll.
    Epoll,
}

impl Driver {
    /// Tries what the kernel allows; the text says why it is epoll, or which kind of ring.
    pub fn probe() -> (Self, String) {
        if std::env::var_os(FORCE_EPOLL).is_some() {
            return (Self::Epoll, format!("{FORCE_EPOLL} is set"));
        }
        match builder(true).build(SUBMISSION_ENTRIES) {
            Ok(_ring) => return (Self::Uring { defers: true }, "deferred task work".to_owned()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOMEM) => {
                return (Self::Epoll, format!("no memory may be locked for a ring ({error}): raise LimitMEMLOCK"));
            }
            Err(_) => {}
        }
        match builder(false).build(SUBMISSION_ENTRIES) {
            Ok(_ring) => (Self::Uring { defers: false }, "the kernel is older than 6.1".to_owned()),
            Err(error) => (Self::Epoll, format!("the kernel or a seccomp profile refuses io_uring: {error}")),
        }
    }
}

fn builder(defers: bool) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETION_ENTRIES);
    if defers {
        builder.setup_single_issuer().setup_defer_taskrun();
    } else {
        builder.setup_coop_taskrun();
    }
    builder
}

/// A runtime for one core on `io_uring`.
pub(crate) fn uring_runtime(defers: bool) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(SUBMISSION_ENTRIES)
        .uring_builder(builder(defers))
        .enable_timer()
        .build()
}

/// A runtime for one core on epoll.
pub(crate) fn epoll_runtime() -> io::Result<Runtime<TimeDriver<LegacyDriver>>> {
    RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()
}
