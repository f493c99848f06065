//! The demo's figures as lines of text: a panel for a terminal, one line elsewhere. Pure.

use super::sample::{LimitUse, Sample};
use std::collections::VecDeque;
use std::time::Duration;

/// How many samples rates and latencies are taken over; one comes each second.
const SAMPLES_KEPT: usize = 11;
/// Cells of a bar.
const BAR_CELLS: u64 = 24;

/// The newest samples.
#[derive(Default)]
pub(super) struct Figures {
    samples: VecDeque<Sample>,
}

impl Figures {
    /// Takes the newest sample in.
    pub(super) fn add(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES_KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// What a terminal shows. `owners` are the limits' owners that are wanted, in this order.
    pub(super) fn panel(&self, owners: &[&str]) -> Vec<String> {
        let Some((oldest, newest)) = self.samples.front().zip(self.samples.back()) else { return Vec::new() };
        let Sample { answered, refused, failed, in_flight, streams, .. } = newest;
        let seconds = newest.taken_at.since(oldest.taken_at).as_secs().max(1);
        let mut lines = vec![
            format!("  requests/s    {:<8.1} over the last {seconds} s", per_second(oldest, newest)),
            format!(
                "  requests      {answered} answered, {refused} over a limit, {failed} failed, {in_flight} running ({streams} as streams)"
            ),
        ];
        for (name, now, before) in [
            ("whole answer", &newest.whole_answer, &oldest.whole_answer),
            ("first byte", &newest.first_byte, &oldest.first_byte),
            ("node's part", &newest.own_part, &oldest.own_part),
        ] {
            let latencies = now.since(before);
            let (half, most) = (duration(latencies.quantile_us(0.5)), duration(latencies.quantile_us(0.99)));
            lines.push(format!("  {name:<13} p50 {half:<8} p99 {most}"));
        }
        for (id, limit) in wanted(newest, owners) {
            let LimitUse { entitlement, used, refused } = limit;
            let (owner, unit) = id.split_once('/').unwrap_or((id, ""));
            lines.push(format!("  {owner:<13} [{}] {used} of {entitlement} {unit}, {refused} refused", bar(limit)));
        }
        let state =
            if newest.is_ready { "serving; Ctrl-C ends it" } else { "draining: no new requests, what runs may finish" };
        lines.push(format!("  node          {state}"));
        lines
    }

    /// What stands in a log: the panel's main figures.
    pub(super) fn line(&self, owners: &[&str]) -> String {
        let Some((oldest, newest)) = self.samples.front().zip(self.samples.back()) else { return String::new() };
        let Sample { answered, refused, failed, .. } = newest;
        let latencies = newest.whole_answer.since(&oldest.whole_answer);
        let rate = per_second(oldest, newest);
        let (half, most) = (duration(latencies.quantile_us(0.5)), duration(latencies.quantile_us(0.99)));
        let mut parts = vec![
            format!("{rate:.1} requests/s"),
            format!("{answered} answered, {refused} over a limit, {failed} failed"),
            format!("p50 {half}, p99 {most}"),
        ];
        for (id, LimitUse { entitlement, used, .. }) in wanted(newest, owners) {
            parts.push(format!("{id} {used} of {entitlement}"));
        }
        parts.join(", ")
    }
}

fn per_second(oldest: &Sample, newest: &Sample) -> f64 {
    let time = newest.taken_at.since(oldest.taken_at).max(Duration::from_millis(1));
    newest.finished().saturating_sub(oldest.finished()) as f64 / time.as_secs_f64()
}

/// The limits whose id is `OWNER/UNIT` for one of `owners`, by owner.
fn wanted<'s>(sample: &'s Sample, owners: &[&str]) -> Vec<(&'s str, &'s LimitUse)> {
    let of = |owner: &str| {
        let is_its = move |id: &str| id.split_once('/').is_some_and(|(id_owner, _)| id_owner == owner);
        sample
            .limits
            .iter()
            .filter(move |(id, _)| is_its(id))
            .map(|(id, limit)| (id.as_str(), limit))
            .collect::<Vec<_>>()
    };
    owners.iter().flat_map(|owner| of(owner)).collect()
}

/// How full a limit is. One unit is seen, and only a limit that is used up is full.
fn bar(limit: &LimitUse) -> String {
    let LimitUse { entitlement, used, .. } = limit;
    let full = if used >= entitlement {
        BAR_CELLS
    } else {
        (used.saturating_mul(BAR_CELLS) / entitlement.max(&1)).max(u64::from(*used > 0)).min(BAR_CELLS - 1)
    };
    (0..BAR_CELLS).map(|cell| if cell < full { '#' } else { '.' }).collect()
}

/// Microseconds in the unit that suits them.
fn duration(us: Option<f64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 1e3 => format!("{us:.0} µs"),
        Some(us) if us < 1e4 => format!("{:.1} ms", us / 1e3),
        Some(us) if us < 1e6 => format!("{:.0} ms", us / 1e3),
        Some(us) => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::Nanos;

    fn sample(second: u64, answered: u64, limits: &[(&str, u64, u64)]) -> Sample {
        let limits = limits
            .iter()
            .map(|(id, used, entitlement)| {
                ((*id).to_owned(), LimitUse { entitlement: *entitlement, used: *used, refused: 0 })
            })
            .collect();
        Sample { taken_at: Nanos(second * 1_000_000_000), is_ready: true, answered, limits, ..Sample::default() }
    }

    #[test]
    fn rates_are_taken_over_the_last_ten_seconds() {
        let mut figures = Figures::default();
        // A hundred a second for a minute, then nothing.
        for second in 0..=60 {
            figures.add(sample(second, second * 100, &[]));
        }
        assert!(figures.line(&[]).starts_with("100.0 requests/s, 6000 answered"), "{}", figures.line(&[]));
        for second in 61..=70 {
            figures.add(sample(second, 6000, &[]));
        }
        assert!(figures.line(&[]).starts_with("0.0 requests/s, 6000 answered"), "{}", figures.line(&[]));
    }

    #[test]
    fn limits_are_shown_by_owner_and_others_are_not() {
        let mut figures = Figures::default();
        figures.add(sample(0, 0, &[("a/requests", 5, 10), ("b/requests", 1, 2), ("ab/requests", 1, 3)]));
        assert!(figures.line(&["b", "a"]).ends_with(", b/requests 1 of 2, a/requests 5 of 10"));
        let panel = figures.panel(&["a"]);
        assert!(
            panel.contains(&"  a             [############............] 5 of 10 requests, 0 refused".to_owned()),
            "{panel:?}"
        );
        assert!(!panel.iter().any(|line| line.starts_with("  b")), "{panel:?}");
    }

    #[test]
    fn a_bar_is_full_when_nothing_is_left_and_empty_when_nothing_is_used() {
        let cells = |used, entitlement| {
            let bar = bar(&LimitUse { entitlement, used, refused: 0 });
            bar.matches('#').count()
        };
        assert_eq!(
            [cells(0, 60), cells(1, 5000), cells(59, 60), cells(60, 60), cells(61, 60), cells(0, 0)],
            [0, 1, 23, 24, 24, 24]
        );
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let shown = [None, Some(80.4), Some(1_500.0), Some(42_300.0), Some(2_340_000.0)].map(duration);
        assert_eq!(shown, ["-", "80 µs", "1.5 ms", "42 ms", "2.3 s"]);
    }

    #[test]
    fn without_samples_there_is_nothing_to_show() {
        assert_eq!(Figures::default().line(&["a"]), "");
        assert!(Figures::default().panel(&["a"]).is_empty());
    }
}
