//! Where a name stands in a list of names: one look-up in a table of hashes instead of a comparison
//! of texts at every step of a search. The table is made with the snapshot and read in place, on
//! this node or on the one that starts from the file, so that its hash is our own and the same
//! everywhere. The names themselves stay in the list.

use rkyv::{Archive, Deserialize, Serialize};

/// Slots that a look-up reads at most: two lines of a cache. The table is made so that every name is
/// found in them, and a name that is not there costs no more.
pub const NAME_PROBES_MAX: usize = 16;

/// Slots for each name: the fewest first, since a small table stays in the cache.
const SLOTS_PER_NAME: [usize; 3] = [2, 4, 8];

/// Salts that are tried with each number of slots.
const SALTS: u64 = 8;

/// Finds the place of a name in a list.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct NameIndex {
    /// With which the names spread well enough.
    pub salt: u64,
    /// Their number is a power of two; none where no salt helped.
    pub slots: Vec<Slot>,
    /// Where there are no slots: the places, sorted by name. Names that someone looked for until they
    /// meet under every salt are found by halving, and nobody else pays for them.
    pub by_name: Vec<u32>,
}

/// A place of the table.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The upper half of the name's hash, so that others are rarely compared.
    pub tag: u32,
    /// Place of the name in the list, or [`NO_NAME`].
    pub at: u32,
}

/// The place of no name.
pub const NO_NAME: u32 = u32::MAX;

const EMPTY: Slot = Slot { tag: 0, at: NO_NAME };

impl NameIndex {
    /// Of names that differ from each other.
    pub fn new(names: &[&str]) -> Self {
        Self::within(names, NAME_PROBES_MAX)
    }

    fn within(names: &[&str], probes_max: usize) -> Self {
        let sizes = SLOTS_PER_NAME.iter().map(|slots| (slots * names.len()).next_power_of_two());
        let tries = sizes.flat_map(|size| (0..SALTS).map(move |salt| (size, salt)));
        for (size, salt) in tries {
            if let Some(slots) = filled(names, size, salt, probes_max) {
                return Self { salt, slots, by_name: Vec::new() };
            }
        }
        let mut by_name: Vec<(&&str, u32)> = names.iter().zip(0..).collect();
        by_name.sort_unstable();
        Self { salt: 0, slots: Vec::new(), by_name: by_name.into_iter().map(|(_, at)| at).collect() }
    }
}

/// Every name within so many slots of its own one.
fn filled(names: &[&str], size: usize, salt: u64, probes_max: usize) -> Option<Vec<Slot>> {
    let mut slots = vec![EMPTY; size];
    for (name, at) in names.iter().zip(0..) {
        let hash = hash(name.as_bytes(), salt);
        let place = places(hash, size).take(probes_max).find(|place| slots[*place] == EMPTY)?;
        slots[place] = Slot { tag: tag(hash), at };
    }
    Some(slots)
}

impl ArchivedNameIndex {
    /// The place of `name`, where `name_at` says the name at a place of the list.
    #[inline]
    pub fn find<'n>(&self, name: &[u8], name_at: impl Fn(usize) -> Option<&'n str>) -> Option<u32> {
        if self.slots.is_empty() {
            return self.find_by_halving(name, name_at);
        }
        let hash = hash(name, self.salt.to_native());
        for place in places(hash, self.slots.len()).take(NAME_PROBES_MAX) {
            let slot = self.slots.get(place)?;
            let at = slot.at.to_native();
            if at == NO_NAME {
                return None;
            }
            if slot.tag == tag(hash) && name_at(at as usize).is_some_and(|one| one.as_bytes() == name) {
                return Some(at);
            }
        }
        None
    }

    #[cold]
    fn find_by_halving<'n>(&self, name: &[u8], name_at: impl Fn(usize) -> Option<&'n str>) -> Option<u32> {
        let found =
            self.by_name.binary_search_by(|at| name_at(at.to_native() as usize).map(str::as_bytes).cmp(&Some(name)));
        self.by_name.get(found.ok()?).map(|at| at.to_native())
    }
}

/// The slots that a hash leads to, one after the other, of `size` that are a power of two.
fn places(hash: u64, size: usize) -> impl Iterator<Item = usize> {
    let first = hash as usize;
    (0..size).map(move |step| first.wrapping_add(step) & (size - 1))
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Multiplies eight bytes at a time, and folds the product, as wyhash does (Wang Yi, 2019;
/// <https://github.com/wangyi-fudan/wyhash>). Short names are two such steps.
#[inline]
fn hash(name: &[u8], salt: u64) -> u64 {
    // Odd, with as many ones as zeros: fractions of the golden ratio and of the root of three.
    const START: u64 = 0x9E37_79B9_7F4A_7C15;
    const FACTOR: u64 = 0xBB67_AE85_84CA_A73B;
    let mut state = START ^ mixed(salt.wrapping_add(name.len() as u64), FACTOR);
    let (words, rest) = name.as_chunks::<8>();
    for word in words {
        state = mixed(state ^ u64::from_le_bytes(*word), FACTOR);
    }
    mixed(state ^ last_word(name, rest), FACTOR ^ START)
}

/// What is behind the last whole word: with bytes before it where there are, as reading them again
/// is quicker than gathering fewer.
#[inline]
fn last_word(name: &[u8], rest: &[u8]) -> u64 {
    if let Some(word) = name.last_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32,
        _ => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[inline]
fn mixed(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;
