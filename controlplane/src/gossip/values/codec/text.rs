//! Cells of a row of JSON, each read as what it should be.

use serde_json::Value;

/// Longest name that is read, in bytes: a limit's id is two names of 128 and a stroke.
const NAME_BYTES_MAX: usize = 300;

/// Whether a name may stand in logs and metrics as it is.
pub(super) fn is_clean(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control)
}

/// The cells of one JSON array; `None` for anything else, and unread above `bytes_max`.
/// `serde_json` itself ends at a depth of 128.
pub(super) fn parsed(text: &str, bytes_max: usize) -> Option<Vec<Value>> {
    if text.len() > bytes_max {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Reads cells in their order. One that is missing has its default, as an earlier version did not
/// know it; one of another kind spoils the row.
pub(super) struct Cells<'a> {
    cells: std::slice::Iter<'a, Value>,
    are_read: bool,
}

impl<'a> Cells<'a> {
    pub(super) fn of(cells: &'a [Value]) -> Self {
        Self { cells: cells.iter(), are_read: true }
    }

    /// Whether every cell so far was of its kind.
    pub(super) fn are_read(&self) -> bool {
        self.are_read
    }

    pub(super) fn text(&mut self) -> String {
        self.next(|cell| cell.as_str().filter(|text| is_clean(text)).map(str::to_owned))
    }

    pub(super) fn optional_text(&mut self) -> Option<String> {
        self.next(|cell| match cell {
            Value::Null => Some(None),
            cell => cell.as_str().filter(|text| is_clean(text)).map(|text| Some(text.to_owned())),
        })
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next(Value::as_u64)
    }

    pub(super) fn permille(&mut self) -> u16 {
        self.next(|cell| cell.as_u64().filter(|permille| *permille <= 1_000).and_then(|it| u16::try_from(it).ok()))
    }

    pub(super) fn numbers(&mut self, count_max: usize) -> Vec<u64> {
        self.next(|cell| {
            let cells = cell.as_array().filter(|cells| cells.len() <= count_max)?;
            cells.iter().map(Value::as_u64).collect()
        })
    }

    fn next<T: Default>(&mut self, read: impl FnOnce(&Value) -> Option<T>) -> T {
        let Some(cell) = self.cells.next() else { return T::default() };
        read(cell).unwrap_or_else(|| {
            self.are_read = false;
            T::default()
        })
    }
}
