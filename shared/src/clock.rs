//! The one place that reads the operating system's clocks.
//!
//! Everything else takes the time as an argument, so that a simulator can run the same code in
//! virtual time. No timers, no sleeping.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on the node's own clock, which starts at zero with the process, never jumps and is
/// the same for every thread. It says nothing about the time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// This instant plus `duration`; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Reads the clocks. Cheap to copy; every copy made from one origin agrees.
///
/// It reads `CLOCK_BOOTTIME`, which goes on while the machine is suspended, as the windows of
/// providers and the leases of other nodes do; timers of the runtimes do not. A kernel that
/// refuses that clock gives `CLOCK_MONOTONIC`. Both come from the vDSO, without a system call.
///
/// Simulators put a `clock_gettime` of their own into the program. This asks the C library's
/// name for it, as the standard library does, so they get virtual time here too; a direct way
/// to the vDSO would pass them by.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: ClockId,
    /// What `source` showed at the start.
    origin: Duration,
    /// How far the time of day is off, milliseconds.
    wall_error_ms: Option<&'static AtomicI64>,
}

impl Clock {
    /// A clock whose zero is now. A node makes one and hands copies of it out.
    #[must_use]
    pub fn start() -> Self {
        let boot_time = read(ClockId::CLOCK_BOOTTIME).map(|origin| (ClockId::CLOCK_BOOTTIME, origin));
        let (source, origin) =
            boot_time.unwrap_or_else(|| (ClockId::CLOCK_MONOTONIC, read(ClockId::CLOCK_MONOTONIC).unwrap_or_default()));
        Self { source, origin, wall_error_ms: None }
    }

    /// The same clock, with a time of day that is off by as much as `milliseconds` says at each
    /// reading: for simulators.
    #[must_use]
    pub fn with_wall_error(self, milliseconds: &'static AtomicI64) -> Self {
        Self { wall_error_ms: Some(milliseconds), ..self }
    }

    /// Monotonic time since the clock was made.
    #[must_use]
    pub fn now(&self) -> Nanos {
        // Standing still instead would be worse: nothing would ever expire.
        let shown = read(self.source).expect("a clock that was there at the start stays");
        Nanos(u64::try_from(shown.saturating_sub(self.origin).as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long the machine had been running at `now`; compares readings of several processes, as
    /// long as the machine was not started again in between.
    #[must_use]
    pub fn since_boot(&self, now: Nanos) -> Duration {
        self.origin.saturating_add(Duration::from_nanos(now.0))
    }

    /// Time of day, for log lines, file names, certificate checks and times that a provider states
    /// as times of day; never for what has to grow.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn wall(&self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Some(error) = self.wall_error_ms else { return wall };
        let error_ms = error.load(Ordering::Relaxed);
        let error = Duration::from_millis(error_ms.unsigned_abs());
        if error_ms < 0 { wall.saturating_sub(error) } else { wall.saturating_add(error) }
    }
}

fn read(clock: ClockId) -> Option<Duration> {
    clock_gettime(clock).ok().map(Duration::from)
}
