//! The one message of UDP discovery, as bytes. Pure.
//!
//! ```text
//!  0 magic "DISB"   4 version   5 kind   6 gossip port   8 wall clock, s   16 nonce
//! 24 hash of the service name, 16 bytes   40 length of the id   41 id, 12 bytes
//! 53 zeros   64 tag over all before it, 32 bytes                          96 the end
//! ```
//!
//! Always 96 bytes, so that an answer is never larger than its question. The tag needs the gossip
//! key and the cluster's name; without a configured key it is a checksum that everybody can make.
//! The sender's address is not in it: it is where the datagram came from.

use crate::gossip::keyring::{BEACON_TAG_BYTES, Keyring};
use ring::digest::{SHA256, digest};
use shared::config::model::NodeId;

/// Of every message.
pub(super) const BYTES: usize = SIGNED_BYTES + BEACON_TAG_BYTES;
const SIGNED_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"DISB";
/// A later one may use the zeros; it keeps the rest in place.
const VERSION: u8 = 1;

/// What stands for a service name.
pub(super) type ServiceHash = [u8; 16];

/// What is wanted of those who hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who is there?
    Beacon,
    /// I am; with the nonce of the question.
    Acknowledgement,
    /// Not any more.
    Farewell,
    /// Who is there? From one who only wants to know, and is no node.
    Question,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beacon {
    pub(super) kind: Kind,
    pub(super) gossip_port: u16,
    /// Seconds since 1970.
    pub(super) wall_seconds: u64,
    pub(super) nonce: u64,
    pub(super) node_id: String,
}

/// Why bytes are no message for us. Nothing was believed of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something else uses this port, or the message was damaged.
    NotABeacon,
    /// Another `service_name`.
    OtherName,
    /// Another gossip key, or another cluster name.
    WrongTag,
}

pub(super) fn service_hash(service_name: &str) -> ServiceHash {
    let mut hash = [0; 16];
    hash.iter_mut().zip(digest(&SHA256, service_name.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

impl Beacon {
    pub(super) fn encode(&self, service: &ServiceHash, keyring: &Keyring) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.kind.number()]);
        bytes.extend(self.gossip_port.to_be_bytes());
        bytes.extend(self.wall_seconds.to_be_bytes());
        bytes.extend(self.nonce.to_be_bytes());
        bytes.extend(service);
        let id = self.node_id.as_bytes();
        let id = id.get(..NodeId::CHARACTERS_MAX).unwrap_or(id);
        bytes.push(id.len() as u8);
        bytes.extend(id);
        bytes.resize(SIGNED_BYTES, 0);
        let tag = keyring.beacon_tag(&bytes);
        bytes.extend(tag);
        bytes
    }

    /// Cheap tests first: who floods us pays more than we do.
    pub(super) fn decode(bytes: &[u8], service: &ServiceHash, keyring: &Keyring) -> Result<Self, Refused> {
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| Refused::NotABeacon)?;
        let (signed, tag) = bytes.split_at(SIGNED_BYTES);
        let mut rest = signed;
        if take::<4>(&mut rest)? != MAGIC || take::<1>(&mut rest)? != [VERSION] {
            return Err(Refused::NotABeacon);
        }
        let [kind] = take(&mut rest)?;
        let kind = Kind::of(kind).ok_or(Refused::NotABeacon)?;
        let gossip_port = u16::from_be_bytes(take(&mut rest)?);
        let wall_seconds = u64::from_be_bytes(take(&mut rest)?);
        let nonce = u64::from_be_bytes(take(&mut rest)?);
        if take::<16>(&mut rest)? != *service {
            return Err(Refused::OtherName);
        }
        if !keyring.verify_beacon(signed, tag) {
            return Err(Refused::WrongTag);
        }
        let [length] = take(&mut rest)?;
        let id = take::<{ NodeId::CHARACTERS_MAX }>(&mut rest)?;
        let id = id.get(..usize::from(length)).and_then(|id| std::str::from_utf8(id).ok());
        let id = id.filter(|id| NodeId::new(id).is_ok()).ok_or(Refused::NotABeacon)?;
        Ok(Self { kind, gossip_port, wall_seconds, nonce, node_id: id.to_owned() })
    }
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Beacon => 1,
            Self::Acknowledgement => 2,
            Self::Farewell => 3,
            Self::Question => 4,
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [Self::Beacon, Self::Acknowledgement, Self::Farewell, Self::Question];
        all.into_iter().find(|kind| kind.number() == number)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refused> {
    let (taken, left) = rest.split_first_chunk().ok_or(Refused::NotABeacon)?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::secret::Secret;

    const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const TWO: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

    fn ring(cluster: &str, keys: &[&str]) -> Keyring {
        let secrets: Vec<_> = keys.iter().copied().map(Secret::new).collect();
        Keyring::new(cluster, &secrets).unwrap()
    }

    fn beacon() -> Beacon {
        Beacon {
            kind: Kind::Beacon,
            gossip_port: 10_101,
            wall_seconds: 1_700_000_000,
            nonce: 7,
            node_id: "node-1.west_".to_owned(),
        }
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let (service, keyring) = (service_hash("a"), ring("c", &[ONE]));
        for kind in [Kind::Beacon, Kind::Acknowledgement, Kind::Farewell, Kind::Question] {
            let sent = Beacon { kind, ..beacon() };
            let bytes = sent.encode(&service, &keyring);
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(Beacon::decode(&bytes, &service, &keyring), Ok(sent));
        }
    }

    #[track_caller]
    fn check(service: &str, keyring: &Keyring, expected: Result<(), Refused>) {
        let bytes = beacon().encode(&service_hash("a"), &ring("c", &[ONE]));
        assert_eq!(Beacon::decode(&bytes, &service_hash(service), keyring).map(drop), expected);
    }

    #[test]
    fn another_name_key_or_cluster_is_refused() {
        check("a", &ring("c", &[ONE]), Ok(()));
        check("a", &ring("c", &[TWO, ONE]), Ok(()));
        check("b", &ring("c", &[ONE]), Err(Refused::OtherName));
        check("a", &ring("c", &[TWO]), Err(Refused::WrongTag));
        check("a", &ring("d", &[ONE]), Err(Refused::WrongTag));
        check("a", &ring("c", &[]), Err(Refused::WrongTag));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        for keys in [&[ONE][..], &[]] {
            let (service, keyring) = (service_hash("a"), ring("c", keys));
            let bytes = beacon().encode(&service, &keyring);
            for bit in 0..BYTES * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Beacon::decode(&flipped, &service, &keyring).is_err(), "bit {bit}");
            }
            for length in (0..BYTES).chain([BYTES + 1, 2 * BYTES]) {
                let mut other = bytes.clone();
                other.resize(length, 0);
                assert_eq!(Beacon::decode(&other, &service, &keyring), Err(Refused::NotABeacon), "length {length}");
            }
        }
    }

    #[test]
    fn a_signed_message_may_still_be_nonsense() {
        let (service, keyring) = (service_hash("a"), ring("c", &[ONE]));
        let signed = |at: usize, byte: u8| {
            let mut bytes = beacon().encode(&service, &keyring);
            bytes.truncate(SIGNED_BYTES);
            bytes[at] = byte;
            let tag = keyring.beacon_tag(&bytes);
            bytes.extend(tag);
            Beacon::decode(&bytes, &service, &keyring)
        };
        for (at, byte) in [(4, 2), (5, 0), (5, 5), (40, 0), (40, 13), (41, b' '), (41, 0xff)] {
            assert_eq!(signed(at, byte), Err(Refused::NotABeacon), "{byte} at {at}");
        }
        assert!(signed(63, 1).is_ok(), "the zeros are for later versions");
    }

    proptest! {
        #[test]
        fn garbage_of_any_length_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let keyring = ring("c", &[]);
            prop_assert!(Beacon::decode(&bytes, &service_hash("a"), &keyring).is_err());
        }
    }
}
