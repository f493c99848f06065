//! Spans of time as people write them: `500ms`, `10s`, `1h`, and the windows of limits.

use core::fmt;
use core::time::Duration;

/// How long a unit of a limit stays spent: `30s`, `1m`, `5m`, `1h`, `1d`, `1w`, `1M`, `1Y`.
///
/// Windows slide, so a month is 30 days and a year 365, whatever the calendar says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    count: u16,
    unit: Unit,
}

impl Window {
    /// Longest window.
    pub const SECONDS_MAX: u64 = 366 * 24 * 3_600;

    /// Reads `COUNT` and one letter: s, m, h, d, w, M (30 days), Y (365 days). `None` for
    /// anything else, for 0 and for more than 366 days.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len().checked_sub(1)?;
        let unit = Unit::from_letter(text.get(digits..)?)?;
        let count = text.get(..digits)?;
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let window = Self { count: count.parse().ok()?, unit };
        (1..=Self::SECONDS_MAX).contains(&window.seconds()).then_some(window)
    }

    /// Length in seconds, 1 to [`Window::SECONDS_MAX`].
    pub fn seconds(self) -> u64 {
        u64::from(self.count) * self.unit.seconds()
    }

    /// Length.
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.seconds())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.letter())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "s" => Self::Second,
            "m" => Self::Minute,
            "h" => Self::Hour,
            "d" => Self::Day,
            "w" => Self::Week,
            "M" => Self::Month,
            "Y" | "y" => Self::Year,
            _ => return None,
        })
    }

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
            Self::Week => 'w',
            Self::Month => 'M',
            Self::Year => 'Y',
        }
    }

    const fn seconds(self) -> u64 {
        const DAY: u64 = 24 * 3_600;
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
            Self::Year => 365 * DAY,
        }
    }
}

/// Reads `COUNT` and a unit out of ms, s, m, h: `500ms`, `10s`, `1m`. `None` for anything else
/// and for more than a year. Counts are whole numbers; `1m30s` is not accepted.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    let unit_millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let millis = count.parse::<u64>().ok()?.checked_mul(unit_millis)?;
    (millis <= Window::SECONDS_MAX * 1_000).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_the_lengths_people_mean() {
        for (text, seconds) in [
            ("30s", 30),
            ("1m", 60),
            ("5m", 300),
            ("1h", 3_600),
            ("1d", 86_400),
            ("1w", 604_800),
            ("1M", 2_592_000),
            ("1Y", 31_536_000),
        ] {
            let window = Window::parse(text).expect(text);
            assert_eq!(window.seconds(), seconds, "{text}");
            assert_eq!(window.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_no_windows() {
        for text in ["", "s", "0s", "1", "-1s", "+1s", "1.5h", "1 m", "1ms", "367d", "2Y", "70000s", "1µ", "é"] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_a_whole_number() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1m30s", "10 s", "99999999999999999999s", "9000h", "1d", "1é"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
