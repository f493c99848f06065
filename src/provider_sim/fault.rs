//! What can go wrong on purpose, and how often. Pure: says what, the connection does it.

use std::{str::FromStr, time::Duration};

/// Longest stall that may be asked for, in seconds.
const STALL_SECONDS_MAX: f64 = 3_600.0;

/// One fault of one answer.
///
/// Written `KIND` or `KIND=ARGUMENT`. The first two kinds are refusals, which a provider makes
/// before it admits anything; all others happen to an admitted (and counted) request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// `status=N`, or only the number: an error answer. `429=SECONDS` also says when to retry.
    Status {
        /// Status code, 400 to 599.
        code: u16,
        /// Seconds of the `retry-after` header.
        retry_after: Option<u32>,
    },
    /// `reset-before-head`: the connection is reset instead of an answer.
    ResetBeforeHead,
    /// `reset-mid-body=N`: reset after N bytes of a JSON body, or N content events of a stream.
    ResetMidBody(Option<u32>),
    /// `close-mid-body=N`: as above, with an orderly end of the connection (FIN).
    CloseMidBody(Option<u32>),
    /// `stall=SECONDS`: silence before the head, then the answer.
    Stall(Duration),
    /// `stall-mid-body=SECONDS`: silence after half of the body or of the events, then the rest.
    StallMidBody(Duration),
    /// `slow=N`: at most N bytes each 10 ms.
    Slow(u32),
    /// `malformed-json`: the JSON of the body, or of one event, lacks its second half.
    MalformedJson,
    /// `garbage-sse`: lines that are not events, and bytes that are not UTF-8, between the events.
    GarbageSse,
    /// `wrong-content-length=N`: the head promises N bytes more than come (fewer, if negative).
    WrongContentLength(i32),
    /// `split=N`: written in pieces of N bytes, a millisecond apart; without N of 1 to 63 bytes.
    Split(Option<u32>),
}

/// The text is not a fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a fault: `{0}` (status=N, 429[=SECONDS], reset-before-head, reset-mid-body[=N], close-mid-body[=N], \
     stall=SECONDS, stall-mid-body=SECONDS, slow[=N], malformed-json, garbage-sse, wrong-content-length[=N], split[=N])"
)]
pub(crate) struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (kind, argument) = match text.split_once('=') {
            Some((kind, argument)) => (kind.trim(), Some(argument.trim())),
            None => (text.trim(), None),
        };
        parse(kind, argument).ok_or_else(|| FaultError(text.into()))
    }
}

fn parse(kind: &str, argument: Option<&str>) -> Option<Fault> {
    // `Some(None)`: no argument; `None`: one that is not a number.
    let optional = || match argument {
        None => Some(None),
        Some(text) => text.parse::<u32>().ok().map(Some),
    };
    let seconds = || {
        let seconds: f64 = argument.unwrap_or("1").parse().ok()?;
        (0.0..=STALL_SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    };
    Some(match kind {
        "status" => status(argument?, None)?,
        "429" => Fault::Status { code: 429, retry_after: optional()? },
        "reset-before-head" => Fault::ResetBeforeHead,
        "reset-mid-body" => Fault::ResetMidBody(optional()?),
        "close-mid-body" => Fault::CloseMidBody(optional()?),
        "stall" => Fault::Stall(seconds()?),
        "stall-mid-body" => Fault::StallMidBody(seconds()?),
        "slow" => Fault::Slow(optional()?.unwrap_or(1).max(1)),
        "malformed-json" => Fault::MalformedJson,
        "garbage-sse" => Fault::GarbageSse,
        "wrong-content-length" => Fault::WrongContentLength(argument.unwrap_or("10").parse().ok()?),
        "split" => Fault::Split(optional()?.map(|bytes| bytes.max(1))),
        code => status(code, argument)?,
    })
}

fn status(code: &str, retry_after: Option<&str>) -> Option<Fault> {
    let code: u16 = code.parse().ok()?;
    let retry_after = match retry_after {
        None => None,
        Some(seconds) => Some(seconds.parse().ok()?),
    };
    (400..=599).contains(&code).then_some(Fault::Status { code, retry_after })
}

impl Fault {
    /// The name under which it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Status { .. } => "status",
            Fault::ResetBeforeHead => "reset-before-head",
            Fault::ResetMidBody(_) => "reset-mid-body",
            Fault::CloseMidBody(_) => "close-mid-body",
            Fault::Stall(_) => "stall",
            Fault::StallMidBody(_) => "stall-mid-body",
            Fault::Slow(_) => "slow",
            Fault::MalformedJson => "malformed-json",
            Fault::GarbageSse => "garbage-sse",
            Fault::WrongContentLength(_) => "wrong-content-length",
            Fault::Split(_) => "split",
        }
    }
}

/// A fault that strikes requests at random: `KIND:PROBABILITY[:ARGUMENT]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FaultRule {
    /// From 0 to 1.
    pub(crate) probability: f64,
    /// What happens then.
    pub(crate) fault: Fault,
}

impl FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not KIND:PROBABILITY[:ARGUMENT]");
        let mut parts = text.splitn(3, ':');
        let (kind, probability) = (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
        let probability: f64 = probability.parse().map_err(|_| wrong())?;
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("`{text}`: the probability is not from 0 to 1"));
        }
        let fault = parse(kind, parts.next()).ok_or_else(|| FaultError(text.into()).to_string())?;
        Ok(Self { probability, fault })
    }
}

/// Random numbers that a seed repeats (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The fault of the next request: the first rule that strikes. Every rule throws once, so that
    /// one rule's luck does not depend on another's.
    pub(crate) fn draw(&mut self, rules: &[FaultRule]) -> Option<Fault> {
        let mut struck = None;
        for rule in rules {
            let unit = (self.throw() >> 11) as f64 / (1_u64 << 53) as f64;
            if unit < rule.probability && struck.is_none() {
                struck = Some(rule.fault);
            }
        }
        struck
    }
}

/// The finalizer of splitmix64: spreads every input bit over the output.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let reads = |text: &str, fault: Fault| assert_eq!(text.parse(), Ok(fault), "{text}");
        reads("status=503", Fault::Status { code: 503, retry_after: None });
        reads("500", Fault::Status { code: 500, retry_after: None });
        reads("429=7", Fault::Status { code: 429, retry_after: Some(7) });
        reads("reset-before-head", Fault::ResetBeforeHead);
        reads("reset-mid-body=12", Fault::ResetMidBody(Some(12)));
        reads("close-mid-body", Fault::CloseMidBody(None));
        reads("stall=0.25", Fault::Stall(Duration::from_millis(250)));
        reads("stall-mid-body=2", Fault::StallMidBody(Duration::from_secs(2)));
        reads("slow=0", Fault::Slow(1));
        reads("malformed-json", Fault::MalformedJson);
        reads("garbage-sse", Fault::GarbageSse);
        reads("wrong-content-length=-3", Fault::WrongContentLength(-3));
        reads("split=5", Fault::Split(Some(5)));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["", "status", "status=200", "600", "stall=-1", "stall=1e9", "split=x", "reset"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
        assert!("stall:2:1".parse::<FaultRule>().is_err());
        assert!("stall".parse::<FaultRule>().is_err());
    }

    #[test]
    fn probability_is_kept_and_the_seed_repeats_it() {
        let rules: Vec<FaultRule> =
            ["503:0.25".parse().expect("a rule"), "stall:0.1:2".parse().expect("a rule")].into();
        let draws = |seed| {
            let mut dice = Dice::new(seed);
            (0..10_000).map(|_| dice.draw(&rules)).collect::<Vec<_>>()
        };
        let first = draws(1);
        let statuses = first.iter().filter(|fault| matches!(fault, Some(Fault::Status { .. }))).count();
        let stalls = first.iter().filter(|fault| matches!(fault, Some(Fault::Stall(_)))).count();
        assert!((2_350..2_650).contains(&statuses), "{statuses}");
        assert!((650..850).contains(&stalls), "{stalls}: one in ten of the three quarters left over");
        assert_eq!(first, draws(1));
        assert_ne!(first, draws(2));
    }
}
