//! The task that owns the document where there is a store: proposals in, one after the other, and
//! what other nodes changed; configurations for the cores out.
//!
//! A change is read as a whole, kept by the store, handed to the cores, and told to others, in this
//! order: what was answered is kept, and what was refused is nowhere. What the store has holds, also
//! where this node cannot use it, which it says and goes on with what it has.

mod catching_up;
mod peers;
mod proposals;

use super::entity::{Entities, Entity};
use super::handle::{Ask, Document, EntityFault};
use super::kept::Kept;
use super::proposal::{Allowed, apply};
use super::reading::{Read, Reading};
use super::revision::{Head, Revision};
use super::split::Local;
use super::store::{Store, StoreError};
use crate::compile::Compiled;
use crate::gossip::wire::NodeMessage;
use crate::shared_limits::Messages;
use catching_up::CatchingUp;
pub(crate) use peers::PeerHead;
use peers::Peers;
use shared::clock::{Clock, Nanos};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Revisions that are taken from the store at once.
const REVISIONS_AT_ONCE: u32 = 256;
/// How long the store may take to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a store that failed is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How soon a revision that could not be used is read again: a variable or a file may be there then.
const UNUSABLE_PAUSE: Duration = Duration::from_secs(30);
/// Faults of one revision that are logged.
const FAULTS_LOGGED_MAX: usize = 10;

/// Who else changes the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nobody: this node is alone with its store.
    Nobody,
    /// Nodes with the same store, which orders revisions.
    ByStore,
    /// Nodes with stores of their own, which hear of each other's revisions by gossip.
    ByGossip,
}

/// What the engine tells the control loop.
pub(crate) enum Told {
    /// The cores have to get this. `done` is for when they were handed it.
    Publish { compiled: Box<Compiled>, head: Head, done: oneshot::Sender<()> },
    /// Messages for other nodes.
    Send(Messages),
    /// Why the node should not be called ready, or that it may be.
    Waiting(Option<String>),
    /// How the store does.
    Standing(Standing),
}

/// How the configuration stands, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Where the store is and how it does.
    pub(crate) store: String,
    /// The newest revision that this node knows.
    pub(crate) newest: Head,
    /// Why nothing can be changed here.
    pub(crate) trouble: Option<String>,
    /// Why this node does not use the newest revision.
    pub(crate) unusable: Option<String>,
}

/// What the control loop tells the engine.
pub(crate) enum Command {
    /// The node's file has changed.
    File { local: Local, entities: Entities, allowed: Allowed },
}

/// What the engine has to know.
pub(crate) struct EngineSettings {
    pub(crate) node: String,
    pub(crate) others: Others,
    /// An empty store gets what the file says.
    pub(crate) is_imported: bool,
    /// The file's name, for people.
    pub(crate) file_name: String,
    pub(crate) clock: Clock,
}

/// The engine's ends of its channels.
pub(crate) struct Doors {
    pub(crate) document: watch::Sender<Arc<Document>>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) peers: watch::Receiver<Vec<PeerHead>>,
    pub(crate) messages: mpsc::Receiver<NodeMessage>,
    pub(crate) told: mpsc::Sender<Told>,
}

/// See the module.
pub(crate) struct Engine {
    settings: EngineSettings,
    store: Arc<dyn Store>,
    reading: Arc<Reading>,
    allowed: Arc<Allowed>,
    /// What the file says of what is shared.
    file: Arc<Entities>,
    kept: Kept,
    doors: Doors,
    /// The newest revision, and the entities with it.
    head: Head,
    entities: Arc<Entities>,
    /// The store was seen at `head`; otherwise that comes from the state directory.
    is_seen: bool,
    /// What the cores have.
    read: Option<Arc<Read>>,
    trouble: Option<String>,
    unusable: Option<String>,
    standing: Standing,
    retry_at: Option<Nanos>,
    read_again_at: Option<Nanos>,
    catching_up: CatchingUp,
    peers: Peers,
}

type Bell = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Engine {
    /// Has nothing yet.
    pub(crate) fn new(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        reading: Reading,
        (file, allowed): (Entities, Allowed),
        kept: Kept,
        doors: Doors,
    ) -> Self {
        let catching_up = CatchingUp::begin(settings.others, settings.clock.now());
        Self {
            settings,
            store,
            reading: Arc::new(reading),
            allowed: Arc::new(allowed),
            file: Arc::new(file),
            kept,
            doors,
            head: Head::default(),
            entities: Arc::default(),
            is_seen: false,
            read: None,
            trouble: None,
            unusable: None,
            standing: Standing::default(),
            retry_at: None,
            read_again_at: None,
            catching_up,
            peers: Peers::default(),
        }
    }

    /// Runs until the control loop is gone.
    pub(crate) async fn run(mut self) {
        self.begin().await;
        let mut bell = self.bell();
        loop {
            let next_at = self.next_at();
            let clock = self.settings.clock;
            tokio::select! {
                ask = self.doors.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                command = self.doors.commands.recv() => match command {
                    Some(Command::File { local, entities, allowed }) => self.file_changed(local, entities, allowed).await,
                    None => return,
                },
                // The store may have something new.
                () = &mut bell => {
                    bell = self.bell();
                    self.refresh().await;
                }
                // Another node, directly.
                Some(message) = self.doors.messages.recv() => self.heard(message).await,
                // Gossip has another view.
                Ok(()) = self.doors.peers.changed() => self.look_at_peers().await,
                () = tokio::time::sleep(next_at.since(clock.now())) => self.look().await,
            }
        }
    }

    fn bell(&self) -> Bell {
        let store = Arc::clone(&self.store);
        Box::pin(async move { store.changed().await })
    }

    async fn begin(&mut self) {
        self.say_waiting().await;
        match self.kept.read().await {
            Ok(Some((head, entities))) => (self.head, self.entities) = (head, Arc::new(entities)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}; whether the store has lost something is not noticed at this start"),
        }
        self.refresh().await;
        if !self.is_seen && self.head.number > 0 {
            tracing::warn!(
                revision = self.head.number,
                "serving from the last good configuration, because {}",
                self.trouble.as_deref().unwrap_or("the store was not read")
            );
            self.publish().await;
        }
    }

    fn next_at(&self) -> Nanos {
        let own = [self.retry_at, self.read_again_at, self.kept.next_at(), self.catching_up.next_at()];
        let next = own.into_iter().flatten().chain(self.peers.next_at()).min();
        next.unwrap_or(self.settings.clock.now().after(UNUSABLE_PAUSE))
    }

    /// Something is due.
    async fn look(&mut self) {
        let now = self.settings.clock.now();
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.refresh().await;
        }
        if self.read_again_at.is_some_and(|at| now >= at) {
            self.read_again_at = None;
            self.publish().await;
        }
        self.kept.write(now).await;
        self.exchange().await;
        self.catch_up().await;
    }

    /// Takes over what the store has and this node has not, and hands it to the cores.
    async fn refresh(&mut self) {
        while self.take_newest().await {
            self.publish().await;
        }
        self.catch_up().await;
        self.say_standing().await;
    }

    /// The same for who is about to change something on top of it: the cores get both at once, or this at the
    /// next look. Whoever is always the last to be up to date would otherwise never be the first.
    async fn refresh_to_go_on(&mut self) {
        while self.take_newest().await {
            self.read_again_at = Some(self.settings.clock.now());
            self.show();
        }
    }

    /// False: there was nothing new.
    async fn take_newest(&mut self) -> bool {
        match self.newest().await {
            Ok(Some((head, entities))) => {
                self.is_seen = true;
                self.untroubled();
                (self.head, self.entities) = (head, Arc::new(entities));
                true
            }
            Ok(None) => {
                self.untroubled();
                false
            }
            Err(error) => {
                self.troubled(error.to_string());
                false
            }
        }
    }

    /// `None`: nothing new. Otherwise there may be more.
    async fn newest(&self) -> Result<Option<(Head, Entities)>, StoreError> {
        if self.is_seen && self.trouble.is_none() {
            let revisions = in_time(self.store.after(self.head.number, REVISIONS_AT_ONCE)).await?;
            match revisions.first() {
                None => return Ok(None),
                Some(first) if first.parent == self.head.digest => {
                    let mut entities = Entities::clone(&self.entities);
                    for revision in &revisions {
                        apply(&mut entities, &revision.changes);
                    }
                    let head = revisions.last().map(Revision::head).unwrap_or_default();
                    return Ok(Some((head, entities)));
                }
                Some(_) => {}
            }
        }
        let (head, entities) = in_time(self.store.state()).await?;
        self.check_whole(&head).await?;
        if self.is_seen && head == self.head {
            return Ok(None);
        }
        let entities = entities.into_iter().map(|Entity { id, value }| (id, Arc::new(value))).collect();
        Ok(Some((head, entities)))
    }

    /// A store that has lost what it had once is not believed.
    async fn check_whole(&self, head: &Head) -> Result<(), StoreError> {
        let known = &self.head;
        let is_there = if head.number < known.number {
            false
        } else if head == known || known.number == 0 || self.settings.others == Others::ByGossip {
            true
        } else {
            let found = in_time(self.store.revision(known.digest)).await?;
            found.is_some_and(|recorded| !recorded.is_superseded)
        };
        if is_there {
            return Ok(());
        }
        Err(StoreError::Unusable(format!(
            "it is at revision {} and has lost revision {}, which this node had from it; bring its newest state back, or \
             remove {} from the state directory and restart to go by what it has",
            head.number,
            known.number,
            super::kept::FILE_NAME
        )))
    }

    fn troubled(&mut self, trouble: String) {
        let now = self.settings.clock.now();
        self.retry_at = Some(now.after(RETRY_PAUSE));
        if self.trouble.is_none() {
            tracing::error!(revision = self.head.number, "{trouble}; the node serves on with what it has");
        }
        self.trouble = Some(trouble);
    }

    fn untroubled(&mut self) {
        self.retry_at = None;
        if self.trouble.take().is_some() {
            tracing::info!(revision = self.head.number, "the configuration store can be used again");
        }
    }

    /// Reads the document and hands it to the cores; says why where it cannot be used.
    async fn publish(&mut self) {
        if self.awaits_import() {
            return;
        }
        let (reading, entities) = (Arc::clone(&self.reading), Arc::clone(&self.entities));
        let before = self.read.clone();
        let outcome = blocking(move || reading.read(&entities, before.as_deref())).await;
        match outcome {
            Some(Ok((read, compiled, _))) => self.adopt(read, compiled).await,
            Some(Err(faults)) => self.cannot_use(&faults),
            None => self.cannot_use(&[]),
        }
        self.show();
    }

    async fn adopt(&mut self, read: Read, compiled: Compiled) {
        self.read = Some(Arc::new(read));
        self.unusable = None;
        self.read_again_at = None;
        let (done, is_done) = oneshot::channel();
        let told = Told::Publish { compiled: Box::new(compiled), head: self.head.clone(), done };
        if self.doors.told.send(told).await.is_ok() {
            // Where nobody says so, the node is ending.
            let _ = is_done.await;
        }
        self.kept.want(&self.head, &self.entities);
    }

    fn cannot_use(&mut self, faults: &[EntityFault]) {
        let now = self.settings.clock.now();
        self.read_again_at = Some(now.after(UNUSABLE_PAUSE));
        let first = faults.first().map_or_else(|| "reading it ended in a panic".to_owned(), described);
        let why = format!("revision {} of {} cannot be used on this node: {first}", self.head.number, self.head.node);
        if self.unusable.as_ref() != Some(&why) {
            for fault in faults.iter().take(FAULTS_LOGGED_MAX) {
                tracing::error!("{}", described(fault));
            }
            tracing::error!(faults = faults.len(), "{why}; it goes on with what it has");
        }
        self.unusable = Some(why);
    }

    /// Readers see what holds.
    fn show(&self) {
        let is_writable = self.trouble.clone().map_or(Ok(()), Err);
        let document = Document { head: self.head.clone(), entities: Arc::clone(&self.entities), is_writable };
        self.doors.document.send_replace(Arc::new(document));
    }

    async fn say_standing(&mut self) {
        let standing = Standing {
            store: self.store.describe(),
            newest: self.head.clone(),
            trouble: self.trouble.clone(),
            unusable: self.unusable.clone(),
        };
        if standing != self.standing {
            if standing.trouble != self.standing.trouble {
                self.show();
            }
            self.standing = standing.clone();
            // Nobody listens any more when the node is ending.
            let _ = self.doors.told.send(Told::Standing(standing)).await;
        }
    }

    /// The node's own sections are used at once; of what is shared the store knows better.
    async fn file_changed(&mut self, local: Local, entities: Entities, allowed: Allowed) {
        let (sealer, facts) = (self.reading.sealer.clone(), Arc::clone(&self.reading.facts));
        self.reading = Arc::new(Reading { local, sealer, facts });
        self.allowed = Arc::new(allowed);
        self.file = Arc::new(entities);
        // References are followed again.
        self.read = None;
        if self.is_seen || self.head.number > 0 {
            self.publish().await;
        }
        self.catching_up.try_import_again();
        self.catch_up().await;
        self.say_standing().await;
    }

    /// Where the store holds, the file's shared part is compared with it once, for one warning however
    /// much it is, and not kept any longer.
    async fn compare_with_file(&mut self) {
        if self.head.number == 0 || self.file.is_empty() {
            return;
        }
        let file = std::mem::take(&mut self.file);
        let Some(sealer) = self.reading.sealer.clone() else { return };
        let entities = Arc::clone(&self.entities);
        let differing = blocking(move || {
            let differs = |(id, value): &(&super::EntityId, &Arc<serde_json::Value>)| {
                let Some(ours) = entities.get(*id) else { return true };
                let mut sealed = serde_json::Value::clone(value);
                sealer.seal_all(id, &mut sealed, Some(ours)).is_err() || sealed != **ours
            };
            file.iter().filter(differs).count()
        });
        if let Some(differing @ 1..) = differing.await {
            tracing::warn!(
                entities = differing,
                "{} says something else than the configuration store, which holds; change it through the admin interface",
                self.settings.file_name
            );
        }
    }
}

fn described(fault: &EntityFault) -> String {
    let place = fault.id.as_ref().map(|id| format!("{id}{}: ", fault.pointer)).unwrap_or_default();
    let expected = if fault.expected.is_empty() { String::new() } else { format!(", expected {}", fault.expected) };
    format!("{place}{}{expected}", fault.problem)
}

async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(STORE_TIMEOUT, asked).await.unwrap_or_else(|_| {
        Err(StoreError::Uncertain(format!("it does not answer within {} s", STORE_TIMEOUT.as_secs())))
    })
}

/// On the blocking pool; `None` after a panic, which has logged itself.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests;
