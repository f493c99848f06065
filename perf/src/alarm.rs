//! Waits for a moment to some ten microseconds.
//!
//! monoio's timers turn once a millisecond, which is more than what an open loop wants to
//! see. A timer of the kernel, waited for through the ring, is exact.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    time::Instant,
};

use monoio::net::UnixStream;
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use crate::clock;

/// A kernel timer; two descriptors while it lives.
pub(crate) struct Alarm {
    timer: TimerFd,
    /// The same timer as something that monoio can wait for. It is never read: setting the
    /// timer again also clears what it has counted.
    waited: UnixStream,
}

impl Alarm {
    /// A timer that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let copy = timer.as_fd().try_clone_to_owned()?;
        Ok(Self { timer, waited: UnixStream::from_std(StdUnixStream::from(copy))? })
    }

    /// Returns at `moment`, at once when it has passed.
    pub(crate) async fn wait_until(&self, moment: Instant) -> io::Result<()> {
        let left = moment.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        self.waited.readable(false).await
    }
}
