//! What a person reads: one table a scenario, and the goals. Pure.

use std::fmt::Write;

use super::{goals::Judged, results::Results, scenario::Scenario};
use crate::rows::digits;

/// Medians with their range, one line for each proxy; what does not count says why.
pub(super) fn of_scenario(results: &Results, scenario: Scenario) -> String {
    let proxies = results.proxies(scenario);
    // Columns that nobody has are left out.
    let unit =
        |metric: &str| proxies.iter().find_map(|proxy| results.spread(scenario, proxy, metric)).map(|(_, unit)| unit);
    let columns: Vec<(&str, &str)> =
        scenario.columns().iter().filter_map(|metric| Some((*metric, unit(metric)?))).collect();
    let mut lines = vec![
        std::iter::once(scenario.name().to_owned())
            .chain(columns.iter().map(|(metric, unit)| format!("{metric}, {unit}")))
            .collect::<Vec<_>>(),
    ];
    let mut notes = String::new();
    for proxy in &proxies {
        if let Some((kind, reason)) = results.disqualified(scenario, proxy) {
            lines.push(vec![(*proxy).to_owned(), kind.to_owned()]);
            let _ = writeln!(notes, "  {proxy}: {kind}: {reason}");
            continue;
        }
        let values = columns.iter().map(|(metric, _)| match results.spread(scenario, proxy, metric) {
            Some((spread, _)) if spread.least < spread.most => {
                format!("{} ({} to {})", digits(spread.median), digits(spread.least), digits(spread.most))
            }
            Some((spread, _)) => digits(spread.median),
            None => "-".to_owned(),
        });
        lines.push(std::iter::once((*proxy).to_owned()).chain(values).collect());
    }
    format!("\n{}\n{}{notes}", scenario.title(), aligned(&lines))
}

/// Each goal of these scenarios with its bound and what was measured.
pub(super) fn of_goals(goals: &[Judged], scenarios: &[Scenario]) -> String {
    let mut lines = vec![["goal (at most)", "bound", "measured", ""].map(str::to_owned).to_vec()];
    for judged in goals.iter().filter(|judged| scenarios.contains(&judged.scenario)) {
        let verdict = match judged.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let value = judged.value.map_or("-".to_owned(), digits);
        lines.push(vec![judged.goal.clone(), digits(judged.bound), value, verdict.to_owned()]);
    }
    format!("\n{}", aligned(&lines))
}

/// Columns as wide as their widest entry.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|entry| entry.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in lines {
        let entries = line.iter().enumerate().map(|(column, entry)| format!("{entry:<0$}", width(column)));
        let _ = writeln!(text, "  {}", entries.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Figure, Outcome};

    #[test]
    fn a_failure_is_shown_as_such_and_without_a_number() {
        let mut results = Results::default();
        let measured = |value| Outcome::Measured(vec![Figure::new("cpu_per_request", value, "us")]);
        for value in [14.0, 15.0, 17.0] {
            results.add(Scenario::Throughput, "relay", measured(value));
        }
        results.add(Scenario::Throughput, "nginx", measured(99.0));
        results.add(Scenario::Throughput, "nginx", Outcome::Failed("failed_reset: 2".to_owned()));
        results.add(Scenario::Throughput, "envoy", Outcome::Absent("not installed".to_owned()));
        let table = of_scenario(&results, Scenario::Throughput);
        assert_eq!(
            table.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "",
                "closed loop, 64 connections, 1 KiB each way",
                "  throughput  cpu_per_request, us",
                "  relay       15 (14 to 17)",
                "  nginx       failed",
                "  envoy       absent",
                "  nginx: failed: failed_reset: 2",
                "  envoy: absent: not installed",
            ]
        );
    }

    #[test]
    fn a_goal_says_whether_it_is_met() {
        let judged = |scenario, value| Judged { scenario, goal: "g".to_owned(), bound: 1.0, value };
        let throughput = |value| judged(Scenario::Throughput, value);
        let goals = [throughput(Some(1.0)), throughput(Some(1.5)), throughput(None), judged(Scenario::StartUp, None)];
        let table = of_goals(&goals, &[Scenario::Throughput]);
        assert_eq!(
            table.lines().skip(2).collect::<Vec<_>>(),
            [
                "  g               1      1         met",
                "  g               1      1.5000    NOT MET",
                "  g               1      -         not measured",
            ]
        );
    }
}
