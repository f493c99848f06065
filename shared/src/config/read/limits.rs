//! `governance.rate_limits` and `governance.budgets`.

use core::num::NonZeroU64;
use core::time::Duration;

use crate::config::model::{Allowance, Budget, Charge, Enforcement, OnNodeLoss, RateLimit, Window};
use crate::config::reader::{Fields, Node, Reader};
use crate::config::references::Kind;

/// Units in a window. The ring's counters hold far more; this leaves room for sums.
const UNITS_MAX: u64 = 1_000_000_000_000_000;

/// Dollars; in millionths it stays exact in a double.
const DOLLARS_MAX: f64 = 1_000_000_000.0;

const ENFORCEMENTS: [(&str, Enforcement); 4] = [
    ("strict", Enforcement::Strict),
    ("admission", Enforcement::Admission),
    ("statistical", Enforcement::Statistical),
    ("gossip", Enforcement::Gossip),
];

const ON_NODE_LOSS: [(&str, OnNodeLoss); 2] = [("keep", OnNodeLoss::Keep), ("reclaim", OnNodeLoss::Reclaim)];

const CHARGES: [(&str, Charge); 3] =
    [("admission", Charge::Admission), ("input", Charge::Input), ("produced", Charge::Produced)];

pub(super) fn read_rate_limit(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<RateLimit> {
    reader
        .object(node, |reader, fields| {
            let id = read_id(reader, fields, Kind::RateLimit);
            let requests = read_allowance(reader, fields, ["request_max_limit", "request_reset_duration"]);
            let tokens = read_allowance(reader, fields, ["token_max_limit", "token_reset_duration"]);
            let sub_window = fields.get(reader, "sub_window");
            let limit = RateLimit {
                enforcement: fields.read(reader, "enforcement", |r, n| r.choice(n, &ENFORCEMENTS)).unwrap_or_default(),
                on_node_loss: fields.read(reader, "on_node_loss", |r, n| r.choice(n, &ON_NODE_LOSS)),
                charge: fields.read(reader, "charge", |r, n| r.choice(n, &CHARGES)).unwrap_or_default(),
                sub_window: sub_window.and_then(|node| read_sub_window(reader, &node, tokens)),
                region: fields.read(reader, "region", Reader::name),
                requests: requests.ok()?,
                tokens: tokens.ok()?,
                id: id?,
            };
            if limit.requests.is_none() && limit.tokens.is_none() {
                let expected = "request_max_limit, token_max_limit or both";
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
            let max = reader.integer(&max, 1..=UNITS_MAX).and_then(NonZeroU64::new);
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
            reader.fault(&window.place, problem, "an amount of 1 or more");
            Err(())
        }
    }
}

/// The finer grain is a part of the token window, which has to be there.
fn read_sub_window(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    tokens: Result<Option<Allowance>, ()>,
) -> Option<Duration> {
    let longest = match tokens {
        Ok(Some(allowance)) => allowance.window.as_duration(),
        Ok(None) => {
            reader.fault(&node.place, "there is no token window", "token_max_limit");
            return None;
        }
        Err(()) => Duration::from_secs(Window::SECONDS_MAX),
    };
    reader.duration(node, &(Duration::from_secs(1)..=longest))
}

pub(super) fn read_budget(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Budget> {
    reader
        .object(node, |reader, fields| {
            let id = read_id(reader, fields, Kind::Budget);
            let dollars = fields.required(reader, "max_limit", "an amount in US dollars");
            let dollars = dollars.and_then(|node| reader.number(&node, 0.0..=DOLLARS_MAX));
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
