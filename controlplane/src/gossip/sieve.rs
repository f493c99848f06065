//! What of a peer's message reaches chitchat. Pure.
//!
//! A peer has the key, which does not make it well. chitchat remembers every node that anybody
//! names, inflates whatever is sent, ends in a panic where a digest leaves no room for anything
//! else or where versions go back, and passes all of it on. So a message is read here first, and
//! written anew with what has a place: a valid node id, a digest that fits, values of bounded
//! number and size. A delta is taken up to a bound and asked for again from there.
//!
//! The format is that of chitchat 0.11. Absent: who may speak for whom, which the key decides.

use super::frame::{Cursor, GENERATION_MAX, LATER_GENERATION_MAX};
use chitchat::{ChitchatId, Deserializable as _, NodeState, Serializable as _};
use shared::config::model::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

/// Bytes that all nodes may take in a digest: about 1,130 with IPv4 addresses and the longest ids.
/// A whole message has 65,507, and what the digest leaves must hold the largest value.
pub(crate) const DIGEST_BYTES_MAX: usize = 60_000;
/// Fixed part of a node in a digest: heartbeat and two versions.
pub(crate) const DIGEST_NODE_BYTES: usize = 24;
/// Bytes of a delta, unpacked, that are looked at.
const DELTA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one packed block, unpacked; chitchat makes them of 16 KiB.
const BLOCK_BYTES_MAX: usize = 64 * 1024 - 1;
/// Keys of one node, deleted ones included: four times what a node of today publishes.
const KEYS_OF_NODE_MAX: usize = 128;
const KEY_BYTES_MAX: usize = 256;
/// Twice what a node of today publishes.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// What every message begins with; its type follows.
const START: [u8; 3] = [0x53, 0xb0, 0];
const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;

/// What was left out, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Nodes without a valid id, address or generation, each time that one was named.
    pub(crate) invalid_nodes: u64,
    /// Nodes for which there is no room, each time that one was named.
    pub(crate) crowded_nodes: u64,
    /// Values that are too large or too many.
    pub(crate) values: u64,
    /// Deltas of which only the beginning was taken.
    pub(crate) cut_deltas: u64,
}

/// See the module.
pub(crate) struct Sieve {
    ours: ChitchatId,
    cluster_name: String,
    known: BTreeMap<ChitchatId, Known>,
    digest_bytes: usize,
    /// New ones of the message that chitchat may not have seen yet.
    newest: BTreeSet<ChitchatId>,
    hashes: RandomState,
    left_out: LeftOut,
}

#[derive(Default)]
struct Known {
    /// Of the state whose keys are counted.
    versions: (u64, u64),
    /// Hashes of the keys: a collision leaves room for one more.
    keys: BTreeSet<u64>,
}

impl Sieve {
    /// For one life of chitchat.
    pub(crate) fn new(ours: ChitchatId, cluster_name: String) -> Self {
        let digest_bytes = digest_bytes(&ours);
        Self {
            known: BTreeMap::from([(ours.clone(), Known::default())]),
            ours,
            cluster_name,
            digest_bytes,
            newest: BTreeSet::new(),
            hashes: RandomState::new(),
            left_out: LeftOut::default(),
        }
    }

    pub(crate) fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Forgets what chitchat has forgotten. Called with its lock held: of the messages that passed,
    /// at most the newest is still on its way to it.
    pub(crate) fn follow(&mut self, states: &BTreeMap<ChitchatId, NodeState>) {
        let newest = &self.newest;
        self.known.retain(|id, _| states.contains_key(id) || newest.contains(id));
        for (id, state) in states {
            let known = match self.known.get_mut(id) {
                Some(known) => known,
                None => self.known.entry(id.clone()).or_default(),
            };
            let versions = (state.last_gc_version(), state.max_version());
            if known.versions != versions {
                let keys = state.key_values_including_deleted().map(|(key, _)| self.hashes.hash_one(key));
                *known = Known { versions, keys: keys.collect() };
            }
        }
        self.digest_bytes = self.known.keys().map(digest_bytes).sum();
    }

    /// What of a message passes; `None`: it cannot be read, or says nothing that is wanted.
    pub(crate) fn pass(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.newest.clear();
        let mut rest = Cursor(message);
        let mut passed = Vec::with_capacity(message.len());
        passed.extend_from_slice(&rest.take::<3>().filter(|start| *start == START)?);
        let kind = rest.byte()?;
        passed.push(kind);
        if matches!(kind, SYN | SYN_ACK) {
            self.pass_digest(&mut rest, &mut passed)?;
        }
        match kind {
            SYN => {
                let begin = rest.0;
                if text(&mut rest)? != self.cluster_name {
                    return None;
                }
                passed.extend_from_slice(begin);
            }
            SYN_ACK | ACK => self.pass_delta(&mut rest, &mut passed)?,
            // That we are of another cluster, which the key would have shown.
            _ => return None,
        }
        rest.0.is_empty().then_some(passed)
    }

    fn pass_digest(&mut self, rest: &mut Cursor<'_>, passed: &mut Vec<u8>) -> Option<()> {
        let (mut entries, mut count) = (Vec::new(), 0_u16);
        for _ in 0..u16::from_le_bytes(rest.take()?) {
            let begin = rest.0;
            let id = ChitchatId::deserialize(&mut rest.0).ok()?;
            rest.take::<DIGEST_NODE_BYTES>()?;
            if self.admit(id) {
                entries.extend_from_slice(read_since(begin, rest));
                count += 1;
            }
        }
        passed.extend_from_slice(&count.to_le_bytes());
        passed.extend_from_slice(&entries);
        Some(())
    }

    fn admit(&mut self, id: ChitchatId) -> bool {
        if self.known.contains_key(&id) {
            return true;
        }
        let address = id.gossip_advertise_addr;
        let is_reachable = !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0;
        let is_of_us = id.node_id == self.ours.node_id;
        let generation_max = if is_of_us { LATER_GENERATION_MAX - 1 } else { GENERATION_MAX };
        if !is_reachable || id.generation_id > generation_max || NodeId::new(&id.node_id).is_err() {
            self.left_out.invalid_nodes += 1;
            return false;
        }
        let bytes = digest_bytes(&id);
        if self.digest_bytes + bytes > DIGEST_BYTES_MAX {
            self.left_out.crowded_nodes += 1;
            return false;
        }
        self.digest_bytes += bytes;
        self.newest.insert(id.clone());
        self.known.insert(id, Known::default());
        true
    }

    fn pass_delta(&mut self, rest: &mut Cursor<'_>, passed: &mut Vec<u8>) -> Option<()> {
        let (inflated, is_cut) = inflate(rest)?;
        self.left_out.cut_deltas += u64::from(is_cut);
        let mut taken = Vec::with_capacity(inflated.len());
        let mut steps = Cursor(&inflated);
        let mut subject: Option<Subject> = None;
        while !steps.0.is_empty() {
            let begin = steps.0;
            let Some(step) = Step::read(&mut steps) else {
                // The end may be in the middle of something.
                if is_cut {
                    break;
                }
                return None;
            };
            let bytes = read_since(begin, &steps);
            match step {
                Step::Node(id) => {
                    finish(subject.as_ref(), &mut taken);
                    subject = Some(self.begin(id, bytes, &mut taken));
                }
                Step::KeyValue { key, value_bytes, version } => {
                    let subject = subject.as_mut()?;
                    subject.raise(version)?;
                    let Some(id) = &subject.id else { continue };
                    let fits = key.len() <= KEY_BYTES_MAX && value_bytes <= VALUE_BYTES_MAX;
                    if fits && self.has_room(id, key) {
                        taken.extend_from_slice(bytes);
                        subject.written = version;
                    } else {
                        self.left_out.values += 1;
                    }
                }
                Step::MaxVersion(version) => subject.as_mut()?.raise(version)?,
            }
        }
        finish(subject.as_ref(), &mut taken);
        for block in taken.chunks(BLOCK_BYTES_MAX) {
            passed.push(Block::Plain as u8);
            passed.extend_from_slice(&(block.len() as u16).to_le_bytes());
            passed.extend_from_slice(block);
        }
        passed.push(Block::End as u8);
        Some(())
    }

    /// What follows is about this node. Nobody but ourselves speaks for us, and about nodes that
    /// did not pass there is nothing to say.
    fn begin(&self, id: ChitchatId, bytes: &[u8], taken: &mut Vec<u8>) -> Subject {
        let is_taken = id != self.ours && self.known.contains_key(&id);
        if is_taken {
            taken.extend_from_slice(bytes);
        }
        Subject { id: is_taken.then_some(id), highest: 0, written: 0 }
    }

    fn has_room(&mut self, id: &ChitchatId, key: &str) -> bool {
        let hash = self.hashes.hash_one(key);
        let Some(known) = self.known.get_mut(id) else { return false };
        known.keys.contains(&hash) || known.keys.len() < KEYS_OF_NODE_MAX && known.keys.insert(hash)
    }
}

/// The node that the steps of a delta are about.
struct Subject {
    /// `None`: what is said of it does not pass.
    id: Option<ChitchatId>,
    /// Version that was read, and the one that passed.
    highest: u64,
    written: u64,
}

impl Subject {
    /// `None`: it goes back, which chitchat takes for a fault of its own.
    fn raise(&mut self, version: u64) -> Option<()> {
        let goes_on = version >= self.highest;
        self.highest = version.max(self.highest);
        goes_on.then_some(())
    }
}

/// So that what was left out is not asked for again.
fn finish(subject: Option<&Subject>, taken: &mut Vec<u8>) {
    if let Some(Subject { id: Some(_), highest, written }) = subject
        && highest > written
    {
        taken.push(Step::MAX_VERSION);
        taken.extend_from_slice(&highest.to_le_bytes());
    }
}

/// What a delta is made of.
enum Step<'b> {
    /// What follows is about this node.
    Node(ChitchatId),
    KeyValue {
        key: &'b str,
        value_bytes: usize,
        version: u64,
    },
    /// Nothing else is known up to this version.
    MaxVersion(u64),
}

impl<'b> Step<'b> {
    const NODE: u8 = 0;
    const KEY_VALUE: u8 = 1;
    const MAX_VERSION: u8 = 2;

    fn read(cursor: &mut Cursor<'b>) -> Option<Self> {
        match cursor.byte()? {
            Self::NODE => {
                let id = ChitchatId::deserialize(&mut cursor.0).ok()?;
                // Version of its last deletions, and the version that this goes on from.
                cursor.take::<16>()?;
                Some(Self::Node(id))
            }
            Self::KEY_VALUE => {
                let (key, value) = (text(cursor)?, text(cursor)?);
                let version = cursor.number()?;
                let _deletion = cursor.byte()?;
                Some(Self::KeyValue { key, value_bytes: value.len(), version })
            }
            Self::MAX_VERSION => cursor.number().map(Self::MaxVersion),
            _ => None,
        }
    }
}

/// How a part of a delta is packed.
enum Block {
    End = 0,
    Packed = 1,
    Plain = 2,
}

/// The steps of a delta, and whether there are more than were taken.
fn inflate(rest: &mut Cursor<'_>) -> Option<(Vec<u8>, bool)> {
    let mut unpacker = zstd::bulk::Decompressor::new().ok()?;
    let (mut inflated, mut is_cut) = (Vec::new(), false);
    let mut block = Vec::new();
    loop {
        let kind = rest.byte()?;
        if kind == Block::End as u8 {
            return Some((inflated, is_cut));
        }
        let length = usize::from(u16::from_le_bytes(rest.take()?));
        let (bytes, after) = rest.0.split_at_checked(length)?;
        rest.0 = after;
        let room = DELTA_BYTES_MAX - inflated.len();
        if kind == Block::Plain as u8 {
            block.clear();
            block.extend_from_slice(bytes);
        } else if kind != Block::Packed as u8 {
            return None;
        } else if room > 0 {
            block.resize(BLOCK_BYTES_MAX, 0);
            let unpacked = unpacker.decompress_to_buffer(bytes, block.as_mut_slice()).ok()?;
            block.truncate(unpacked);
        }
        let taken = block.get(..room).unwrap_or(&block);
        is_cut |= taken.len() < block.len();
        inflated.extend_from_slice(taken);
    }
}

fn text<'b>(cursor: &mut Cursor<'b>) -> Option<&'b str> {
    let length = usize::from(u16::from_le_bytes(cursor.take()?));
    let (bytes, after) = cursor.0.split_at_checked(length)?;
    cursor.0 = after;
    std::str::from_utf8(bytes).ok()
}

/// What was read of `begin` until now.
fn read_since<'b>(begin: &'b [u8], cursor: &Cursor<'_>) -> &'b [u8] {
    begin.get(..begin.len().saturating_sub(cursor.0.len())).unwrap_or_default()
}

/// Of one node.
pub(crate) fn digest_bytes(id: &ChitchatId) -> usize {
    id.serialized_len() + DIGEST_NODE_BYTES
}

#[cfg(test)]
mod tests;
