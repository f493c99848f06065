//! Virtual keys that this core has met, so that only the first request with one pays for its HMAC.
//!
//! Why this is as safe as the look-up it stands before: a key is found by a 64-bit hash that is
//! keyed with random bits of this process, and believed when all of its bytes are equal, compared
//! in constant time. So how long it takes tells one thing, whether this very key was met here
//! before, and tells it only to who has the key. Which place a guess falls into cannot be chosen
//! from outside, and a guess that shares the place of a key is told apart by its hash before any
//! byte is compared. Only keys of the configuration are kept, and they go with it: nothing that a
//! stranger sends pushes anything out.
//!
//! A key is in the memory of a node anyway, in the configuration and in buffers; here it is wiped.

use ahash::RandomState;
use shared::secret::Secret;
use std::cell::RefCell;
use subtle::ConstantTimeEq;

/// Keys that are kept; two that share a place take turns. With the keys some 100 KiB.
const PLACES: usize = 1024;

/// Longer keys are looked up each time.
const KEY_BYTES_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct KnownCallers {
    hashing: RandomState,
    /// Empty until the first key comes.
    places: RefCell<Vec<Option<Known>>>,
}

struct Known {
    hash: u64,
    key: Secret,
    index: u32,
}

impl KnownCallers {
    /// The index of a virtual key: remembered, or from `look_up`, which is asked without it.
    pub(crate) fn find(&self, key: &[u8], look_up: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let hash = self.hashing.hash_one(key);
        let place = hash as usize % PLACES;
        if let Some(Some(known)) = self.places.borrow().get(place)
            && known.hash == hash
            && bool::from(known.key.expose().as_bytes().ct_eq(key))
        {
            return Some(known.index);
        }
        let index = look_up()?;
        if key.len() <= KEY_BYTES_MAX
            && let Ok(key) = std::str::from_utf8(key)
        {
            let mut places = self.places.borrow_mut();
            if places.is_empty() {
                places.resize_with(PLACES, || None);
            }
            if let Some(place) = places.get_mut(place) {
                *place = Some(Known { hash, key: Secret::new(key), index });
            }
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_up_once() {
        let known = KnownCallers::default();
        assert_eq!(known.find(b"sk-bf-1", || Some(7)), Some(7));
        assert_eq!(known.find(b"sk-bf-1", || None), Some(7));
        assert_eq!(known.find(b"sk-bf-2", || None), None, "another key is another's");
    }

    #[test]
    fn what_is_not_known_is_asked_for_again() {
        let known = KnownCallers::default();
        assert_eq!(known.find(b"sk-bf-1", || None), None);
        assert_eq!(known.find(b"sk-bf-1", || Some(3)), Some(3));
    }

    #[test]
    fn any_number_of_keys_takes_as_many_places() {
        let known = KnownCallers::default();
        let count = 4 * PLACES as u32;
        for index in (0..count).chain(0..count) {
            assert_eq!(known.find(format!("sk-bf-{index}").as_bytes(), || Some(index)), Some(index));
        }
        assert_eq!(known.places.borrow().len(), PLACES);
    }

    #[test]
    fn a_key_that_is_too_long_is_not_kept() {
        let known = KnownCallers::default();
        let long = vec![b'x'; KEY_BYTES_MAX + 1];
        assert_eq!(known.find(&long, || Some(1)), Some(1));
        assert_eq!(known.find(&long, || None), None);
    }
}
