//! `governance.rate_limits` and `governance.budgets`.

use core::num::NonZeroU64;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::config::model::{Allowance, Amount, Budget, Charge, Enforcement, OnNodeLoss, RateLimit, Window};
use crate::config::reader::{Fields, Node, Reader};
use crate::config::references::Kind;

/// Units in a window. The ring's counters hold far more; this leaves room for sums.
const UNITS_MAX: u64 = 1_000_000_000_000_000;

/// Dollars; in millionths it stays exact in a double.
const MICRO_USD: f64 = 0.000_001;
const DOLLARS_MAX: f64 = 1_000_000.0;

const ENFORCEMENTS: [(&str, Enforcement); 4] = [
    ("strict", Enforcement::Strict),
    ("admission", Enforcement::Admission),
    ("statistical", Enforcement::Statistical),
    ("gossip", Enforcement::Gossip),
];

const ON_NODE_LOSS: [(&str, OnNodeLoss); 2] = [("keep", OnNodeLoss::Keep), ("reclaim", OnNodeLoss::Reclaim)];

const CHARGES: [(&str, Charge); 3] =
    [("admission", Charge::Admission), ("input", Charge::Input), ("produced", Charge::Produced)];

/// The word for an amount that the provider's answers tell.
const AMOUNTS: [(&str, Amount); 1] = [("auto", Amount::Learned)];

/// The longest that a request may wait for units; clients give up before.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The shortest part of a window that can be counted.
const SUB_WINDOW_MIN: Duration = Duration::from_secs(1);

/// What a statistical limit is allowed where it does not say.
const OVERSHOOT_PROBABILITY: f64 = 0.01;

/// From one answer in a million to every other one.
const OVERSHOOT_PROBABILITIES: RangeInclusive<f64> = 1e-6..=0.5;

pub(super) fn read_rate_limit(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<RateLimit> {
    reader
        .object(node, |reader, fields| {
            let id = read_id(reader, fields, Kind::RateLimit);
            let requests = read_allowance(reader, fields, ["request_max_limit", "request_reset_duration"]);
            let tokens = read_allowance(reader, fields, ["token_max_limit", "token_reset_duration"]);
            let concurrent_node = fields.get(reader, "concurrent_max_limit");
            let concurrent = concurrent_node.as_ref().and_then(|n| reader.integer(n, 1..=UNITS_MAX));
            let sub_window = fields.get(reader, "sub_window");
            let enforcement = fields.read(reader, "enforcement", |r, n| r.choice(n, &ENFORCEMENTS)).unwrap_or_default();
            let limit = RateLimit {
                enforcement,
                overshoot_probability: read_overshoot_probability(reader, fields, enforcement),
                on_node_loss: fields.read(reader, "on_node_loss", |r, n| r.choice(n, &ON_NODE_LOSS)),
                charge: read_charge(reader, fields, enforcement, tokens != Ok(None)),
                sub_window: sub_window.and_then(|node| read_sub_window(reader, &node, [requests, tokens])),
                max_wait: fields
                    .read(reader, "max_wait", |r, n| r.millis_or_duration(n, &(Duration::ZERO..=WAIT_MAX)))
                    .unwrap_or_default(),
                region: fields.read(reader, "region", Reader::name),
                requests: requests.ok()?,
                tokens: tokens.ok()?,
                concurrent: concurrent.and_then(NonZeroU64::new),
                id: id?,
            };
            if limit.requests.is_none() && limit.tokens.is_none() && concurrent_node.is_none() {
                let expected = "request_max_limit, token_max_limit, concurrent_max_limit or some of them";
                reader.fault(&fields.place, "limits nothing", expected);
            }
            Some(limit)
        })
        .flatten()
}

/// An amount and its window; one without the other is a fault (`Err`).
fn read_allowance(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    [max_name, window_name]: [&'static str; 2],
) -> Result<Option<Allowance>, ()> {
    let max = fields.get(reader, max_name);
    let window = fields.get(reader, window_name);
    match (max, window) {
        (None, None) => Ok(None),
        (Some(max), Some(window)) => {
            let max = read_amount(reader, &max);
            let window = reader.window(&window);
            match (max, window) {
                (Some(max), Some(window)) => Ok(Some(Allowance { max, window })),
                _ => Err(()),
            }
        }
        (Some(max), None) => {
            let problem = format!("{window_name:?} is missing");
            reader.fault(&max.place, problem, "a window such as \"1m\"");
            Err(())
        }
        (None, Some(window)) => {
            let problem = format!("{max_name:?} is missing");
            reader.fault(&window.place, problem, "an amount of 1 or more, or \"auto\"");
            Err(())
        }
    }
}

fn read_amount(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Amount> {
    if node.is_text() && !node.is_reference() {
        return reader.choice(node, &AMOUNTS);
    }
    reader.integer(node, 1..=UNITS_MAX).and_then(NonZeroU64::new).map(Amount::Known)
}

fn read_overshoot_probability(reader: &mut Reader<'_>, fields: &mut Fields<'_>, enforcement: Enforcement) -> f64 {
    let Some(node) = fields.get(reader, "overshoot_probability") else { return OVERSHOOT_PROBABILITY };
    if enforcement != Enforcement::Statistical {
        reader.fault(&node.place, "belongs to a statistical limit", "\"enforcement\": \"statistical\"");
    }
    reader.number(&node, OVERSHOOT_PROBABILITIES).unwrap_or(OVERSHOOT_PROBABILITY)
}

/// Not every way of counting goes with every way of reserving.
fn read_charge(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    enforcement: Enforcement,
    has_tokens: bool,
) -> Option<Charge> {
    let node = fields.get(reader, "charge")?;
    let charge = reader.choice(&node, &CHARGES)?;
    if !has_tokens {
        reader.fault(&node.place, "there is no token window", "token_max_limit");
    }
    match (enforcement, charge) {
        (Enforcement::Admission, Charge::Produced) => {
            let problem = "what is charged at admission is not charged as it is produced";
            reader.fault(&node.place, problem, "admission or input, or another enforcement");
        }
        (Enforcement::Statistical, Charge::Admission | Charge::Input) => {
            let problem = "what is known at the door is not estimated";
            reader.fault(&node.place, problem, "produced, or another enforcement");
        }
        _ => {}
    }
    Some(charge)
}

/// The finer grain is a part of a window with an amount, which has to be there.
fn read_sub_window(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    allowances: [Result<Option<Allowance>, ()>; 2],
) -> Option<Duration> {
    let lengths = allowances.into_iter().filter_map(|allowance| match allowance {
        Ok(Some(Allowance { max: Amount::Known(_), window })) => Some(window.as_duration()),
        Ok(_) => None,
        // Has a fault of its own.
        Err(()) => Some(Duration::from_secs(Window::SECONDS_MAX)),
    });
    let Some(longest) = lengths.max().filter(|longest| *longest > SUB_WINDOW_MIN) else {
        let problem = "there is no window of more than a second with an amount that is known";
        reader.fault(&node.place, problem, "request_max_limit or token_max_limit");
        return None;
    };
    let below = longest.saturating_sub(Duration::from_millis(1));
    reader.duration(node, &(SUB_WINDOW_MIN..=below))
}

pub(super) fn read_budget(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Budget> {
    reader
        .object(node, |reader, fields| {
            let id = read_id(reader, fields, Kind::Budget);
            let dollars = fields.required(reader, "max_limit", "an amount in US dollars");
            let dollars = dollars.and_then(|node| reader.number(&node, MICRO_USD..=DOLLARS_MAX));
            let window = fields.required(reader, "reset_duration", "a window such as \"1M\"");
            let window = window.and_then(|node| reader.window(&node));
            Some(Budget { id: id?, max_micro_usd: (dollars? * 1e6).round() as u64, window: window? })
        })
        .flatten()
}

/// The `id` of an entry that others refer to.
pub(super) fn read_id(reader: &mut Reader<'_>, fields: &mut Fields<'_>, kind: Kind) -> Option<String> {
    let node = fields.required(reader, "id", "an id of its own")?;
    let id = reader.name(&node)?;
    reader.declare(kind, &id, &node);
    Some(id)
}
