//! Any bytes on the gossip port: without the key nothing gets in, whatever was changed on the way;
//! with it, anything that a peer may say is read or dropped. Twice, nothing is taken.
#![no_main]

use controlplane::gossip::gate::{Gate, Taken};
use controlplane::gossip::keyring::Keyring;
use libfuzzer_sys::fuzz_target;
use shared::secret::Secret;
use std::cell::RefCell;

const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

thread_local! {
    /// Kept, since deriving keys costs more than all the rest; what it remembers has a bound.
    static GATE: RefCell<Gate> = RefCell::new(Gate::new(Keyring::new("c", &[Secret::new(KEY)]).unwrap()));
}

fuzz_target!(|data: &[u8]| {
    let Some((way, data)) = data.split_first() else { return };
    GATE.with_borrow_mut(|gate| match way % 4 {
        0 => {
            let taken = gate.take(&mut data.to_vec());
            assert!(matches!(taken, Taken::Refused(_)), "{taken:?} without the key");
        }
        1 => {
            // What is not changed by `data` is a whole frame.
            let frame = gate.sealed(16, b"a payload of some length").unwrap();
            let mut changed = frame.clone();
            let length = data.first().map_or(frame.len(), |cut| frame.len() - usize::from(*cut) % frame.len());
            changed.truncate(length);
            for change in data.get(1..).unwrap_or_default().chunks_exact(2) {
                let place = usize::from(change[0]) % changed.len();
                changed[place] ^= change[1];
            }
            let is_same = changed == frame;
            let taken = gate.take(&mut changed);
            assert_eq!(taken == Taken::Read, is_same, "{taken:?}");
        }
        2 => {
            let Some(frame) = gate.sealed_around(data) else { return };
            gate.take(&mut frame.clone());
            assert_ne!(gate.take(&mut frame.clone()), Taken::Read, "a second time");
        }
        _ => {
            let Some((kind, payload)) = data.split_first() else { return };
            let Some(frame) = gate.sealed(1 + kind % 3, payload) else { return };
            assert!(!matches!(gate.take(&mut frame.clone()), Taken::Refused(_)));
            assert_eq!(gate.take(&mut frame.clone()), Taken::Refused("refused_replayed"));
        }
    });
});
