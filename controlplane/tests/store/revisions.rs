//! Revisions to try stores with, and what has to be true of a store after anything.

use controlplane::live::{Change, Digest, Entity, EntityId, EntityKind, Head, Revision, Store, StoreError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of one test, removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("deepintshield-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Whether this process may do anything.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs `test` as the control thread would.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

pub(crate) fn id(name: &str) -> EntityId {
    EntityId::new(EntityKind::RateLimit, name)
}

pub(crate) fn set(name: &str, value: Value) -> Change {
    Change { id: id(name), value: Some(value) }
}

pub(crate) fn removed(name: &str) -> Change {
    Change { id: id(name), value: None }
}

/// What stands on `head` next.
pub(crate) fn next(head: &Head, changes: Vec<Change>) -> Revision {
    Revision {
        number: head.number + 1,
        node: "n1".into(),
        author: "ann".into(),
        at_ms: 1_790_000_000_000,
        comment: "why".into(),
        parent: head.digest,
        changes,
    }
}

/// A chain of `count` revisions on `head`; each sets the same three limits to its number.
pub(crate) fn chain(head: &Head, node: &str, count: u64) -> Vec<Revision> {
    let mut head = head.clone();
    let mut revisions = Vec::new();
    for _ in 0..count {
        let number = head.number + 1;
        let changes = ["a", "b", "c"].map(|name| set(name, json!({"by": node, "number": number})));
        let revision = Revision { node: node.into(), ..next(&head, changes.to_vec()) };
        head = revision.head();
        revisions.push(revision);
    }
    revisions
}

pub(crate) async fn append_all(store: &dyn Store, revisions: &[Revision]) {
    for revision in revisions {
        store.append(revision).await.unwrap();
    }
}

/// The entities by name.
pub(crate) fn values(entities: Vec<Entity>) -> BTreeMap<EntityId, Value> {
    entities.into_iter().map(|entity| (entity.id, entity.value)).collect()
}

/// The head, after it was checked that everything fits: revisions follow each other without a gap
/// up to the head, each change says what it replaced, and the entities are what they make together.
pub(crate) async fn consistent(store: &dyn Store) -> Result<Head, StoreError> {
    let (head, entities) = store.state().await?;
    let mut made: BTreeMap<EntityId, Value> = BTreeMap::new();
    let mut before = Head::default();
    loop {
        let page = store.after(before.number, 100).await?;
        if page.is_empty() {
            break;
        }
        for revision in page {
            assert_eq!((revision.parent, revision.number), (before.digest, before.number + 1));
            let recorded = store.revision(revision.digest()).await?.expect("it was just there");
            assert!(!recorded.is_superseded);
            for (change, replaced) in revision.changes.iter().zip(recorded.before) {
                let stood = match &change.value {
                    Some(value) => made.insert(change.id.clone(), value.clone()),
                    None => made.remove(&change.id),
                };
                assert!(stood == replaced, "what revision {} replaced", revision.number);
            }
            before = revision.head();
        }
    }
    assert_eq!(before, head);
    assert!(made == values(entities), "the entities are not what the revisions make");
    Ok(head)
}

/// Whether `digest` is there and holds.
pub(crate) async fn holds(store: &dyn Store, digest: Digest) -> bool {
    store.revision(digest).await.unwrap().is_some_and(|recorded| !recorded.is_superseded)
}
