//! A list of models by their numbers, asked on every request whether a model is in it.

use rkyv::{Archive, Deserialize, Serialize};

/// Numbers of models. Which they are, [`super::SnapshotRecord::known_models`] says.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelList {
    /// Sorted.
    pub numbers: Vec<u32>,
    /// The number of the first bit.
    pub first: u32,
    /// A bit for each number from `first` on, so that one look answers. None where they would take
    /// more words than there are numbers: a short list of models that are far apart is halved, and no
    /// list takes more than three times its numbers.
    pub bits: Vec<u64>,
}

impl ModelList {
    /// Of numbers in any order.
    pub fn new(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        let (first, last) = (numbers.first().map_or(0, |first| *first), numbers.last().map_or(0, |last| *last));
        let words = (last - first) as usize / 64 + 1;
        let mut bits = vec![0; if words <= numbers.len() { words } else { 0 }];
        for offset in numbers.iter().map(|number| number - first) {
            if let Some(word) = bits.get_mut(offset as usize / 64) {
                *word |= 1 << (offset % 64);
            }
        }
        Self { numbers, first, bits }
    }
}

impl ArchivedModelList {
    /// Whether the model of this number is in the list.
    #[inline]
    pub fn contains(&self, number: u32) -> bool {
        if self.bits.is_empty() {
            return self.numbers.binary_search_by_key(&number, |one| one.to_native()).is_ok();
        }
        let Some(offset) = number.checked_sub(self.first.to_native()) else { return false };
        self.bits.get(offset as usize / 64).is_some_and(|word| word.to_native() >> (offset % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests;
