//! One attempt after the other until a provider answers in a way that is worth relaying: which
//! key, whether there is room in every limit, the send, and what a failure means for the next.
//! Where nobody had room, the request may wait for it once.

mod turn;
mod verdict;

use crate::charge::{Charged, Charges, Used, charges};
use crate::core::{Core, Serving};
use crate::exchange::key_wish;
use crate::identify::Caller;
use crate::key_choice::{Chosen, KEYS_TRIED_MAX, choose_key};
use crate::limiter::{Permit, Refused};
use crate::link::Link;
use crate::plan::{Plan, Step};
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
use shared::limit::{LimitIndex, Unit};
use std::cell::Cell;
use std::time::Duration;
use turn::Turn;
use verdict::Verdict;

/// A body up to this size is copied behind its head, so that both leave in one write.
const JOINED_BODY_BYTES_MAX: usize = 16 * 1024;
/// Keys of one step that are tried or passed over.
const KEYS_PASSED_MAX: usize = 32;

/// What all attempts of one request share.
pub(crate) struct Request<'a> {
    pub(crate) core: &'a Core,
    pub(crate) serving: &'a Serving,
    pub(crate) target: &'a Target,
    pub(crate) caller: Caller,
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) fields: RequestFields,
    pub(crate) id: &'a str,
    pub(crate) body_bytes_max: u64,
    pub(crate) link: &'a Link,
    pub(crate) collected_at: Nanos,
    /// It has had no permit yet and has not waited for one, and could.
    pub(crate) may_wait: Cell<bool>,
    /// How long it has waited for units.
    pub(crate) waited: Cell<Duration>,
}

/// An attempt with an answer that is to be relayed.
pub(crate) struct Attempted<'a> {
    pub(crate) answer: Answer,
    pub(crate) charged: Charged,
    pub(crate) step: &'a Step,
    pub(crate) chosen: Chosen,
    pub(crate) sent_at: Nanos,
    pub(crate) overhead: Duration,
    pub(crate) fallback_index: usize,
    pub(crate) hides_usage: bool,
}

/// The best that there is so far.
enum Best<'a> {
    Nothing,
    Rejected(Rejection),
    /// An error answer of a provider, relayed when nothing better comes.
    Answered(Box<Attempted<'a>>),
}

impl Best<'_> {
    /// A refusal by a limit means nothing any more when that may be waited for.
    fn without_refusal(self) -> Self {
        match self {
            Self::Rejected(rejection) if rejection.limit.is_some() => Self::Nothing,
            other => other,
        }
    }

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

impl<'a> Request<'a> {
    /// Tries until there is an answer to relay, or nothing is left to try.
    pub(crate) async fn run(
        &self,
        incoming: &mut Incoming,
        client: Option<&mut Socket>,
    ) -> Result<Attempted<'a>, Rejection> {
        let mut bytes = self.core.take_composed();
        let outcome = self.try_all(incoming, client, &mut bytes).await;
        self.core.give_composed(bytes);
        outcome
    }

    async fn try_all(
        &self,
        incoming: &mut Incoming,
        mut client: Option<&mut Socket>,
        bytes: &mut Vec<u8>,
    ) -> Result<Attempted<'a>, Rejection> {
        let mut best = Best::Nothing;
        let mut index = 0;
        let mut turn: Option<Box<Turn>> = None;
        while let Some(step) = self.plan.step(index) {
            let mut tried = Tried::default();
            let mut retries = 0;
            loop {
                let (chosen, permit) = match turn.take_if(|turn| turn.permit.is_some()) {
                    Some(turn) => (turn.chosen, turn.permit),
                    None => match self.choose(incoming, step, &tried) {
                        Ok(chosen) => (chosen, None),
                        Err(rejection) => {
                            best = best.or_rejected(rejection);
                            break;
                        }
                    },
                };
                // In a block of its own: the pauses behind it need not have room for its outcome.
                let verdict = {
                    let outcome = self.attempt(incoming, client.as_deref_mut(), step, &chosen, permit, bytes).await;
                    if self.link.is_gone() {
                        return Err(Rejection::client_left());
                    }
                    // A further attempt is admitted by this reading.
                    self.core.now();
                    let verdict = match &outcome {
                        Ok(attempted) => self.judge_answer(attempted, step, chosen.key),
                        Err(stopped) => self.judge_failure(stopped, step, chosen.key),
                    };
                    let may_repeat = incoming.is_whole();
                    match outcome {
                        Ok(attempted) if verdict == Verdict::Relay || !may_repeat => return Ok(attempted),
                        Ok(mut attempted) => {
                            // What a provider refuses it does not count.
                            let used = Used { is_final: true, ..Used::default() };
                            attempted.charged.settle(self.core, self.serving, step.model.as_str(), used);
                            best = Best::Answered(Box::new(attempted));
                        }
                        Err(stopped) if stopped.rejection.cause == Cause::ClientLeft => return Err(stopped.rejection),
                        Err(stopped) => {
                            let is_final = !may_repeat && !stopped.is_unsent;
                            if let Some(limit) = stopped.waits_for.filter(|_| turn.is_none()) {
                                turn = Some(Box::new(Turn { index, limit, chosen, permit: None }));
                            }
                            best = best.or_rejected(stopped.rejection);
                            if is_final {
                                return Self::conclude(best);
                            }
                        }
                    }
                    verdict
                };
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
            if self.plan.step(index).is_none()
                && let Some(turn) = turn.as_deref_mut()
                && !matches!(best, Best::Answered(_))
            {
                best = best.without_refusal();
                match Box::pin(self.wait(turn)).await {
                    Ok(()) => index = turn.index,
                    Err(rejection) if rejection.cause == Cause::ClientLeft => return Err(rejection),
                    Err(rejection) => return Self::conclude(best.or_rejected(rejection)),
                }
            }
        }
        Self::conclude(best)
    }

    fn choose(&self, incoming: &Incoming, step: &Step, tried: &Tried) -> Result<Chosen, Rejection> {
        let now = self.core.recently();
        choose_key(self.core, self.serving, self.caller, step, key_wish(incoming), tried.as_slice(), now)
    }

    fn conclude(best: Best<'a>) -> Result<Attempted<'a>, Rejection> {
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
        step: &'a Step,
        chosen: &Chosen,
        permit: Option<Permit>,
        bytes: &mut Vec<u8>,
    ) -> Result<Attempted<'a>, Stopped> {
        let core = self.core;
        let charges = charges(core, self.serving, self.caller, step, chosen.key, self.target.endpoint, &self.fields)
            .map_err(Stopped::before)?;
        let mut permit = match permit {
            None => Some(self.admit(&charges)?),
            waited_for => waited_for,
        };
        // Only for its first permit: no retry makes others wait.
        self.may_wait.set(false);
        let composed = self.compose(incoming, step, chosen, bytes).map_err(Stopped::before)?;
        let Some(state) = self.serving.provider(step.provider) else {
            return Err(Stopped::before(Rejection::new(Cause::Internal, "a route leads to no provider")));
        };
        let overhead = core.now().since(self.collected_at.after(self.waited.get()));
        let (class, price) = (charges.class, charges.price);
        let mut charged = Charged { sent: None, class, price, requests: None, tokens: None };
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
            is_stream: self.fields.stream == Some(true),
            body_bytes_max: self.body_bytes_max,
        };
        let sending = || {
            // Read right before, or when a connection was there.
            let now = core.recently();
            let mut held = match permit.take() {
                Some(held) => held,
                // Sent once more, on another connection: the provider may count it twice.
                None => self.admit(&charges).map_err(|stopped| stopped.rejection)?,
            };
            if held.is_stale(now) {
                held.cancel();
                let again = self.serving.slices.admit_again(charges.as_slice(), now);
                held = again.map_err(|refused| self.refusal(&refused, &charges).rejection)?;
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
                step,
                chosen: *chosen,
                sent_at,
                overhead,
                fallback_index: usize::from(step.place),
                hides_usage: composed.hides_usage,
            }),
            // What was sent and not answered counts in full: the provider may have counted it.
            Err(Failure { rejection, is_unsent }) => Err(Stopped { rejection, is_unsent, waits_for: None }),
        }
    }

    fn admit(&self, charges: &Charges) -> Result<Permit, Stopped> {
        self.serving
            .slices
            .admit(charges.as_slice(), self.core.recently())
            .map_err(|refused| self.refusal(&refused, charges))
    }

    fn refusal(&self, refused: &Refused, charges: &Charges) -> Stopped {
        let record = self.serving.records().limits.get(refused.limit.0 as usize);
        let id = self.limit_id(refused.limit);
        let is_worth_waiting = self.may_wait.get() && record.is_some_and(|record| record.max_wait_ns > 0);
        if !is_worth_waiting {
            // Otherwise it is refused, and counted, when its wait has come to nothing.
            self.core.counters.limit_refused(id);
        }
        let (cause, what) = match refused.unit {
            Unit::Requests => (Cause::RequestLimited, "requests"),
            Unit::Tokens => (Cause::TokenLimited, "tokens"),
            Unit::Concurrent => (Cause::ConcurrencyLimited, "requests at once"),
            Unit::MicroUsd => (Cause::BudgetExceeded, "millionths of a US dollar"),
        };
        let (amount, remaining) = (refused.amount, refused.remaining);
        let rejection = if let Some(after) = refused.retry_after {
            let text = format!("limit {id} has no room: {remaining} of {amount} {what} left");
            Rejection::new(cause, text).after(after)
        } else {
            let reserved = charges.amount(refused.limit);
            let text = format!(
                "limit {id} allows {amount} {what} in a window, and this request may need {reserved}; \
                 lower max_tokens or shorten the prompt"
            );
            Rejection::new(cause, text).after(refused.reset)
        };
        let waits_for = is_worth_waiting.then_some(refused.limit);
        Stopped { waits_for, ..Stopped::before(rejection.by_limit(*refused)) }
    }

    fn limit_id(&self, limit: LimitIndex) -> &str {
        self.serving.records().limits.get(limit.0 as usize).map_or("", |record| record.id.as_str())
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
            model: Some(chosen.model(self.serving, step))
                .filter(|model| !model.is_empty() && self.target.model.is_none()),
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
        let mut path = self.core.take_composed();
        let written = compose::write_head(&parts, &mut path, bytes);
        self.core.give_composed(path);
        written?;
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
}

/// An attempt without an answer.
struct Stopped {
    rejection: Rejection,
    is_unsent: bool,
    /// The limit that had no room, where it may be waited for.
    waits_for: Option<LimitIndex>,
}

impl Stopped {
    fn before(rejection: Rejection) -> Self {
        Self { rejection, is_unsent: true, waits_for: None }
    }
}

struct Composed {
    follows: Follows,
    hides_usage: bool,
}
