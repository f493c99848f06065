//! Reads a recorded trace: lines of `TIMESTAMP,ContextTokens,GeneratedTokens` under a head
//! line, as the Azure LLM inference traces have them. Pure.

use std::time::Duration;

use thiserror::Error;

/// Most rows that are read.
pub(crate) const ROWS_MAX: usize = 1_000_000;

/// One recorded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// After the first row.
    pub(crate) at: Duration,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u64,
    /// Tokens that were generated.
    pub(crate) completion_tokens: u64,
}

/// A trace that cannot be replayed; nothing of it is used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub(crate) enum TraceError {
    /// The first line names other columns.
    #[error("the first line is not `TIMESTAMP,ContextTokens,GeneratedTokens`")]
    HeadLine,
    /// A row that does not parse, by its line number from 1.
    #[error("line {0} is not `YYYY-MM-DD HH:MM:SS.FRACTION,TOKENS,TOKENS`")]
    Row(usize),
    /// Replaying needs rows in order of time.
    #[error("line {0} is earlier than the first row or the row before it")]
    Order(usize),
    /// Nothing to replay.
    #[error("there are no rows")]
    Empty,
}

/// Reads at most `rows_max` rows.
pub(crate) fn parse(text: &str, rows_max: usize) -> Result<Vec<Recorded>, TraceError> {
    let mut lines = text.lines().enumerate();
    let (_, columns) = lines.next().ok_or(TraceError::Empty)?;
    if columns.trim() != "TIMESTAMP,ContextTokens,GeneratedTokens" {
        return Err(TraceError::HeadLine);
    }
    let mut rows: Vec<Recorded> = Vec::new();
    let mut first = None;
    for (index, line) in lines.take(rows_max.min(ROWS_MAX)) {
        let number = index + 1;
        let (moment, prompt_tokens, completion_tokens) = parse_row(line).ok_or(TraceError::Row(number))?;
        let at = moment
            .checked_sub(*first.get_or_insert(moment))
            .filter(|at| rows.last().is_none_or(|before| before.at <= *at))
            .ok_or(TraceError::Order(number))?;
        rows.push(Recorded { at, prompt_tokens, completion_tokens });
    }
    if rows.is_empty() {
        return Err(TraceError::Empty);
    }
    Ok(rows)
}

fn parse_row(line: &str) -> Option<(Duration, u64, u64)> {
    let mut columns = line.trim_end().split(',');
    let moment = parse_moment(columns.next()?)?;
    let prompt = u64::from(columns.next()?.parse::<u32>().ok()?);
    let completion = u64::from(columns.next()?.parse::<u32>().ok()?);
    columns.next().is_none().then_some((moment, prompt, completion))
}

/// `2023-11-16 18:15:46.6805900` as the time since the year 0. Only differences are used.
fn parse_moment(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once(' ')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?;
    let in_range = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && (1..=9).contains(&fraction.len());
    if !in_range {
        return None;
    }
    let nanos = fraction.parse::<u32>().ok()? * 10_u32.pow(9 - fraction.len() as u32);
    let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Duration::new(seconds, nanos))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<u16>().ok().map(u64::from));
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Days of the Gregorian calendar before this date, from some fixed day on. The year is
/// taken to begin in March, so that the leap day is its last.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

    #[test]
    fn rows_are_counted_from_the_first() {
        let text = format!("{HEAD}2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n");
        let rows = parse(&text, 10).expect("two rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].at, Duration::ZERO);
        assert_eq!(rows[1].at, Duration::from_micros(4_314_579));
        assert_eq!((rows[1].prompt_tokens, rows[1].completion_tokens), (396, 109));
    }

    #[test]
    fn a_leap_day_and_a_turn_of_the_year_are_one_day() {
        for (before, after) in [
            ("2024-02-28", "2024-02-29"),
            ("2024-02-29", "2024-03-01"),
            ("2023-02-28", "2023-03-01"),
            ("2023-12-31", "2024-01-01"),
        ] {
            let text = format!("{HEAD}{before} 00:00:00.0,1,1\n{after} 00:00:00.0,1,1\n");
            let rows = parse(&text, 10).expect("two rows");
            assert_eq!(rows[1].at.as_secs(), 86_400, "{before} to {after}");
        }
    }

    #[test]
    fn only_so_many_rows_are_read() {
        let text = format!("{HEAD}2023-11-16 18:15:46.0,1,1\nnot a row\n");
        assert_eq!(parse(&text, 1).map(|rows| rows.len()), Ok(1));
        assert_eq!(parse(&text, 2), Err(TraceError::Row(3)));
    }

    #[test]
    fn broken_traces_are_named_by_line() {
        assert_eq!(parse("a,b,c\n", 1), Err(TraceError::HeadLine));
        assert_eq!(parse(HEAD, 1), Err(TraceError::Empty));
        for row in [
            "2023-13-16 18:15:46.0,1,1",
            "2023-11-16 24:15:46.0,1,1",
            "2023-11-16 18:15:46.0,-1,1",
            "2023-11-16 18:15:46.0,1",
            "2023-11-16 18:15:46.0,1,1,1",
            "2023-11-16,1,1",
        ] {
            assert_eq!(parse(&format!("{HEAD}{row}"), 1), Err(TraceError::Row(2)), "{row}");
        }
        let backwards = format!("{HEAD}2023-11-16 18:15:46.0,1,1\n2023-11-16 18:15:45.9,1,1\n");
        assert_eq!(parse(&backwards, 9), Err(TraceError::Order(3)));
    }
}
