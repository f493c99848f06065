//! Starts a monoio runtime with the ring flags that cost least, and says which driver it got.
//!
//! No fallback without a word: [`Driver`] is part of every result, because a figure taken
//! on epoll is another figure.

use std::{future::Future, io};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Submission entries of the ring. 4,096 operations go out in one call at most.
const RING_ENTRIES: u32 = 4_096;

/// Completion entries: more than twice the streams that a run may have open.
const COMPLETION_ENTRIES: u32 = 32_768;

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// `io_uring` with `DEFER_TASKRUN` and `SINGLE_ISSUER` (Linux 6.1).
    UringDeferred,
    /// `io_uring` with `COOP_TASKRUN` (Linux 5.19).
    UringCooperative,
    /// epoll: the kernel or a seccomp profile refused a ring, or it was asked for.
    Epoll,
}

impl Driver {
    /// As it is printed beside a figure.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UringDeferred => "io_uring (DEFER_TASKRUN, SINGLE_ISSUER)",
            Self::UringCooperative => "io_uring (COOP_TASKRUN)",
            Self::Epoll => "epoll",
        }
    }
}

/// Runs `main` to its end on this thread. `MONOIO_FORCE_LEGACY_DRIVER=1` asks for epoll.
///
/// # Errors
/// Neither a ring nor an epoll instance could be made (descriptors, locked memory).
pub(crate) fn run<M, F>(main: M) -> io::Result<F::Output>
where
    M: FnOnce(Driver) -> F,
    F: Future,
    F::Output: 'static,
{
    if std::env::var_os("MONOIO_FORCE_LEGACY_DRIVER").is_none_or(|value| value != "1") {
        let mut deferred = io_uring::IoUring::builder();
        deferred.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETION_ENTRIES);
        if let Ok(mut runtime) = uring(deferred) {
            return Ok(runtime.block_on(main(Driver::UringDeferred)));
        }
        let mut cooperative = io_uring::IoUring::builder();
        cooperative.setup_coop_taskrun().setup_cqsize(COMPLETION_ENTRIES);
        if let Ok(mut runtime) = uring(cooperative) {
            return Ok(runtime.block_on(main(Driver::UringCooperative)));
        }
    }
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok(runtime.block_on(main(Driver::Epoll)))
}

fn uring(builder: io_uring::Builder) -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new().uring_builder(builder).with_entries(RING_ENTRIES).enable_timer().build()
}
