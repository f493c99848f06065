//! `GET /__sim/admissions`: every admitted request with its time, as JSON. Pure.
//!
//! Who wants more than the fullest window (who filled it, what a reference would have admitted)
//! counts for themselves. An answer has at most [`ROWS_MAX`] rows; `?from=N` goes on where `next`
//! of the last one ended. Rows that left the log are missing, and `forgotten` says how many.

use serde_json::{Value, json};
use shared::clock::Nanos;

use super::{ledger::Ledger, route};

/// Most rows of one answer, some 40 bytes each. All threads wait while they are copied.
const ROWS_MAX: usize = 20_000;

/// Appends the rows that `target` asks for: `[nanoseconds, tokens, key, model]`, the last two as
/// places in `keys` and `models`.
pub(crate) fn push(ledger: &Ledger, now: Nanos, target: &str, out: &mut Vec<u8>) {
    let forgotten = ledger.arrivals.forgotten();
    let asked = route::query(target, "from").and_then(|from| from.parse().ok()).unwrap_or(0);
    let from = forgotten.max(asked);
    let rows: Vec<Value> = ledger
        .arrivals
        .since(from)
        .take(ROWS_MAX)
        .map(|row| json!([row.at.0, row.tokens, row.key, row.model]))
        .collect();
    let next = from.saturating_add(rows.len() as u64);
    let answer = json!({
        "now_nanos": now.0,
        "forgotten": forgotten,
        "next": next,
        "keys": ledger.keys.by_index(),
        "models": ledger.models.by_index(),
        "rows": rows,
    });
    out.extend_from_slice(answer.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ledger: &Ledger, target: &str) -> Value {
        let mut out = Vec::new();
        push(ledger, Nanos(7), target, &mut out);
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn every_admitted_request_is_a_row_and_no_refused_one_is() {
        let rule = "requests=2,window=1s".parse().expect("a rule");
        let mut ledger = Ledger::new(&[rule], 1_000);
        for (at, model) in [(10, "m"), (20, "n"), (30, "m")] {
            ledger.admit("k", model, 5, Nanos(at));
        }
        let answer = asked(&ledger, "/__sim/admissions");
        assert_eq!(answer["rows"], json!([[10, 5, 1, 1], [20, 5, 1, 2]]));
        assert_eq!((&answer["keys"][1], &answer["models"][2]), (&json!("k"), &json!("n")));
        assert_eq!((&answer["now_nanos"], &answer["next"]), (&json!(7), &json!(2)));
        assert_eq!(asked(&ledger, "/__sim/admissions?from=1")["rows"], json!([[20, 5, 1, 2]]));
    }

    #[test]
    fn pages_join_without_a_gap_also_where_rows_were_forgotten() {
        let mut ledger = Ledger::new(&[], 50_000);
        for at in 0..150_000 {
            ledger.admit("k", "m", 1, Nanos(at));
        }
        let first = ledger.arrivals.forgotten();
        assert!(first > 0);
        let (mut from, mut pages) = (0, 0);
        loop {
            let answer = asked(&ledger, &format!("/__sim/admissions?from={from}"));
            let rows = answer["rows"].as_array().expect("rows");
            let next = answer["next"].as_u64().expect("a number");
            if rows.is_empty() {
                assert_eq!(next, 150_000);
                break;
            }
            assert_eq!(rows[0][0], json!(from.max(first)), "a row's number is its time here");
            assert_eq!(rows[rows.len() - 1][0], json!(next - 1));
            (from, pages) = (next, pages + 1);
        }
        assert!(pages >= 3, "{pages}");
    }
}
