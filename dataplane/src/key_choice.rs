//! Which key a request is sent with: one that may be used for its model, by weight, leaving out
//! those that were tried and those that rest. Decides from the snapshot and the newest advice.

use crate::core::{Core, Serving};
use crate::identify::Caller;
use crate::known_model::{alias_of, key_serves};
use crate::plan::{Grant, Step, fraction, grant};
use crate::rejection::{Cause, Rejection};
use arrayvec::ArrayVec;
use rkyv::rend::f64_le;
use shared::clock::Nanos;
use shared::published::RestReason;
use shared::snapshot::ArchivedKeyRecord;

/// Keys of one provider that one request may ask with.
pub(crate) const KEYS_TRIED_MAX: usize = 8;

/// A key for one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Chosen {
    /// `None` for providers that need none, and for keys that clients bring.
    pub(crate) key: Option<usize>,
    /// Of the key's names for models, the one of this request's.
    alias: Option<usize>,
}

impl Chosen {
    /// The model's name at the provider.
    pub(crate) fn model<'a>(&self, serving: &'a Serving, step: &'a Step) -> &'a str {
        let key = self.key.and_then(|key| serving.records().keys.get(key));
        let alias = key.and_then(|key| key.aliases.get(self.alias?));
        alias.map_or_else(|| step.model.as_str(), |alias| alias.1.as_str())
    }
}

/// What the client said about which key to take.
#[derive(Clone, Copy, Default)]
pub(crate) struct KeyWish<'a> {
    /// `x-bf-api-key`: this key and no other.
    pub(crate) name: Option<&'a [u8]>,
    /// `x-bf-session-id`: the same key for the same session while it serves.
    pub(crate) session: Option<&'a [u8]>,
}

/// Picks a key of the step's provider by weight, leaving out those that were tried and those
/// that rest.
pub(crate) fn choose_key(
    core: &Core,
    serving: &Serving,
    caller: Caller,
    step: &Step,
    wish: KeyWish<'_>,
    tried: &[u32],
    now: Nanos,
) -> Result<Chosen, Rejection> {
    let records = serving.records();
    let Some(provider) = records.providers.get(step.provider) else {
        return Err(Rejection::new(Cause::Internal, "a route leads to no provider"));
    };
    if provider.is_key_less || caller == Caller::Direct {
        return Ok(Chosen { key: None, alias: None });
    }
    let allowed = match grant(serving, caller, step.provider) {
        Grant::Some(grant) => grant.keys.as_ref(),
        Grant::All | Grant::None => None,
    };
    let model = step.model.as_str();
    let some_rest = core.advice.has_resting_keys();
    let are_weighed = core.advice.are_keys_weighed() && wish.session.is_none();
    let has_regions = records.settings.has_regions;
    let rest = |key: &ArchivedKeyRecord| {
        if some_rest { core.advice.rests_until(&provider.name, &key.name, model, now) } else { None }
    };
    let is_usable = |index: u32, key: &ArchivedKeyRecord| {
        allowed.is_none_or(|keys| keys.binary_search_by_key(&index, |key| key.to_native()).is_ok())
            && (model.is_empty() || key_serves(key, step.number))
            && serving.published.secrets.get(key.secret.to_native() as usize).is_some_and(|secret| !secret.is_empty())
            && !tried.contains(&index)
    };
    let chosen = |at: usize| {
        let alias = records.keys.get(at).and_then(|key| alias_of(key, step.number));
        Ok(Chosen { key: Some(at), alias })
    };
    let is_free = wish.name.is_none() && wish.session.is_none() && step.key.is_none();
    if is_free && !are_weighed && !has_regions {
        for _ in 0..DRAWS_MAX {
            let drawn = draw(&provider.key_weights, core.random()).and_then(|place| provider.keys.get(place));
            let Some(index) = drawn.map(|index| index.to_native()) else { break };
            let at = index as usize;
            if records.keys.get(at).is_some_and(|key| is_usable(index, key) && rest(key).is_none()) {
                return chosen(at);
            }
        }
    }
    let mut nearest = u8::MAX;
    let mut denied = None;
    let mut rested_until: Option<Nanos> = None;
    let mut candidates = ArrayVec::<(usize, f64), KEYS_CONSIDERED_MAX>::new();
    let mut total = 0.0;
    for index in provider.keys.iter() {
        let index = index.to_native();
        let at = index as usize;
        let Some(key) = records.keys.get(at) else { continue };
        // A routing rule's word is the operator's.
        let is_wished = match step.key {
            Some(only) => index == only,
            None => wish.name.is_none_or(|name| key.name.as_bytes() == name),
        };
        let mut weight = f64::from(key.weight.to_native());
        let is_drawn = weight > 0.0 || wish.name.is_some() || step.key.is_some();
        if !is_wished || !is_drawn || !is_usable(index, key) {
            continue;
        }
        if let Some((until, reason)) = rest(key) {
            if reason == RestReason::Denied {
                denied = denied.or(Some(at));
            } else {
                rested_until = Some(rested_until.map_or(until, |other| other.min(until)));
            }
            continue;
        }
        if has_regions {
            if key.distance > nearest {
                continue;
            }
            if key.distance < nearest {
                (nearest, total) = (key.distance, 0.0);
                candidates.clear();
            }
        }
        if are_weighed {
            weight *= core.advice.key_weight(&provider.name, &key.name, model);
        }
        let weight = weight.max(f64::MIN_POSITIVE);
        if candidates.try_push((at, weight)).is_ok() {
            total += weight;
        }
    }
    if candidates.is_empty()
        && let Some(at) = denied
    {
        candidates.push((at, 1.0));
        total = 1.0;
    }
    let Some(last) = candidates.last() else {
        return Err(no_key(&provider.name, rested_until, now, tried.is_empty()));
    };
    let draw = match wish.session {
        Some(session) => fraction(hash_of(session)),
        None => fraction(core.random()),
    };
    let mut left = draw * total;
    let drawn = candidates.iter().find(|(_, weight)| {
        left -= weight;
        left < 0.0
    });
    chosen(drawn.unwrap_or(last).0)
}

/// Draws of a key among all of the provider's, before those that fit are gone through. Where most of
/// them fit, the number of keys costs nothing; and whoever is drawn and fits is as likely as by weight
/// among those that fit.
const DRAWS_MAX: usize = 4;

/// A place among weights of which these are the running sums, as likely as its weight.
fn draw(sums: &[f64_le], random: u64) -> Option<usize> {
    let point = fraction(random) * sums.last()?.to_native();
    Some(sums.partition_point(|sum| sum.to_native() <= point))
}

/// Keys of one provider that a draw considers; more than any provider has in practice.
const KEYS_CONSIDERED_MAX: usize = 64;

fn no_key(provider: &str, rested_until: Option<Nanos>, now: Nanos, is_first: bool) -> Rejection {
    match rested_until {
        Some(until) => {
            Rejection::new(Cause::KeysLimited, format!("every key of provider {provider} that fits rests now"))
                .after(until.since(now))
        }
        None if is_first => {
            Rejection::new(Cause::NoUsableKey, format!("provider {provider} has no usable key for this request"))
        }
        None => Rejection::new(Cause::NoUsableKey, format!("no further key of provider {provider} fits this request")),
    }
}

/// The same on every core and node, so that a session keeps its key wherever it lands.
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    // FNV-1a with a final mix (splitmix64), since sessions often differ in their last byte only.
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mixed(hash)
}

/// Spreads numbers that differ in a few bits.
pub(crate) fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_as_likely_as_its_weight_and_no_weight_is_never_drawn() {
        let sums: Vec<f64_le> = [0.0, 1.0, 1.0, 4.0].map(f64_le::from_native).into();
        let mut counts = [0; 4];
        for point in 0..4_000_u64 {
            counts[draw(&sums, point * (u64::MAX / 4_000)).unwrap()] += 1;
        }
        assert_eq!(counts[0] + counts[2], 0);
        assert!((995..=1_005).contains(&counts[1]), "{counts:?}");
        assert_eq!(draw(&sums, u64::MAX), Some(3));
        assert_eq!(draw(&[], 7), None);
        // Nothing but weights of zero: a place that no key has.
        assert_eq!(draw(&[f64_le::from_native(0.0)], 7), Some(1));
    }

    #[test]
    fn sessions_that_differ_in_one_byte_are_spread() {
        let low = (0..100).filter(|n| fraction(hash_of(format!("session-{n}").as_bytes())) < 0.5).count();
        assert!((30..70).contains(&low), "{low}");
    }
}
