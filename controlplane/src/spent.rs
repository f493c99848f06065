//! What was spent survives the process: read at the start, written while the node runs, and exactly
//! when it ends.
//!
//! **A process that ended in order** wrote last, when nothing could be held any more: its record is
//! all there is to count. **One that was killed** may have spent beyond its last record:
//!
//! - In a window up to a minute all that the node was entitled to and that is not known counts as
//!   spent at the start. Such windows are written at the end only.
//! - A longer window would be blocked for too long. There a node never spends more than a *headroom*
//!   beyond what is on disk: the ring has a cap, and a record is on disk before a cap is raised.
//!   What is written and the headroom counts as spent after a crash, and the rest is free.
//!
//! A limit that the record does not name has nothing written and the headroom of a limit at rest, so
//! those that nobody uses cost no disk.
//!
//! # Beside the ledgers of the escrow
//!
//! They are another file (`shared_limits`), written at other times. The bound above is on what is in
//! the ring and does not ask why the node may use it, so units that were given away or got between
//! the two writes change nothing: a node that gave some away was not using them, and after a crash
//! it may use no more than its ledger says, less what this file says. Only units that another node
//! hands over as spent are in the ledger and in the ring: a ledger that has them beside a record
//! that has not would make them free. So the ledger counts all that were ever handed over, a record
//! says how many it knows of, and the difference is charged. A record is stamped with that count
//! before the ring is read, so that it never claims units that it does not have; the other way
//! round, units are counted twice for a window.
//!
//! Without a state directory, or one that cannot be written, there are no caps, and what was spent
//! is forgotten with the process. Absent: limits on what runs at once, which end with it.

mod headroom;
mod record;

use crate::escrow::{Handed, LimitKey};
use crate::state_dir::{StateDir, StateDirError};
use headroom::{Bound, Pace, idle};
use record::{Entry, Record, When, coarse};
use shared::clock::{Clock, Nanos};
use shared::limit::{LIMITS_MAX, LimitRing, UNITS_MAX, Unit, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const FILE_NAME: &str = "spent";
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Up to here a window may be blocked by what is not known.
const SHORT: Duration = Duration::from_secs(60);
/// Between two records, where no cap is in the way.
const PAUSE: Duration = Duration::from_secs(1);
/// After a record that could not be written.
const FAILURE_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks, for each limit. Many are looked at less often than ticks come.
const LOOK_PAUSE: Duration = Duration::from_micros(5);
/// Larger records are written less often: so much a second.
const BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;

/// A published limit that is to be remembered.
pub(crate) struct Followed {
    pub(crate) key: LimitKey,
    pub(crate) unit: Unit,
    pub(crate) ring: Arc<LimitRing>,
    /// The escrow says what this node is entitled to, and charges what is not known.
    pub(crate) is_shared: bool,
}

/// See the module.
pub(crate) struct Spent {
    dir: Option<Arc<StateDir>>,
    clock: Clock,
    boot: String,
    found: Found,
    opened_at: Nanos,
    /// What the record said of limits that are not configured now.
    unclaimed: BTreeMap<LimitKey, Entry>,
    limits: BTreeMap<LimitKey, Limit>,
    writing: Option<JoinHandle<Wrote>>,
    /// A record of this process was written; until then the former one's is there.
    has_begun: bool,
    is_kept: bool,
    looked_at: Nanos,
    next_at: Nanos,
    next_urgent_at: Nanos,
}

/// What an earlier process left.
enum Found {
    /// There was none.
    Nobody,
    /// What it spent is not known.
    NoRecord,
    Record {
        is_exact: bool,
        /// Since the record.
        passed: Duration,
        /// Since the end of the process, at least.
        ended: Duration,
    },
}

struct Limit {
    ring: Arc<LimitRing>,
    unit: Unit,
    is_shared: bool,
    /// The record on disk; `None`: nothing is written, and nothing is capped.
    on_disk: Option<Bound>,
    in_flight: Option<Bound>,
    pace: Pace,
    /// May have been spent by an earlier process, and is not charged yet.
    owed: u64,
    /// The same where there was no room for it at this amount: the earlier process may have gone by a
    /// larger one.
    rest: (u64, u64),
    handed: Option<Handed>,
    /// At the beginning of the end.
    granted_at_end: u64,
}

enum Wrote {
    Kept { bytes: u64 },
    Failed(StateDirError),
}

impl Spent {
    /// Reads what an earlier process left; what is wrong with it is logged.
    pub(crate) fn open(dir: Option<Arc<StateDir>>, clock: Clock) -> Self {
        let opened_at = clock.now();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let mut unclaimed = BTreeMap::new();
        let found = match &dir {
            None => {
                tracing::warn!("without a state directory, what is spent of limits is forgotten with the process");
                Found::Nobody
            }
            Some(dir) => match read(dir) {
                Ok(Some(Record { at, is_exact, entries })) => {
                    unclaimed.extend(entries.into_iter().take(2 * LIMITS_MAX).map(|entry| (entry.key, entry)));
                    let now = when(&boot, clock, opened_at);
                    Found::Record { is_exact, passed: now.since(&at), ended: now.since_end_of(&at) }
                }
                Ok(None) if dir.is_new() => Found::Nobody,
                Ok(None) => Found::NoRecord,
                Err(error) => {
                    tracing::error!(%error, "what was spent in windows over a minute is not known and counts from now on; \
                                    shorter ones are full until it cannot count any more");
                    Found::NoRecord
                }
            },
        };
        Self {
            dir,
            clock,
            boot,
            found,
            opened_at,
            unclaimed,
            limits: BTreeMap::new(),
            writing: None,
            has_begun: false,
            is_kept: false,
            looked_at: opened_at,
            next_at: opened_at,
            next_urgent_at: opened_at,
        }
    }

    /// These are the limits from now on, and no core has those of their rings that are new. What
    /// was spent of them is in them when this returns, and the first time a record is on disk.
    pub(crate) fn follow(&mut self, limits: Vec<Followed>, now: Nanos) {
        if self.dir.is_none() {
            return;
        }
        let mut before = std::mem::take(&mut self.limits);
        for Followed { key, unit, ring, is_shared } in limits {
            let limit = match before.remove(&key).filter(|limit| Arc::ptr_eq(&limit.ring, &ring)) {
                Some(mut limit) => {
                    limit.charge_rest(self.opened_at, now);
                    Limit { is_shared, ..limit }
                }
                None => self.take_up(key, unit, ring, is_shared, now),
            };
            self.limits.insert(key, limit);
        }
        // Their rings are kept by the table of limits as long as something counts in them.
        for (key, limit) in before {
            limit.ring.advance(now);
            if limit.ring.used() > 0 && self.limits.len() < 2 * LIMITS_MAX {
                self.limits.entry(key).or_insert(limit);
            }
        }
        if !self.has_begun {
            self.has_begun = true;
            if let Some(dir) = self.dir.clone() {
                let record = self.begin(&|_| None, false, now);
                let wrote = write(&dir, &record);
                self.wrote(wrote, now);
            }
        }
        self.cap(now);
    }

    fn take_up(&mut self, key: LimitKey, unit: Unit, ring: Arc<LimitRing>, is_shared: bool, now: Nanos) -> Limit {
        let entry = self.unclaimed.remove(&key);
        let owed = self.owed(&ring, unit, entry.as_ref(), now);
        if let (Found::Record { passed, .. }, Some(entry)) = (&self.found, &entry) {
            ring.restore(now, &entry.aged(passed.saturating_add(now.since(self.opened_at))));
        }
        // Nobody has asked for it since.
        let handed = match &self.found {
            Found::NoRecord => None,
            Found::Nobody | Found::Record { .. } => Some(Handed::default()),
        };
        let mut limit = Limit {
            unit,
            is_shared,
            on_disk: (self.is_kept && is_long(ring.window()))
                .then(|| Bound::new(&[], idle(ring.amount(), unit), ring.window(), now)),
            in_flight: None,
            pace: Pace::default(),
            owed,
            rest: (0, 0),
            handed: entry.map_or(handed, |entry| entry.handed),
            granted_at_end: 0,
            ring,
        };
        if !is_shared {
            limit.charge_owed(now);
        }
        limit
    }

    /// What an earlier process may have spent beyond what is known.
    fn owed(&self, ring: &LimitRing, unit: Unit, entry: Option<&Entry>, now: Nanos) -> u64 {
        let window = ring.window();
        match &self.found {
            Found::Nobody | Found::Record { is_exact: true, .. } => 0,
            Found::Record { ended, .. }
                if ended.saturating_add(now.since(self.opened_at)) >= Duration::from_nanos(window.counted_ns_max()) =>
            {
                0
            }
            Found::NoRecord if is_long(window) => 0,
            _ if !is_long(window) => u64::MAX,
            // Only what is known to be limited was capped.
            _ if ring.amount() >= UNITS_MAX => 0,
            _ => entry.map_or_else(|| idle(ring.amount(), unit), |entry| entry.headroom),
        }
    }

    /// What the escrow has to know of a limit: what may have been spent that is not in the ring, and
    /// what had been handed over when the ring was written.
    pub(crate) fn not_known(&self, key: LimitKey) -> (u64, Option<Handed>) {
        self.limits.get(&key).map_or((u64::MAX, None), |limit| (limit.owed, limit.handed))
    }

    /// The escrow has charged what was owed.
    pub(crate) fn is_charged(&mut self) {
        self.limits.values_mut().filter(|limit| limit.is_shared).for_each(|limit| limit.owed = 0);
    }

    /// Looks at what was spent since the last time, caps what is not written, and begins to write
    /// where it is time.
    pub(crate) fn look(&mut self, handed: &dyn Fn(LimitKey) -> Option<Handed>, now: Nanos) {
        let Some(dir) = self.dir.clone() else { return };
        let limits = u32::try_from(self.limits.len()).unwrap_or(u32::MAX);
        if !self.has_begun || now.since(self.looked_at) < LOOK_PAUSE.saturating_mul(limits) {
            return;
        }
        self.looked_at = now;
        let (has_changed, is_urgent) = self.cap(now);
        let is_due = (has_changed && now >= self.next_at) || (is_urgent && now >= self.next_urgent_at);
        if self.writing.is_none() && (is_due || (!self.is_kept && now >= self.next_at)) {
            let record = self.begin(handed, false, now);
            self.cap(now);
            self.writing = Some(tokio::task::spawn_blocking(move || write(&dir, &record)));
        }
    }

    /// Whether something is to be written, and whether somebody waits for it.
    fn cap(&mut self, now: Nanos) -> (bool, bool) {
        let (mut has_changed, mut is_urgent) = (false, false);
        for limit in self.limits.values_mut().filter(|limit| is_long(limit.ring.window())) {
            let (changed, urgent) = limit.cap(now);
            has_changed |= changed;
            is_urgent |= urgent;
        }
        (has_changed, is_urgent)
    }

    /// The record of this instant. Until it is written, it binds beside the one that is.
    fn begin(&mut self, handed: &dyn Fn(LimitKey) -> Option<Handed>, is_exact: bool, now: Nanos) -> Record {
        let mut entries = Vec::new();
        for (key, limit) in &mut self.limits {
            limit.handed = handed(*key).or(limit.handed);
            if is_exact || is_long(limit.ring.window()) {
                entries.extend(limit.entry(*key, is_exact, now));
            }
        }
        if let Found::Record { passed, .. } = &self.found {
            let passed = passed.saturating_add(now.since(self.opened_at));
            self.unclaimed.retain(|_, entry| !entry.aged(passed).is_empty());
            entries.extend(self.unclaimed.values().map(|entry| Entry { cells: entry.aged(passed), ..entry.clone() }));
        }
        Record { at: when(&self.boot, self.clock, now), is_exact, entries }
    }

    /// Waits for a record that is being written; for ever where there is none.
    pub(crate) async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let outcome = writing.await;
        self.writing = None;
        let now = self.clock.now();
        match outcome {
            Ok(wrote) => self.wrote(wrote, now),
            Err(panicked) => self.failed(&panicked, now),
        }
        self.cap(now);
    }

    fn wrote(&mut self, wrote: Wrote, now: Nanos) {
        match wrote {
            Wrote::Kept { bytes } => {
                if !self.is_kept && self.opened_at < self.next_at {
                    tracing::info!("what is spent of limits is kept again");
                }
                self.is_kept = true;
                let cost = Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_SECOND);
                self.next_at = now.after(PAUSE.saturating_add(cost));
                self.next_urgent_at = now.after(cost);
                for limit in self.limits.values_mut() {
                    // One that came meanwhile is not in it, which binds it as well.
                    limit.on_disk = limit.in_flight.take().or(limit.on_disk.take());
                }
            }
            Wrote::Failed(error) => self.failed(&error, now),
        }
    }

    /// Rather than refuse what a limit allows, a node whose disk fails goes on without.
    fn failed(&mut self, error: &dyn std::fmt::Display, now: Nanos) {
        if self.is_kept || self.opened_at == self.next_at {
            tracing::error!(%error, "what is spent of limits is not kept, and would be forgotten by a restart");
        }
        self.is_kept = false;
        (self.next_at, self.next_urgent_at) = (now.after(FAILURE_PAUSE), now.after(FAILURE_PAUSE));
        for limit in self.limits.values_mut() {
            (limit.on_disk, limit.in_flight) = (None, None);
        }
    }

    /// From now on no core gets anything any more.
    pub(crate) fn close(&mut self) {
        for limit in self.limits.values_mut() {
            limit.granted_at_end = limit.ring.granted();
            limit.ring.set_cap(0);
        }
    }

    /// Writes the last record, which is exact. What was given away since [`Spent::close`] was spent
    /// too, and is counted by whoever got it.
    pub(crate) async fn end(&mut self, handed: &dyn Fn(LimitKey) -> Option<Handed>) {
        let Some(dir) = self.dir.clone().filter(|_| self.has_begun) else { return };
        if self.writing.is_some() {
            self.written().await;
            self.limits.values().for_each(|limit| limit.ring.set_cap(0));
        }
        let record = self.begin(handed, true, self.clock.now());
        match tokio::task::spawn_blocking(move || write(&dir, &record)).await {
            Ok(Wrote::Kept { .. }) => {}
            Ok(Wrote::Failed(error)) => tracing::error!(%error, "what was spent of limits is not kept"),
            Err(error) => tracing::error!(%error, "what was spent of limits is not kept"),
        }
    }
}

impl Limit {
    fn charge_owed(&mut self, now: Nanos) {
        let room = self.ring.granted().saturating_sub(self.ring.used());
        let charged = self.owed.min(room);
        self.ring.charge(charged, now);
        self.rest = (self.owed - charged, self.ring.amount());
        self.owed = 0;
    }

    /// A raised amount makes no room for what may have been spent by one as large, as long as that
    /// counts.
    fn charge_rest(&mut self, opened_at: Nanos, now: Nanos) {
        let (rest, amount) = self.rest;
        let charged = self.ring.amount().saturating_sub(amount).min(rest);
        let age_ns = u64::try_from(now.since(opened_at).as_nanos()).unwrap_or(u64::MAX);
        self.ring.restore(now, &[(age_ns, charged)]);
        self.rest = (rest - charged, amount + charged);
    }

    /// Caps the ring; whether what is on disk is not what it should be, and is in the way.
    fn cap(&mut self, now: Nanos) -> (bool, bool) {
        let ring = &self.ring;
        ring.advance(now);
        let used = ring.used();
        self.pace.look(used, ring.take_largest_refused(), now);
        let Some(headroom) = self.headroom() else {
            ring.set_cap(u64::MAX);
            return (false, false);
        };
        let bounds = [self.on_disk.as_mut(), self.in_flight.as_mut()].into_iter().flatten();
        let Some(bound) = bounds.map(|bound| bound.at(now)).min() else {
            ring.set_cap(u64::MAX);
            return (false, false);
        };
        ring.set_cap(bound);
        let has_changed = self.on_disk.as_ref().is_some_and(|on_disk| {
            on_disk.written() != used || !(headroom..=headroom.saturating_mul(2)).contains(&on_disk.headroom())
        });
        let is_urgent = bound < ring.granted() && bound < used.saturating_add(headroom.div_ceil(2));
        (has_changed, is_urgent)
    }

    /// `None` where nothing is capped.
    fn headroom(&self) -> Option<u64> {
        let amount = self.ring.amount();
        (amount < UNITS_MAX).then(|| self.pace.headroom(amount, self.unit))
    }

    /// What is written of it; `None` where that is what a process without it goes by.
    fn entry(&mut self, key: LimitKey, is_exact: bool, now: Nanos) -> Option<Entry> {
        let (ring, window) = (&self.ring, self.ring.window());
        // First: what is held when it is read and stamped before the cells are is in one of the two.
        let used = ring.used();
        let mut cells = coarse(&ring.stamped(now));
        let stamped = cells.iter().fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
        if used > stamped {
            cells.push((0, used - stamped));
        }
        let headroom = if is_exact { None } else { self.headroom() };
        if is_exact && self.is_shared && ring.granted() == 0 && self.granted_at_end > 0 {
            // Others got all that there was, and count what was spent of it.
            cells.clear();
        }
        self.in_flight = headroom.map(|headroom| Bound::new(&cells, headroom, window, now));
        let is_as_without = cells.is_empty()
            && (is_exact || headroom.is_none_or(|headroom| headroom == idle(ring.amount(), self.unit)))
            && self.owed == 0
            && self.handed == Some(Handed::default());
        (!is_as_without).then(|| Entry {
            key,
            counted_ns_max: window.counted_ns_max(),
            headroom: headroom.unwrap_or(0).saturating_add(self.owed),
            handed: self.handed,
            cells,
        })
    }
}

/// Windows that what is not known must not block.
fn is_long(window: Window) -> bool {
    Duration::from_nanos(window.window_ns()) > SHORT
}

fn when(boot: &str, clock: Clock, now: Nanos) -> When {
    When { boot: boot.to_owned(), since_boot: clock.since_boot(now), wall: clock.wall() }
}

fn read(dir: &StateDir) -> Result<Option<Record>, StateDirError> {
    let Some(bytes) = dir.read(FILE_NAME, FILE_BYTES_MAX)? else { return Ok(None) };
    let damaged = |_| StateDirError::Damaged {
        path: dir.path().join(FILE_NAME),
        reason: "it is cut off, changed, or of another version",
    };
    record::read(&bytes).map(Some).map_err(damaged)
}

/// Where it cannot be written, an older one would be wrong.
fn write(dir: &StateDir, record: &Record) -> Wrote {
    let bytes = record::write(record);
    match dir.replace(FILE_NAME, &bytes) {
        Ok(()) => Wrote::Kept { bytes: bytes.len() as u64 },
        Err(error) => {
            drop(dir.remove(FILE_NAME));
            Wrote::Failed(error)
        }
    }
}

#[cfg(test)]
mod tests;
