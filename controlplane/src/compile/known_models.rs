//! The models that keys and virtual keys name, and their numbers: cores look a model up once and
//! compare numbers from there on. Other models are in no list, and need none.

use super::{distance, listed, sorted};
use shared::config::model::{Config, Models};
use shared::snapshot::KnownModelRecord;
use shared::snapshot::model_list::ModelList;
use shared::snapshot::names::NameIndex;
use std::collections::{BTreeMap, BTreeSet};

/// Every name in a list of models, with its number: its place among all of them, sorted. So lists are
/// sorted by number as they are by name.
pub(super) struct KnownModels<'c> {
    numbers: BTreeMap<&'c str, u32>,
}

impl<'c> KnownModels<'c> {
    /// Those of keys that are switched off too, which does no harm.
    pub(super) fn new(config: &'c Config) -> Self {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for key in config.providers.iter().flat_map(|provider| &provider.keys) {
            names.extend(listed(&key.models).iter().chain(&key.blacklisted_models).map(String::as_str));
            names.extend(key.aliases.iter().map(|(from, _)| from.as_str()));
        }
        for grant in config.governance.virtual_keys.iter().filter_map(|key| key.grants.as_ref()).flatten() {
            names.extend(listed(&grant.allowed_models).iter().map(String::as_str));
        }
        Self { numbers: names.into_iter().zip(0..).collect() }
    }

    fn number(&self, name: &str) -> u32 {
        *self.numbers.get(name).expect("all lists were gone through")
    }

    pub(super) fn list(&self, names: &[String]) -> ModelList {
        ModelList::new(names.iter().map(|name| self.number(name)).collect())
    }

    pub(super) fn only(&self, models: &Models) -> Option<ModelList> {
        match models {
            Models::All => None,
            Models::Only(names) => Some(self.list(names)),
        }
    }

    pub(super) fn aliases(&self, aliases: &[(String, String)]) -> Vec<(u32, String)> {
        sorted(aliases.iter().map(|(from, to)| (self.number(from), to.clone())))
    }

    pub(super) fn index(&self) -> NameIndex {
        NameIndex::new(&self.numbers.keys().copied().collect::<Vec<_>>())
    }

    /// Who serves a model that was named without its provider, the nearest first. Keys for all models
    /// are not in it: the cores ask those after the ones that list the model by name.
    pub(super) fn records(&self, config: &Config) -> Vec<KnownModelRecord> {
        let mut providers_by_number: Vec<Vec<u32>> = vec![Vec::new(); self.numbers.len()];
        for (provider, at) in config.providers.iter().zip(0_u32..) {
            for key in provider.keys.iter().filter(|key| key.is_enabled) {
                let names = listed(&key.models).iter().chain(key.aliases.iter().map(|(from, _)| from));
                for name in names.filter(|name| key.allows(name)) {
                    let providers = &mut providers_by_number[self.number(name) as usize];
                    if providers.last() != Some(&at) {
                        providers.push(at);
                    }
                }
            }
        }
        let distance_at = |at: &u32| {
            config.providers.get(*at as usize).map_or(u8::MAX, |provider| distance(config, provider.region.as_ref()))
        };
        let record = |(name, mut providers): (&&str, Vec<u32>)| {
            providers.sort_by_key(distance_at);
            KnownModelRecord { model: (*name).to_owned(), providers }
        };
        self.numbers.keys().zip(providers_by_number).map(record).collect()
    }
}
