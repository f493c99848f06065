//! The bytes around the last good snapshot: magic, format, layout, lengths, checksum.
//!
//! Knows nothing of what is inside. Every byte is covered by the checksum, so that a torn or
//! flipped file never loads; whoever can write the file can also write a checksum, and what that
//! person must not be able to do is guarded by the seals inside.

use ring::digest;

/// Largest file that is read or written.
pub(crate) const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

const MAGIC: &[u8; 16] = b"deepintshield lg";
const FORMAT: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
/// Magic, format, layout, length of the description, length of the snapshot.
const HEAD_BYTES: usize = 16 + 4 + 32 + 8 + 8;

/// The source of the records. Its definitions are the layout: another field, type or order is
/// another file.
const RECORDS: &str = include_str!("../../../shared/src/snapshot.rs");
const ROUTING_RECORDS: &str = include_str!("../../../shared/src/snapshot/routing.rs");
const MODEL_LIST: &str = include_str!("../../../shared/src/snapshot/model_list.rs");
/// With its code: an index that was made with another hash finds nothing.
const NAME_INDEX: &str = include_str!("../../../shared/src/snapshot/names.rs");

/// Why bytes are not a last good snapshot. Nothing was taken from them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Not our file at all.
    #[error("it is not a snapshot file")]
    Magic,
    /// Written by another version of this program.
    #[error("it was written by another version of this program")]
    Version,
    /// Shorter or longer than it says.
    #[error("it is cut off or has bytes too many")]
    Length,
    /// Some byte changed since it was written.
    #[error("its checksum is wrong")]
    Checksum,
}

/// Puts a description and a snapshot into one checked file.
pub(crate) fn encode(description: &[u8], snapshot: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + description.len() + snapshot.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&layout());
    bytes.extend_from_slice(&(description.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(snapshot.len() as u64).to_le_bytes());
    bytes.extend_from_slice(description);
    bytes.extend_from_slice(snapshot);
    let checksum = sha256(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Takes description and snapshot out again, after every check.
pub(crate) fn decode(bytes: &[u8]) -> Result<(&[u8], &[u8]), FrameFault> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(FrameFault::Magic)?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or(FrameFault::Length)?;
    let (written_layout, rest) = rest.split_first_chunk::<32>().ok_or(FrameFault::Length)?;
    if u32::from_le_bytes(*format) != FORMAT || *written_layout != layout() {
        return Err(FrameFault::Version);
    }
    let (description_length, rest) = rest.split_first_chunk::<8>().ok_or(FrameFault::Length)?;
    let (snapshot_length, rest) = rest.split_first_chunk::<8>().ok_or(FrameFault::Length)?;
    let (content, checksum) = rest.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FrameFault::Length)?;
    let description_length =
        usize::try_from(u64::from_le_bytes(*description_length)).map_err(|_| FrameFault::Length)?;
    let snapshot_length = usize::try_from(u64::from_le_bytes(*snapshot_length)).map_err(|_| FrameFault::Length)?;
    let (description, snapshot) = content.split_at_checked(description_length).ok_or(FrameFault::Length)?;
    if snapshot.len() != snapshot_length {
        return Err(FrameFault::Length);
    }
    let checked = bytes.len().checked_sub(CHECKSUM_BYTES).and_then(|end| bytes.get(..end)).ok_or(FrameFault::Length)?;
    if sha256(checked) != *checksum {
        return Err(FrameFault::Checksum);
    }
    Ok((description, snapshot))
}

/// Plain SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

/// Tells apart every two shapes of the records, and byte orders. Comments do not count, so that
/// a better sentence in that file does not make every node forget its snapshot.
fn layout() -> [u8; 32] {
    let definitions = RECORDS
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("pub enum SnapshotError"))
        .chain(ROUTING_RECORDS.lines().map(str::trim))
        .chain(MODEL_LIST.lines().chain(NAME_INDEX.lines()).map(str::trim))
        .filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(if cfg!(target_endian = "big") { b"big" } else { b"little" });
    for line in definitions {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(hash.finish().as_ref());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_covers_the_last_record() {
        let definitions = RECORDS.split("pub enum SnapshotError").next().unwrap();
        assert!(definitions.contains("pub struct SnapshotRecord"));
        assert!(RECORDS.contains("pub enum SnapshotError"));
    }

    #[test]
    fn another_program_version_is_told_apart_from_damage() {
        let mut bytes = encode(b"d", b"s");
        bytes[16] ^= 1;
        assert_eq!(decode(&bytes), Err(FrameFault::Version));
        assert_eq!(decode(b"{}"), Err(FrameFault::Magic));
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(description: Vec<u8>, snapshot: Vec<u8>) {
            let bytes = encode(&description, &snapshot);
            prop_assert_eq!(decode(&bytes), Ok((&description[..], &snapshot[..])));
        }

        #[test]
        fn a_file_cut_anywhere_never_loads(description: Vec<u8>, snapshot: Vec<u8>, at: prop::sample::Index) {
            let bytes = encode(&description, &snapshot);
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn a_flipped_bit_anywhere_never_loads(description: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = encode(&description, b"snapshot");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn appended_bytes_never_load(more in prop::collection::vec(any::<u8>(), 1..64)) {
            let mut bytes = encode(b"description", b"snapshot");
            bytes.extend_from_slice(&more);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_lengths_never_panic(description_length: u64, snapshot_length: u64) {
            let mut bytes = encode(b"description", b"snapshot");
            bytes[52..60].copy_from_slice(&description_length.to_le_bytes());
            bytes[60..68].copy_from_slice(&snapshot_length.to_le_bytes());
            let end = bytes.len() - CHECKSUM_BYTES;
            let checksum = sha256(&bytes[..end]);
            bytes[end..].copy_from_slice(&checksum);
            prop_assert_eq!(decode(&bytes).is_ok(), description_length == 11 && snapshot_length == 8);
        }
    }
}
