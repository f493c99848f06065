use super::*;
use proptest::prelude::*;

/// 2026-01-27T16:04:05Z.
const TIME_OF_DAY: Duration = Duration::from_secs(1_769_529_845);

fn fields<'t>(lines: &'t [(&'t str, &'t str)]) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
    lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn limits(lines: &[(&str, &str)]) -> ProviderLimits {
    provider_limits(fields(lines), TIME_OF_DAY)
}

fn told(limit: u64, remaining: u64, reset_after: Duration) -> Told {
    Told { limit: Some(limit), remaining: Some(remaining), reset_after: Some(reset_after) }
}

#[test]
fn openais_fields_are_read() {
    let read = limits(&[
        ("X-RateLimit-Limit-Requests", "60"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-remaining-tokens", " 149984 "),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(read.requests, told(60, 59, Duration::from_secs(1)));
    assert_eq!(read.tokens, told(150_000, 149_984, Duration::from_secs(360)));
    assert!(read.input_tokens.is_empty() && read.output_tokens.is_empty());
}

#[test]
fn anthropics_fields_are_read_and_their_times_become_durations() {
    let read = limits(&[
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "2026-01-27T16:04:17Z"),
        ("anthropic-ratelimit-input-tokens-limit", "30000"),
        ("anthropic-ratelimit-input-tokens-remaining", "28000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-01-27T17:04:09.25+01:00"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-01-27T16:04:01Z"),
        ("anthropic-ratelimit-unified-status", "allowed"),
    ]);
    assert_eq!(read.requests, told(50, 49, Duration::from_secs(12)));
    assert_eq!(read.input_tokens, told(30_000, 28_000, Duration::from_secs(4)));
    assert_eq!(read.output_tokens.reset_after, Some(Duration::ZERO), "over already");
    assert!(read.tokens.is_empty());
}

#[test]
fn azure_tells_what_remains_and_nothing_else() {
    let read = limits(&[("x-ratelimit-remaining-requests", "11"), ("x-ratelimit-remaining-tokens", "0")]);
    assert_eq!(read.requests, Told { remaining: Some(11), ..Told::default() });
    assert_eq!(read.tokens, Told { remaining: Some(0), ..Told::default() });
}

#[test]
fn durations_are_read_in_every_form_that_is_in_use() {
    let read = |text: &str| duration(text.as_bytes()).map(|time| time.as_micros());
    assert_eq!(read("17ms"), Some(17_000));
    assert_eq!(read("2m59.56s"), Some(179_560_000));
    assert_eq!(read("1h0m3.5s"), Some(3_603_500_000));
    assert_eq!(read("1d"), Some(86_400_000_000));
    assert_eq!(read("250µs"), Some(250));
    assert_eq!(read("12"), Some(12_000_000));
    assert_eq!(read("0.25"), Some(250_000));
    for nonsense in ["", "s", "1x", "1.s", ".5s", "-1s", "1s2", "NaN", "9999999999999999s", "1741305600000", "1 s"] {
        assert_eq!(read(nonsense), None, "{nonsense}");
    }
}

#[test]
fn nonsense_is_as_if_it_had_not_been_said() {
    let read = limits(&[
        ("x-ratelimit-limit-requests", "0"),
        ("x-ratelimit-limit-tokens", "-1"),
        ("x-ratelimit-remaining-tokens", "99999999999999999999"),
        ("x-ratelimit-reset-tokens", "soon"),
        ("x-ratelimit-limit-requests-day", "1000"),
        ("x-ratelimit-limit", "7"),
        ("anthropic-ratelimit-requests-reset", "2026-13-01T00:00:00Z"),
        ("anthropic-ratelimit-tokens-reset", "9999-01-01T00:00:00Z"),
        ("anthropic-ratelimit--limit", "1"),
    ]);
    assert!(read.is_empty(), "{read:?}");
}

#[test]
fn the_first_of_two_values_stands() {
    let read = limits(&[("x-ratelimit-limit-requests", "10"), ("x-ratelimit-limit-requests", "20")]);
    assert_eq!(read.requests.limit, Some(10));
}

#[test]
fn a_retry_after_is_read_as_seconds_or_milliseconds_or_not_at_all() {
    let read = |lines: &[(&str, &str)]| retry_after(fields(lines));
    assert_eq!(read(&[("Retry-After", "3")]), Some(Duration::from_secs(3)));
    assert_eq!(read(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
    assert_eq!(read(&[("retry-after", "1"), ("retry-after-ms", "120")]), Some(Duration::from_millis(120)));
    assert_eq!(read(&[("retry-after-ms", "soon"), ("retry-after", "1")]), Some(Duration::from_secs(1)));
    for nonsense in ["-1", "NaN", "inf", "1e3", "Fri, 31 Dec 1999 23:59:59 GMT", "", "1s", "99999999999"] {
        assert_eq!(read(&[("retry-after", nonsense)]), None, "{nonsense}");
    }
}

#[test]
fn dates_are_read_as_servers_write_them() {
    assert_eq!(http_date(b"Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(784_111_777)));
    assert_eq!(http_date(b"Thu, 29 Feb 2024 00:00:00 GMT"), Some(Duration::from_secs(1_709_164_800)));
    for other in [&b"Sunday, 06-Nov-94 08:49:37 GMT"[..], b"Sun, 06 Nov 1994 08:49:37 UTC", b"", &[0xff; 29]] {
        assert_eq!(http_date(other), None);
    }
}

/// Days of a year's beginning, counted year by year.
fn days_before(year: u64) -> u64 {
    (1970..year).map(|year| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 }).sum()
}

proptest! {
    #[test]
    fn a_year_has_its_days(year in 1970_u64..=9999) {
        assert_eq!(days_since_1970(year, 1, 1), Some(days_before(year)));
        assert_eq!(days_since_1970(year, 12, 31), Some(days_before(year + 1) - 1));
    }

    #[test]
    fn a_duration_that_is_written_is_read(milliseconds in 0_u64..2_000_000_000) {
        let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
        let text = format!("{}h{}m{}.{rest:03}s", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        assert_eq!(duration(text.as_bytes()), Some(Duration::from_millis(milliseconds)));
        assert_eq!(duration(format!("{milliseconds}ms").as_bytes()), Some(Duration::from_millis(milliseconds)));
    }

    #[test]
    fn whatever_is_said_what_is_believed_is_within_bounds(
        name in prop::sample::select(vec![
            "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests",
            "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-input-tokens-limit", "retry-after", "date",
        ]),
        value in prop::collection::vec(any::<u8>(), 0..40),
        digits in "[0-9.:TZ+ mshd-]{0,30}",
    ) {
        for value in [value.as_slice(), digits.as_bytes()] {
            let field = || std::iter::once((name.as_bytes(), value));
            let read = provider_limits(field(), TIME_OF_DAY);
            for told in [read.requests, read.tokens, read.input_tokens, read.output_tokens] {
                assert!(told.limit.is_none_or(|limit| (1..=FIGURE_MAX).contains(&limit)));
                assert!(told.remaining.is_none_or(|remaining| remaining <= FIGURE_MAX));
                assert!(told.reset_after.is_none_or(|after| after <= TIME_MAX));
            }
            assert!(retry_after(field()).is_none_or(|after| after <= TIME_MAX));
            let _ = http_date(value);
        }
    }
}
