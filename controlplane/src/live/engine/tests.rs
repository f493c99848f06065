//! Engines on stores in memory: alone, on one store, and against each other.

use super::super::memory::MemoryStore;
use super::super::seal::Sealer;
use super::super::split::{Parts, split};
use super::*;
use crate::compile::tests::facts;
use crate::gossip::wire::NodeMessage;
use crate::last_good::EncryptionKey;
use crate::live::handle::{Accepted, Proposal, Refused};
use crate::live::revision::Change;
use crate::live::{Digest, EntityId, Live};
use crate::state_dir::StateDir;
use crate::state_dir::tests::Scratch;
use serde_json::{Value, json};
use shared::secret::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What connects the nodes of a test.
#[derive(Clone, Default)]
struct Network {
    doors: Arc<Mutex<BTreeMap<String, mpsc::Sender<NodeMessage>>>>,
    is_cut: Arc<AtomicBool>,
}

struct Node {
    name: String,
    live: Live,
    store: MemoryStore,
    peers: watch::Sender<Vec<PeerHead>>,
    commands: mpsc::Sender<Command>,
    /// What the cores were handed.
    published: watch::Receiver<(Head, Vec<String>)>,
    waiting: watch::Receiver<Option<String>>,
    standing: watch::Receiver<Standing>,
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 7).into()
}

struct Start<'s> {
    name: &'s str,
    others: Others,
    file: Value,
    is_sealing: bool,
    dir: Option<Arc<StateDir>>,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self { name: "a", others: Others::Nobody, file: json!({}), is_sealing: true, dir: None }
    }
}

impl Network {
    fn start(&self, store: MemoryStore, start: Start<'_>) -> Node {
        let (document, seen) = watch::channel(Arc::new(Document {
            head: Head::default(),
            entities: Arc::default(),
            is_writable: Err(String::new()),
        }));
        let (ask_sender, asks) = mpsc::channel(64);
        let (command_sender, commands) = mpsc::channel(4);
        let (peer_sender, peers) = watch::channel(Vec::new());
        let (message_sender, messages) = mpsc::channel(256);
        let (told_sender, mut told) = mpsc::channel(64);
        self.doors.lock().unwrap().insert(start.name.to_owned(), message_sender);
        let key = EncryptionKey::new(Secret::new("a-key-of-at-least-thirty-two-characters")).unwrap();
        let sealer = start.is_sealing.then(|| Arc::new(Sealer::new(&key)));
        let Parts { local, entities } = split(&start.file.to_string()).unwrap();
        let allowed = Allowed::new(&[], &entities);
        let settings = EngineSettings {
            node: start.name.to_owned(),
            others: start.others,
            is_imported: true,
            file_name: "config.json".into(),
            clock: Clock::start(),
        };
        let doors = Doors { document, asks, commands, peers, messages, told: told_sender };
        let reading = Reading { local, sealer, facts: Arc::new(facts()) };
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let engine = Engine::new(settings, shared, reading, (entities, allowed), Kept::new(start.dir), doors);
        tokio::spawn(engine.run());
        let (publish, published) = watch::channel((Head::default(), Vec::new()));
        let (wait, waiting) = watch::channel(None);
        let (stand, standing) = watch::channel(Standing::default());
        let (network, own) = (self.clone(), start.name.to_owned());
        tokio::spawn(async move {
            while let Some(told) = told.recv().await {
                match told {
                    Told::Publish { compiled, head, done } => {
                        let ids = compiled.record.virtual_keys.iter().map(|key| key.id.clone()).collect();
                        publish.send_replace((head, ids));
                        let _ = done.send(());
                    }
                    Told::Send(messages) => network.deliver(&own, messages),
                    Told::Waiting(reason) => drop(wait.send_replace(reason)),
                    Told::Standing(standing) => drop(stand.send_replace(standing)),
                }
            }
        });
        let live = Live::new(seen, ask_sender);
        Node {
            name: start.name.to_owned(),
            live,
            store,
            peers: peer_sender,
            commands: command_sender,
            published,
            waiting,
            standing,
        }
    }

    fn deliver(&self, from: &str, messages: Messages) {
        if self.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let doors = self.doors.lock().unwrap();
        for (_, to, bytes) in messages {
            let message = NodeMessage { from: from.to_owned(), address: address(), topic: 17, bytes };
            let _ = doors[&to.to_string()].try_send(message);
        }
    }

    /// Every node hears by gossip what the others have.
    fn gossip(nodes: &[&Node]) {
        for node in nodes {
            let peers = nodes.iter().filter(|peer| peer.name != node.name).map(|peer| PeerHead {
                id: peer.name.clone(),
                address: address(),
                head: Some(peer.live.document().head.clone()).filter(|head| head.number > 0),
                has_told: true,
            });
            node.peers.send_replace(peers.collect());
        }
    }

    /// Until all nodes have one head and hand it to their cores.
    async fn settle(nodes: &[&Node]) {
        let heads = |node: &Node| (node.live.document().head.clone(), node.published.borrow().0.clone());
        let agree = async {
            loop {
                Self::gossip(nodes);
                let first = heads(nodes[0]);
                if first.0 == first.1 && nodes.iter().all(|node| heads(node) == first) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), agree).await.expect("the nodes come to one head");
    }
}

impl Node {
    #[track_caller]
    fn until(&self, is_so: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let wait = async {
                while !is_so(self) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let outcome = tokio::time::timeout(Duration::from_secs(20), wait).await;
            assert!(outcome.is_ok(), "{place}: what the test waits for does not come");
        }
    }

    async fn ready(&self) {
        self.until(|node| node.live.document().is_writable.is_ok() && node.waiting.borrow().is_none()).await;
    }

    async fn propose(&self, id: &str, value: Value) -> Result<Accepted, Refused> {
        self.live.propose(proposal(None, vec![(id, value)])).await
    }

    async fn add(&self, id: &str) -> Result<Accepted, Refused> {
        self.propose(&format!("virtual_key/{id}"), virtual_key(id)).await
    }

    async fn history(&self) -> Vec<Digest> {
        self.live.history(None, 1_000).await.unwrap().iter().map(|recorded| recorded.digest).collect()
    }
}

fn proposal(expected: Option<u64>, changes: Vec<(&str, Value)>) -> Proposal {
    let change = |(id, value): (&str, Value)| Change { id: id.parse::<EntityId>().unwrap(), value: Some(value) };
    let changes = changes.into_iter().map(change).collect();
    Proposal { expected, author: "ann".into(), comment: String::new(), changes, is_dry_run: false }
}

fn virtual_key(id: &str) -> Value {
    json!({"id": id, "name": id, "value": format!("sk-bf-{id}")})
}

#[tokio::test]
async fn a_proposal_is_kept_handed_to_the_cores_and_numbered() {
    let node = Network::default().start(MemoryStore::new(), Start::default());
    node.ready().await;
    let accepted = node.add("one").await.unwrap();
    assert_eq!((accepted.head.number, accepted.head.node.as_str(), accepted.effective), (1, "a", 1));
    assert_eq!(*node.published.borrow(), (accepted.head.clone(), vec!["one".to_owned()]));
    assert_eq!(node.store.digests(), [accepted.head.digest]);
    assert!(!format!("{:?}", node.live.document().entities).contains("sk-bf-one"), "it is sealed");
    let again = node.add("one").await.unwrap();
    assert_eq!((again.head, again.effective), (accepted.head, 0), "the same again is no revision");
}

#[tokio::test]
async fn what_is_refused_is_nowhere() {
    let node = Network::default().start(MemoryStore::new(), Start::default());
    node.ready().await;
    let head = node.add("one").await.unwrap().head;
    let wrong = node.propose("virtual_key/two", json!({"id": "two", "name": "two"})).await.unwrap_err();
    let Refused::Faults(faults) = wrong else { panic!("{wrong:?}") };
    assert_eq!(faults[0].id.as_ref().unwrap().to_string(), "virtual_key/two");
    let late = node.live.propose(proposal(Some(0), vec![("virtual_key/x", virtual_key("x"))])).await;
    assert_eq!(late, Err(Refused::Conflict(head.clone())));
    let dry = Proposal { is_dry_run: true, ..proposal(None, vec![("virtual_key/x", virtual_key("x"))]) };
    assert_eq!(node.live.propose(dry).await.unwrap().effective, 1);
    assert_eq!((node.store.digests().len(), node.live.document().head.clone()), (1, head));
}

#[tokio::test]
async fn an_empty_store_gets_what_the_file_says_once() {
    let file = json!({"governance": {"virtual_keys": [virtual_key("of-file")]}});
    let store = MemoryStore::new();
    let node = Network::default().start(store.clone(), Start { file: file.clone(), ..Start::default() });
    node.until(|node| node.published.borrow().0.number == 1).await;
    node.add("other").await.unwrap();
    let again = Network::default().start(store, Start { file, ..Start::default() });
    again.until(|node| node.published.borrow().0.number == 2).await;
    assert_eq!(again.published.borrow().1, ["of-file", "other"]);
}

#[tokio::test]
async fn a_file_whose_secrets_cannot_be_sealed_is_not_imported_and_says_why() {
    let file = json!({"governance": {"virtual_keys": [virtual_key("of-file")]}});
    let start = Start { file, is_sealing: false, ..Start::default() };
    let node = Network::default().start(MemoryStore::new(), start);
    node.until(|node| node.standing.borrow().unusable.is_some()).await;
    let why = node.standing.borrow().unusable.clone().unwrap();
    assert!(why.contains("virtual_key/of-file/value") && why.contains("DEEPINTSHIELD_ENCRYPTION_KEY"), "{why}");
    assert!(node.store.digests().is_empty() && node.published.borrow().0.number == 0);
}

#[tokio::test]
async fn nodes_on_one_store_put_their_changes_on_top_of_each_others() {
    let (network, store) = (Network::default(), MemoryStore::new());
    let start = |name| Start { name, others: Others::ByStore, ..Start::default() };
    let (a, b) = (network.start(store.clone(), start("a")), network.start(store.clone(), start("b")));
    a.ready().await;
    b.ready().await;
    let names: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    for pair in names.chunks(2) {
        let (one, two) = tokio::join!(a.add(&pair[0]), b.add(&pair[1]));
        one.unwrap();
        two.unwrap();
    }
    Network::settle(&[&a, &b]).await;
    assert_eq!((a.published.borrow().1.clone(), store.digests().len()), (names, 10));
}

#[tokio::test]
async fn while_the_store_is_down_a_node_serves_on_and_refuses_changes() {
    let node = Network::default().start(MemoryStore::new(), Start { others: Others::ByStore, ..Start::default() });
    node.ready().await;
    node.add("one").await.unwrap();
    node.store.set_down(true);
    let refused = node.add("two").await.unwrap_err();
    assert!(matches!(&refused, Refused::Unavailable(why) if why.contains("switched off")), "{refused:?}");
    assert!(node.live.document().is_writable.is_err());
    assert_eq!(node.published.borrow().1, ["one"]);
    node.store.set_down(false);
    node.ready().await;
    node.add("two").await.unwrap();
    assert_eq!(node.published.borrow().1, ["one", "two"]);
}

#[tokio::test]
async fn a_node_whose_store_is_down_at_its_start_serves_what_it_kept() {
    let scratch = Scratch::new();
    let dir = Arc::new(StateDir::open(&scratch.0).unwrap());
    let store = MemoryStore::new();
    let start = || Start { others: Others::ByStore, dir: Some(Arc::clone(&dir)), ..Start::default() };
    let node = Network::default().start(store.clone(), start());
    node.ready().await;
    node.add("one").await.unwrap();
    node.until(|_| scratch.0.join(super::super::kept::FILE_NAME).exists()).await;
    store.set_down(true);
    let again = Network::default().start(store.clone(), start());
    again.until(|node| node.published.borrow().1 == ["one"]).await;
    assert!(again.live.document().is_writable.is_err() && again.live.document().head.number == 1);
    store.set_down(false);
    again.ready().await;
    again.add("two").await.unwrap();

    let third = Network::default().start(store.clone(), start());
    third.until(|node| node.published.borrow().0.number == 2).await;
    third.until(|_| std::fs::read_to_string(scratch.0.join("document.json")).unwrap().contains("\"two\"")).await;
    store.lose(1);
    let fourth = Network::default().start(store, start());
    fourth.until(|node| node.published.borrow().1 == ["one", "two"]).await;
    fourth.until(|node| node.standing.borrow().trouble.is_some()).await;
    let trouble = fourth.standing.borrow().trouble.clone().unwrap();
    assert!(trouble.contains("has lost revision 2"), "{trouble}");
    assert!(matches!(fourth.add("x").await, Err(Refused::Unavailable(_))));
}

#[tokio::test]
async fn a_changed_file_takes_effect_where_it_is_the_nodes_own() {
    let node = Network::default().start(MemoryStore::new(), Start::default());
    node.ready().await;
    node.add("one").await.unwrap();
    let Parts { local, .. } = split(&json!({"server": {"prot": 1}}).to_string()).unwrap();
    let file = Command::File { local, entities: Entities::new(), allowed: Allowed::default() };
    assert!(node.commands.send(file).await.is_ok());
    node.until(|node| node.standing.borrow().unusable.is_some()).await;
    assert_eq!(node.published.borrow().1, ["one"], "what cannot be read changes nothing");
}

fn apart(name: &str) -> Start<'_> {
    Start { name, others: Others::ByGossip, ..Start::default() }
}

#[tokio::test]
async fn a_node_that_was_away_catches_up_before_it_is_ready() {
    let network = Network::default();
    let a = network.start(MemoryStore::new(), apart("a"));
    a.until(|node| node.waiting.borrow().is_some()).await;
    let helper = network.start(MemoryStore::new(), apart("h"));
    Network::gossip(&[&a, &helper]);
    a.ready().await;
    // More than fits one message, and more revisions than one batch has.
    let many: Vec<(String, Value)> =
        (0..400).map(|n| (format!("virtual_key/m{n}"), virtual_key(&format!("m{n}")))).collect();
    let many = many.iter().map(|(id, value)| (id.as_str(), value.clone())).collect();
    a.live.propose(proposal(None, many)).await.unwrap();
    for n in 0..300 {
        a.propose("client", json!({"max_request_body_size_mb": n + 1})).await.unwrap();
    }
    let b = network.start(MemoryStore::new(), apart("b"));
    b.until(|node| node.waiting.borrow().is_some()).await;
    assert!(matches!(b.add("early").await, Err(Refused::Unavailable(_))));
    Network::gossip(&[&a, &b]);
    b.ready().await;
    assert_eq!(b.live.document().head, a.live.document().head);
    assert_eq!(b.store.digests(), a.store.digests());
}

/// Every way to choose `count` of `of` positions.
fn choices(of: usize, count: usize) -> Vec<Vec<bool>> {
    (0_u32..1 << of)
        .filter(|bits| bits.count_ones() as usize == count)
        .map(|bits| (0..of).map(|at| bits >> at & 1 == 1).collect())
        .collect()
}

#[tokio::test]
async fn changes_at_the_same_time_end_in_one_order_and_none_disappears() {
    for (round, order) in choices(4, 2).into_iter().enumerate() {
        // The nodes hear of each other before `heals_at`, not before the end, or at every step.
        for heals_at in 0..=order.len() {
            let network = Network::default();
            let (a, b) = (network.start(MemoryStore::new(), apart("a")), network.start(MemoryStore::new(), apart("b")));
            Network::settle(&[&a, &b]).await;
            a.ready().await;
            b.ready().await;
            network.is_cut.store(true, Ordering::Relaxed);
            let mut acknowledged = Vec::new();
            for (step, is_first) in order.iter().enumerate() {
                if step == heals_at {
                    network.is_cut.store(false, Ordering::Relaxed);
                    Network::settle(&[&a, &b]).await;
                    network.is_cut.store(true, Ordering::Relaxed);
                }
                let node = if *is_first { &a } else { &b };
                let accepted = node.add(&format!("{}{step}", node.name)).await.unwrap();
                acknowledged.push((node, accepted.head.digest));
            }
            network.is_cut.store(false, Ordering::Relaxed);
            Network::settle(&[&a, &b]).await;
            assert_eq!(a.store.digests(), b.store.digests(), "order {round}, healed at {heals_at}");
            assert_eq!(a.published.borrow().1, b.published.borrow().1);
            for (node, digest) in acknowledged {
                assert!(node.history().await.contains(&digest), "order {round}, healed at {heals_at}");
            }
        }
    }
}

#[tokio::test]
async fn the_author_of_a_superseded_change_sees_it_as_such() {
    let network = Network::default();
    let (a, b) = (network.start(MemoryStore::new(), apart("a")), network.start(MemoryStore::new(), apart("b")));
    Network::settle(&[&a, &b]).await;
    a.ready().await;
    b.ready().await;
    network.is_cut.store(true, Ordering::Relaxed);
    let lost = a.add("of-a").await.unwrap().head;
    let held = b.add("of-b").await.unwrap().head;
    network.is_cut.store(false, Ordering::Relaxed);
    Network::settle(&[&a, &b]).await;
    assert_eq!(a.live.document().head, held, "of two of one number the later node's id holds");
    let recorded = a.live.revision(lost.digest).await.unwrap().unwrap();
    assert!(recorded.is_superseded && recorded.revision.author == "ann");
    assert_eq!(a.published.borrow().1, ["of-b"]);
}
