//! What a request cost when somebody last looked, and what is more than that. Pure, but for its file.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

/// More than this above the baseline fails: 3 %.
const ABOVE_MAX: f64 = 1.03;
/// Less than this, and the baseline no longer holds anybody to anything.
const BELOW_MAX: f64 = 0.95;

/// User instructions a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counts {
    /// The core of a node.
    pub(crate) gateway: f64,
    /// The minimal proxy, counted in the same run. It changes with the compiler, with what valgrind knows of
    /// the CPU and with monoio, but hardly ever with the gateway.
    pub(crate) minimal: f64,
}

/// Of several rounds. A life that a busy machine held up counts more, and whether that makes the difference
/// of two lives larger or smaller is chance: so neither the least nor the mean will do.
pub(crate) fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is to be said of new counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Within bounds.
    Holds,
    /// So far below that the baseline should be written anew.
    Outgrown,
    /// A request costs more than it may.
    Costlier,
}

impl Counts {
    /// How many times the baseline's a gateway's request is, as far as the gateway itself is to blame: where
    /// the minimal proxy's count moved too, compiler or machine did that.
    pub(crate) fn to(self, baseline: Self) -> f64 {
        (self.gateway / baseline.gateway) / (self.minimal / baseline.minimal)
    }

    /// What that means.
    pub(crate) fn judge(self, baseline: Self) -> Judgement {
        match self.to(baseline) {
            ratio if ratio > ABOVE_MAX => Judgement::Costlier,
            ratio if ratio < BELOW_MAX => Judgement::Outgrown,
            // Not a number fails as well.
            ratio if ratio.is_finite() => Judgement::Holds,
            _ => Judgement::Costlier,
        }
    }

    /// Reads a baseline.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a baseline of instructions"))
    }

    /// Writes a baseline, with `about`: what it was counted with.
    pub(crate) fn write(self, path: &Path, about: &[(&str, String)]) -> io::Result<()> {
        let mut document = json!({
            "user_instructions_per_request": {"gateway": self.gateway.round(), "minimal": self.minimal.round()},
        });
        for (name, value) in about {
            document[*name] = Value::from(value.as_str());
        }
        fs::write(path, format!("{document:#}\n"))
    }
}

fn parse(text: &str) -> Option<Counts> {
    let document: Value = serde_json::from_str(text).ok()?;
    let counts = &document["user_instructions_per_request"];
    let count = |name: &str| counts[name].as_f64().filter(|count| *count >= 1.0);
    Some(Counts { gateway: count("gateway")?, minimal: count("minimal")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASELINE: Counts = Counts { gateway: 20_000.0, minimal: 8_000.0 };

    fn judged(gateway: f64, minimal: f64) -> Judgement {
        Counts { gateway, minimal }.judge(BASELINE)
    }

    #[test]
    fn three_per_cent_more_is_too_much() {
        assert_eq!(judged(20_590.0, 8_000.0), Judgement::Holds);
        assert_eq!(judged(20_610.0, 8_000.0), Judgement::Costlier);
        assert_eq!(judged(18_900.0, 8_000.0), Judgement::Outgrown);
    }

    #[test]
    fn what_a_compiler_did_to_both_is_nobodys_fault() {
        assert_eq!(judged(22_000.0, 8_800.0), Judgement::Holds);
        assert_eq!(judged(20_000.0, 7_700.0), Judgement::Costlier);
    }

    #[test]
    fn a_count_that_is_none_fails() {
        assert_eq!(judged(20_000.0, 0.0), Judgement::Costlier);
        assert_eq!(judged(0.0, 0.0), Judgement::Costlier);
    }

    #[test]
    fn two_rounds_of_five_may_be_wrong_either_way() {
        assert_eq!(judged(median(vec![20_100.0, 25_000.0, 20_000.0, 15_000.0, 20_050.0]), 8_000.0), Judgement::Holds);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_baseline_without_counts_is_refused() {
        let counts = r#"{"user_instructions_per_request": {"gateway": 20000.0, "minimal": 8000}}"#;
        assert_eq!(parse(counts), Some(BASELINE));
        assert_eq!(parse(r#"{"user_instructions_per_request": {"gateway": 0, "minimal": 8000}}"#), None);
        assert_eq!(parse("{}"), None);
    }
}
