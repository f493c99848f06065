//! What travels between nodes: sealing and opening one frame. Pure.
//!
//! ```text
//! magic 2 · version 1 · key id 4 · cluster tag 8                    in the clear, authenticated
//! sender 12 + 8 · sequence 8 · destination 12 + 8 · nonce 24        in the clear, authenticated
//! kind 1 · highest version 1 · sender's address 18 · payload        XChaCha20-Poly1305
//! tag 16
//! ```
//!
//! A destination is a node in one of its lives (id and generation), not an address: an address may
//! be translated on the way, and a frame that was recorded must not be good for a node that has
//! started anew since. Who knows an address only sends a ping to nobody in particular, and learns
//! from the answer who is there. Answers go to the address that the sender authenticated, never to
//! the one that a datagram claims to come from.
//!
//! Nothing is decoded or remembered before the tag has verified. Absent: whether a frame was here
//! before, see [`super::replay`].

use super::keyring::{ClusterTag, GossipKey, KeyId, Keyring};
use chacha20poly1305::aead::AeadInOut as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Largest frame that goes as a datagram; fits the usual paths without being cut into fragments.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Largest payload. chitchat fills at most 65,507 bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest frame.
pub(crate) const FRAME_BYTES_MAX: usize = HEADER_BYTES + PRELUDE_BYTES_MAX + PAYLOAD_BYTES_MAX + TAG_BYTES;
/// Smallest frame: an empty payload.
pub(crate) const FRAME_BYTES_MIN: usize = HEADER_BYTES + PRELUDE_BYTES_V1 + TAG_BYTES;
/// Generations are milliseconds since 1970 or little more, those of a clock that is wrong included.
pub(crate) const GENERATION_MAX: u64 = 1 << 53;
/// A generation that others say is ours is believed below this: who can name any must not drive us
/// to the end of them, for the state directory would keep us there.
pub(crate) const LATER_GENERATION_MAX: u64 = 1 << 52;
/// Oldest protocol version that is taken.
pub(crate) const VERSION_MIN: u8 = 1;
/// Newest one. The next one exists in builds that prove that versions can be mixed.
pub(crate) const VERSION_MAX: u8 = if cfg!(feature = "next-protocol") { 2 } else { 1 };

const MAGIC: [u8; 2] = [0xd5, 0x9b];
const HEADER_BYTES: usize = 87;
const PRELUDE_BYTES_V1: usize = 20;
/// Version 2 adds how many frames wait at the sender.
const PRELUDE_BYTES_MAX: usize = PRELUDE_BYTES_V1 + 2;
const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 24;
const NAME_BYTES: usize = 12;

/// A node's id, as frames carry it. Empty: nobody in particular.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeName([u8; NAME_BYTES]);

impl NodeName {
    /// `None`: longer than 12 bytes, or with a zero byte.
    pub fn new(id: &str) -> Option<Self> {
        let mut name = [0; NAME_BYTES];
        name.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        (!id.contains('\0')).then_some(Self(name))
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        write!(f, "{}", text.escape_ascii())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) generation: u64,
}

impl Identity {
    /// Nobody in particular.
    pub(crate) const ANYONE: Self = Self { name: NodeName([0; NAME_BYTES]), generation: 0 };
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who are you, and what time is it? The only frame that may be for nobody in particular.
    Ping,
    /// The answer.
    Pong,
    /// A message of chitchat.
    Gossip,
    /// A message between two nodes; the number says for which part of them.
    Topic(u8),
}

impl Kind {
    /// Lower numbers are the wire's own.
    pub(crate) const TOPIC_MIN: u8 = 16;

    fn number(self) -> u8 {
        match self {
            Self::Ping => 1,
            Self::Pong => 2,
            Self::Gossip => 3,
            Self::Topic(topic) => topic.max(Self::TOPIC_MIN),
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ping),
            2 => Some(Self::Pong),
            3 => Some(Self::Gossip),
            Self::TOPIC_MIN.. => Some(Self::Topic(number)),
            _ => None,
        }
    }
}

/// What is to be sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'p> {
    /// Protocol version to seal with.
    pub(crate) version: u8,
    /// Highest version that the sender speaks.
    pub(crate) speaks: u8,
    pub(crate) from: Identity,
    /// Where the sender is reached.
    pub(crate) address: SocketAddr,
    pub(crate) to: Identity,
    /// Never twice in one life of the sender.
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    /// Frames that wait at the sender; travels from version 2 on.
    pub(crate) queued: u16,
    pub(crate) payload: &'p [u8],
}

/// A frame whose sender has the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) version: u8,
    pub(crate) speaks: u8,
    pub(crate) key: KeyId,
    pub(crate) from: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) to: Identity,
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    /// From version 2 on.
    pub(crate) queued: Option<u16>,
    pub(crate) payload: Vec<u8>,
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not a frame of this protocol; something else talks to this port")]
    NotAFrame,
    #[error("a frame that is too long; something else talks to this port")]
    TooLong,
    #[error("protocol version {0}; update the node that speaks the older one")]
    OtherVersion(u8),
    #[error(
        "a frame without a key; give that node this cluster's gossip.encryption_keys, or take \"insecure\" out of its configuration"
    )]
    WithoutKey,
    #[error("another gossip key (id {0}); compare gossip.encryption_keys of both nodes")]
    OtherKey(KeyId),
    #[error("a frame that was damaged on its way, or made by somebody who has not the key")]
    Damaged,
    #[error("another cluster_name; compare cluster_config.cluster_name of both nodes")]
    OtherCluster,
    #[error("a frame with a body that cannot be read; compare the versions of both nodes")]
    Malformed,
    #[error("our own frame; somebody sends it back, or this node's own address is among its peers")]
    Reflected,
    #[error("a frame in the name of this node; give every node a node_id and a state directory of its own")]
    Namesake,
    #[error("a frame for another node; somebody redirects it, or two nodes share an address")]
    NotForUs,
    #[error("a frame for this node before it was restarted; its sender is told")]
    ForEarlierUs(SocketAddr),
    #[error("a frame that was here before; the network doubles it, or somebody plays it again")]
    Replayed,
    #[error(
        "a frame of a node before it was restarted; if that node was started last, its clock and its state directory went back"
    )]
    OlderGeneration,
    #[error("more nodes than a cluster can have")]
    TooManySenders,
    #[error("a frame for a later start of this node; its clock and its state directory went back")]
    ForLaterUs(u64),
}

impl Refusal {
    /// Names for metrics, by [`Refusal::index`].
    pub(crate) const NAMES: [&'static str; 16] = [
        "refused_not_a_frame",
        "refused_too_long",
        "refused_other_version",
        "refused_without_key",
        "refused_other_key",
        "refused_damaged",
        "refused_other_cluster",
        "refused_malformed",
        "refused_reflected",
        "refused_namesake",
        "refused_not_for_us",
        "refused_for_earlier_us",
        "refused_replayed",
        "refused_older_generation",
        "refused_too_many_senders",
        "refused_for_later_us",
    ];

    /// Its place in [`Refusal::NAMES`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::NotAFrame => 0,
            Self::TooLong => 1,
            Self::OtherVersion(_) => 2,
            Self::WithoutKey => 3,
            Self::OtherKey(_) => 4,
            Self::Damaged => 5,
            Self::OtherCluster => 6,
            Self::Malformed => 7,
            Self::Reflected => 8,
            Self::Namesake => 9,
            Self::NotForUs => 10,
            Self::ForEarlierUs(_) => 11,
            Self::Replayed => 12,
            Self::OlderGeneration => 13,
            Self::TooManySenders => 14,
            Self::ForLaterUs(_) => 15,
        }
    }

    /// Whether the sender has the key, so that closing its connection would only lose more.
    pub(crate) fn is_authentic(self) -> bool {
        self.index() >= Self::Malformed.index()
    }
}

/// Seals a letter. `None`: its payload is longer than [`PAYLOAD_BYTES_MAX`]. The nonce has to be
/// random.
pub(crate) fn seal(key: &GossipKey, letter: &Letter<'_>, nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
    if letter.payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    seal_body(key, letter, nonce, |frame| {
        frame.push(letter.kind.number());
        frame.push(letter.speaks);
        frame.extend_from_slice(&v6(letter.address.ip()).octets());
        frame.extend_from_slice(&letter.address.port().to_le_bytes());
        if letter.version >= 2 {
            frame.extend_from_slice(&letter.queued.to_le_bytes());
        }
        frame.extend_from_slice(letter.payload);
    })
}

/// Seals whatever is written behind the header.
pub(crate) fn seal_body(
    key: &GossipKey,
    letter: &Letter<'_>,
    nonce: [u8; NONCE_BYTES],
    write_body: impl FnOnce(&mut Vec<u8>),
) -> Option<Vec<u8>> {
    let length = HEADER_BYTES + PRELUDE_BYTES_MAX + letter.payload.len() + TAG_BYTES;
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&MAGIC);
    frame.push(letter.version);
    frame.extend_from_slice(&key.id.0);
    frame.extend_from_slice(&key.cluster_tag);
    frame.extend_from_slice(&letter.from.name.0);
    frame.extend_from_slice(&letter.from.generation.to_le_bytes());
    frame.extend_from_slice(&letter.sequence.to_le_bytes());
    frame.extend_from_slice(&letter.to.name.0);
    frame.extend_from_slice(&letter.to.generation.to_le_bytes());
    frame.extend_from_slice(&nonce);
    let header: [u8; HEADER_BYTES] = frame.as_slice().try_into().ok()?;

    write_body(&mut frame);
    let body = frame.get_mut(HEADER_BYTES..)?;
    let tag = key.cipher.encrypt_inout_detached(&nonce.into(), &header, body.into()).ok()?;
    frame.extend_from_slice(&tag);
    Some(frame)
}

/// Opens a frame that reached `us`, who speak versions up to `speaks`. It is opened in its place:
/// until its tag has verified, nothing is copied.
pub(crate) fn open(keyring: &Keyring, us: Identity, speaks: u8, frame: &mut [u8]) -> Result<Opened, Refusal> {
    let header = Header::read(frame, speaks)?;
    let key = keyring.find(header.key).ok_or({
        // Its own id is what tells a frame without a key.
        if header.key == KeyId::NONE { Refusal::WithoutKey } else { Refusal::OtherKey(header.key) }
    })?;
    let (head, sealed) = frame.split_at_mut_checked(HEADER_BYTES).ok_or(Refusal::NotAFrame)?;
    let (body, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(Refusal::NotAFrame)?;
    key.cipher
        .decrypt_inout_detached(&header.nonce.into(), head, body.into(), &(*tag).into())
        .map_err(|_| Refusal::Damaged)?;

    // From here on, whoever sent it has the key.
    if header.cluster_tag != key.cluster_tag {
        return Err(Refusal::OtherCluster);
    }
    if header.from == us {
        return Err(Refusal::Reflected);
    }
    let opened = read_body(&header, body).ok_or(Refusal::Malformed)?;
    let is_for_anyone = opened.to.name.is_empty();
    if is_for_anyone && opened.kind == Kind::Ping || opened.to == us {
        return Ok(opened);
    }
    Err(match opened.to.name == us.name {
        _ if is_for_anyone => Refusal::Malformed,
        true if opened.to.generation > us.generation => Refusal::ForLaterUs(opened.to.generation),
        true => Refusal::ForEarlierUs(opened.address),
        false => Refusal::NotForUs,
    })
}

struct Header {
    version: u8,
    key: KeyId,
    cluster_tag: ClusterTag,
    from: Identity,
    sequence: u64,
    to: Identity,
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    /// The cheap part: what most junk ends at.
    fn read(frame: &[u8], speaks: u8) -> Result<Self, Refusal> {
        let mut cursor = Cursor(frame);
        if cursor.take() != Some(MAGIC) {
            return Err(Refusal::NotAFrame);
        }
        let version = cursor.byte().ok_or(Refusal::NotAFrame)?;
        if !(VERSION_MIN..=speaks).contains(&version) {
            return Err(Refusal::OtherVersion(version));
        }
        if frame.len() < FRAME_BYTES_MIN {
            return Err(Refusal::NotAFrame);
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        cursor.header(version).ok_or(Refusal::NotAFrame)
    }
}

fn read_body(header: &Header, body: &[u8]) -> Option<Opened> {
    let mut cursor = Cursor(body);
    let kind = Kind::of_number(cursor.byte()?)?;
    let speaks = cursor.byte()?;
    let ip = IpAddr::V6(Ipv6Addr::from(cursor.take::<16>()?)).to_canonical();
    let address = SocketAddr::new(ip, u16::from_le_bytes(cursor.take()?));
    let queued = if header.version >= 2 { Some(u16::from_le_bytes(cursor.take()?)) } else { None };
    // Answers go there.
    let is_reachable = !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0;
    let is_sane = header.from.generation.max(header.to.generation) <= GENERATION_MAX;
    (is_reachable && is_sane && !header.from.name.is_empty()).then(|| Opened {
        version: header.version,
        speaks,
        key: header.key,
        from: header.from,
        address,
        to: header.to,
        sequence: header.sequence,
        kind,
        queued,
        payload: cursor.0.to_vec(),
    })
}

/// Reads from the front; `None` at the end.
pub(crate) struct Cursor<'b>(pub(crate) &'b [u8]);

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn identity(&mut self) -> Option<Identity> {
        Some(Identity { name: NodeName(self.take()?), generation: self.number()? })
    }

    fn header(&mut self, version: u8) -> Option<Header> {
        Some(Header {
            version,
            key: KeyId(self.take()?),
            cluster_tag: self.take()?,
            from: self.identity()?,
            sequence: self.number()?,
            to: self.identity()?,
            nonce: self.take()?,
        })
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests;
