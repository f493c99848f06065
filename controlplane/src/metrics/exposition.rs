//! Prometheus' text format, version 0.0.4: families, labels, escaping. Knows no metric.

use shared::report::{Histogram, LATENCY_BOUNDS_US};
use std::fmt::{Display, Write as _};

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A label's name and value.
pub(super) type Label<'a> = (&'static str, &'a dyn Display);

/// Text in the making.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow. `help` is one line.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample of the family begun last.
    pub(super) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(name);
        self.labels(labels, None);
        self.write(format_args!(" {value}\n"));
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// All lines of one histogram, in seconds.
    pub(super) fn histogram(&mut self, name: &str, labels: &[Label<'_>], histogram: &Histogram) {
        let mut count = 0_u64;
        for (at, in_bucket) in histogram.buckets.iter().enumerate() {
            count = count.saturating_add(*in_bucket);
            self.write(format_args!("{name}_bucket"));
            match LATENCY_BOUNDS_US.get(at) {
                Some(bound) => self.labels(labels, Some(&(*bound as f64 / 1e6))),
                None => self.labels(labels, Some(&"+Inf")),
            }
            self.write(format_args!(" {count}\n"));
        }
        self.write(format_args!("{name}_sum"));
        self.labels(labels, None);
        self.write(format_args!(" {}\n{name}_count", histogram.sum_us as f64 / 1e6));
        self.labels(labels, None);
        self.write(format_args!(" {count}\n"));
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn labels(&mut self, labels: &[Label<'_>], bound: Option<&dyn Display>) {
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            self.text.push(before);
            self.write(format_args!("{name}=\""));
            self.escaped(&value.to_string());
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }

    /// Backslash, quote and newline are the three that the format escapes.
    fn escaped(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.sample("m", &[("model", &"a\"b\\c\nd"), ("key", &"")], 1);
        assert_eq!(text.finish(), "m{model=\"a\\\"b\\\\c\\nd\",key=\"\"} 1\n");
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_in_seconds() {
        let mut histogram = Histogram::default();
        for value_us in [50, 100, 300, 999_000_000] {
            histogram.record_us(value_us);
        }
        let mut text = Exposition::default();
        text.histogram("h", &[("provider", &"p")], &histogram);
        let text = text.finish();
        assert!(text.contains("h_bucket{provider=\"p\",le=\"0.0001\"} 2\n"), "{text}");
        assert!(text.contains("h_bucket{provider=\"p\",le=\"120\"} 3\n"), "{text}");
        assert!(text.contains("h_bucket{provider=\"p\",le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("h_sum{provider=\"p\"} 999.00045\n"), "{text}");
        assert!(text.ends_with("h_count{provider=\"p\"} 4\n"), "{text}");
    }
}
