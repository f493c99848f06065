//! What the simulated provider understands and promises, as seen from outside: the names
//! of its request headers, the text it generates, and its exact counts.
//!
//! The text is generated here a second time, independently, so that a fault in the
//! provider or in a gateway cannot hide in shared code.

use std::time::Duration;

use thiserror::Error;

use crate::{connection::Connection, target::Target, watchdog::Watchdog};

/// Tokens of the answer, whatever the request's maximum says.
pub(crate) const COMPLETION_TOKENS: &str = "x-sim-completion-tokens";
/// Content events of a stream.
pub(crate) const EVENTS: &str = "x-sim-events";
/// Size of each content event from its first byte to its empty line.
pub(crate) const EVENT_BYTES: &str = "x-sim-event-bytes";
/// What the text is a function of, together with the event's number.
pub(crate) const SEED: &str = "x-sim-seed";
/// Tokens in each event of a stream.
pub(crate) const TOKENS_PER_EVENT: &str = "x-sim-tokens-per-event";
/// Time from one token to the next, in milliseconds.
pub(crate) const TOKEN_MILLIS: &str = "x-sim-token-ms";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters that one 64-bit word gives, six bits each.
const CHARACTERS_PER_WORD: usize = 10;
/// Longest answer of the provider's counts.
const STATS_BYTES_MAX: usize = 1024 * 1024;

/// The text of event `event` of a stream with this seed.
pub(crate) fn seeded_text(seed: u64, event: u32, bytes: usize) -> impl Iterator<Item = u8> {
    let start = seed.wrapping_add(u64::from(event).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..)
        .flat_map(move |word| {
            let bits = splitmix_finalizer(start.wrapping_add(word));
            (0..CHARACTERS_PER_WORD).map(move |at| ALPHABET[(bits >> (6 * at)) as usize & 63])
        })
        .take(bytes)
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
fn splitmix_finalizer(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The provider's own counts cannot be had.
#[derive(Debug, Error)]
pub(crate) enum StatsError {
    /// It did not answer with 200.
    #[error("the simulated provider did not answer with its counts")]
    Unanswered,
    /// It answered with something else than expected.
    #[error("the simulated provider's counts lack `{0}`")]
    Missing(String),
    /// Its log was full, so its fullest window is only that of the rows that are left.
    #[error("the simulated provider forgot {0} admitted requests: its windows are not exact")]
    Forgotten(u64),
}

/// What the provider admitted, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Requests.
    pub(crate) admitted: u64,
    /// Requests over one of its own limits.
    pub(crate) refused: u64,
    /// Most requests in any window of the length that was asked about.
    pub(crate) fullest_requests: u64,
    /// Most tokens in any such window.
    pub(crate) fullest_tokens: u64,
}

/// Asks the provider at `base` for its counts; the path of `base` is not used.
pub(crate) async fn stats(base: &Target, window: Duration) -> Result<Stats, StatsError> {
    let window = format!("{}ms", window.as_millis());
    let request = base.with_path(&format!("/__sim/stats?window={window}")).get();
    let body = ask(base, request).await.ok_or(StatsError::Unanswered)?;
    parse_stats(&body, &window)
}

/// Sets the provider's counts to zero.
pub(crate) async fn reset(base: &Target) -> Result<(), StatsError> {
    let request = base.with_path("/__sim/reset").post(&[], b"{}");
    ask(base, request).await.map(drop).ok_or(StatsError::Unanswered)
}

/// The body of a good answer (2xx) from the address of `base`.
pub(crate) async fn ask(base: &Target, request: Vec<u8>) -> Option<Vec<u8>> {
    let silence_max = Duration::from_secs(30);
    let watchdog = Watchdog::start(1);
    let mut body = Vec::new();
    let answer = match Connection::open(base.address, &watchdog, 0, 16 * 1024, silence_max).await {
        Ok(mut open) => open
            .exchange(request, |_, part| {
                if body.len() + part.len() <= STATS_BYTES_MAX {
                    body.extend_from_slice(part);
                }
            })
            .await
            .0
            .ok(),
        Err(_) => None,
    };
    watchdog.stop();
    answer.filter(|answer| (200..300).contains(&answer.status)).map(|_| body)
}

fn parse_stats(body: &[u8], window: &str) -> Result<Stats, StatsError> {
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| StatsError::Missing("JSON".to_owned()))?;
    let number =
        |path: String| json.pointer(&path).and_then(serde_json::Value::as_u64).ok_or(StatsError::Missing(path));
    match number("/log/forgotten".to_owned())? {
        0 => Ok(Stats {
            admitted: number("/admitted".to_owned())?,
            refused: number("/refused".to_owned())?,
            fullest_requests: number(format!("/windows/{window}/requests"))?,
            fullest_tokens: number(format!("/windows/{window}/tokens"))?,
        }),
        forgotten => Err(StatsError::Forgotten(forgotten)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, event: u32, bytes: usize) -> String {
        seeded_text(seed, event, bytes).map(char::from).collect()
    }

    #[test]
    fn the_finalizer_is_splitmix64() {
        // Known first outputs of splitmix64 seeded with 0 and with 1234567.
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        assert_eq!(splitmix_finalizer(0), 0);
        assert_eq!(splitmix_finalizer(gamma), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix_finalizer(1_234_567_u64.wrapping_add(gamma)), 6_457_827_717_110_365_317);
    }

    #[test]
    fn a_word_gives_ten_characters_from_its_lowest_bits_up() {
        assert_eq!(text(0, 0, 10), "AAAAAAAAAA");
        // 0xe220a8397b1dcdaf: 47, 54, 28, 7 in steps of six bits.
        assert_eq!(text(0, 1, 4), "v2cH");
        assert!(text(9, 3, 25).starts_with(&text(9, 3, 12)));
    }

    #[test]
    fn counts_are_read_and_incomplete_ones_refused() {
        let stats = |forgotten: u64, window: &str| {
            let json = serde_json::json!({"admitted": 7, "refused": 1, "log": {"forgotten": forgotten},
                "windows": {"60000ms": {"requests": 5, "tokens": 50}}});
            parse_stats(json.to_string().as_bytes(), window)
        };
        let read = Stats { admitted: 7, refused: 1, fullest_requests: 5, fullest_tokens: 50 };
        assert_eq!(stats(0, "60000ms").ok(), Some(read));
        assert!(matches!(stats(3, "60000ms"), Err(StatsError::Forgotten(3))));
        assert!(matches!(stats(0, "1ms"), Err(StatsError::Missing(_))));
    }
}
