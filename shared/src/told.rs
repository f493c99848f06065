//! What a provider says of its own limits with its answers. Values only: the data plane reads
//! them, the control thread decides what follows.

use crate::clock::Nanos;
use crate::report::KeyLabels;
use std::time::Duration;

/// How one limit of a provider stands; what it did not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Units in a window, never 0. Providers do not name the window.
    pub limit: Option<u64>,
    /// Units that it would still admit.
    pub remaining: Option<u64>,
    /// Until all of them are back if nobody uses any: never longer than the provider's window,
    /// whichever way it counts.
    pub reset_after: Option<Duration>,
}

impl Told {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits that one answer told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderLimits {
    /// Requests.
    pub requests: Told,
    /// Tokens, input and output together.
    pub tokens: Told,
    /// Tokens of prompts.
    pub input_tokens: Told,
    /// Tokens of answers.
    pub output_tokens: Told,
}

impl ProviderLimits {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Input and output together: as the provider says, or both of them where it says only those.
    pub fn all_tokens(&self) -> Told {
        if !self.tokens.is_empty() {
            return self.tokens;
        }
        let (input, output) = (self.input_tokens, self.output_tokens);
        Told {
            limit: input.limit.zip(output.limit).map(|(input, output)| input.saturating_add(output)),
            remaining: input.remaining.zip(output.remaining).map(|(input, output)| input.saturating_add(output)),
            reset_after: input.reset_after.max(output.reset_after),
        }
    }
}

/// What an answer told of the key that it was asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTold {
    /// Which key.
    pub key: KeyLabels,
    /// Which model, as clients say it; empty where the request had none. Providers count an
    /// account's models apart.
    pub model: String,
    /// What was said.
    pub limits: ProviderLimits,
    /// When it was true at the earliest: the request was sent then. Providers count when a request
    /// comes, and a long answer's head may leave them much later. Of a refusal: when it came.
    pub as_of: Nanos,
    /// It was a 429 with this `retry-after`.
    pub refused_for: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_output_are_all_tokens_where_both_are_told() {
        let told = |limit| Told { limit: Some(limit), remaining: Some(limit / 2), ..Told::default() };
        let mut limits =
            ProviderLimits { input_tokens: told(50), output_tokens: told(10), ..ProviderLimits::default() };
        assert_eq!(limits.all_tokens(), Told { limit: Some(60), remaining: Some(30), reset_after: None });
        limits.output_tokens = Told::default();
        assert!(limits.all_tokens().limit.is_none(), "half of it says nothing of the whole");
        limits.tokens = told(55);
        assert_eq!(limits.all_tokens(), told(55));
    }
}
