//! How soon a source may be asked again, and how often its failures are worth a line. Pure.

use std::time::Duration;

/// A source that has something to say all the time is heard this often.
const AFTER_SUCCESS: Duration = Duration::from_millis(200);
/// The first pause after a failure; each further one doubles it.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const AFTER_FAILURE_MAX: Duration = Duration::from_secs(30);

/// Failures in a row.
pub(super) struct Pace {
    failures: u32,
}

/// A pause, and whether its reason should be logged.
pub(super) struct Pause {
    pub(super) length: Duration,
    pub(super) is_worth_saying: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { failures: 0 }
    }

    pub(super) fn after_success(&mut self) -> Pause {
        self.failures = 0;
        Pause { length: AFTER_SUCCESS, is_worth_saying: false }
    }

    /// Said at the first, eighth, 64th … failure in a row.
    pub(super) fn after_failure(&mut self) -> Pause {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let length = AFTER_FAILURE.saturating_mul(1 << doublings).min(AFTER_FAILURE_MAX);
        let is_worth_saying = self.failures.is_power_of_two() && self.failures.trailing_zeros().is_multiple_of(3);
        Pause { length, is_worth_saying }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let mut pace = Pace::new();
        let pauses: Vec<_> = (0..9).map(|_| pace.after_failure().length.as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        pace.after_success();
        assert_eq!(pace.after_failure().length, AFTER_FAILURE);
    }

    #[test]
    fn failures_are_said_at_once_and_then_ever_more_rarely() {
        let mut pace = Pace::new();
        let said: Vec<_> = (1..=600).filter(|_| pace.after_failure().is_worth_saying).collect();
        assert_eq!(said, [1, 8, 64, 512]);
    }
}
