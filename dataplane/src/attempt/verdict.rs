//! What an answer, or the lack of one, means for the attempts after it, for the key that was used
//! and for the provider's counts.

use super::{Attempted, Request, Stopped};
use crate::counters::Told;
use crate::http1::Known;
use crate::identify::Caller;
use crate::plan::Step;
use crate::provider::told;
use crate::rejection::Cause;
use crate::route::Endpoint;
use crate::upstream::send::Answer;
use shared::published::{RestReason, RestingKey};
use std::time::Duration;

/// How long a key rests that a provider refused (401): an operator has to mend it.
const REFUSED_KEY_RESTS: Duration = Duration::from_secs(60);
/// How long a key rests whose account has no money (402).
const UNPAID_KEY_RESTS: Duration = Duration::from_secs(30);
/// How long a limited key (429) rests where the provider does not say.
const LIMITED_KEY_RESTS: Duration = Duration::from_secs(2);
/// The longest rest that a provider's word is believed for.
const REST_MAX: Duration = Duration::from_secs(3600);
impl Request<'_> {
    /// What an answer means for the attempts after it.
    pub(super) fn judge_answer(&self, attempted: &Attempted<'_>, step: &Step, key: Option<usize>) -> Verdict {
        let answer = &attempted.answer;
        let status = answer.head.status();
        let outcome = match status {
            429 => "limited",
            401..=403 => "refused",
            500.. => "error",
            _ => "ok",
        };
        self.core.counters.attempt(self.serving, step.provider, key, outcome);
        let asked = if matches!(status, 429 | 500..) { told::retry_after(fields(attempted)) } else { None };
        // An account without money is refused too; that says nothing of its limits.
        let is_unpaid = status == 429 && memchr::memmem::find(answer.buffer.payload(), b"insufficient_quota").is_some();
        self.tell_limits(attempted, step, key, asked.filter(|_| status == 429 && !is_unpaid));
        if self.target.endpoint == Endpoint::Relay {
            return Verdict::Relay;
        }
        if self.serving.records().settings.follows_load
            && outcome == "ok"
            && let Some(key) = key
        {
            self.core.counters.waited(key, self.core.now().since(attempted.sent_at));
        }
        match status {
            429 => {
                // Providers limit an account's models apart; an account without money has none of them.
                let model = if is_unpaid { "" } else { step.model.as_str() };
                let otherwise = if is_unpaid { UNPAID_KEY_RESTS } else { LIMITED_KEY_RESTS };
                self.rest(key, RestReason::Limited, model, asked.unwrap_or(otherwise));
                Verdict::AnotherKey
            }
            401 if self.caller != Caller::Direct => {
                self.rest(key, RestReason::Refused, "", REFUSED_KEY_RESTS);
                Verdict::AnotherKey
            }
            402 => {
                self.rest(key, RestReason::Refused, "", UNPAID_KEY_RESTS);
                Verdict::AnotherKey
            }
            403 | 404 => {
                self.tell_denial(step, key);
                if status == 403 { Verdict::AnotherKey } else { Verdict::Relay }
            }
            500 | 502 | 503 | 504 | 529 => Verdict::Again { not_before: asked },
            _ => Verdict::Relay,
        }
    }

    pub(super) fn judge_failure(&self, stopped: &Stopped, step: &Step, key: Option<usize>) -> Verdict {
        let outcome = match stopped.rejection.cause {
            Cause::ConnectTimeout | Cause::HeadTimeoutUpstream => "timeout",
            Cause::ProviderUnreachable | Cause::ProviderTls | Cause::ProviderUnresolved => "unreachable",
            Cause::ProviderReset | Cause::ProviderMalformed => "error",
            Cause::RequestLimited | Cause::TokenLimited | Cause::ConcurrencyLimited
                if self.is_keys_own_limit(stopped, key) =>
            {
                return Verdict::KeyHasNoRoom;
            }
            _ => return Verdict::NextStep,
        };
        self.core.counters.attempt(self.serving, step.provider, key, outcome);
        Verdict::Again { not_before: None }
    }

    /// Whether it was a limit of the key that had no room: another key may have some.
    fn is_keys_own_limit(&self, stopped: &Stopped, key: Option<usize>) -> bool {
        let record = key.and_then(|key| self.serving.records().keys.get(key));
        let (Some(record), Some(refused)) = (record, stopped.rejection.limit) else { return false };
        record.limits.iter().any(|limit| limit.to_native() == refused.limit.0)
    }

    /// A key may not use a model, or there is none such: what one client can bring about any time.
    fn tell_denial(&self, step: &Step, key: Option<usize>) {
        let Some(key) = key.filter(|_| self.target.endpoint.needs_model()) else { return };
        let now = self.core.now();
        if let Some(denial) = self.core.advice.denied(self.serving, key, &step.model, self.caller, now) {
            self.core.counters.denied(denial);
        }
    }

    /// What an answer says of its provider's limits; nothing where it has no such fields. A key that
    /// a client brought is none of ours.
    fn tell_limits(&self, attempted: &Attempted<'_>, step: &Step, key: Option<usize>, refused_for: Option<Duration>) {
        let Some(key) = key.and_then(|key| u32::try_from(key).ok()) else { return };
        let Answer { head, buffer, .. } = &attempted.answer;
        if !head.tells_limits() && refused_for.is_none() {
            return;
        }
        let date = || head.value(buffer.payload(), Known::Date).and_then(told::http_date);
        let time_of_day = date().unwrap_or_else(|| self.core.clock.wall());
        let limits = told::provider_limits(fields(attempted), time_of_day);
        if limits.is_empty() && refused_for.is_none() {
            return;
        }
        let as_of = if refused_for.is_some() { self.core.now() } else { attempted.sent_at };
        self.core.counters.told(&Told { key, model: step.model, limits, as_of, refused_for });
    }

    fn rest(&self, key: Option<usize>, reason: RestReason, model: &str, time: Duration) {
        let records = self.serving.records();
        let Some(key) = key.and_then(|key| records.keys.get(key)) else { return };
        let Some(provider) = records.providers.get(key.provider.to_native() as usize) else { return };
        let until = self.core.now().after(time.min(REST_MAX));
        self.core.rest_key(RestingKey {
            provider: provider.name.to_string(),
            key: key.name.to_string(),
            model: (!model.is_empty()).then(|| model.to_owned()),
            reason,
            until,
        });
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Relay,
    AnotherKey,
    /// Another key, without having asked with this one.
    KeyHasNoRoom,
    /// The same provider again, where the configuration allows it.
    Again {
        not_before: Option<Duration>,
    },
    NextStep,
}

/// Names and values of an answer's fields.
fn fields<'b>(attempted: &'b Attempted<'_>) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
    let bytes = attempted.answer.buffer.payload();
    attempted.answer.head.fields().iter().map(|field| (field.name.of(bytes), field.value.of(bytes)))
}
