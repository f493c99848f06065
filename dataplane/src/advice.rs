//! What the control thread last said about keys, providers and this node, in the form that a
//! request asks for it, and what this core learned itself since. Where nothing is wrong, each
//! question costs a load and a branch.

use crate::core::Serving;
use crate::identify::Caller;
use crate::name::Name;
use shared::clock::Nanos;
use shared::published::{Live, RestReason, RestingKey};
use shared::report::{Denial, KeyLabels};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

/// Rests that a core remembers itself: one for each key and model in use. A flood of models must
/// not grow it.
const RESTS_MAX: usize = 1024;
/// Keys and models that were denied and are remembered; the oldest is forgotten.
const DENIALS_MAX: usize = 64;
/// A denial is told again after this: shorter than the rest that follows from it.
const DENIAL_MEMORY: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(crate) struct Advice {
    live: RefCell<Arc<Live>>,
    /// Keys that this core learned should rest; the others hear of them through the control thread.
    resting: RefCell<Vec<RestingKey>>,
    denials: RefCell<Vec<Denied>>,
    are_keys_weighed: Cell<bool>,
    are_providers_demoted: Cell<bool>,
    shed_permille: Cell<u16>,
    shed: Share,
}

/// Gives out a part of what comes, evenly: of a thousand exactly `permille`.
#[derive(Default)]
pub(crate) struct Share(Cell<u16>);

impl Share {
    /// Whether the next one belongs to the part.
    pub(crate) fn takes(&self, permille: u16) -> bool {
        let sum = self.0.get().saturating_add(permille.min(1000));
        self.0.set(if sum >= 1000 { sum - 1000 } else { sum });
        sum >= 1000
    }
}

/// A key that may not use a model, and whom that was told.
struct Denied {
    key: u32,
    model: Name,
    virtual_keys: [Option<u32>; 2],
    at: Nanos,
}

impl Advice {
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    pub(crate) fn adopt(&self, live: Arc<Live>) {
        self.are_keys_weighed.set(!live.key_weights.is_empty());
        self.are_providers_demoted.set(!live.providers.is_empty());
        self.shed_permille.set(live.shed_permille);
        *self.live.borrow_mut() = live;
    }

    /// Forgets what is known by the indices of another configuration.
    pub(crate) fn forget_indices(&self) {
        self.denials.borrow_mut().clear();
    }

    /// Whether the next request is turned away.
    #[inline]
    pub(crate) fn sheds(&self) -> bool {
        let permille = self.shed_permille.get();
        permille > 0 && self.shed.takes(permille)
    }

    /// Whether any provider gets less than its requests.
    #[inline]
    pub(crate) fn are_providers_demoted(&self) -> bool {
        self.are_providers_demoted.get()
    }

    /// Part of its requests that a provider still gets first; `None`: all.
    pub(crate) fn provider_share(&self, provider: &str) -> Option<u16> {
        let live = self.live.borrow();
        live.providers.iter().find(|share| share.provider == provider).map(|share| share.permille)
    }

    /// Part of its configured weight that a provider has in a draw.
    pub(crate) fn provider_weight(&self, provider: &str) -> f64 {
        let live = self.live.borrow();
        let share = live.provider_weights.iter().find(|share| share.provider == provider);
        share.map_or(1.0, |share| f64::from(share.permille) / 1000.0)
    }

    /// Whether any key has another weight than the configured one.
    #[inline]
    pub(crate) fn are_keys_weighed(&self) -> bool {
        self.are_keys_weighed.get()
    }

    /// Part of its configured weight that a key has for `model`.
    pub(crate) fn key_weight(&self, provider: &str, key: &str, model: &str) -> f64 {
        let live = self.live.borrow();
        let name = (provider, key);
        let first = live.key_weights.partition_point(|one| (one.provider.as_str(), one.key.as_str()) < name);
        let of_key = live.key_weights.iter().skip(first);
        of_key
            .take_while(|one| one.provider == provider && one.key == key)
            .filter(|one| one.model.as_deref().is_none_or(|only| only == model))
            .fold(1.0, |part, one| part * f64::from(one.permille) / 1000.0)
    }

    /// Lets a key rest on this core at once; false where it rests as long already.
    pub(crate) fn rest(&self, resting: &RestingKey, now: Nanos) -> bool {
        let mut all = self.resting.borrow_mut();
        let is_same = |other: &RestingKey| {
            other.key == resting.key && other.provider == resting.provider && other.model == resting.model
        };
        // Answers that were on their way when the first one came say the same again.
        if all.iter().any(|other| is_same(other) && other.until >= resting.until) {
            return false;
        }
        all.retain(|other| other.until > now && !is_same(other));
        if all.len() < RESTS_MAX {
            all.push(resting.clone());
        }
        true
    }

    /// Until when a key rests for `model`, and why, if it does.
    pub(crate) fn rests_until(
        &self,
        provider: &str,
        key: &str,
        model: &str,
        now: Nanos,
    ) -> Option<(Nanos, RestReason)> {
        let is_meant = |resting: &&RestingKey| {
            resting.until > now
                && resting.key == key
                && resting.provider == provider
                && resting.model.as_deref().is_none_or(|only| only == model)
        };
        let own = self.resting.borrow();
        let live = self.live.borrow();
        let name = (provider, key);
        let first = live.resting_keys.partition_point(|one| (one.provider.as_str(), one.key.as_str()) < name);
        let told = live.resting_keys.iter().skip(first).take_while(|one| one.provider == provider && one.key == key);
        let all = own.iter().chain(told).filter(is_meant);
        // A key that is denied a model and limited as well is not asked.
        all.map(|one| (one.reason != RestReason::Denied, one.until, one.reason))
            .max()
            .map(|(_, until, reason)| (until, reason))
    }

    /// Whether any key rests at all: the common answer costs two loads.
    #[inline]
    pub(crate) fn has_resting_keys(&self) -> bool {
        !self.resting.borrow().is_empty() || !self.live.borrow().resting_keys.is_empty()
    }

    /// A provider told `caller` that this key may not use the model: what the control thread has
    /// to hear, if it is news. Who has no virtual key tells nothing: they may all be one.
    pub(crate) fn denied(
        &self,
        serving: &Serving,
        key: usize,
        model: &Name,
        caller: Caller,
        now: Nanos,
    ) -> Option<Denial> {
        let Caller::VirtualKey(virtual_key) = caller else { return None };
        let (key, virtual_key) = (u32::try_from(key).ok()?, u32::try_from(virtual_key).ok()?);
        let mut all = self.denials.borrow_mut();
        all.retain(|denied| now.since(denied.at) < DENIAL_MEMORY);
        match all.iter_mut().find(|denied| denied.key == key && denied.model.as_str() == model.as_str()) {
            Some(denied) if denied.virtual_keys.contains(&Some(virtual_key)) => return None,
            Some(denied) => *denied.virtual_keys.iter_mut().find(|place| place.is_none())? = Some(virtual_key),
            None => {
                if all.len() >= DENIALS_MAX {
                    all.remove(0);
                }
                all.push(Denied { key, model: *model, virtual_keys: [Some(virtual_key), None], at: now });
            }
        }
        let records = serving.records();
        let key = records.keys.get(key as usize)?;
        let provider = records.providers.get(key.provider.to_native() as usize)?;
        Some(Denial {
            key: KeyLabels { provider: provider.name.to_string(), key: key.name.to_string() },
            model: model.as_str().to_owned(),
            virtual_key: records.virtual_keys.get(virtual_key as usize)?.id.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::published::{KeyWeight, ProviderShare};

    fn rest(key: &str, model: Option<&str>, reason: RestReason, until: u64) -> RestingKey {
        let model = model.map(str::to_owned);
        RestingKey { provider: "p".into(), key: key.into(), model, reason, until: Nanos(until) }
    }

    #[test]
    fn a_share_is_given_out_evenly() {
        for permille in [1, 10, 50, 333, 500, 999, 1000] {
            let share = Share::default();
            let taken: Vec<bool> = (0..10_000).map(|_| share.takes(permille)).collect();
            assert_eq!(taken.iter().filter(|taken| **taken).count(), usize::from(permille) * 10);
            let gap = taken.split(|taken| *taken).map(<[bool]>::len).max().unwrap_or(0);
            assert!(gap <= 1000_usize.div_ceil(permille.into()), "{permille}: {gap} in a row");
        }
        assert!(!Share::default().takes(0));
    }

    #[test]
    fn a_rest_is_found_for_its_key_and_model_only() {
        let advice = Advice::default();
        let resting_keys = vec![
            rest("a", Some("m"), RestReason::Denied, 90),
            rest("a", Some("m"), RestReason::Limited, 50),
            rest("b", None, RestReason::Refused, 20),
            rest("d", None, RestReason::Limited, 20),
        ];
        advice.adopt(Arc::new(Live { resting_keys, ..Live::default() }));
        let found = |key, model, now| advice.rests_until("p", key, model, Nanos(now));
        assert_eq!(found("a", "m", 10), Some((Nanos(50), RestReason::Limited)));
        assert_eq!(found("a", "m", 60), Some((Nanos(90), RestReason::Denied)));
        assert_eq!(found("b", "anything", 10), Some((Nanos(20), RestReason::Refused)));
        assert_eq!((found("a", "n", 10), found("b", "m", 20), found("c", "m", 10)), (None, None, None));
        assert!(advice.rest(&rest("c", None, RestReason::Limited, 30), Nanos(10)));
        assert!(!advice.rest(&rest("c", None, RestReason::Limited, 25), Nanos(11)), "it rests for longer");
        assert_eq!(found("c", "m", 12), Some((Nanos(30), RestReason::Limited)));
    }

    #[test]
    fn weights_of_a_key_are_multiplied() {
        let advice = Advice::default();
        let weight = |key: &str, model: Option<&str>, permille| KeyWeight {
            provider: "p".into(),
            key: key.into(),
            model: model.map(str::to_owned),
            permille,
        };
        let key_weights = vec![weight("a", None, 500), weight("a", Some("m"), 100), weight("b", None, 10)];
        let providers = vec![ProviderShare { provider: "p".into(), permille: 10 }];
        advice.adopt(Arc::new(Live { key_weights, providers, ..Live::default() }));
        assert!(advice.are_keys_weighed() && advice.are_providers_demoted());
        let weights = [("a", "m"), ("a", "n"), ("b", "m"), ("c", "m")].map(|(k, m)| advice.key_weight("p", k, m));
        assert!(weights.iter().zip([0.05, 0.5, 0.01, 1.0]).all(|(is, be)| (is - be).abs() < 1e-9), "{weights:?}");
        assert_eq!((advice.provider_share("p"), advice.provider_share("q")), (Some(10), None));
    }
}
