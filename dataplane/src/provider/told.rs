//! What a provider's answer says of its limits, read from the fields of its head. Pure, without
//! an allocation; what cannot be read is as if it had not been said.
//!
//! Known are `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (`OpenAI`, Azure and most who
//! speak their dialect; durations such as `6m0s`, `17ms`, or bare seconds),
//! `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`
//! (RFC 3339 times), `retry-after` in seconds and `retry-after-ms`. Absent: names that carry their
//! own window (`x-ratelimit-limit-requests-day`), names without a unit, and dates in `retry-after`.

use shared::told::{ProviderLimits, Told};
use std::time::Duration;

/// Longer than every name that is known.
const NAME_BYTES_MAX: usize = 48;
/// Largest figure that is believed.
const FIGURE_MAX: u64 = 1_000_000_000_000;
/// Longest time that is believed; windows of providers are a month at most.
const TIME_MAX: Duration = Duration::from_secs(32 * 86_400);

/// Reads the fields, given as names and values. `time_of_day` is the provider's, since 1970: some
/// say when, not how long.
pub fn provider_limits<'b>(
    fields: impl Iterator<Item = (&'b [u8], &'b [u8])>,
    time_of_day: Duration,
) -> ProviderLimits {
    let mut limits = ProviderLimits::default();
    for (name, value) in fields {
        let mut lower = [0; NAME_BYTES_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { continue };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let Some((unit, part)) = named(lower) else { continue };
        let told = match unit {
            b"requests" => &mut limits.requests,
            b"tokens" => &mut limits.tokens,
            b"input-tokens" => &mut limits.input_tokens,
            b"output-tokens" => &mut limits.output_tokens,
            _ => continue,
        };
        read(part, value.trim_ascii(), time_of_day, told);
    }
    limits
}

/// How long to wait, from `retry-after-ms`, which is the finer one, or `retry-after`.
pub fn retry_after<'b>(fields: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> Option<Duration> {
    let mut coarse = None;
    for (name, value) in fields {
        let unit_ns = match name {
            name if name.eq_ignore_ascii_case(b"retry-after-ms") => MILLISECOND_NS,
            name if name.eq_ignore_ascii_case(b"retry-after") => SECOND_NS,
            _ => continue,
        };
        let Some((amount, [])) = amount(value.trim_ascii()) else { continue };
        let Some(wait) = amount.times(unit_ns) else { continue };
        if unit_ns == MILLISECOND_NS {
            return Some(wait);
        }
        coarse = coarse.or(Some(wait));
    }
    coarse
}

/// The time of a `date` field (RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`), since 1970.
pub fn http_date(value: &[u8]) -> Option<Duration> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let value = value.trim_ascii();
    if value.len() != 29 || !value.ends_with(b" GMT") {
        return None;
    }
    let month = MONTHS.chunks(3).position(|name| value.get(8..11) == Some(name))?;
    let month = u64::try_from(month).ok()? + 1;
    let days = days_since_1970(digits(value.get(12..16)?)?, month, digits(value.get(5..7)?)?)?;
    seconds_of_day(value.get(17..25)?).map(|seconds| Duration::from_secs(days * 86_400 + seconds))
}

#[derive(Clone, Copy)]
enum Part {
    Limit,
    Remaining,
    Reset,
}

/// Unit and part that a name in small letters stands for.
fn named(name: &[u8]) -> Option<(&[u8], Part)> {
    const PARTS: [(&[u8], &[u8], Part); 3] = [
        (b"limit-", b"-limit", Part::Limit),
        (b"remaining-", b"-remaining", Part::Remaining),
        (b"reset-", b"-reset", Part::Reset),
    ];
    if let Some(rest) = name.strip_prefix(b"x-ratelimit-") {
        return PARTS.iter().find_map(|(before, _, part)| Some((rest.strip_prefix(*before)?, *part)));
    }
    let rest = name.strip_prefix(b"anthropic-ratelimit-")?;
    PARTS.iter().find_map(|(_, behind, part)| Some((rest.strip_suffix(*behind)?, *part)))
}

/// The first value of a part stands.
fn read(part: Part, value: &[u8], time_of_day: Duration, told: &mut Told) {
    match part {
        // A limit of nothing would never be asked about again.
        Part::Limit => told.limit = told.limit.or_else(|| figure(value).filter(|limit| *limit > 0)),
        Part::Remaining => told.remaining = told.remaining.or_else(|| figure(value)),
        Part::Reset => {
            let after = || duration(value).or_else(|| Some(rfc3339(value)?.saturating_sub(time_of_day)));
            told.reset_after = told.reset_after.or_else(|| after().filter(|after| *after <= TIME_MAX));
        }
    }
}

fn figure(value: &[u8]) -> Option<u64> {
    digits(value).filter(|figure| *figure <= FIGURE_MAX)
}

/// Up to 15 digits and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 15 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A number with a fraction: whole ones, and billionths.
#[derive(Clone, Copy)]
struct Amount {
    whole: u64,
    billionths: u64,
}

impl Amount {
    /// So many units of `unit_ns`; `None` above [`TIME_MAX`].
    fn times(self, unit_ns: u64) -> Option<Duration> {
        let unit_ns = u128::from(unit_ns);
        let ns = u128::from(self.whole) * unit_ns + u128::from(self.billionths) * unit_ns / u128::from(SECOND_NS);
        u64::try_from(ns).ok().map(Duration::from_nanos).filter(|time| *time <= TIME_MAX)
    }
}

/// The number at the start of a text, and what stands behind it.
fn amount(text: &[u8]) -> Option<(Amount, &[u8])> {
    let split = |text: &'_ [u8]| text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(split(text));
    let whole = digits(whole)?;
    let Some(behind) = rest.strip_prefix(b".") else { return Some((Amount { whole, billionths: 0 }, rest)) };
    let (fraction, rest) = behind.split_at(split(behind));
    if fraction.is_empty() {
        return None;
    }
    let billionths = (0..9).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u64::from(digit - b'0')));
    Some((Amount { whole, billionths }, rest))
}

/// `6m0s`, `17ms`, `1h2m3.5s`; a bare number is seconds.
fn duration(mut text: &[u8]) -> Option<Duration> {
    const UNITS: [(&[u8], u64); 8] = [
        // `ms` before `m`.
        (b"ms", MILLISECOND_NS),
        (b"us", 1_000),
        ("µs".as_bytes(), 1_000),
        (b"ns", 1),
        (b"s", SECOND_NS),
        (b"m", 60 * SECOND_NS),
        (b"h", 3_600 * SECOND_NS),
        (b"d", 86_400 * SECOND_NS),
    ];
    let mut sum = Duration::ZERO;
    let (first, rest) = amount(text)?;
    if rest.is_empty() {
        return first.times(SECOND_NS);
    }
    while !text.is_empty() {
        let (amount, rest) = amount(text)?;
        let (rest, unit_ns) = UNITS.iter().find_map(|(name, unit_ns)| Some((rest.strip_prefix(*name)?, *unit_ns)))?;
        sum = sum.saturating_add(amount.times(unit_ns)?);
        text = rest;
    }
    Some(sum)
}

/// `2026-01-27T16:04:05Z`, with a fraction or an offset too; since 1970.
fn rfc3339(text: &[u8]) -> Option<Duration> {
    let is_dashed = text.get(4) == Some(&b'-') && text.get(7) == Some(&b'-');
    if !is_dashed || !matches!(text.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let days = days_since_1970(digits(text.get(..4)?)?, digits(text.get(5..7)?)?, digits(text.get(8..10)?)?)?;
    let local = days * 86_400 + seconds_of_day(text.get(11..19)?)?;
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix(b".") {
        let end = fraction.iter().position(|byte| !byte.is_ascii_digit())?;
        zone = fraction.get(end..)?;
    }
    let offset = |zone: &[u8]| Some(digits(zone.get(..2)?)? * 3_600 + digits(zone.get(3..5)?)? * 60);
    let seconds = match zone {
        b"Z" | b"z" => local,
        [b'+', zone @ ..] => local.checked_sub(offset(zone)?)?,
        [b'-', zone @ ..] => local + offset(zone)?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// `16:04:05`.
fn seconds_of_day(text: &[u8]) -> Option<u64> {
    let part = |at: usize| digits(text.get(at..at + 2)?);
    let (hour, minute, second) = (part(0)?, part(3)?, part(6)?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
}

/// Days of the Gregorian calendar, for years up to 9999.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let before_month = BEFORE_MONTH.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    // Leap days up to the end of the year before, and the one of this year when it is over.
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let leaps = leap_days(year - 1) - leap_days(1969) + u64::from(is_leap && month > 2);
    Some((year - 1970) * 365 + leaps + before_month + day - 1)
}

#[cfg(test)]
mod tests;
