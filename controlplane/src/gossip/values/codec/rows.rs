//! Lists: each kind of row as cells, and rows packed into as few texts as hold them.

use super::super::shapes::{LimitUse, ProviderTraffic, Rest, ToldFigures, ToldRow, TrafficRow};
use super::text::{Cells, is_clean, parsed};
use super::{READ_BYTES_MAX, TEXT_BYTES_MAX};
use serde_json::{Value, json};
use shared::report::LATENCY_BOUNDS_US;
use std::cmp::Reverse;

/// Largest row that is written. Packing leaves less than this free in a text, so that rows of
/// three quarters of all texts always fit.
const ROW_BYTES_MAX: usize = TEXT_BYTES_MAX / 4;

/// One unit, half and all of what is used.
const BACK_MAX: usize = 3;

/// A row of one list.
pub(super) trait Row: Sized + Clone {
    /// Name of the list: its texts are `LIST/0`, `LIST/1` …
    const LIST: &'static str;
    /// Texts that the list may take.
    const TEXTS_MAX: usize;
    /// First cells that are names and often the same as in the row above, where 0 stands for them.
    const REPEATED: usize;

    fn cells(&self) -> Vec<Value>;

    fn read(cells: &mut Cells<'_>) -> Self;

    /// What tells rows apart, in the order of the cells.
    fn names(&self) -> [&str; 3];

    /// Rows that weigh more are written first where not all can be.
    fn weight(&self) -> u64;
}

/// Writes the texts of one list.
pub(super) fn write_rows<R: Row>(rows: &[R], texts: &mut Vec<(String, String)>) {
    let mut written = 0;
    let mut text = String::new();
    let mut above: Option<Vec<Value>> = None;
    for cells in chosen(rows) {
        let mut row = json_of(shortened::<R>(&cells, above.as_deref()));
        // The closing bracket and a comma.
        if !text.is_empty() && text.len() + row.len() + 2 > TEXT_BYTES_MAX {
            texts.push((format!("{}/{written}", R::LIST), closed(std::mem::take(&mut text))));
            written += 1;
            row = json_of(cells.clone());
        }
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(&row);
        above = Some(cells);
    }
    if !text.is_empty() {
        texts.push((format!("{}/{written}", R::LIST), closed(text)));
    }
}

/// The rows that are written, as cells, in their order.
fn chosen<R: Row>(rows: &[R]) -> Vec<Vec<Value>> {
    let mut rows = rows.to_vec();
    rows.retain(|row| row.names().iter().all(|name| is_clean(name)));
    tidy(&mut rows);
    let mut heaviest: Vec<usize> = (0..rows.len()).collect();
    heaviest.sort_by_key(|at| Reverse(rows.get(*at).map_or(0, R::weight)));
    let mut room = R::TEXTS_MAX * (TEXT_BYTES_MAX - ROW_BYTES_MAX);
    let mut taken = Vec::new();
    for at in heaviest {
        let Some(cells) = rows.get(at).map(R::cells) else { continue };
        let length = json_of(cells.clone()).len() + 1;
        if length > ROW_BYTES_MAX {
            continue;
        }
        let Some(left) = room.checked_sub(length) else { break };
        room = left;
        taken.push((at, cells));
    }
    taken.sort_unstable_by_key(|(at, _)| *at);
    taken.into_iter().map(|(_, cells)| cells).collect()
}

fn shortened<R: Row>(cells: &[Value], above: Option<&[Value]>) -> Vec<Value> {
    let mut cells = cells.to_vec();
    for (cell, above) in cells.iter_mut().zip(above.unwrap_or_default()).take(R::REPEATED) {
        if cell == above {
            *cell = json!(0);
        }
    }
    cells
}

fn json_of(cells: Vec<Value>) -> String {
    Value::Array(cells).to_string()
}

fn closed(mut text: String) -> String {
    text.push(']');
    text
}

/// Adds the rows of one text; `false` if it is none of ours. A row that cannot be read is left
/// out and counted in `unreadable`.
pub(super) fn read_rows<R: Row>(number: &str, text: &str, rows: &mut Vec<R>, unreadable: &mut u32) -> bool {
    // Twice what is written, as with the bytes; further ones are as unknown as other keys.
    let is_ours = (0..2 * R::TEXTS_MAX).any(|ours| ours.to_string() == number);
    if !is_ours {
        return true;
    }
    let Some(read) = parsed(text, READ_BYTES_MAX) else { return false };
    let mut above: Vec<Value> = Vec::new();
    for row in read {
        let Value::Array(mut cells) = row else {
            *unreadable = unreadable.saturating_add(1);
            continue;
        };
        for (cell, above) in cells.iter_mut().zip(&above).take(R::REPEATED) {
            if cell.as_u64() == Some(0) {
                cell.clone_from(above);
            }
        }
        let mut reader = Cells::of(&cells);
        let row = R::read(&mut reader);
        if reader.are_read() {
            rows.push(row);
        } else {
            *unreadable = unreadable.saturating_add(1);
        }
        above = cells;
    }
    true
}

/// One order for all, and one row for each name.
pub(super) fn tidy<R: Row>(rows: &mut Vec<R>) {
    rows.sort_by(|a, b| a.names().cmp(&b.names()));
    rows.dedup_by(|a, b| a.names() == b.names());
}

impl Row for Rest {
    const LIST: &'static str = "rests";
    const TEXTS_MAX: usize = 4;
    const REPEATED: usize = 2;

    fn cells(&self) -> Vec<Value> {
        let Self { provider, key, model, reason, remaining_ms, number } = self;
        vec![json!(provider), json!(key), json!(model), json!(reason), json!(remaining_ms), json!(number)]
    }

    fn read(cells: &mut Cells<'_>) -> Self {
        Self {
            provider: cells.text(),
            key: cells.text(),
            model: cells.optional_text(),
            reason: cells.text(),
            remaining_ms: cells.number(),
            number: cells.number(),
        }
    }

    fn names(&self) -> [&str; 3] {
        [&self.provider, &self.key, self.model.as_deref().unwrap_or_default()]
    }

    fn weight(&self) -> u64 {
        self.remaining_ms
    }
}

impl Row for ProviderTraffic {
    const LIST: &'static str = "providers";
    const TEXTS_MAX: usize = 4;
    const REPEATED: usize = 0;

    fn cells(&self) -> Vec<Value> {
        let Self { provider, attempts, failures, first_byte_us } = self;
        vec![json!(provider), json!(attempts), json!(failures), json!(first_byte_us)]
    }

    fn read(cells: &mut Cells<'_>) -> Self {
        Self {
            provider: cells.text(),
            attempts: cells.number(),
            failures: cells.number(),
            first_byte_us: cells.number(),
        }
    }

    fn names(&self) -> [&str; 3] {
        [&self.provider, "", ""]
    }

    fn weight(&self) -> u64 {
        self.attempts
    }
}

impl Row for TrafficRow {
    const LIST: &'static str = "traffic";
    const TEXTS_MAX: usize = 12;
    const REPEATED: usize = 2;

    fn cells(&self) -> Vec<Value> {
        let Self { provider, key, model, requests, errors, latency } = self;
        let latency = latency.get(..LATENCY_BOUNDS_US.len() + 1).unwrap_or(latency);
        let latency = without_zeros(latency);
        vec![json!(provider), json!(key), json!(model), json!(requests), json!(without_zeros(errors)), json!(latency)]
    }

    fn read(cells: &mut Cells<'_>) -> Self {
        let mut row = Self {
            provider: cells.text(),
            key: cells.text(),
            model: cells.text(),
            requests: cells.number(),
            ..Self::default()
        };
        let errors = cells.numbers(row.errors.len());
        row.errors.iter_mut().zip(errors).for_each(|(to, from)| *to = from);
        row.latency = without_zeros(&cells.numbers(LATENCY_BOUNDS_US.len() + 1)).to_vec();
        row
    }

    fn names(&self) -> [&str; 3] {
        [&self.provider, &self.key, &self.model]
    }

    fn weight(&self) -> u64 {
        self.requests
    }
}

impl Row for LimitUse {
    const LIST: &'static str = "limits";
    const TEXTS_MAX: usize = 8;
    const REPEATED: usize = 1;

    fn cells(&self) -> Vec<Value> {
        let Self { id, unit, used, amount, entitlement, refused, back_ms } = self;
        let entitlement = entitlement.map_or(0, |units| units.saturating_add(1));
        let back_ms = back_ms.get(..BACK_MAX).unwrap_or(back_ms);
        vec![
            json!(unit),
            json!(id),
            json!(used),
            json!(amount),
            // One more, as of other figures that may be missing.
            json!(entitlement),
            json!(refused),
            json!(back_ms),
        ]
    }

    fn read(cells: &mut Cells<'_>) -> Self {
        let unit = cells.text();
        Self {
            id: cells.text(),
            unit,
            used: cells.number(),
            amount: cells.number(),
            entitlement: cells.number().checked_sub(1),
            refused: cells.number(),
            back_ms: cells.numbers(BACK_MAX),
        }
    }

    fn names(&self) -> [&str; 3] {
        [&self.unit, &self.id, ""]
    }

    fn weight(&self) -> u64 {
        self.used
    }
}

impl Row for ToldRow {
    const LIST: &'static str = "told";
    const TEXTS_MAX: usize = 4;
    const REPEATED: usize = 2;

    fn cells(&self) -> Vec<Value> {
        let Self { provider, key, model, number, age_ms, refused_ms, requests, tokens } = self;
        let (requests, tokens) = (written_figures(requests), written_figures(tokens));
        vec![
            json!(provider),
            json!(key),
            json!(model),
            json!(number),
            json!(age_ms),
            json!(refused_ms),
            json!(without_zeros(&requests)),
            json!(without_zeros(&tokens)),
        ]
    }

    fn read(cells: &mut Cells<'_>) -> Self {
        Self {
            provider: cells.text(),
            key: cells.text(),
            model: cells.text(),
            number: cells.number(),
            age_ms: cells.number(),
            refused_ms: cells.number(),
            requests: read_figures(&cells.numbers(3)),
            tokens: read_figures(&cells.numbers(3)),
        }
    }

    fn names(&self) -> [&str; 3] {
        [&self.provider, &self.key, &self.model]
    }

    /// Those that say most of now.
    fn weight(&self) -> u64 {
        u64::MAX.saturating_sub(self.age_ms)
    }
}

/// One more than each figure; 0 where none was told.
fn written_figures(figures: &ToldFigures) -> [u64; 3] {
    let ToldFigures { limit, remaining, reset_ms } = figures;
    [limit, remaining, reset_ms].map(|figure| figure.map_or(0, |figure| figure.saturating_add(1)))
}

fn read_figures(cells: &[u64]) -> ToldFigures {
    let figure = |at: usize| cells.get(at).and_then(|figure| figure.checked_sub(1));
    ToldFigures { limit: figure(0), remaining: figure(1), reset_ms: figure(2) }
}

fn without_zeros(counts: &[u64]) -> &[u64] {
    let used = counts.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
    counts.get(..used).unwrap_or_default()
}
