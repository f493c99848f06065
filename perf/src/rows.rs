//! Results as rows: a table to read, and JSON lines `run, scenario, proxy, metric, value,
//! unit` for whoever plots or asserts.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    run: u32,
    scenario: &'static str,
    proxy: String,
    metric: String,
    /// None for what could not be measured, or does not count.
    value: Option<f64>,
    unit: &'static str,
    /// Why there is no value.
    reason: Option<String>,
}

/// The values of one command, in the order in which they were taken.
#[derive(Debug)]
pub(crate) struct Rows {
    scenario: &'static str,
    run: u32,
    values: Vec<Row>,
}

impl Rows {
    /// No values yet; the first run is number 1.
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self { scenario, run: 1, values: Vec::new() }
    }

    /// Values added from here on belong to this run; 0 is a summary over all of them.
    pub(crate) fn set_run(&mut self, run: u32) {
        self.run = run;
    }

    /// Values added from here on belong to this scenario.
    pub(crate) fn set_scenario(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, proxy: &str, metric: &str, value: f64, unit: &'static str) {
        self.push(proxy, metric, Some(value), unit, None);
    }

    /// Notes that a proxy has no value in this scenario, and why.
    pub(crate) fn disqualify(&mut self, proxy: &str, reason: &str) {
        self.push(proxy, "disqualified", None, "", Some(reason.to_owned()));
    }

    fn push(&mut self, proxy: &str, metric: &str, value: Option<f64>, unit: &'static str, reason: Option<String>) {
        let (run, scenario) = (self.run, self.scenario);
        let (proxy, metric) = (proxy.to_owned(), metric.to_owned());
        self.values.push(Row { run, scenario, proxy, metric, value, unit, reason });
    }

    /// Prints the table and, where asked for, writes the JSON lines.
    pub(crate) fn finish(&self, json: Option<&Path>) -> io::Result<()> {
        self.write_table(&mut io::stdout().lock())?;
        self.save(json)
    }

    /// Writes the JSON lines, where asked for.
    pub(crate) fn save(&self, json: Option<&Path>) -> io::Result<()> {
        match json {
            Some(path) => self.write_json(&mut BufWriter::new(File::create(path)?)),
            None => Ok(()),
        }
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.values {
            writeln!(
                out,
                "{:<14} run {:<2} {:<12} {:<34} {:>16} {}",
                row.scenario,
                row.run,
                row.proxy,
                row.metric,
                row.value.map_or("-".to_owned(), digits),
                row.unit
            )?;
        }
        Ok(())
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.values {
            let mut line = serde_json::json!({
                "run": row.run,
                "scenario": row.scenario,
                "proxy": row.proxy,
                "metric": row.metric,
                "value": row.value,
                "unit": row.unit,
            });
            if let Some(reason) = &row.reason {
                line["reason"] = reason.as_str().into();
            }
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// A sentence to the person who waits. Where standard output is gone, so is the reader.
pub(crate) fn say(sentence: &str) {
    let _ = writeln!(io::stdout().lock(), "{sentence}");
}

/// Counts without decimals, everything else with as many as it can bear.
pub(crate) fn digits(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_json_line() {
        let mut rows = Rows::new("load");
        rows.set_run(2);
        rows.add("relay", "latency_p50", 61.5, "us");
        let mut out = Vec::new();
        rows.write_json(&mut out).expect("a Vec takes it");
        let line: serde_json::Value = serde_json::from_slice(&out).expect("one line of JSON");
        assert_eq!(
            line,
            serde_json::json!({"run": 2, "scenario": "load", "proxy": "relay",
                "metric": "latency_p50", "value": 61.5, "unit": "us"})
        );
    }

    #[test]
    fn what_does_not_count_has_no_value_and_a_reason() {
        let mut rows = Rows::new("load");
        rows.set_scenario("other");
        rows.disqualify("nginx", "not installed");
        let mut out = Vec::new();
        rows.write_json(&mut out).expect("a Vec takes it");
        let line: serde_json::Value = serde_json::from_slice(&out).expect("one line of JSON");
        assert_eq!(
            line,
            serde_json::json!({"run": 1, "scenario": "other", "proxy": "nginx", "metric": "disqualified",
                "value": null, "unit": "", "reason": "not installed"})
        );
    }

    #[test]
    fn digits_fit_the_size() {
        assert_eq!(digits(1_234.56), "1235");
        assert_eq!(digits(12.345), "12.3");
        assert_eq!(digits(0.98765), "0.9877");
        assert_eq!(digits(3.0), "3");
    }
}
