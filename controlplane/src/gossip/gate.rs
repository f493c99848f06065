//! The way of a frame into a node, callable without a socket: for fuzzing. The code is that of the
//! gossip port itself.

use super::frame::{Identity, Kind, Letter, NONCE_BYTES, NodeName, VERSION_MAX, VERSION_MIN, open, seal, seal_body};
use super::keyring::Keyring;
use super::probe::{Ping, Pong};
use super::replay::Windows;
use super::sieve::Sieve;
use super::transport::decode;
use chitchat::ChitchatId;
use shared::clock::Nanos;
use std::net::{Ipv4Addr, SocketAddr};

/// A node `b` with a key, and a peer `a` that has it too.
pub struct Gate {
    keyring: Keyring,
    windows: Windows,
    sieve: Sieve,
    sequence: u64,
}

/// What came of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was refused, for the reason that metrics count it under.
    Refused(&'static str),
    /// The sender has the key, and what it says cannot be read.
    Unreadable,
    /// It was read.
    Read,
}

const CLUSTER_NAME: &str = "c";
const US: &str = "b";
const PEER: &str = "a";
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_101);

impl Gate {
    /// With keys as [`Keyring::new`] makes them.
    pub fn new(keyring: Keyring) -> Self {
        let sieve = Sieve::new(ChitchatId::new(US, 1, ADDRESS), CLUSTER_NAME.to_owned());
        Self { keyring, windows: Windows::default(), sieve, sequence: 0 }
    }

    /// Takes a frame, as from a socket.
    pub fn take(&mut self, frame: &mut [u8]) -> Taken {
        let opened = open(&self.keyring, identity(US), VERSION_MAX, frame);
        let admitted = opened.and_then(|opened| {
            self.windows.admit(opened.from, opened.sequence, Nanos::default())?;
            Ok(opened)
        });
        let opened = match admitted {
            Ok(opened) => opened,
            Err(refusal) => {
                return Taken::Refused(super::frame::Refusal::NAMES.get(refusal.index()).copied().unwrap_or_default());
            }
        };
        let is_read = match opened.kind {
            Kind::Ping => Ping::read(&opened.payload).is_some(),
            Kind::Pong => Pong::read(&opened.payload).is_some(),
            Kind::Gossip => self.sieve.pass(&opened.payload).is_some_and(|passed| decode(&passed).is_some()),
            Kind::Topic(_) => true,
        };
        if is_read { Taken::Read } else { Taken::Unreadable }
    }

    /// A frame of the peer with a whole body; `kind` as it travels. `None`: too long.
    pub fn sealed(&mut self, kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let letter = Letter { kind: Kind::of_number(kind)?, payload, ..self.letter() };
        seal(self.keyring.sealing(), &letter, [0; NONCE_BYTES])
    }

    /// A frame of the peer with any body.
    pub fn sealed_around(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let letter = self.letter();
        seal_body(self.keyring.sealing(), &letter, [0; NONCE_BYTES], |frame| frame.extend_from_slice(body))
    }

    fn letter(&mut self) -> Letter<'static> {
        self.sequence += 1;
        Letter {
            version: VERSION_MIN,
            speaks: VERSION_MAX,
            from: identity(PEER),
            address: ADDRESS,
            to: identity(US),
            sequence: self.sequence,
            kind: Kind::Gossip,
            queued: 0,
            payload: &[],
        }
    }
}

fn identity(id: &str) -> Identity {
    Identity { name: NodeName::new(id).unwrap_or_default(), generation: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::secret::Secret;

    fn gate() -> Gate {
        let key = Secret::new("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
        Gate::new(Keyring::new("c", &[key]).unwrap())
    }

    proptest! {
        #[test]
        fn whatever_a_peer_says_is_read_or_dropped_and_once(
            kind in 1..4_u8,
            payload in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200),
            is_of_chitchat: bool,
        ) {
            let mut gate = gate();
            // The start of each message of chitchat.
            let start: &[u8] = if is_of_chitchat { &[0x53, 0xb0, 0] } else { &[] };
            let frame = gate.sealed(kind, &[start, &payload].concat()).unwrap();
            prop_assert!(!matches!(gate.take(&mut frame.clone()), Taken::Refused(_)));
            prop_assert_eq!(gate.take(&mut frame.clone()), Taken::Refused("refused_replayed"));
            let frame = gate.sealed_around(&payload).unwrap();
            gate.take(&mut frame.clone());
            prop_assert_ne!(gate.take(&mut frame.clone()), Taken::Read);
        }
    }
}
