//! `GET /__sim/stats`: everything counted, as JSON. Pure.
//!
//! `?window=60s` (repeatable) adds the fullest window of that length; `&key=K` and `&model=M`
//! restrict the windows to one key or model. Keys are shown as they arrived: this is a simulator,
//! and which credential came is what a test wants to know.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use shared::clock::Nanos;

use super::{
    core::Gauges,
    ledger::{Ledger, Names, Totals},
    limit::parse_window,
    route,
};

/// Most windows in one query: each costs a pass over the whole log.
const WINDOWS_MAX: usize = 16;

/// Appends the statistics that `target` asks for.
pub(crate) fn push(ledger: &Ledger, gauges: &Gauges, now: Nanos, target: &str, out: &mut Vec<u8>) {
    let totals = ledger.keys.all().into_iter().fold(Totals::default(), |sum, (_, totals)| sum.plus(totals));
    let mut answers = Map::new();
    for (&(route, status), &count) in &ledger.answers {
        if let Some(statuses) = answers.entry(route.name()).or_insert_with(|| json!({})).as_object_mut() {
            statuses.insert(status.to_string(), count.into());
        }
    }
    let stats = json!({
        "now_nanos": now.0,
        "admitted": totals.admitted,
        "refused": totals.refused,
        "unauthorized": totals.unauthorized,
        "tokens": totals.tokens,
        "answers": answers,
        "keys": names(&ledger.keys),
        "models": names(&ledger.models),
        "faults": ledger.faults,
        "streams": {
            "started": ledger.streams,
            "finished": ledger.streams_finished,
            "active": gauges.streams.load(Ordering::Relaxed),
            "events": ledger.events,
        },
        "cancelled": ledger.cancelled,
        "connections": gauges.connections.load(Ordering::Relaxed),
        "log": {"rows": ledger.arrivals.rows(), "forgotten": ledger.arrivals.forgotten(), "exact": ledger.arrivals.forgotten() == 0},
        "windows": windows(ledger, target),
    });
    out.extend_from_slice(stats.to_string().as_bytes());
}

fn names(names: &Names) -> Map<String, Value> {
    let shown = |totals: Totals| json!({"admitted": totals.admitted, "refused": totals.refused, "unauthorized": totals.unauthorized, "tokens": totals.tokens});
    names.all().into_iter().map(|(name, totals)| (name.to_owned(), shown(totals))).collect()
}

/// By window as it was written: the most admitted requests and tokens in any window of that length.
fn windows(ledger: &Ledger, target: &str) -> Map<String, Value> {
    // A name that never came matches no row.
    let wanted =
        |name: &str, names: &Names| route::query(target, name).map(|value| names.find(value).unwrap_or(u16::MAX));
    let (key, model) = (wanted("key", &ledger.keys), wanted("model", &ledger.models));
    let mut windows = Map::new();
    for (_, text) in route::queries(target).filter(|(name, _)| *name == "window").take(WINDOWS_MAX) {
        let value = match parse_window(text) {
            Ok(window) => {
                let fullest = ledger.arrivals.fullest(window, |row| {
                    key.is_none_or(|key| row.key == key) && model.is_none_or(|model| row.model == model)
                });
                json!({"requests": fullest.requests, "tokens": fullest.tokens})
            }
            Err(error) => json!({"error": error}),
        };
        windows.insert(text.to_owned(), value);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_for_all_for_a_key_and_for_a_model() {
        let mut ledger = Ledger::new(&[], 1_000);
        for (millis, key, model, tokens) in
            [(0, "a", "m", 5), (10, "b", "m", 6), (20, "a", "n", 7), (2_000, "a", "m", 8)]
        {
            ledger.admit(key, model, tokens, Nanos(millis * 1_000_000));
        }
        let stats = |target: &str| {
            let mut out = Vec::new();
            push(&ledger, &Gauges::default(), Nanos(0), target, &mut out);
            serde_json::from_slice::<Value>(&out).expect("JSON")
        };
        assert_eq!(
            stats("/__sim/stats?window=1s&window=10s")["windows"],
            json!({"1s": {"requests": 3, "tokens": 18}, "10s": {"requests": 4, "tokens": 26}})
        );
        assert_eq!(stats("/?window=1s&key=a")["windows"]["1s"], json!({"requests": 2, "tokens": 12}));
        assert_eq!(stats("/?window=1s&model=n")["windows"]["1s"], json!({"requests": 1, "tokens": 7}));
        assert_eq!(stats("/?window=1s&key=nobody")["windows"]["1s"], json!({"requests": 0, "tokens": 0}));
        assert_eq!(stats("/")["keys"]["a"]["admitted"], 3);
        assert_eq!(stats("/")["admitted"], 4);
    }
}
