//! A model that a request asks for, and what the snapshot's lists say of it. Its name is looked up
//! once; from there on it is a number, and lists are numbers. Who serves it is decided elsewhere.

use crate::core::Serving;
use crate::name::{NAME_BYTES_MAX, Name};
use shared::snapshot::model_list::ArchivedModelList;
use shared::snapshot::{ArchivedKeyRecord, ArchivedKnownModelRecord};

/// What a model is among those that keys and virtual keys name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelNumber {
    /// In this place.
    Known(u32),
    /// In no list, and maybe served by keys for all models.
    Unknown,
}

/// A model as clients say it, without the provider; empty for requests without one.
#[derive(Clone, Copy)]
pub(crate) struct Model<'m> {
    name: &'m str,
    pub(crate) number: ModelNumber,
}

impl<'m> Model<'m> {
    pub(crate) const NONE: Model<'static> = Model { name: "", number: ModelNumber::Unknown };

    /// `None`: the name is longer than those that travel through a request.
    #[inline]
    pub(crate) fn new(serving: &Serving, name: &'m str) -> Option<Self> {
        (name.len() <= NAME_BYTES_MAX).then(|| Self { name, number: ModelNumber::of(serving, name) })
    }

    pub(crate) fn as_str(&self) -> &'m str {
        self.name
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_empty()
    }

    /// To be kept longer than what it was read from.
    #[inline]
    pub(crate) fn to_name(self) -> Name {
        Name::new(self.name).expect("its length was looked at when it was made")
    }
}

impl ModelNumber {
    fn of(serving: &Serving, name: &str) -> Self {
        let records = serving.records();
        let name_at = |at: usize| records.known_models.get(at).map(|known| known.model.as_str());
        records.model_index.find(name.as_bytes(), name_at).map_or(Self::Unknown, Self::Known)
    }

    /// What is known of it.
    pub(crate) fn record(self, serving: &Serving) -> Option<&ArchivedKnownModelRecord> {
        match self {
            Self::Known(at) => serving.records().known_models.get(at as usize),
            Self::Unknown => None,
        }
    }
}

/// Whether a list names the model.
#[inline]
pub(crate) fn lists(list: &ArchivedModelList, model: ModelNumber) -> bool {
    matches!(model, ModelNumber::Known(number) if list.contains(number))
}

/// Whether a list names the model, or there is none.
#[inline]
pub(crate) fn allows(list: Option<&ArchivedModelList>, model: ModelNumber) -> bool {
    list.is_none_or(|list| lists(list, model))
}

/// Whether a key may be used for the model.
pub(crate) fn key_serves(key: &ArchivedKeyRecord, model: ModelNumber) -> bool {
    let is_listed = || allows(key.models.as_ref(), model) || alias_of(key, model).is_some();
    !lists(&key.blacklisted_models, model) && is_listed()
}

/// Place of the provider's own name for a model among the key's aliases.
pub(crate) fn alias_of(key: &ArchivedKeyRecord, model: ModelNumber) -> Option<usize> {
    match model {
        ModelNumber::Known(number) => key.aliases.binary_search_by_key(&number, |alias| alias.0.to_native()).ok(),
        ModelNumber::Unknown => None,
    }
}
