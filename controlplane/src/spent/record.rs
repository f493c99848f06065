//! What was spent, on disk: a version byte, eight bytes of a hash, and postcard. And how old it is
//! when it is read. Pure.

use crate::escrow::{Handed, LimitKey};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const VERSION: u8 = 2;
const HASH_BYTES: usize = 8;
/// Cells of a limit; finer ones are put together, and counted as long as the youngest of them.
const CELLS_MAX: usize = 64;

/// What was kept cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of what was spent is damaged, or of another version")]
pub(crate) struct Damaged;

/// All limits in use, when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at: When,
    /// Nothing was spent after it was written.
    pub(crate) is_exact: bool,
    pub(crate) entries: Vec<Entry>,
}

/// An instant, for a process that comes later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct When {
    /// Which start of the machine it was; empty where that cannot be known.
    pub(crate) boot: String,
    pub(crate) since_boot: Duration,
    pub(crate) wall: Duration,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: LimitKey,
    pub(crate) counted_ns_max: u64,
    /// What may have been spent at most beyond `cells` before the next record.
    pub(crate) headroom: u64,
    /// What other nodes had handed over that they had spent; it is in the cells.
    pub(crate) handed: Option<Handed>,
    /// How long ago, in nanoseconds, and how much; oldest first. What was held is spent just now.
    pub(crate) cells: Vec<(u64, u64)>,
}

impl When {
    /// Time from `written` to this instant: by the clock of the machine, or, when that was started
    /// again, by the time of day. None where it was set back.
    pub(crate) fn since(&self, written: &Self) -> Duration {
        if self.is_same_boot(written) {
            self.since_boot.saturating_sub(written.since_boot)
        } else {
            self.wall.saturating_sub(written.wall)
        }
    }

    /// How long ago the process that wrote `written` ended, at least.
    pub(crate) fn since_end_of(&self, written: &Self) -> Duration {
        if self.is_same_boot(written) || self.boot.is_empty() || written.boot.is_empty() {
            Duration::ZERO
        } else {
            self.since_boot
        }
    }

    fn is_same_boot(&self, other: &Self) -> bool {
        self.boot == other.boot && !self.boot.is_empty()
    }
}

impl Entry {
    /// The cells as they are after `passed`; those that do not count any more are gone.
    pub(crate) fn aged(&self, passed: Duration) -> Vec<(u64, u64)> {
        let passed_ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let aged = self.cells.iter().map(|(age_ns, amount)| (age_ns.saturating_add(passed_ns), *amount));
        aged.filter(|(age_ns, _)| *age_ns < self.counted_ns_max).collect()
    }
}

/// At most [`CELLS_MAX`] cells of the same sum, none of which is older than what is in it.
pub(crate) fn coarse(stamped: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let together = stamped.len().div_ceil(CELLS_MAX).max(1);
    let cell = |cells: &[(u64, u64)]| {
        let youngest = cells.iter().map(|(age_ns, _)| *age_ns).min().unwrap_or(0);
        (youngest, cells.iter().fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount)))
    };
    stamped.chunks(together).map(cell).collect()
}

pub(crate) fn write(record: &Record) -> Vec<u8> {
    // A record in memory cannot fail to be written.
    let body = postcard::to_allocvec(record).unwrap_or_default();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&hash(&body));
    bytes.extend_from_slice(&body);
    bytes
}

pub(crate) fn read(bytes: &[u8]) -> Result<Record, Damaged> {
    let (version, rest) = bytes.split_first().ok_or(Damaged)?;
    let (sum, body) = rest.split_first_chunk::<HASH_BYTES>().ok_or(Damaged)?;
    if *version != VERSION || *sum != hash(body) {
        return Err(Damaged);
    }
    postcard::from_bytes(body).map_err(|_| Damaged)
}

fn hash(body: &[u8]) -> [u8; HASH_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn when(boot: &str, since_boot: u32, wall: u32) -> When {
        When { boot: boot.to_owned(), since_boot: SECOND * since_boot, wall: SECOND * wall }
    }

    fn record() -> Record {
        let entry = Entry {
            key: LimitKey(7),
            counted_ns_max: 100,
            headroom: 5,
            handed: Some(Handed { life: 1, units: 2 }),
            cells: vec![(90, 1), (10, 2), (0, 3)],
        };
        Record { at: when("a", 1, 2), is_exact: true, entries: vec![entry] }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&write(&record())), Ok(record()));
    }

    #[test]
    fn what_is_cut_off_or_changed_anywhere_is_damaged() {
        let whole = write(&record());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Damaged));
            let mut changed = whole.clone();
            changed[length] ^= 1;
            assert_eq!(read(&changed), Err(Damaged));
        }
    }

    #[test]
    fn age_is_by_the_machines_clock_on_the_same_boot_and_by_time_of_day_after_another() {
        let written = when("a", 100, 5_000);
        assert_eq!(when("a", 130, 1).since(&written), SECOND * 30);
        assert_eq!(when("b", 7, 5_040).since(&written), SECOND * 40);
        assert_eq!(when("b", 7, 4_000).since(&written), Duration::ZERO, "the clock was set back");
        assert_eq!(when("", 130, 5_040).since(&when("", 100, 5_000)), SECOND * 40, "nobody knows the boot");
    }

    #[test]
    fn a_process_of_an_earlier_boot_ended_before_this_one() {
        assert_eq!(when("b", 70, 0).since_end_of(&when("a", 1, 0)), SECOND * 70);
        assert_eq!(when("a", 70, 0).since_end_of(&when("a", 1, 0)), Duration::ZERO);
        assert_eq!(when("b", 70, 0).since_end_of(&when("", 1, 0)), Duration::ZERO);
    }

    #[test]
    fn old_cells_are_gone() {
        let entry = &record().entries[0];
        assert_eq!(entry.aged(Duration::from_nanos(10)), [(20, 2), (10, 3)]);
        assert_eq!(entry.aged(Duration::MAX), []);
    }

    #[test]
    fn coarse_cells_keep_the_sum_and_are_never_older() {
        let fine: Vec<(u64, u64)> = (0..258).map(|cell| (1_000 - cell, cell)).collect();
        let coarse = coarse(&fine);
        assert!(coarse.len() <= CELLS_MAX);
        let sum = |cells: &[(u64, u64)]| cells.iter().map(|(_, amount)| amount).sum::<u64>();
        assert_eq!(sum(&coarse), sum(&fine));
        for age in 700..1_001 {
            let older =
                |cells: &[(u64, u64)]| sum(&cells.iter().filter(|cell| cell.0 > age).copied().collect::<Vec<_>>());
            assert!(older(&coarse) <= older(&fine));
        }
        assert_eq!(super::coarse(&[]), []);
    }
}
