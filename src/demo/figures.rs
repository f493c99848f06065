//! The demo's figures as lines of text: a panel for a terminal, one line elsewhere. Pure.

use super::sample::{LimitUse, Sample};
use super::seen::Seen;
use shared::clock::Nanos;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// How many samples rates and latencies are taken over; one comes each second.
const SAMPLES_KEPT: usize = 11;
/// Cells of a bar.
const BAR_CELLS: u64 = 24;

/// A node at one moment.
#[derive(Clone, Debug)]
pub(super) struct NodeNow {
    /// Where its clients connect.
    pub(super) address: SocketAddr,
    /// Its process, while it has one.
    pub(super) process: Option<u32>,
    /// Until it is started again, while it has none.
    pub(super) back_in: Option<Duration>,
    /// What it counted; `None` when it does not answer.
    pub(super) sample: Option<Sample>,
    /// What it says of the cluster.
    pub(super) seen: Option<Seen>,
}

/// The newest samples.
#[derive(Default)]
pub(super) struct Figures {
    counts: Vec<Counts>,
    moments: VecDeque<Moment>,
    nodes: Vec<NodeNow>,
}

/// What one node counted in all its lives.
#[derive(Clone, Default)]
struct Counts {
    earlier: Sample,
    newest: Sample,
}

/// All nodes together.
struct Moment {
    all: Sample,
    /// Requests that each node finished.
    finished: Vec<u64>,
}

impl Counts {
    fn take(&mut self, sample: &Sample) {
        // Counters run from a node's start: where there are fewer, it was started again.
        if sample.finished() < self.newest.finished() {
            self.earlier.add_counts(&self.newest);
        }
        self.newest = sample.clone();
    }

    fn finished(&self) -> u64 {
        self.earlier.finished().saturating_add(self.newest.finished())
    }
}

impl Figures {
    /// Takes the newest state of all nodes in, always of the same ones in the same order.
    pub(super) fn add(&mut self, nodes: Vec<NodeNow>, taken_at: Nanos) {
        self.counts.resize(nodes.len(), Counts::default());
        let mut all = Sample { taken_at, ..Sample::default() };
        for (counts, node) in self.counts.iter_mut().zip(&nodes) {
            if let Some(sample) = &node.sample {
                counts.take(sample);
                all.in_flight = all.in_flight.saturating_add(sample.in_flight);
                all.streams = all.streams.saturating_add(sample.streams);
            }
            all.add_counts(&counts.earlier);
            all.add_counts(&counts.newest);
        }
        if self.moments.len() >= SAMPLES_KEPT {
            self.moments.pop_front();
        }
        self.moments.push_back(Moment { all, finished: self.counts.iter().map(Counts::finished).collect() });
        self.nodes = nodes;
    }

    /// What a terminal shows. `owners` are the limits' owners that are wanted, in this order.
    pub(super) fn panel(&self, owners: &[&str]) -> Vec<String> {
        let Some((oldest, newest)) = self.moments.front().zip(self.moments.back()) else { return Vec::new() };
        let mut lines = vec!["  node  address              process  requests/s  sees".to_owned()];
        for (index, node) in self.nodes.iter().enumerate() {
            let finished = |moment: &Moment| moment.finished.get(index).copied().unwrap_or(0);
            let rate = rate(finished(oldest), finished(newest), oldest, newest);
            lines.push(format!("  {:<5} {:<20} {}", index + 1, node.address, node_state(node, rate)));
        }
        let seconds = newest.all.taken_at.since(oldest.all.taken_at).as_secs().max(1);
        let (before, now) = (&oldest.all, &newest.all);
        let Sample { answered, refused, failed, in_flight, streams, .. } = now;
        lines.extend([
            String::new(),
            format!("  requests/s    {:<8.1} over the last {seconds} s", per_second(oldest, newest)),
            format!(
                "  requests      {answered} answered, {refused} over a limit, {failed} failed, {in_flight} running ({streams} as streams)"
            ),
        ]);
        for (name, now, before) in [
            ("whole answer", &now.whole_answer, &before.whole_answer),
            ("first byte", &now.first_byte, &before.first_byte),
            ("node's part", &now.own_part, &before.own_part),
        ] {
            let latencies = now.since(before);
            let (half, most) = (duration(latencies.quantile_us(0.5)), duration(latencies.quantile_us(0.99)));
            lines.push(format!("  {name:<13} p50 {half:<8} p99 {most}"));
        }
        for (id, uses) in self.wanted(owners) {
            let (owner, unit) = id.split_once('/').unwrap_or((id, ""));
            let refused: u64 = uses.iter().map(|limit| limit.refused).sum();
            let amount = uses.iter().map(|limit| limit.amount).max().unwrap_or(0);
            let together = LimitUse { amount, used: uses.iter().map(|limit| limit.used).sum(), refused };
            lines.push(format!(
                "  {owner:<13} [{}] {} of {} {unit}, {refused} refused",
                bar(together),
                used(&uses),
                amount
            ));
        }
        lines.push("  Ctrl-C ends all of it".to_owned());
        lines
    }

    /// What stands in a log: the panel's main figures.
    pub(super) fn line(&self, owners: &[&str]) -> String {
        let Some((oldest, newest)) = self.moments.front().zip(self.moments.back()) else { return String::new() };
        let Sample { answered, refused, failed, .. } = newest.all;
        let latencies = newest.all.whole_answer.since(&oldest.all.whole_answer);
        let rate = per_second(oldest, newest);
        let (half, most) = (duration(latencies.quantile_us(0.5)), duration(latencies.quantile_us(0.99)));
        let mut parts = vec![
            format!("{rate:.1} requests/s"),
            format!("{answered} answered, {refused} over a limit, {failed} failed"),
            format!("p50 {half}, p99 {most}"),
        ];
        for (id, uses) in self.wanted(owners) {
            let amount = uses.iter().map(|limit| limit.amount).max().unwrap_or(0);
            parts.push(format!("{id} {} of {amount}", used(&uses)));
        }
        if let Some((number, seen)) =
            (1..).zip(&self.nodes).find_map(|(number, node)| Some((number, node.seen.as_ref()?)))
        {
            parts.push(format!("node {number} sees {}", seen.in_words()));
        }
        parts.join(", ")
    }

    /// The limits whose id is `OWNER/UNIT` for one of `owners`, by owner, with their use on every
    /// node that answers.
    fn wanted(&self, owners: &[&str]) -> Vec<(&str, Vec<LimitUse>)> {
        let samples = || self.nodes.iter().filter_map(|node| node.sample.as_ref());
        let mut ids: Vec<&str> = samples().flat_map(|sample| sample.limits.keys().map(String::as_str)).collect();
        ids.sort_unstable();
        ids.dedup();
        let of = |id: &str| samples().filter_map(|sample| sample.limits.get(id).copied()).collect();
        let belongs = |id: &str, owner: &str| id.split_once('/').is_some_and(|(of, _)| of == owner);
        owners.iter().flat_map(|owner| ids.iter().filter(|id| belongs(id, owner))).map(|id| (*id, of(id))).collect()
    }
}

/// How a node is, in the panel's columns.
fn node_state(node: &NodeNow, rate: f64) -> String {
    let Some(process) = node.process else {
        let seconds = node.back_in.unwrap_or_default().as_secs();
        return format!("{:>7}  ended; starts again in {seconds} s", "-");
    };
    let sees = match (&node.sample, &node.seen) {
        (None, _) => "does not answer".to_owned(),
        (Some(sample), _) if !sample.is_ready => "is not ready".to_owned(),
        (Some(_), None) => "-".to_owned(),
        (Some(_), Some(seen)) => seen.in_words(),
    };
    format!("{process:>7}  {rate:>10.1}  {sees}")
}

/// `5+0+2`
fn used(uses: &[LimitUse]) -> String {
    uses.iter().map(|limit| limit.used.to_string()).collect::<Vec<_>>().join("+")
}

fn per_second(oldest: &Moment, newest: &Moment) -> f64 {
    rate(oldest.all.finished(), newest.all.finished(), oldest, newest)
}

fn rate(before: u64, now: u64, oldest: &Moment, newest: &Moment) -> f64 {
    let time = newest.all.taken_at.since(oldest.all.taken_at).max(Duration::from_millis(1));
    now.saturating_sub(before) as f64 / time.as_secs_f64()
}

/// How full a limit is. One unit is seen, and only a limit that is used up is full.
fn bar(limit: LimitUse) -> String {
    let LimitUse { amount, used, .. } = limit;
    let full = if used >= amount {
        BAR_CELLS
    } else {
        (used.saturating_mul(BAR_CELLS) / amount.max(1)).max(u64::from(used > 0)).min(BAR_CELLS - 1)
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

    const SECOND: u64 = 1_000_000_000;

    fn node(answered: u64, limits: &[(&str, u64, u64)]) -> NodeNow {
        let limits = limits
            .iter()
            .map(|(id, used, amount)| ((*id).to_owned(), LimitUse { amount: *amount, used: *used, refused: 1 }))
            .collect();
        NodeNow {
            address: "127.0.0.1:8080".parse().expect("an address"),
            process: Some(7),
            back_in: None,
            sample: Some(Sample { is_ready: true, answered, limits, ..Sample::default() }),
            seen: Some(Seen {
                members: 3,
                healthy_members: 3,
                cluster_health: "HEALTHY".to_owned(),
                ..Seen::default()
            }),
        }
    }

    fn dead() -> NodeNow {
        NodeNow { process: None, back_in: Some(Duration::from_secs(4)), sample: None, seen: None, ..node(0, &[]) }
    }

    #[test]
    fn rates_are_taken_over_the_last_ten_seconds_and_all_nodes() {
        let mut figures = Figures::default();
        // A hundred a second for a minute, then nothing.
        for second in 0..=60 {
            figures.add(vec![node(second * 75, &[]), node(second * 25, &[])], Nanos(second * SECOND));
        }
        assert!(figures.line(&[]).starts_with("100.0 requests/s, 6000 answered"), "{}", figures.line(&[]));
        for second in 61..=70 {
            figures.add(vec![node(4500, &[]), node(1500, &[])], Nanos(second * SECOND));
        }
        assert!(figures.line(&[]).starts_with("0.0 requests/s, 6000 answered"), "{}", figures.line(&[]));
    }

    #[test]
    fn what_a_killed_node_had_counted_stays_counted() {
        let mut figures = Figures::default();
        for (second, second_node) in [node(40, &[]), dead(), dead(), node(0, &[]), node(5, &[])].into_iter().enumerate()
        {
            figures.add(vec![node(100, &[]), second_node], Nanos(second as u64 * SECOND));
        }
        assert!(figures.line(&[]).contains("145 answered"), "{}", figures.line(&[]));
    }

    #[test]
    fn a_dead_node_and_what_the_others_see_stand_in_the_panel() {
        let mut figures = Figures::default();
        let mut alive = node(0, &[]);
        let in_trouble = vec![("node-2".to_owned(), "dead".to_owned())];
        alive.seen = Some(Seen { healthy_members: 2, others_in_trouble: in_trouble, ..alive.seen.expect("it sees") });
        figures.add(vec![alive, dead()], Nanos(0));
        let panel = figures.panel(&[]);
        let expected = [
            "  1     127.0.0.1:8080             7         0.0  HEALTHY, 2 of 3 healthy, node-2 dead",
            "  2     127.0.0.1:8080             -  ended; starts again in 4 s",
        ];
        assert_eq!(panel.get(1..3).unwrap_or_default(), expected, "{panel:?}");
    }

    #[test]
    fn limits_are_shown_by_owner_and_others_are_not() {
        let mut figures = Figures::default();
        let limits = [("a/requests", 5, 10), ("b/requests", 1, 2), ("ab/requests", 1, 3)];
        figures.add(vec![node(0, &limits), dead(), node(0, &[("a/requests", 2, 10)])], Nanos(0));
        let line = figures.line(&["b", "a"]);
        assert!(line.contains(", b/requests 1 of 2, a/requests 5+2 of 10, node 1 sees HEALTHY"), "{line}");
        let panel = figures.panel(&["a"]);
        assert!(
            panel.contains(&"  a             [################........] 5+2 of 10 requests, 2 refused".to_owned()),
            "{panel:?}"
        );
        assert!(!panel.iter().any(|line| line.starts_with("  b")), "{panel:?}");
    }

    #[test]
    fn a_bar_is_full_when_nothing_is_left_and_empty_when_nothing_is_used() {
        let cells = |used, amount| {
            let bar = bar(LimitUse { amount, used, refused: 0 });
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
