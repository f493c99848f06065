//! The provider's own rate limits, exact. Pure: time is an argument, the answer a value.
//!
//! A sliding log remembers every admitted request of the window; a token bucket refills at a
//! steady rate. Integer arithmetic throughout, so that "exact" needs no tolerance.

use std::{collections::VecDeque, num::NonZeroU64, str::FromStr, time::Duration};

use shared::clock::Nanos;

/// Most requests or tokens a rule may allow: what one log may hold in the worst case.
const ALLOWED_MAX: u64 = 10_000_000_000;
/// Entries of one log; 16 bytes each. Beyond it entries are merged into the newest, which keeps
/// the limit and only makes it stricter.
const LOG_ENTRIES_MAX: usize = 4_000_000;
/// Longest window.
const WINDOW_SECONDS_MAX: u64 = 31 * 86_400;

/// How a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Never more than so many in any window (t, t + window].
    SlidingLog,
    /// A bucket of so many, refilled within one window: up to twice as many in a window.
    TokenBucket,
}

/// Who shares one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everybody.
    All,
    /// Each API key has its own.
    Key,
    /// Each model has its own.
    Model,
}

/// `name=NAME,requests=N,tokens=N,window=60s,kind=sliding-log|token-bucket,scope=all|key|model`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Shown in refusals and statistics.
    pub(crate) name: String,
    /// Requests in a window.
    pub(crate) requests: Option<NonZeroU64>,
    /// Tokens in a window; a request is charged its prompt and its completion when it arrives.
    pub(crate) tokens: Option<NonZeroU64>,
    /// Length of the window.
    pub(crate) window: Duration,
    /// How it counts.
    pub(crate) kind: Kind,
    /// Who shares a count.
    pub(crate) scope: Scope,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self {
            name: "limit".into(),
            requests: None,
            tokens: None,
            window: Duration::from_secs(60),
            kind: Kind::SlidingLog,
            scope: Scope::All,
        };
        for field in text.split(',') {
            let (name, value) = field.split_once('=').ok_or_else(|| format!("`{field}` is not NAME=VALUE"))?;
            let wrong = |expected: &str| format!("{name}: `{value}` is not {expected}");
            match name.trim() {
                "name" => rule.name = value.into(),
                "requests" => rule.requests = Some(allowed(value).ok_or_else(|| wrong("a number above 0"))?),
                "tokens" => rule.tokens = Some(allowed(value).ok_or_else(|| wrong("a number above 0"))?),
                "window" => rule.window = parse_window(value)?,
                "kind" => {
                    rule.kind = match value {
                        "sliding-log" => Kind::SlidingLog,
                        "token-bucket" => Kind::TokenBucket,
                        _ => return Err(wrong("sliding-log or token-bucket")),
                    }
                }
                "scope" => {
                    rule.scope = match value {
                        "all" => Scope::All,
                        "key" => Scope::Key,
                        "model" => Scope::Model,
                        _ => return Err(wrong("all, key or model")),
                    }
                }
                _ => return Err(format!("`{name}` is not a field of a limit")),
            }
        }
        if rule.requests.is_none() && rule.tokens.is_none() {
            return Err(format!("`{text}` limits neither requests nor tokens"));
        }
        Ok(rule)
    }
}

fn allowed(value: &str) -> Option<NonZeroU64> {
    value.parse().ok().filter(|number: &NonZeroU64| number.get() <= ALLOWED_MAX)
}

/// A window such as `60s`, `500ms`, `5m`, `1h` or `1d`; a bare number is seconds.
pub(crate) fn parse_window(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis_each = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is not a window such as 60s")),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis_each));
    match millis {
        Some(millis) if (1..=WINDOW_SECONDS_MAX * 1_000).contains(&millis) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is not a window from 1ms to 31d")),
    }
}

/// How one quantity of a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What the rule allows in a window.
    pub(crate) limit: u64,
    /// What could be admitted now.
    pub(crate) remaining: u64,
    /// When all of it will be available again, if nobody uses any.
    pub(crate) full_after: Duration,
}

/// Which quantity of a rule was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

/// The counts of one rule, for one of those who share it.
#[derive(Debug)]
pub(crate) struct Meter {
    requests: Option<Count>,
    tokens: Option<Count>,
}

impl Meter {
    /// Nothing used yet at `now`.
    pub(crate) fn new(rule: &Rule, now: Nanos) -> Self {
        let count = |limit: Option<NonZeroU64>| {
            limit.map(|limit| match rule.kind {
                Kind::SlidingLog => Count::Log(Log::new(limit.get(), rule.window)),
                Kind::TokenBucket => Count::Bucket(Bucket::new(limit.get(), rule.window, now)),
            })
        };
        Self { requests: count(rule.requests), tokens: count(rule.tokens) }
    }

    /// Would one request with `tokens` be admitted? Charges nothing. If not: for want of what, and
    /// how long until it would be.
    pub(crate) fn check(&mut self, tokens: u64, now: Nanos) -> Result<(), (Quantity, Duration)> {
        if let Some(wait) = self.requests.as_mut().and_then(|count| count.wait_for(1, now)) {
            return Err((Quantity::Requests, wait));
        }
        if let Some(wait) = self.tokens.as_mut().and_then(|count| count.wait_for(tokens, now)) {
            return Err((Quantity::Tokens, wait));
        }
        Ok(())
    }

    /// Counts an admitted request. Call after [`Meter::check`] said yes for the same arguments.
    pub(crate) fn charge(&mut self, tokens: u64, now: Nanos) {
        if let Some(count) = &mut self.requests {
            count.charge(1, now);
        }
        if let Some(count) = &mut self.tokens {
            count.charge(tokens, now);
        }
    }

    /// How requests stand; `None` if the rule does not limit them.
    pub(crate) fn requests(&mut self, now: Nanos) -> Option<Standing> {
        self.requests.as_mut().map(|count| count.standing(now))
    }

    /// How tokens stand; `None` if the rule does not limit them.
    pub(crate) fn tokens(&mut self, now: Nanos) -> Option<Standing> {
        self.tokens.as_mut().map(|count| count.standing(now))
    }
}

#[derive(Debug)]
enum Count {
    Log(Log),
    Bucket(Bucket),
}

impl Count {
    fn wait_for(&mut self, cost: u64, now: Nanos) -> Option<Duration> {
        match self {
            Count::Log(log) => log.wait_for(cost, now),
            Count::Bucket(bucket) => bucket.wait_for(cost, now),
        }
    }

    fn charge(&mut self, cost: u64, now: Nanos) {
        match self {
            Count::Log(log) => log.charge(cost, now),
            Count::Bucket(bucket) => bucket.charge(cost, now),
        }
    }

    fn standing(&mut self, now: Nanos) -> Standing {
        match self {
            Count::Log(log) => log.standing(now),
            Count::Bucket(bucket) => bucket.standing(now),
        }
    }
}

/// Every admitted cost of the last window, oldest first.
#[derive(Debug)]
struct Log {
    limit: u64,
    window: Duration,
    used: u64,
    entries: VecDeque<(Nanos, u64)>,
}

impl Log {
    fn new(limit: u64, window: Duration) -> Self {
        Self { limit, window, used: 0, entries: VecDeque::new() }
    }

    /// Forgets what is a whole window old: an entry at `t` counts in [t, t + window).
    fn forget(&mut self, now: Nanos) {
        while let Some(&(at, cost)) = self.entries.front() {
            if now.since(at) < self.window {
                break;
            }
            self.used -= cost;
            self.entries.pop_front();
        }
    }

    fn wait_for(&mut self, cost: u64, now: Nanos) -> Option<Duration> {
        self.forget(now);
        let mut over = (self.used + cost).checked_sub(self.limit).filter(|over| *over > 0)?;
        for &(at, freed) in &self.entries {
            over = over.saturating_sub(freed);
            if over == 0 {
                return Some(at.after(self.window).since(now));
            }
        }
        // More than the whole limit: no wait helps, and a window is the honest most to say.
        Some(self.window)
    }

    fn charge(&mut self, cost: u64, now: Nanos) {
        if cost == 0 {
            return;
        }
        self.used += cost;
        let full = self.entries.len() >= LOG_ENTRIES_MAX;
        match self.entries.back_mut().filter(|_| full) {
            Some(newest) => *newest = (now, newest.1 + cost),
            None => self.entries.push_back((now, cost)),
        }
    }

    fn standing(&mut self, now: Nanos) -> Standing {
        self.forget(now);
        let last = self.entries.back().map(|&(at, _)| at.after(self.window).since(now));
        Standing {
            limit: self.limit,
            remaining: self.limit.saturating_sub(self.used),
            full_after: last.unwrap_or_default(),
        }
    }
}

/// A bucket whose level is kept in units of 1/window-nanosecond: a nanosecond refills `limit`
/// units and one request costs `window` units, so nothing is ever rounded.
#[derive(Debug)]
struct Bucket {
    limit: u64,
    window_nanos: u128,
    level: u128,
    filled_at: Nanos,
}

impl Bucket {
    fn new(limit: u64, window: Duration, now: Nanos) -> Self {
        let window_nanos = window.as_nanos().max(1);
        Self { limit, window_nanos, level: u128::from(limit) * window_nanos, filled_at: now }
    }

    fn refill(&mut self, now: Nanos) {
        let gained = now.since(self.filled_at).as_nanos() * u128::from(self.limit);
        self.level = (self.level + gained).min(u128::from(self.limit) * self.window_nanos);
        self.filled_at = self.filled_at.max(now);
    }

    fn wait_for(&mut self, cost: u64, now: Nanos) -> Option<Duration> {
        self.refill(now);
        let missing = (u128::from(cost) * self.window_nanos).checked_sub(self.level).filter(|missing| *missing > 0)?;
        let nanos = missing.div_ceil(u128::from(self.limit)).min(self.window_nanos);
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn charge(&mut self, cost: u64, now: Nanos) {
        self.refill(now);
        self.level = self.level.saturating_sub(u128::from(cost) * self.window_nanos);
    }

    fn standing(&mut self, now: Nanos) -> Standing {
        self.refill(now);
        let missing = u128::from(self.limit) * self.window_nanos - self.level;
        let nanos = missing.div_ceil(u128::from(self.limit));
        Standing {
            limit: self.limit,
            remaining: u64::try_from(self.level / self.window_nanos).unwrap_or(u64::MAX),
            full_after: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers one request with `tokens` at each time (milliseconds) and writes down the verdicts.
    fn check(rule: &str, tokens: u64, at_millis: &[u64], verdicts: &str) {
        let rule: Rule = rule.parse().expect("a rule");
        let mut meter = Meter::new(&rule, Nanos(0));
        let mut seen = String::new();
        for &millis in at_millis {
            let now = Nanos(millis * 1_000_000);
            let admitted = meter.check(tokens, now).is_ok();
            if admitted {
                meter.charge(tokens, now);
            }
            seen.push(if admitted { '.' } else { 'x' });
        }
        assert_eq!(seen, verdicts);
    }

    #[test]
    fn a_sliding_log_never_admits_more_in_any_window() {
        check("requests=3,window=1s", 1, &[0, 500, 900, 999, 1000, 1001, 1499, 1500, 1900], "...x.xx..");
    }

    #[test]
    fn an_entry_leaves_the_window_exactly_when_it_is_a_window_old() {
        check("requests=1,window=1s", 1, &[0, 999, 1000, 1999, 2000], ".x.x.");
    }

    #[test]
    fn tokens_are_charged_whole() {
        check("tokens=100,window=1s", 40, &[0, 1, 2, 999, 1000, 1001, 1002], "..xx..x");
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_a_steady_rate() {
        check("requests=10,window=1s,kind=token-bucket", 1, &[0; 12], "..........xx");
        check("requests=2,window=1s,kind=token-bucket", 1, &[0, 0, 499, 500, 501, 1000, 1000], "..x.x.x");
    }

    #[test]
    fn who_waits_as_long_as_told_is_admitted_and_not_before() {
        for kind in ["sliding-log", "token-bucket"] {
            let rule: Rule = format!("requests=7,tokens=1000,window=10s,kind={kind}").parse().expect("a rule");
            let mut meter = Meter::new(&rule, Nanos(0));
            let mut now = Nanos(0);
            for step in 0_u64..500 {
                let tokens = 1 + (step * 37) % 400;
                if let Err((_, wait)) = meter.check(tokens, now) {
                    assert!(wait > Duration::ZERO);
                    let just_before = Nanos(now.after(wait).0 - 1);
                    assert!(meter.check(tokens, just_before).is_err(), "{kind}, step {step}");
                    now = now.after(wait);
                    // The other quantity may still be missing; it is waited for in turn.
                    while let Err((_, more)) = meter.check(tokens, now) {
                        now = now.after(more);
                    }
                }
                meter.charge(tokens, now);
            }
        }
    }

    #[test]
    fn more_than_the_whole_limit_is_never_admitted() {
        check("tokens=10,window=1s", 11, &[0, 5000], "xx");
        check("tokens=10,window=1s,kind=token-bucket", 11, &[0, 5000], "xx");
    }

    #[test]
    fn standing_tells_what_is_left_and_when_all_is_back() {
        let rule: Rule = "requests=4,window=60s".parse().expect("a rule");
        let mut meter = Meter::new(&rule, Nanos(0));
        meter.charge(1, Nanos(0));
        meter.charge(1, Nanos(10_000_000_000));
        let standing = meter.requests(Nanos(15_000_000_000)).expect("requests are limited");
        assert_eq!(standing, Standing { limit: 4, remaining: 2, full_after: Duration::from_secs(55) });
        assert_eq!(meter.tokens(Nanos(0)), None);
    }

    #[test]
    fn rules_that_say_nothing_or_nonsense_are_refused() {
        for text in
            ["name=a", "requests=0", "requests=5,kind=leaky", "requests=5,window=0s", "requests=5,colour=red", ""]
        {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        assert_eq!(parse_window("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_window("250ms"), Ok(Duration::from_millis(250)));
    }
}
