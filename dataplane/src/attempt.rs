//! One attempt after the other until a provider answers in a way that is worth relaying: which
//! key, whether there is room in every limit, the send, and what a failure means for the next.

use crate::charge::{Charges, charges};
use crate::core::{Core, Serving};
use crate::exchange::key_wish;
use crate::http1::Known;
use crate::identify::Caller;
use crate::limiter::{Permit, Refused, Sent, Standing};
use crate::link::Link;
use crate::name::Name;
use crate::plan::{Chosen, KEYS_TRIED_MAX, Plan, Step, choose_key};
use crate::provider::Dialect;
use crate::provider::edit::{Edits, Wanted};
use crate::provider::request_scan::RequestFields;
use crate::rejection::{Cause, Rejection};
use crate::request::{Body, Request as Incoming, Rest};
use crate::route::{Endpoint, Target};
use crate::socket::Socket;
use crate::upstream::compose::{self, Parts, Sized, announces_length};
use crate::upstream::send::{Answer, Failure, Follows, Outgoing, backoff, send};
use shared::clock::Nanos;
use shared::limit::Unit;
use shared::published::{RestReason, RestingKey};
use std::time::Duration;

/// A body up to this size is copied behind its head, so that both leave in one write.
const JOINED_BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a key rests that a provider refused (401): an operator has to mend it.
const REFUSED_KEY_RESTS: Duration = Duration::from_secs(60);
/// How long a key rests whose account has no money (402).
const UNPAID_KEY_RESTS: Duration = Duration::from_secs(30);
/// How long a limited key (429) rests where the provider does not say.
const LIMITED_KEY_RESTS: Duration = Duration::from_secs(2);
/// The longest rest that a provider's word is believed for.
const REST_MAX: Duration = Duration::from_secs(3600);
/// Keys of one step that are tried or passed over.
const KEYS_PASSED_MAX: usize = 32;

/// What all attempts of one request share.
pub(crate) struct Request<'a> {
    pub(crate) core: &'a Core,
    pub(crate) serving: &'a Serving,
    pub(crate) target: &'a Target,
    pub(crate) caller: Caller,
    pub(crate) plan: &'a Plan,
    pub(crate) fields: RequestFields,
    pub(crate) id: &'a str,
    pub(crate) body_bytes_max: u64,
    pub(crate) link: &'a Link,
    pub(crate) collected_at: Nanos,
}

/// What one attempt took from the limits.
pub(crate) struct Charged {
    sent: Option<Sent>,
    pub(crate) reserved_tokens: u64,
    pub(crate) requests: Option<Standing>,
    pub(crate) tokens: Option<Standing>,
}

impl Charged {
    /// Says what was used; returns how much more that was than had been reserved.
    pub(crate) fn settle(&mut self, tokens: u64, now: Nanos) -> u64 {
        self.sent.take().map_or(0, |sent| sent.settle(tokens, now).overshoot_tokens)
    }
}

/// An attempt with an answer that is to be relayed.
pub(crate) struct Attempted {
    pub(crate) answer: Answer,
    pub(crate) charged: Charged,
    pub(crate) step: Step,
    pub(crate) key: Option<usize>,
    /// The model's name at the provider.
    pub(crate) model: Name,
    pub(crate) sent_at: Nanos,
    pub(crate) overhead: Duration,
    pub(crate) fallback_index: usize,
    pub(crate) hides_usage: bool,
}

/// The best that there is so far.
enum Best {
    Nothing,
    Rejected(Rejection),
    /// An error answer of a provider, relayed when nothing better comes.
    Answered(Box<Attempted>),
}

impl Best {
    /// A provider's own words are worth more than ours, and our first reason more than later ones.
    fn or_rejected(self, rejection: Rejection) -> Self {
        match self {
            Self::Nothing => Self::Rejected(rejection),
            other => other,
        }
    }
}

/// Keys of one step that were tried, and those passed over because a limit of theirs has no room.
#[derive(Default)]
struct Tried {
    keys: [u32; KEYS_PASSED_MAX],
    len: usize,
    asked: usize,
}

impl Tried {
    /// Whether there was room for it.
    fn add(&mut self, key: Option<usize>) -> bool {
        let key = key.and_then(|key| u32::try_from(key).ok());
        let (Some(key), Some(place)) = (key, self.keys.get_mut(self.len)) else { return false };
        *place = key;
        self.len += 1;
        true
    }

    fn as_slice(&self) -> &[u32] {
        self.keys.get(..self.len).unwrap_or_default()
    }
}

impl Request<'_> {
    /// Tries until there is an answer to relay, or nothing is left to try.
    pub(crate) async fn run(
        &self,
        incoming: &mut Incoming,
        mut client: Option<&mut Socket>,
    ) -> Result<Attempted, Rejection> {
        let mut best = Best::Nothing;
        let mut bytes = Vec::with_capacity(2048);
        let mut index = 0;
        while let Some(step) = self.plan.step(index) {
            let mut tried = Tried::default();
            let mut retries = 0;
            loop {
                let now = self.core.clock.now();
                let chosen = match choose_key(
                    self.core,
                    self.serving,
                    self.caller,
                    step,
                    key_wish(incoming),
                    tried.as_slice(),
                    now,
                ) {
                    Ok(chosen) => chosen,
                    Err(rejection) => {
                        best = best.or_rejected(rejection);
                        break;
                    }
                };
                let outcome = self.attempt(incoming, client.as_deref_mut(), step, &chosen, &mut bytes).await;
                if self.link.is_gone() {
                    return Err(Rejection::client_left());
                }
                let verdict = match &outcome {
                    Ok(attempted) => self.judge_answer(attempted, step, chosen.key),
                    Err(stopped) => self.judge_failure(stopped, step, chosen.key),
                };
                let may_repeat = incoming.is_whole();
                match outcome {
                    Ok(attempted) if verdict == Verdict::Relay || !may_repeat => return Ok(attempted),
                    Ok(mut attempted) => {
                        // What a provider refuses it does not count.
                        attempted.charged.settle(0, self.core.clock.now());
                        best = Best::Answered(Box::new(attempted));
                    }
                    Err(stopped) if stopped.rejection.cause == Cause::ClientLeft => return Err(stopped.rejection),
                    Err(stopped) => {
                        let is_final = !may_repeat && !stopped.is_unsent;
                        best = best.or_rejected(stopped.rejection);
                        if is_final {
                            return Self::conclude(best);
                        }
                    }
                }
                let record = self.serving.records().providers.get(step.provider);
                let retries_max = record.map_or(0, |record| record.max_retries.to_native());
                match verdict {
                    Verdict::AnotherKey if tried.asked < KEYS_TRIED_MAX && tried.add(chosen.key) => tried.asked += 1,
                    Verdict::KeyHasNoRoom if tried.add(chosen.key) => {}
                    Verdict::Again { not_before } if retries < retries_max => {
                        let (initial, longest) = record
                            .map_or((500, 5000), |r| (r.backoff_initial_ms.to_native(), r.backoff_max_ms.to_native()));
                        let pause = backoff(retries, initial, longest, self.core.random());
                        retries += 1;
                        let pause = not_before.map_or(pause, |asked| asked.max(pause));
                        if pause > Duration::from_millis(u64::from(longest)).saturating_mul(2) {
                            break;
                        }
                        // A timer is large, and every attempt would have room for it.
                        Box::pin(self.link.pause(pause)).await;
                        if self.link.is_gone() {
                            return Err(Rejection::client_left());
                        }
                    }
                    _ => break,
                }
            }
            index += 1;
        }
        Self::conclude(best)
    }

    fn conclude(best: Best) -> Result<Attempted, Rejection> {
        match best {
            Best::Answered(attempted) => Ok(*attempted),
            Best::Rejected(rejection) => Err(rejection),
            Best::Nothing => Err(Rejection::new(Cause::NoRoute, "no provider is left to try")),
        }
    }

    async fn attempt(
        &self,
        incoming: &mut Incoming,
        client: Option<&mut Socket>,
        step: &Step,
        chosen: &Chosen,
        bytes: &mut Vec<u8>,
    ) -> Result<Attempted, Stopped> {
        let core = self.core;
        let charges = charges(self.serving, self.caller, step, chosen.key, self.target.endpoint, &self.fields)
            .map_err(Stopped::before)?;
        let mut permit = Some(self.admit(&charges)?);
        let composed = self.compose(incoming, step, chosen, bytes).map_err(Stopped::before)?;
        let Some(state) = self.serving.provider(step.provider) else {
            return Err(Stopped::before(Rejection::new(Cause::Internal, "a route leads to no provider")));
        };
        let overhead = core.clock.now().since(self.collected_at);
        let mut charged =
            Charged { sent: None, reserved_tokens: charges.reserved_tokens, requests: None, tokens: None };
        let mut sent_at = self.collected_at;
        let mut outgoing = Outgoing {
            serving: self.serving,
            provider: step.provider,
            method: incoming.head.method(),
            bytes,
            request: incoming,
            follows: composed.follows,
            client,
            is_scanned: self.target.endpoint.needs_model(),
            body_bytes_max: self.body_bytes_max,
        };
        let sending = || {
            let now = core.clock.now();
            let mut held = match permit.take() {
                Some(held) => held,
                // Sent once more, on another connection: the provider may count it twice.
                None => self.admit(&charges).map_err(|stopped| stopped.rejection)?,
            };
            if held.is_stale(now) {
                held.cancel();
                held = self.admit(&charges).map_err(|stopped| stopped.rejection)?;
            }
            charged.requests = held.standing(Unit::Requests);
            charged.tokens = held.standing(Unit::Tokens);
            charged.sent = Some(held.sent(now));
            sent_at = now;
            Ok(())
        };
        let answer = send(core, state, &mut outgoing, self.link, sending).await;
        match answer {
            Ok(answer) => Ok(Attempted {
                answer,
                charged,
                step: *step,
                key: chosen.key,
                model: chosen.model,
                sent_at,
                overhead,
                fallback_index: usize::from(step.place),
                hides_usage: composed.hides_usage,
            }),
            // What was sent and not answered counts in full: the provider may have counted it.
            Err(Failure { rejection, is_unsent }) => Err(Stopped { rejection, is_unsent }),
        }
    }

    fn admit(&self, charges: &Charges) -> Result<Permit, Stopped> {
        self.serving
            .slices
            .admit(charges.as_slice(), self.core.clock.now())
            .map_err(|refused| self.refusal(&refused, charges))
    }

    fn refusal(&self, refused: &Refused, charges: &Charges) -> Stopped {
        let record = self.serving.records().limits.get(refused.limit.0 as usize);
        let id = record.map_or("", |record| record.id.as_str());
        self.core.counters.limit_refused(id);
        let (cause, what) = match refused.unit {
            Unit::Requests => (Cause::RequestLimited, "requests"),
            Unit::Tokens => (Cause::TokenLimited, "tokens"),
        };
        let (entitlement, remaining) = (refused.entitlement, refused.remaining);
        let rejection = if let Some(after) = refused.retry_after {
            let text = format!("limit {id} has no room: {remaining} of {entitlement} {what} left");
            Rejection::new(cause, text).after(after)
        } else {
            let reserved = charges.reserved_tokens;
            let text = format!(
                "limit {id} allows {entitlement} {what} in a window, and this request may need {reserved}; \
                 lower max_tokens or shorten the prompt"
            );
            Rejection::new(cause, text).after(refused.reset)
        };
        Stopped::before(rejection.by_limit(*refused))
    }

    fn compose(
        &self,
        incoming: &Incoming,
        step: &Step,
        chosen: &Chosen,
        bytes: &mut Vec<u8>,
    ) -> Result<Composed, Rejection> {
        let is_stream = self.fields.stream == Some(true);
        let wanted = Wanted {
            model: Some(chosen.model.as_str()).filter(|model| !model.is_empty() && self.target.model.is_none()),
            without_fallbacks: true,
            with_usage: is_stream && self.target.dialect == Dialect::OpenAi && self.target.endpoint.asks_for_usage(),
        };
        let body = incoming.body_bytes();
        let is_untouched = self.target.is_passthrough || self.target.endpoint == Endpoint::Relay;
        let edits = if is_untouched { Edits::default() } else { Edits::new(&self.fields, body, &wanted) };
        let (sized, follows) = match &incoming.body {
            Body::Unread | Body::Whole { len: 0 } if !announces_length(incoming.head.method()) => {
                (Sized::None, Follows::Nothing)
            }
            Body::Unread => (Sized::Length(0), Follows::Nothing),
            Body::Whole { len } => {
                let is_joined = *len <= JOINED_BODY_BYTES_MAX || !edits.is_empty();
                let follows = if is_joined { Follows::Nothing } else { Follows::Buffered };
                (Sized::Length(edits.len_after(*len as u64)), follows)
            }
            Body::Beginning { len, rest: Rest::Length(left) } => {
                (Sized::Length(edits.len_after(*len as u64 + left)), Follows::Streamed { is_chunked: false })
            }
            Body::Beginning { rest: Rest::Chunked(_), .. } => (Sized::Chunked, Follows::Streamed { is_chunked: true }),
        };
        bytes.clear();
        let parts = Parts {
            serving: self.serving,
            request: incoming,
            target: self.target,
            caller: self.caller,
            step,
            chosen,
            request_id: self.id,
            body: sized,
        };
        compose::write_head(&parts, bytes)?;
        match follows {
            Follows::Nothing => edits.apply(body, bytes),
            Follows::Buffered => {}
            Follows::Streamed { is_chunked } => {
                let len = edits.len_after(body.len() as u64);
                if is_chunked && len > 0 {
                    bytes.extend_from_slice(format!("{len:x}\r\n").as_bytes());
                }
                edits.apply(body, bytes);
                if is_chunked && len > 0 {
                    bytes.extend_from_slice(b"\r\n");
                }
            }
        }
        Ok(Composed { follows, hides_usage: edits.hides_usage() })
    }

    /// What an answer means for the attempts after it.
    fn judge_answer(&self, attempted: &Attempted, step: &Step, key: Option<usize>) -> Verdict {
        let answer = &attempted.answer;
        let status = answer.head.status();
        let outcome = match status {
            429 => "limited",
            401..=403 => "refused",
            500.. => "error",
            _ => "ok",
        };
        self.core.counters.attempt(self.serving, step.provider, key, outcome);
        if self.target.endpoint == Endpoint::Relay {
            return Verdict::Relay;
        }
        if self.serving.records().settings.follows_load
            && outcome == "ok"
            && let Some(key) = key
        {
            self.core.counters.waited(key, self.core.clock.now().since(attempted.sent_at));
        }
        let asked = answer.head.value(answer.buffer.payload(), Known::RetryAfter).and_then(retry_after);
        match status {
            429 => {
                // Providers limit an account's models apart; an account without money has none of them.
                let is_unpaid = memchr::memmem::find(answer.buffer.payload(), b"insufficient_quota").is_some();
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

    fn judge_failure(&self, stopped: &Stopped, step: &Step, key: Option<usize>) -> Verdict {
        let outcome = match stopped.rejection.cause {
            Cause::ConnectTimeout | Cause::HeadTimeoutUpstream => "timeout",
            Cause::ProviderUnreachable | Cause::ProviderTls | Cause::ProviderUnresolved => "unreachable",
            Cause::ProviderReset | Cause::ProviderMalformed => "error",
            Cause::RequestLimited | Cause::TokenLimited if self.is_keys_own_limit(stopped, key) => {
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
        let now = self.core.clock.now();
        if let Some(denial) = self.core.advice.denied(self.serving, key, &step.model, self.caller, now) {
            self.core.counters.denied(denial);
        }
    }

    fn rest(&self, key: Option<usize>, reason: RestReason, model: &str, time: Duration) {
        let records = self.serving.records();
        let Some(key) = key.and_then(|key| records.keys.get(key)) else { return };
        let Some(provider) = records.providers.get(key.provider.to_native() as usize) else { return };
        let until = self.core.clock.now().after(time.min(REST_MAX));
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
enum Verdict {
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

/// An attempt without an answer.
struct Stopped {
    rejection: Rejection,
    is_unsent: bool,
}

impl Stopped {
    fn before(rejection: Rejection) -> Self {
        Self { rejection, is_unsent: true }
    }
}

struct Composed {
    follows: Follows,
    hides_usage: bool,
}

/// Seconds of a `retry-after` field. Dates are not read: providers of this kind send seconds.
fn retry_after(value: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_read_as_seconds_or_not_at_all() {
        assert_eq!(retry_after(b"3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(b"0.5"), Some(Duration::from_millis(500)));
        for nonsense in [&b"-1"[..], b"NaN", b"inf", b"Fri, 31 Dec 1999 23:59:59 GMT", b""] {
            assert_eq!(retry_after(nonsense), None);
        }
    }
}
