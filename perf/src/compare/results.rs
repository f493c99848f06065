//! What came of every cell, and what can be read from all of them. Pure.

use crate::{compare::scenario::Scenario, spread::Spread};

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// Its name.
    pub(crate) metric: &'static str,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
}

impl Figure {
    /// A value with its unit.
    pub(super) fn new(metric: &'static str, value: f64, unit: &'static str) -> Self {
        Self { metric, value, unit }
    }
}

/// What came of one measurement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Everything came as it should.
    Measured(Vec<Figure>),
    /// Something did not, and no figure of it counts.
    Failed(String),
    /// It was not there, or has no part in this.
    Absent(String),
}

/// One scenario of one proxy in one round.
#[derive(Debug, Clone)]
struct Cell {
    scenario: Scenario,
    proxy: &'static str,
    outcome: Outcome,
}

/// All cells of a comparison.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results(Vec<Cell>);

impl Results {
    /// One more.
    pub(super) fn add(&mut self, scenario: Scenario, proxy: &'static str, outcome: Outcome) {
        self.0.push(Cell { scenario, proxy, outcome });
    }

    /// Who was measured in a scenario, in the order of the first round.
    pub(super) fn proxies(&self, scenario: Scenario) -> Vec<&'static str> {
        let mut proxies = Vec::new();
        for cell in self.of_scenario(scenario) {
            if !proxies.contains(&cell.proxy) {
                proxies.push(cell.proxy);
            }
        }
        proxies
    }

    /// Why a proxy has no figures in a scenario. One round that failed disqualifies all.
    pub(super) fn disqualified<'a>(&'a self, scenario: Scenario, proxy: &'a str) -> Option<(&'static str, &'a str)> {
        self.of_cell(scenario, proxy).find_map(|outcome| match outcome {
            Outcome::Failed(reason) => Some(("failed", reason.as_str())),
            Outcome::Absent(reason) => Some(("absent", reason.as_str())),
            Outcome::Measured(_) => None,
        })
    }

    /// Of all rounds, with the unit.
    pub(super) fn spread(&self, scenario: Scenario, proxy: &str, metric: &str) -> Option<(Spread, &'static str)> {
        if self.disqualified(scenario, proxy).is_some() {
            return None;
        }
        let figures = self.of_cell(scenario, proxy).filter_map(|outcome| match outcome {
            Outcome::Measured(figures) => figures.iter().find(|figure| figure.metric == metric),
            _ => None,
        });
        let figures: Vec<&Figure> = figures.collect();
        let unit = figures.first()?.unit;
        let mut values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
        Some((Spread::of(&mut values)?, unit))
    }

    /// Of all rounds.
    pub(super) fn median(&self, scenario: Scenario, proxy: &str, metric: &str) -> Option<f64> {
        self.spread(scenario, proxy, metric).map(|(spread, _)| spread.median)
    }

    /// Every metric of a scenario.
    pub(super) fn metrics(&self, scenario: Scenario, proxy: &str) -> Vec<&'static str> {
        let mut metrics = Vec::new();
        for outcome in self.of_cell(scenario, proxy) {
            let Outcome::Measured(figures) = outcome else { continue };
            for figure in figures.iter().filter(|figure| !metrics.contains(&figure.metric)).collect::<Vec<_>>() {
                metrics.push(figure.metric);
            }
        }
        metrics
    }

    /// Nothing failed. What is absent is no failure.
    pub(super) fn is_clean(&self) -> bool {
        !self.0.iter().any(|cell| matches!(cell.outcome, Outcome::Failed(_)))
    }

    fn of_scenario(&self, scenario: Scenario) -> impl Iterator<Item = &Cell> {
        self.0.iter().filter(move |cell| cell.scenario == scenario)
    }

    fn of_cell<'a>(&'a self, scenario: Scenario, proxy: &'a str) -> impl Iterator<Item = &'a Outcome> {
        self.of_scenario(scenario).filter(move |cell| cell.proxy == proxy).map(|cell| &cell.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_round_disqualifies_all() {
        let mut results = Results::default();
        let measured = |value| Outcome::Measured(vec![Figure::new("cpu_per_request", value, "us")]);
        let median = |results: &Results| results.median(Scenario::Throughput, "relay", "cpu_per_request");
        results.add(Scenario::Throughput, "relay", measured(10.0));
        results.add(Scenario::Throughput, "relay", measured(14.0));
        assert_eq!(median(&results), Some(12.0));
        assert!(results.is_clean());
        results.add(Scenario::Throughput, "relay", Outcome::Failed("failed_reset: 1".to_owned()));
        assert_eq!(median(&results), None);
        assert_eq!(results.disqualified(Scenario::Throughput, "relay"), Some(("failed", "failed_reset: 1")));
        assert!(!results.is_clean());
    }
}
