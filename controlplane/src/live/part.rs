//! What the control loop holds of the live configuration: the engine where there is a store, and a
//! document to look at where the file is all there is.

use super::engine::{Command, Doors, Engine, EngineSettings, Others, PeerHead, Standing, Told};
use super::entity::Entities;
use super::handle::{ASKS_WAITING_MAX, Ask, Document, Live, Refused};
use super::kept::Kept;
use super::proposal::Allowed;
use super::reading::Reading;
use super::revision::{Digest, Head};
use super::seal::{Sealer, hide};
use super::split::Parts;
use super::wire::digest_of;
use crate::compile::NodeFacts;
use crate::gossip::values::ConfigurationMark;
use crate::gossip::wire::NodeMessage;
use crate::last_good::EncryptionKey;
use crate::member::{Health, View};
use crate::state_dir::{StateDir, random_key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use shared::clock::Clock;
use shared::config::model::{ConfigStore, StoreRules};
use shared::secret::Secret;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Which messages between nodes are about revisions.
pub(crate) const TOPIC: u8 = 17;
/// Messages of other nodes that wait for the engine; what does not fit is asked for again.
const MESSAGES_MAX: usize = 256;
/// What the engine has told and the loop has not done yet.
const TOLD_MAX: usize = 64;
/// Changes of the file that wait.
const COMMANDS_MAX: usize = 4;
/// Where a node that is alone keeps the key that it made for its secrets.
const KEY_FILE: &str = "encryption.key";

/// See the module.
pub(crate) struct LivePart {
    handle: Live,
    document: Option<watch::Sender<Arc<Document>>>,
    told: mpsc::Receiver<Told>,
    commands: Option<mpsc::Sender<Command>>,
    peers: watch::Sender<Vec<PeerHead>>,
    messages: mpsc::Sender<NodeMessage>,
    /// What the cores were handed.
    pub(crate) published: Head,
    pub(crate) standing: Standing,
    rules: StoreRules,
}

/// What a node with a store begins with.
pub(crate) struct StoreStart {
    pub(crate) store: ConfigStore,
    pub(crate) rules: StoreRules,
    pub(crate) parts: Parts,
    pub(crate) file_name: String,
    pub(crate) is_clustered: bool,
    pub(crate) facts: Arc<NodeFacts>,
    pub(crate) state_dir: Option<Arc<StateDir>>,
    pub(crate) clock: Clock,
}

impl LivePart {
    /// The file is all there is: it can be looked at, and nothing else.
    pub(crate) fn of_file() -> Self {
        let (mut ends, part) = Self::channels(StoreRules::default());
        tokio::spawn(async move {
            while let Some(ask) = ends.asks.recv().await {
                refuse(ask);
            }
        });
        Self { document: Some(ends.document), commands: None, ..part }
    }

    /// The store is where the configuration is. To be called inside of the runtime.
    pub(crate) fn of_store(start: StoreStart, key: Option<&EncryptionKey>) -> Self {
        let StoreStart { store, rules, parts, file_name, is_clustered, facts, state_dir, clock } = start;
        let others = match (&store, is_clustered) {
            (ConfigStore::Postgres(_), _) => Others::ByStore,
            (ConfigStore::Sqlite { .. }, true) => Others::ByGossip,
            (ConfigStore::Sqlite { .. }, false) => Others::Nobody,
        };
        let made = if key.is_none() && others == Others::Nobody { own_key(state_dir.as_deref()) } else { None };
        let sealer = key.or(made.as_ref()).map(|key| Arc::new(Sealer::new(key)));
        let allowed = Allowed::new(&rules.references, &parts.entities);
        let settings =
            EngineSettings { node: facts.node_id.clone(), others, is_imported: rules.is_imported, file_name, clock };
        let (ends, part) = Self::channels(rules);
        let reading = Reading { local: parts.local, sealer, facts };
        let file = (parts.entities, allowed);
        let engine = Engine::new(settings, crate::store::open(&store), reading, file, Kept::new(state_dir), ends);
        tokio::spawn(engine.run());
        part
    }

    fn channels(rules: StoreRules) -> (Doors, Self) {
        let nothing =
            Document { head: Head::default(), entities: Arc::default(), is_writable: Err(STARTING.to_owned()) };
        let (document, seen) = watch::channel(Arc::new(nothing));
        let (ask_sender, asks) = mpsc::channel(ASKS_WAITING_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (peer_sender, peers) = watch::channel(Vec::new());
        let (message_sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (told_sender, told) = mpsc::channel(TOLD_MAX);
        let part = Self {
            handle: Live::new(seen, ask_sender),
            document: None,
            told,
            commands: Some(command_sender),
            peers: peer_sender,
            messages: message_sender,
            published: Head::default(),
            standing: Standing::default(),
            rules,
        };
        (Doors { document, asks, commands, peers, messages, told: told_sender }, part)
    }

    /// For the admin interface.
    pub(crate) fn handle(&self) -> Live {
        self.handle.clone()
    }

    /// Whether there is a store.
    pub(crate) fn has_store(&self) -> bool {
        self.commands.is_some()
    }

    /// What the engine wants done next; never comes where there is none.
    pub(crate) async fn told(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// Another node has something to say about revisions.
    pub(crate) fn heard(&self, message: NodeMessage) {
        // Whoever is not heard now says it again.
        let _ = self.messages.try_send(message);
    }

    /// Gossip has another view.
    pub(crate) fn look(&self, view: &View) {
        let alive = view.members.iter().filter(|member| matches!(member.health, Health::Healthy | Health::Suspect));
        let peers: Vec<PeerHead> = alive
            .map(|member| PeerHead {
                id: member.id.clone(),
                address: member.address,
                head: head_of(&member.values.configuration),
                has_told: !member.values.about.version.is_empty(),
            })
            .collect();
        self.peers.send_if_modified(|before| {
            let is_other = *before != peers;
            *before = peers;
            is_other
        });
    }

    /// The file was read again. True: its shared part is for the store to say.
    pub(crate) fn file_changed(&self, parts: Parts, number: u64, node: &str) -> bool {
        if let Some(commands) = &self.commands {
            let allowed = Allowed::new(&self.rules.references, &parts.entities);
            let command = Command::File { local: parts.local, entities: parts.entities, allowed };
            if commands.try_send(command).is_err() {
                tracing::warn!("the configuration engine is busy; the file is looked at again when it changes next");
            }
            return true;
        }
        self.show_file(parts.entities, number, node);
        false
    }

    /// The document is what the file says, without its secrets.
    pub(crate) fn show_file(&self, mut entities: Entities, number: u64, node: &str) {
        let Some(document) = &self.document else { return };
        for (id, value) in &mut entities {
            hide(id.kind, Arc::make_mut(value));
        }
        let head = Head { number, node: node.to_owned(), digest: Digest::default() };
        document.send_replace(Arc::new(Document {
            head,
            entities: Arc::new(entities),
            is_writable: Err(READ_ONLY.to_owned()),
        }));
    }
}

const STARTING: &str = "the node is starting";
const READ_ONLY: &str = "this node goes by its configuration file: change that, or enable config_store";

fn refuse(ask: Ask) {
    // Whoever asked may be gone by now.
    match ask {
        Ask::Propose(_, answer) => drop(answer.send(Err(Refused::ReadOnly(READ_ONLY.to_owned())))),
        Ask::History { answer, .. } => drop(answer.send(Ok(Vec::new()))),
        Ask::Revision(_, answer) => drop(answer.send(Ok(None))),
    }
}

/// As gossip tells of it.
pub(crate) fn mark_of(head: &Head) -> ConfigurationMark {
    ConfigurationMark { epoch: head.number, author: head.node.clone(), hash: head.digest.to_string() }
}

/// `None` for the mark of a file.
fn head_of(mark: &ConfigurationMark) -> Option<Head> {
    let digest = digest_of(&mark.hash).filter(|_| mark.epoch > 0)?;
    Some(Head { number: mark.epoch, node: mark.author.clone(), digest })
}

/// Nobody else has to open what this node seals.
fn own_key(dir: Option<&StateDir>) -> Option<EncryptionKey> {
    const BYTES_MAX: u64 = 4 * 1024;
    let dir = dir?;
    let kept = dir.read(KEY_FILE, BYTES_MAX).map(|bytes| bytes.and_then(|bytes| String::from_utf8(bytes).ok()));
    let text = match kept {
        Ok(Some(text)) => Ok(text),
        Ok(None) => {
            let text = BASE64.encode(random_key().ok()?);
            dir.replace(KEY_FILE, text.as_bytes()).map(|()| text)
        }
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => EncryptionKey::new(Secret::new(text.trim())).ok(),
        Err(error) => {
            tracing::warn!("{error}; secrets cannot be sealed without DEEPINTSHIELD_ENCRYPTION_KEY");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_gossip_and_the_mark_of_a_file_is_none() {
        let head = Head { number: 7, node: "n".into(), digest: Digest([3; 32]) };
        assert_eq!(head_of(&mark_of(&head)), Some(head));
        let file = ConfigurationMark { epoch: 7, author: "n".into(), hash: "0123456789abcdef".into() };
        assert_eq!(head_of(&file), None);
        assert_eq!(head_of(&mark_of(&Head::default())), None);
    }

    #[test]
    fn the_key_that_a_node_makes_stays() {
        let dir = crate::state_dir::tests::Scratch::new();
        let dir = StateDir::open(&dir.0).unwrap();
        let (first, second) = (own_key(Some(&dir)).unwrap(), own_key(Some(&dir)).unwrap());
        assert!(first.derive(b"a") == second.derive(b"a"));
        assert!(own_key(None).is_none());
    }
}
