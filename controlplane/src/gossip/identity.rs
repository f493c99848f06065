//! Who this node is: an id that stays, and a generation that grows with every start.
//!
//! Both are kept in the state directory, the generation before it is used. A node without such a
//! folder has its host's name and the time of day; should that go backwards, the others' memory
//! of a later generation is what it starts above (see `twin`).

use super::frame::LATER_GENERATION_MAX;
use crate::state_dir::{StateDir, StateDirError};
use shared::config::model::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Names in the state directory.
const ID_FILE: &str = "node.id";
const GENERATION_FILE: &str = "node.generation";
/// A generation has at most 20 digits; an id is shorter.
const FILE_BYTES_MAX: u64 = 64;
/// Drawn characters at the end of a made id.
const SUFFIX_CHARACTERS: usize = 4;

/// The id, and where generations come from.
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) generations: Generations,
}

/// Gives out generations, each higher than all before it.
pub struct Generations {
    last: u64,
    dir: Option<Arc<StateDir>>,
}

impl Generations {
    /// Above `last`, kept nowhere.
    pub fn after(last: u64) -> Self {
        Self { last, dir: None }
    }

    /// The next one: higher than any before, than `above` as far as that can be true, and than the time
    /// of day in milliseconds was. It is on disk when this returns, unless the error says otherwise.
    pub fn next(&mut self, above: u64, wall: Duration) -> (u64, Result<(), StateDirError>) {
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let above = if above < LATER_GENERATION_MAX { above } else { 0 };
        self.last = self.last.max(above).saturating_add(1).max(wall_ms);
        let text = self.last.to_string();
        let kept = self.dir.as_ref().map_or(Ok(()), |dir| dir.replace(GENERATION_FILE, text.as_bytes()));
        (self.last, kept)
    }
}

/// Finds the id out, or makes one and keeps it. `random` is used for a made one only. What could
/// not be read or kept is said in `remarks`; the node runs all the same.
pub(crate) fn establish(
    configured: Option<&NodeId>,
    dir: Option<&Arc<StateDir>>,
    host_name: &str,
    random: u32,
    remarks: &mut Vec<String>,
) -> Identity {
    let last = dir.and_then(|dir| read(dir, GENERATION_FILE, remarks)).and_then(|text| text.parse().ok()).unwrap_or(0);
    let generations = Generations { last, dir: dir.cloned() };
    if let Some(id) = configured {
        return Identity { id: id.clone(), generations };
    }
    let Some(dir) = dir else { return Identity { id: id_of_host(host_name), generations } };
    if let Some(id) = read(dir, ID_FILE, remarks).and_then(|text| NodeId::new(text.trim()).ok()) {
        return Identity { id, generations };
    }
    let id = made_id(host_name, random);
    if let Err(error) = dir.replace(ID_FILE, id.as_str().as_bytes()) {
        remarks.push(format!("{error}; the node has the id {} until it ends and another one afterwards", id.as_str()));
    }
    Identity { id, generations }
}

fn read(dir: &StateDir, name: &str, remarks: &mut Vec<String>) -> Option<String> {
    match dir.read(name, FILE_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes?).ok(),
        Err(error) => {
            remarks.push(format!("{error}; it is made anew"));
            None
        }
    }
}

/// The host's name as it is where an orchestrator numbers its nodes; otherwise with something
/// drawn behind it, since names of hosts differ in their beginnings, and several nodes may run on
/// one host.
fn made_id(host_name: &str, random: u32) -> NodeId {
    let whole = id_of_host(host_name);
    let is_numbered = whole
        .as_str()
        .rsplit_once('-')
        .map_or(whole.as_str(), |(_, ordinal)| ordinal)
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if is_numbered {
        return whole;
    }
    let start = end_of(whole.as_str(), NodeId::CHARACTERS_MAX - SUFFIX_CHARACTERS - 1);
    let suffix = random & 0xffff;
    NodeId::new(&format!("{start}-{suffix:04x}")).unwrap_or(whole)
}

/// The end of the host's name, which is the part that differs (an ordinal, a pod's suffix).
fn id_of_host(host_name: &str) -> NodeId {
    let label = host_name.split('.').next().unwrap_or_default();
    let label = label.strip_prefix("deepintshield-").unwrap_or(label);
    let valid: String = label.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
    NodeId::new(end_of(&valid, NodeId::CHARACTERS_MAX))
        .unwrap_or_else(|_| NodeId::new("node").expect("four letters are an id"))
}

/// The last characters of an ASCII text, without hyphens at its ends.
fn end_of(text: &str, characters: usize) -> &str {
    text.get(text.len().saturating_sub(characters)..).unwrap_or_default().trim_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::tests::Scratch;

    fn open(scratch: &Scratch) -> Arc<StateDir> {
        Arc::new(StateDir::open(&scratch.0).unwrap())
    }

    fn identity(configured: Option<&str>, dir: Option<&Arc<StateDir>>, host_name: &str, random: u32) -> Identity {
        let mut remarks = Vec::new();
        let configured = configured.map(|id| NodeId::new(id).unwrap());
        let identity = establish(configured.as_ref(), dir, host_name, random, &mut remarks);
        assert_eq!(remarks, Vec::<String>::new());
        identity
    }

    #[test]
    fn hosts_become_ids_of_twelve_characters() {
        for (host, id) in [
            ("gateway", "gateway-00ab"),
            ("gateway-7f9c-x2x4q.example.com", "c-x2x4q-00ab"),
            ("deepintshield-0", "0"),
            ("gateway-12", "gateway-12"),
            ("a-very-long-stateful-set-3", "ateful-set-3"),
            ("4f5e6d7c8b9a", "d7c8b9a-00ab"),
            ("", "node-00ab"),
            ("---", "node-00ab"),
            ("ünïcode", "ncode-00ab"),
        ] {
            let scratch = Scratch::new();
            assert_eq!(identity(None, Some(&open(&scratch)), host, 0xab).id.as_str(), id, "{host}");
        }
    }

    #[test]
    fn an_id_is_made_once_and_a_configured_one_goes_first() {
        let scratch = Scratch::new();
        let dir = open(&scratch);
        assert_eq!(identity(None, Some(&dir), "gateway", 1).id.as_str(), "gateway-0001");
        assert_eq!(identity(None, Some(&dir), "renamed", 2).id.as_str(), "gateway-0001");
        assert_eq!(identity(Some("mine"), Some(&dir), "gateway", 3).id.as_str(), "mine");
        assert_eq!(identity(None, None, "gateway", 4).id.as_str(), "gateway");
    }

    #[test]
    fn nobody_drives_a_node_to_the_end_of_all_generations() {
        let mut generations = Generations::after(5);
        let wall = Duration::from_millis(7);
        assert_eq!(generations.next(u64::MAX, wall).0, 7);
        assert_eq!(generations.next(LATER_GENERATION_MAX, wall).0, 8);
        assert_eq!(generations.next(LATER_GENERATION_MAX - 1, wall).0, LATER_GENERATION_MAX);
        assert_eq!(generations.next(0, wall).0, LATER_GENERATION_MAX + 1, "and a long way to go");
    }

    #[test]
    fn generations_grow_whatever_the_time_of_day_does() {
        let scratch = Scratch::new();
        let dir = open(&scratch);
        let next = |above, wall_ms| {
            let mut generations = identity(Some("a"), Some(&dir), "", 0).generations;
            let (generation, kept) = generations.next(above, Duration::from_millis(wall_ms));
            kept.unwrap();
            generation
        };
        assert_eq!(next(0, 1_000), 1_000);
        assert_eq!(next(0, 5_000), 5_000);
        assert_eq!(next(0, 2_000), 5_001, "the clock was set back");
        assert_eq!(next(9_000, 2_000), 9_001, "others know a later one");
        assert_eq!(next(0, 2_000), 9_002);
    }

    #[test]
    fn damaged_files_cost_a_remark_and_a_new_id() {
        let scratch = Scratch::new();
        let dir = open(&scratch);
        dir.replace(ID_FILE, b"much too long to be an id").unwrap();
        dir.replace(GENERATION_FILE, &[b'9'; 100]).unwrap();
        let mut remarks = Vec::new();
        let mut found = establish(None, Some(&dir), "gateway", 7, &mut remarks);
        assert_eq!((found.id.as_str(), remarks.len()), ("gateway-0007", 1));
        assert_eq!(found.generations.next(0, Duration::from_millis(8)).0, 8);
    }
}
