//! What one request asks of the simulated provider, beyond what a real one understands.
//!
//! The same names come as headers (`x-sim-NAME: VALUE`) and as fields of `metadata.sim` in a JSON
//! body. A value that cannot be read is an error that the client sees; it is never ignored.

use std::time::Duration;

use super::fault::Fault;

/// Most tokens that one answer may be asked to have.
pub(crate) const TOKENS_MAX: u32 = 1_000_000;
/// Most events that one stream may be asked to have.
pub(crate) const EVENTS_MAX: u32 = 1_000_000;
/// Largest single event that may be asked for, in bytes.
pub(crate) const EVENT_BYTES_MAX: u32 = 64 * 1024;
/// Longest pause that a request may ask for, in milliseconds.
const PAUSE_MILLIS_MAX: f64 = 600_000.0;

/// The settings of one request; what is absent follows the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// Prompt tokens to report and to charge, instead of counting them.
    pub(crate) prompt_tokens: Option<u32>,
    /// Tokens of the answer, whatever the request's own maximum says.
    pub(crate) completion_tokens: Option<u32>,
    /// Time from the request's last byte to the first token.
    pub(crate) first_token_after: Option<Duration>,
    /// Time from one token to the next.
    pub(crate) token_interval: Option<Duration>,
    /// Tokens in each event of a stream.
    pub(crate) tokens_per_event: Option<u32>,
    /// Content events of a stream, whatever the number of tokens.
    pub(crate) events: Option<u32>,
    /// Exact size of each content event, from its first byte to its empty line, in bytes.
    pub(crate) event_bytes: Option<u32>,
    /// Makes the text of the answer a function of this number and the event's number.
    pub(crate) seed: Option<u64>,
    /// What should go wrong.
    pub(crate) fault: Option<Fault>,
}

/// A setting of the request that cannot be used. Nothing was counted as admitted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SettingError {
    /// No setting has this name.
    #[error("x-sim-{0} is not a setting")]
    Unknown(String),
    /// The value is not of the setting's kind, or outside its bounds.
    #[error("x-sim-{0}: `{1}` is not {2}")]
    Value(&'static str, String, &'static str),
}

impl Settings {
    /// Sets what `name` (without `x-sim-`) stands for.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let value = value.trim();
        match name {
            "prompt-tokens" => self.prompt_tokens = Some(number("prompt-tokens", value, TOKENS_MAX)?),
            "completion-tokens" => self.completion_tokens = Some(number("completion-tokens", value, TOKENS_MAX)?),
            "ttft-ms" => self.first_token_after = Some(millis("ttft-ms", value)?),
            "token-ms" => self.token_interval = Some(millis("token-ms", value)?),
            "tokens-per-event" => {
                self.tokens_per_event = Some(number("tokens-per-event", value, TOKENS_MAX)?.max(1));
            }
            "events" => self.events = Some(number("events", value, EVENTS_MAX)?),
            "event-bytes" => self.event_bytes = Some(number("event-bytes", value, EVENT_BYTES_MAX)?),
            "seed" => {
                let seed = value.parse().map_err(|_| SettingError::Value("seed", value.into(), "a whole number"))?;
                self.seed = Some(seed);
            }
            "fault" => {
                let fault = value.parse().map_err(|_| {
                    SettingError::Value("fault", value.into(), "a fault, or its number is out of range")
                })?;
                self.fault = Some(fault);
            }
            _ => return Err(SettingError::Unknown(name.into())),
        }
        Ok(())
    }

    /// Sets what the object `metadata.sim` of a body says; `_` and `-` in names are the same.
    pub(crate) fn set_from_json(
        &mut self,
        sim: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), SettingError> {
        for (name, value) in sim {
            let name = name.replace('_', "-");
            match value.as_str() {
                Some(text) => self.set(&name, text)?,
                None => self.set(&name, &value.to_string())?,
            }
        }
        Ok(())
    }
}

fn number(name: &'static str, value: &str, max: u32) -> Result<u32, SettingError> {
    match value.parse::<u32>() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(SettingError::Value(name, value.into(), "a whole number in range")),
    }
}

fn millis(name: &'static str, value: &str) -> Result<Duration, SettingError> {
    parse_millis(value).map_err(|_| SettingError::Value(name, value.into(), "milliseconds in range"))
}

/// Milliseconds, with a fraction if wanted, as a duration. At most ten minutes.
pub(crate) fn parse_millis(value: &str) -> Result<Duration, String> {
    match value.parse::<f64>() {
        Ok(millis) if (0.0..=PAUSE_MILLIS_MAX).contains(&millis) => Ok(Duration::from_secs_f64(millis / 1000.0)),
        _ => Err(format!("`{value}` is not a number of milliseconds from 0 to {PAUSE_MILLIS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_metadata_mean_the_same() {
        let mut from_headers = Settings::default();
        for (name, value) in [("completion-tokens", "7"), ("ttft-ms", "2.5"), ("seed", "9"), ("fault", "stall=3")] {
            from_headers.set(name, value).expect("a known setting");
        }
        let json = serde_json::json!({"completion_tokens": 7, "ttft_ms": 2.5, "seed": "9", "fault": "stall=3"});
        let mut from_metadata = Settings::default();
        from_metadata.set_from_json(json.as_object().expect("an object")).expect("known settings");
        assert_eq!(from_headers, from_metadata);
        assert_eq!(from_headers.first_token_after, Some(Duration::from_micros(2500)));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let refused = |name: &str, value: &str| Settings::default().set(name, value).is_err();
        assert!(refused("events", "-1"));
        assert!(refused("events", "1000001"));
        assert!(refused("event-bytes", "many"));
        assert!(refused("ttft-ms", "NaN"));
        assert!(refused("fault", "explode"));
        assert!(refused("colour", "red"));
    }
}
