//! The log of everything that was admitted, and the most that any sliding window of it holds.
//! Pure, bounded: when it is full the oldest rows leave, and the log says how many.

use std::{collections::VecDeque, time::Duration};

use shared::clock::Nanos;

/// Rows in one block. A block is allocated whole, so that a growing log never copies itself while
/// requests wait.
const BLOCK_ROWS: usize = 16_384;

/// One admitted request. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it was admitted.
    pub(crate) at: Nanos,
    /// Prompt and completion tokens together.
    pub(crate) tokens: u32,
    /// Index of its API key.
    pub(crate) key: u16,
    /// Index of its model.
    pub(crate) model: u16,
}

/// The log. Rows are in the order of their times.
#[derive(Debug)]
pub(crate) struct Arrivals {
    blocks: VecDeque<Vec<Arrival>>,
    rows: usize,
    rows_max: usize,
    forgotten: u64,
}

/// The fullest windows of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fullest {
    /// Most requests in any window.
    pub(crate) requests: u64,
    /// Most tokens in any window (not necessarily the same window).
    pub(crate) tokens: u64,
}

impl Arrivals {
    /// An empty log that keeps at least `rows_max` rows, and less than one block more.
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { blocks: VecDeque::new(), rows: 0, rows_max: rows_max.max(1), forgotten: 0 }
    }

    /// Adds a row that is not older than the newest.
    pub(crate) fn push(&mut self, arrival: Arrival) {
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK_ROWS) {
            self.blocks.push_back(Vec::with_capacity(BLOCK_ROWS));
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(arrival);
            self.rows += 1;
        }
        let oldest = self.blocks.front().map_or(0, Vec::len);
        if self.rows - oldest >= self.rows_max {
            self.rows -= oldest;
            self.forgotten += oldest as u64;
            self.blocks.pop_front();
        }
    }

    /// Rows that are there.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that left because the log was full. Above zero, [`Arrivals::fullest`] speaks of the
    /// rows that are there only.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The rows from number `first` on, the oldest of all times being number 0; of those that left,
    /// none. Skips whole blocks.
    pub(crate) fn since(&self, first: u64) -> impl Iterator<Item = &Arrival> {
        // Every block but the last is full, and only whole blocks leave.
        let skipped = usize::try_from(first.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let rows = self.blocks.iter().skip(skipped / BLOCK_ROWS).flatten();
        rows.skip(skipped % BLOCK_ROWS)
    }

    /// The fullest windows [t, t + window) over all t, of the rows that `counts` accepts. Exact.
    /// O(rows), twice over.
    pub(crate) fn fullest(&self, window: Duration, counts: impl Fn(&Arrival) -> bool) -> Fullest {
        // A fullest window can be moved right until it starts at one of its rows, so it is enough to
        // look at those that end just before a row leaves: one pointer in front, one behind.
        let rows = || self.blocks.iter().flatten().filter(|row| counts(row));
        let mut behind = rows();
        let mut oldest = behind.next();
        let (mut requests, mut tokens) = (0_u64, 0_u64);
        let mut fullest = Fullest::default();
        for newest in rows() {
            while let Some(row) = oldest.filter(|row| newest.at.since(row.at) >= window) {
                requests -= 1;
                tokens -= u64::from(row.tokens);
                oldest = behind.next();
            }
            requests += 1;
            tokens += u64::from(newest.tokens);
            fullest.requests = fullest.requests.max(requests);
            fullest.tokens = fullest.tokens.max(tokens);
        }
        fullest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider_sim::fault::Dice;

    fn log(rows: &[(u64, u32)]) -> Arrivals {
        let mut arrivals = Arrivals::new(1_000_000);
        for &(millis, tokens) in rows {
            arrivals.push(Arrival { at: Nanos(millis * 1_000_000), tokens, key: 0, model: 0 });
        }
        arrivals
    }

    fn check(rows: &[(u64, u32)], window_millis: u64, requests: u64, tokens: u64) {
        let fullest = log(rows).fullest(Duration::from_millis(window_millis), |_| true);
        assert_eq!(fullest, Fullest { requests, tokens });
    }

    #[test]
    fn a_window_is_open_at_its_end() {
        check(&[(0, 5), (1000, 7)], 1000, 1, 7);
        check(&[(0, 5), (999, 7)], 1000, 2, 12);
        check(&[], 1000, 0, 0);
    }

    #[test]
    fn the_fullest_window_need_not_be_aligned_to_anything() {
        check(&[(0, 1), (900, 1), (950, 1), (1700, 1), (1899, 1), (5000, 9)], 1000, 4, 9);
    }

    #[test]
    fn equals_a_count_by_hand_over_every_start() {
        let mut dice = Dice::new(7);
        for _ in 0..200 {
            let mut millis = 0;
            let rows: Vec<(u64, u32)> = (0..60)
                .map(|_| {
                    millis += dice.throw() % 30;
                    (millis, (dice.throw() % 50) as u32)
                })
                .collect();
            let window = 1 + dice.throw() % 200;
            let in_window = |start: u64| rows.iter().filter(move |(at, _)| (start..start + window).contains(at));
            let requests = rows.iter().map(|&(start, _)| in_window(start).count() as u64).max().unwrap_or(0);
            let tokens = rows
                .iter()
                .map(|&(start, _)| in_window(start).map(|(_, tokens)| u64::from(*tokens)).sum())
                .max()
                .unwrap_or(0);
            check(&rows, window, requests, tokens);
        }
    }

    #[test]
    fn a_full_log_forgets_its_oldest_rows_and_says_so() {
        let mut arrivals = Arrivals::new(20_000);
        for step in 0..100_000_u64 {
            arrivals.push(Arrival { at: Nanos(step), tokens: 1, key: 0, model: 0 });
        }
        assert!((20_000..20_000 + BLOCK_ROWS).contains(&arrivals.rows()));
        assert_eq!(arrivals.rows() as u64 + arrivals.forgotten(), 100_000);
    }

    #[test]
    fn rows_can_be_chosen() {
        let mut arrivals = log(&[(0, 1), (1, 1)]);
        arrivals.push(Arrival { at: Nanos(2_000_000), tokens: 10, key: 3, model: 0 });
        let fullest = arrivals.fullest(Duration::from_secs(1), |row| row.key == 3);
        assert_eq!(fullest, Fullest { requests: 1, tokens: 10 });
    }
}
