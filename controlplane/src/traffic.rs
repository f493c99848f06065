//! What passed through this node lately, out of the sums of its cores' reports. Pure.
//!
//! Providers are shown over the last ten seconds, anew every second, since others decide from
//! them. Rows by model and by key are shown for whole windows of ten seconds: they are many, and
//! what does not change costs no gossip.

mod tally;

use crate::gossip::values::{LimitUse, ProviderTraffic, TrafficRow};
use crate::metrics::{LimitRow, Totals};
use shared::clock::Nanos;
use shared::report::{Histogram, LATENCY_BOUNDS_US};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tally::{ProviderTally, RowTally, providers_of, rows_of};

/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Parts of the last ten seconds; further ones are left to the last part.
const PARTS_MAX: usize = 16;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Sums at the update before.
    providers_before: BTreeMap<String, ProviderTally>,
    /// What came since then, by the time of the update.
    parts: VecDeque<(Nanos, BTreeMap<String, ProviderTally>)>,
    /// When the window began, and the sums then.
    window: Option<(Nanos, BTreeMap<tally::RowName, RowTally>)>,
    /// Rows of the window before.
    rows: Vec<TrafficRow>,
}

impl Traffic {
    /// Takes in the sums as they stand; to be called about once a second. Costs O(rows).
    pub fn update(&mut self, totals: &Totals, now: Nanos) {
        self.update_providers(totals, now);
        let Some((began_at, before)) = &self.window else {
            // What was counted before nobody looked belongs to no window.
            self.window = Some((now, rows_of(totals)));
            return;
        };
        if now.since(*began_at) < WINDOW {
            return;
        }
        let after = rows_of(totals);
        self.rows = after.iter().filter_map(|(name, tally)| tally.row_since(before.get(name), name)).collect();
        self.window = Some((now, after));
    }

    /// Providers that were tried in the last ten seconds.
    pub fn providers(&self) -> Vec<ProviderTraffic> {
        let mut sums: BTreeMap<&str, ProviderTally> = BTreeMap::new();
        for (name, tally) in self.parts.iter().flat_map(|(_, part)| part) {
            sums.entry(name).or_default().add(tally);
        }
        let shown = sums.into_iter().map(|(provider, tally)| ProviderTraffic {
            provider: provider.to_owned(),
            attempts: tally.attempts,
            failures: tally.failures.min(tally.attempts),
            first_byte_us: median_us(&tally.first_byte),
        });
        shown.collect()
    }

    /// Rows of the last whole window.
    pub fn rows(&self) -> &[TrafficRow] {
        &self.rows
    }

    fn update_providers(&mut self, totals: &Totals, now: Nanos) {
        let after = providers_of(totals);
        let is_first = self.window.is_none();
        let part: BTreeMap<String, ProviderTally> = after
            .iter()
            .filter_map(|(name, tally)| {
                let since = tally.since(self.providers_before.get(name));
                (!since.is_empty()).then(|| (name.clone(), since))
            })
            .collect();
        self.providers_before = after;
        self.parts.retain(|(at, _)| now.since(*at) < WINDOW);
        if is_first || part.is_empty() {
            return;
        }
        let is_full = self.parts.len() >= PARTS_MAX;
        match self.parts.back_mut() {
            Some((_, last)) if is_full => {
                for (name, tally) in part {
                    last.entry(name).or_default().add(&tally);
                }
            }
            _ => self.parts.push_back((now, part)),
        }
    }
}

/// Use of every limit of which something is in use, and what this node has of those that nodes hold
/// parts of.
pub fn limits(rows: &[LimitRow]) -> Vec<LimitUse> {
    let used = rows.iter().filter(|row| row.is_shared || row.ring.used > 0);
    let shown = used.map(|row| LimitUse {
        id: row.id.clone(),
        unit: row.unit.to_owned(),
        used: row.ring.used,
        amount: row.ring.amount,
        entitlement: row.is_shared.then_some(if row.is_valid { row.ring.entitlement } else { 0 }),
        refused: row.refused,
        back_ms: if row.is_shared { row.back_ms.clone() } else { Vec::new() },
    });
    shown.collect()
}

/// Where half of the values lie below, evenly spread within their bucket; of the last, which has
/// no end, its beginning. 0 without values.
fn median_us(histogram: &Histogram) -> u64 {
    let half = u128::from(histogram.count().div_ceil(2));
    let mut below = 0_u128;
    for (at, in_bucket) in histogram.buckets.iter().enumerate() {
        let in_bucket = u128::from(*in_bucket);
        if in_bucket > 0 && below + in_bucket >= half {
            let lower = at.checked_sub(1).and_then(|before| LATENCY_BOUNDS_US.get(before)).copied().unwrap_or(0);
            let upper = LATENCY_BOUNDS_US.get(at).copied().unwrap_or(lower);
            let within = u128::from(upper.saturating_sub(lower)) * (half - below) / in_bucket;
            return lower.saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
        }
        below += in_bucket;
    }
    0
}

#[cfg(test)]
mod tests;
