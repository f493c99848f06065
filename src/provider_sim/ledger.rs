//! What the provider decides and counts: limits, the log of admitted requests, totals. Pure.
//!
//! All threads share one ledger behind one lock, taken once a request: the counts are exact across
//! threads, and the order of the log is the order of the decisions.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use shared::clock::Nanos;

use super::{
    arrivals::{Arrival, Arrivals},
    limit::{Meter, Quantity, Rule, Scope, Standing},
    route::Route,
};

/// Different API keys, and different models, that are told apart; all others share one name.
const NAMES_MAX: usize = 1_024;
/// Longest part of a name that is kept, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Vec<(Rule, HashMap<u16, Meter>)>,
    /// API keys as they arrived.
    pub(crate) keys: Names,
    /// Models as they were asked for.
    pub(crate) models: Names,
    /// Every admitted request.
    pub(crate) arrivals: Arrivals,
    /// Answers by call and status; status 0 is a connection that ended without a head.
    pub(crate) answers: BTreeMap<(Route, u16), u64>,
    /// Faults by name.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Streams that began.
    pub(crate) streams: u64,
    /// Streams that came to their proper end.
    pub(crate) streams_finished: u64,
    /// Requests whose client left before the answer was complete.
    pub(crate) cancelled: u64,
    /// Content events that were written.
    pub(crate) events: u64,
}

/// What became of one request at the limits.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Admitted, or who refused it and for how long.
    pub(crate) refused: Option<Refused>,
    /// The requests limit with the least left, after this request.
    pub(crate) requests: Option<Standing>,
    /// The tokens limit with the least left, after this request.
    pub(crate) tokens: Option<Standing>,
}

/// A rule said no. Nothing was charged anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Name of the rule.
    pub(crate) rule: String,
    /// What was used up.
    pub(crate) quantity: Quantity,
    /// How long until this request would be admitted, if no other came first.
    pub(crate) retry_after: Duration,
}

impl Ledger {
    /// Nothing counted yet.
    pub(crate) fn new(rules: &[Rule], rows_max: usize) -> Self {
        Self {
            rules: rules.iter().map(|rule| (rule.clone(), HashMap::new())).collect(),
            keys: Names::default(),
            models: Names::default(),
            arrivals: Arrivals::new(rows_max),
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
            streams: 0,
            streams_finished: 0,
            cancelled: 0,
            events: 0,
        }
    }

    /// Checks one request against every limit and, if all say yes, charges all and logs it.
    pub(crate) fn admit(&mut self, key: &str, model: &str, tokens: u32, now: Nanos) -> Verdict {
        let (key, model) = (self.keys.index(key), self.models.index(model));
        let mut refused: Option<Refused> = None;
        for (rule, meters) in &mut self.rules {
            let meter = meters.entry(rule.sharer(key, model)).or_insert_with(|| Meter::new(rule, now));
            if let Err((quantity, retry_after)) = meter.check(u64::from(tokens), now)
                && refused.as_ref().is_none_or(|earlier| earlier.retry_after < retry_after)
            {
                refused = Some(Refused { rule: rule.name.clone(), quantity, retry_after });
            }
        }
        let (mut requests, mut tokens_left) = (None, None);
        for (rule, meters) in &mut self.rules {
            let Some(meter) = meters.get_mut(&rule.sharer(key, model)) else { continue };
            if refused.is_none() {
                meter.charge(u64::from(tokens), now);
            }
            scarcer(&mut requests, meter.requests(now));
            scarcer(&mut tokens_left, meter.tokens(now));
        }
        for totals in [self.keys.totals(key), self.models.totals(model)] {
            match refused {
                None => totals.admit(tokens),
                Some(_) => totals.refused += 1,
            }
        }
        if refused.is_none() {
            self.arrivals.push(Arrival { at: now, tokens, key, model });
        }
        Verdict { refused, requests, tokens: tokens_left }
    }

    /// Counts a request whose key is not accepted.
    pub(crate) fn unauthorized(&mut self, key: &str) {
        let key = self.keys.index(key);
        self.keys.totals(key).unauthorized += 1;
    }

    /// Counts the status of an answer.
    pub(crate) fn answer(&mut self, route: Route, status: u16) {
        *self.answers.entry((route, status)).or_default() += 1;
    }

    /// Counts a fault that was put in.
    pub(crate) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }
}

impl Rule {
    /// Index of the count that a request of this key and model shares.
    fn sharer(&self, key: u16, model: u16) -> u16 {
        match self.scope {
            Scope::All => 0,
            Scope::Key => key,
            Scope::Model => model,
        }
    }
}

fn scarcer(least: &mut Option<Standing>, standing: Option<Standing>) {
    if let Some(standing) = standing
        && least.is_none_or(|least| standing.remaining < least.remaining)
    {
        *least = Some(standing);
    }
}

/// Names seen, each with an index and totals. Index 0 is `(others)`: what found no room.
#[derive(Debug)]
pub(crate) struct Names {
    indices: HashMap<Box<str>, u16>,
    totals: Vec<Totals>,
}

/// What one key, or one model, did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Requests that were admitted.
    pub(crate) admitted: u64,
    /// Requests over a limit.
    pub(crate) refused: u64,
    /// Requests whose key was not accepted.
    pub(crate) unauthorized: u64,
    /// Tokens of the admitted requests, prompt and completion.
    pub(crate) tokens: u64,
}

impl Totals {
    fn admit(&mut self, tokens: u32) {
        self.admitted += 1;
        self.tokens += u64::from(tokens);
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            admitted: self.admitted + other.admitted,
            refused: self.refused + other.refused,
            unauthorized: self.unauthorized + other.unauthorized,
            tokens: self.tokens + other.tokens,
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { indices: HashMap::from([("(others)".into(), 0)]), totals: vec![Totals::default()] }
    }
}

impl Names {
    /// The index of `name`, which is remembered if there is room.
    fn index(&mut self, name: &str) -> u16 {
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        if let Some(&index) = self.indices.get(name) {
            return index;
        }
        if self.totals.len() > NAMES_MAX {
            return 0;
        }
        let index = self.totals.len() as u16;
        self.indices.insert(name.into(), index);
        self.totals.push(Totals::default());
        index
    }

    /// The index of a name that was seen.
    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.indices.get(name).copied()
    }

    fn totals(&mut self, index: u16) -> &mut Totals {
        let index = if usize::from(index) < self.totals.len() { usize::from(index) } else { 0 };
        &mut self.totals[index]
    }

    /// All names, each at its index.
    pub(crate) fn by_index(&self) -> Vec<&str> {
        let mut names = vec![""; self.totals.len()];
        for (name, &index) in &self.indices {
            if let Some(place) = names.get_mut(usize::from(index)) {
                *place = name;
            }
        }
        names
    }

    /// Every name that did something, with what it did, in the order of their first arrival.
    pub(crate) fn all(&self) -> Vec<(&str, Totals)> {
        let mut all: Vec<(u16, &str)> = self.indices.iter().map(|(name, &index)| (index, &**name)).collect();
        all.sort_unstable();
        all.into_iter()
            .filter_map(|(index, name)| Some((name, *self.totals.get(usize::from(index))?)))
            .filter(|(_, totals)| *totals != Totals::default())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(rules: &[&str]) -> Ledger {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        Ledger::new(&rules, 1_000)
    }

    #[test]
    fn all_limits_or_none_are_charged() {
        let mut ledger = ledger(&["name=slack,requests=10", "name=tight,tokens=100"]);
        assert!(ledger.admit("k", "m", 60, Nanos(0)).refused.is_none());
        let refused = ledger.admit("k", "m", 60, Nanos(1)).refused.expect("120 tokens are over 100");
        assert_eq!((refused.rule.as_str(), refused.quantity), ("tight", Quantity::Tokens));
        let verdict = ledger.admit("k", "m", 40, Nanos(2));
        assert!(verdict.refused.is_none());
        assert_eq!(verdict.requests.map(|standing| standing.remaining), Some(8), "the refused one took nothing");
        assert_eq!(ledger.arrivals.rows(), 2);
    }

    #[test]
    fn keys_have_their_own_count_where_the_rule_says_so() {
        let mut ledger = ledger(&["requests=1,scope=key"]);
        assert!(ledger.admit("a", "m", 1, Nanos(0)).refused.is_none());
        assert!(ledger.admit("b", "m", 1, Nanos(0)).refused.is_none());
        assert!(ledger.admit("a", "m", 1, Nanos(0)).refused.is_some());
        let totals = |admitted, refused, tokens| Totals { admitted, refused, tokens, ..Totals::default() };
        assert_eq!(ledger.keys.all(), [("a", totals(1, 1, 1)), ("b", totals(1, 0, 1))]);
    }

    #[test]
    fn names_beyond_the_bound_share_one_count() {
        let mut ledger = ledger(&[]);
        for number in 0..NAMES_MAX + 5 {
            ledger.admit(&format!("key {number}"), "m", 1, Nanos(0));
        }
        assert_eq!(ledger.keys.all().len(), NAMES_MAX + 1);
        assert_eq!(ledger.keys.all()[0], ("(others)", Totals { admitted: 5, tokens: 5, ..Totals::default() }));
    }
}
