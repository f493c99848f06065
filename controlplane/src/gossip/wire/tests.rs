use super::*;
use crate::gossip::network::{Datagrams, Listener, Stream, SystemNetwork};
use crate::gossip::sieve::Sieve;
use async_trait::async_trait;
use shared::secret::Secret;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const TOPIC: u8 = 16;

fn ring(cluster: &str, keys: &[&str]) -> Keyring {
    let secrets: Vec<Secret> = keys.iter().map(|key| Secret::new(key)).collect();
    Keyring::new(cluster, &secrets).unwrap()
}

/// The system's sockets, whose datagrams are written down, and lost on request.
#[derive(Clone, Default)]
struct Tap {
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    loses_datagrams: Arc<AtomicBool>,
}

struct TappedDatagrams(Tap, Box<dyn Datagrams>);

#[async_trait]
impl Network for Tap {
    async fn bind(&self, at: SocketAddr) -> io::Result<(Box<dyn Datagrams>, Box<dyn Listener>)> {
        let (datagrams, listener) = SystemNetwork.bind(at).await?;
        Ok((Box::new(TappedDatagrams(self.clone(), datagrams)), listener))
    }

    async fn connect(&self, from: IpAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        SystemNetwork.connect(from, to).await
    }
}

#[async_trait]
impl Datagrams for TappedDatagrams {
    fn address(&self) -> io::Result<SocketAddr> {
        self.1.address()
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.1.receive(into).await
    }

    fn try_receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.1.try_receive(into)
    }

    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        if self.0.loses_datagrams.load(Ordering::Relaxed) {
            return Ok(());
        }
        lock(&self.0.sent).push(bytes.to_vec());
        self.1.try_send(bytes, to)
    }
}

fn settings(id: &str, generation: u64, keyring: Keyring) -> WireSettings {
    WireSettings {
        node_id: id.to_owned(),
        generation,
        bind: ANY_PORT,
        advertise: ANY_PORT,
        keyring,
        insecure: false,
        dial_timeout: Duration::from_secs(2),
    }
}

async fn wire(id: &str, keyring: Keyring) -> Wire {
    Wire::open(Arc::new(SystemNetwork), settings(id, 1, keyring), Clock::start()).await.unwrap()
}

async fn tapped(id: &str, tap: &Tap) -> Wire {
    Wire::open(Arc::new(tap.clone()), settings(id, 1, ring("c", &[ONE])), Clock::start()).await.unwrap()
}

fn count(wire: &Wire, name: &str) -> u64 {
    wire.counters().into_iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// Waits for `condition`, which is asked again whenever something may have happened.
#[track_caller]
fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let asks = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), asks).await.is_ok(), "{place}: it never came true");
    }
}

async fn meet(one: &Wire, other: &Wire) {
    until(|| {
        one.probe(other.advertise());
        other.probe(one.advertise());
        one.peer(other.advertise()).round_trip.is_some() && other.peer(one.advertise()).round_trip.is_some()
    })
    .await;
}

async fn received(wire: &Wire) -> NodeMessage {
    tokio::time::timeout(Duration::from_secs(20), wire.receive()).await.expect("a message comes")
}

/// Sends from one to the other, and sees it come.
async fn passes(from: &Wire, to: &Wire, id: &str, bytes: &[u8]) {
    from.send(to.advertise(), id, TOPIC, bytes).unwrap();
    let message = received(to).await;
    assert_eq!((message.address, message.topic, message.bytes.as_slice()), (from.advertise(), TOPIC, bytes));
}

#[tokio::test]
async fn nodes_that_know_an_address_learn_who_is_there() {
    let (a, b) = (wire("a", ring("c", &[ONE])).await, wire("b", ring("c", &[ONE])).await);
    assert_eq!(a.send(b.advertise(), "b", TOPIC, b""), Err(NotSent::NotThere));
    meet(&a, &b).await;
    let facts = a.peer(b.advertise());
    assert_eq!((facts.id.as_deref(), facts.generation, facts.version), (Some("b"), 1, VERSION_MAX));
    assert!(facts.speaks_our_key && !facts.is_tcp_only && !facts.is_unreachable && facts.refused.is_none());
    assert!(facts.clock_offset_ms.unwrap().abs() < 1_000, "one machine has one clock");
    passes(&a, &b, "b", b"hello").await;
    assert_eq!(a.send(b.advertise(), "x", TOPIC, b""), Err(NotSent::NotThere), "another node than was heard there");
}

#[tokio::test]
async fn small_frames_go_by_udp_and_large_ones_by_tcp() {
    let (a, b) = (wire("a", ring("c", &[ONE])).await, wire("b", ring("c", &[ONE])).await);
    meet(&a, &b).await;
    assert_eq!(count(&a, "frames_sent_tcp"), 0);
    passes(&a, &b, "b", &[7; 1_000]).await;
    assert_eq!(count(&a, "frames_sent_tcp"), 0);
    for length in [1_200, 30_000, 64 * 1024] {
        passes(&a, &b, "b", &vec![7; length]).await;
    }
    assert_eq!(count(&b, "frames_received_tcp"), 3);
    assert_eq!(a.send(b.advertise(), "b", TOPIC, &vec![7; 64 * 1024 + 1]), Err(NotSent::TooLong));
}

#[tokio::test]
async fn a_peer_that_udp_does_not_reach_is_spoken_to_by_tcp_alone() {
    let tap = Tap::default();
    tap.loses_datagrams.store(true, Ordering::Relaxed);
    let (a, b) = (tapped("a", &tap).await, tapped("b", &tap).await);
    meet(&a, &b).await;
    until(|| {
        a.probe(b.advertise());
        a.peer(b.advertise()).is_tcp_only
    })
    .await;
    passes(&a, &b, "b", b"small").await;
    assert_eq!(count(&b, "frames_received_udp"), 0);
    assert!(!a.peer(b.advertise()).is_unreachable);
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable_and_costs_nothing_but_counts() {
    let a = wire("a", ring("c", &[ONE])).await;
    let b = wire("b", ring("c", &[ONE])).await;
    meet(&a, &b).await;
    let gone = b.advertise();
    b.close().await;
    until(|| {
        a.probe(gone);
        a.peer(gone).is_unreachable
    })
    .await;
}

#[tokio::test]
async fn recordings_are_worth_nothing() {
    let tap = Tap::default();
    let (a, b, x) = (tapped("a", &tap).await, tapped("b", &tap).await, tapped("x", &tap).await);
    meet(&a, &b).await;
    lock(&tap.sent).clear();
    passes(&a, &b, "b", &[7; 500]).await;
    let recorded = lock(&tap.sent).clone();
    let frame = recorded.iter().max_by_key(|frame| frame.len()).unwrap();
    let attacker = tokio::net::UdpSocket::bind(ANY_PORT).await.unwrap();
    let attempts = [(&b, "refused_replayed"), (&x, "refused_not_for_us"), (&a, "refused_reflected")];
    for (to, refusal) in attempts {
        let before = count(to, refusal);
        attacker.send_to(frame, to.advertise()).await.unwrap();
        until(|| count(to, refusal) > before).await;
        assert!(to.shared().letters.is_empty());
    }

    // After a restart of the receiver its windows are empty, and it is another one all the same.
    let address = b.advertise();
    b.close().await;
    let again = WireSettings { bind: address, ..settings("b", 2, ring("c", &[ONE])) };
    let b = Wire::open(Arc::new(SystemNetwork), again, Clock::start()).await.unwrap();
    attacker.send_to(frame, address).await.unwrap();
    until(|| count(&b, "refused_for_earlier_us") > 0).await;
    assert!(b.shared().letters.is_empty());
}

#[tokio::test]
async fn a_restarted_node_is_met_again_by_whoever_sends_to_it() {
    let (a, b) = (wire("a", ring("c", &[ONE])).await, wire("b", ring("c", &[ONE])).await);
    meet(&a, &b).await;
    let address = b.advertise();
    b.close().await;
    let again = WireSettings { bind: address, advertise: address, ..settings("b", 9, ring("c", &[ONE])) };
    let b = Wire::open(Arc::new(SystemNetwork), again, Clock::start()).await.unwrap();
    until(|| {
        a.send(address, "b", TOPIC, b"hello").unwrap();
        a.peer(address).generation == 9
    })
    .await;
    assert_eq!(count(&b, "frames_received_tcp") + count(&b, "frames_sent_tcp"), 0);
    assert_eq!(received(&b).await.from, "a");
}

#[tokio::test]
async fn another_key_and_another_cluster_are_told_apart() {
    let here = wire("a", ring("c", &[ONE])).await;
    let attempts = [
        (ring("c", &[TWO]), "another gossip key (id", "compare gossip.encryption_keys"),
        (ring("d", &[ONE]), "another cluster_name", "compare cluster_config.cluster_name"),
        (ring("c", &[]), "without a key", "gossip.encryption_keys"),
    ];
    for (keyring, symptom, remedy) in attempts {
        let there = wire("b", keyring).await;
        until(|| {
            there.probe(here.advertise());
            here.peer(there.advertise()).refused.is_some_and(|text| text.contains(symptom) && text.contains(remedy))
        })
        .await;
        assert!(here.peer(there.advertise()).id.is_none() && there.peer(here.advertise()).id.is_none());
    }
    assert_eq!(count(&here, "frames_sent_udp") + count(&here, "frames_sent_tcp"), 0, "strangers get no answer");
}

#[tokio::test]
async fn keys_are_exchanged_while_messages_pass() {
    let names = ["a", "b", "x"];
    let mut wires = Vec::new();
    for name in names {
        wires.push(wire(name, ring("c", &[ONE])).await);
    }
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        meet(&wires[one], &wires[other]).await;
    }
    // The usual order, one node after the other; then one node that sends with the new key at once.
    let steps = [&[ONE, TWO][..], &[TWO, ONE], &[TWO], &[ONE, TWO], &[TWO]];
    for keys in steps {
        for changed in 0..wires.len() {
            wires[changed].rekey(ring("c", keys));
            for from in 0..wires.len() {
                for to in (0..wires.len()).filter(|to| *to != from) {
                    passes(&wires[from], &wires[to], names[to], keys.concat().as_bytes()).await;
                }
            }
        }
    }
    until(|| {
        wires[0].probe(wires[1].advertise());
        wires[0].peer(wires[1].advertise()).speaks_our_key
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_behind_in_a_rotation_is_still_met() {
    let (a, b) = (wire("a", ring("c", &[TWO, ONE])).await, wire("b", ring("c", &[ONE])).await);
    until(|| {
        a.probe(b.advertise());
        a.peer(b.advertise()).round_trip.is_some()
    })
    .await;
    assert!(!a.peer(b.advertise()).speaks_our_key);
    passes(&a, &b, "b", b"under the old key").await;
}

#[tokio::test]
async fn versions_are_the_highest_that_both_speak() {
    let open = async |id, speaks| {
        let settings = settings(id, 1, ring("c", &[ONE]));
        Wire::open_speaking(Arc::new(SystemNetwork), settings, Clock::start(), speaks).await.unwrap()
    };
    let (old, new, newer) = (open("a", 1).await, open("b", 2).await, open("x", 2).await);
    meet(&old, &new).await;
    passes(&new, &old, "a", b"hello").await;
    passes(&old, &new, "b", b"hello").await;
    assert_eq!((old.peer(new.advertise()).version, new.peer(old.advertise()).version), (1, 1));
    meet(&new, &newer).await;
    passes(&new, &newer, "x", b"hello").await;
    let facts = newer.peer(new.advertise());
    assert_eq!((facts.version, facts.queued), (2, Some(0)));
    assert_eq!(count(&old, "refused_other_version"), 0);
}

#[tokio::test]
async fn a_live_namesake_is_found_and_a_recording_of_our_past_is_not_one() {
    let tap = Tap::default();
    let earlier = tapped("a", &tap).await;
    let b = tapped("b", &tap).await;
    meet(&earlier, &b).await;
    let recorded = lock(&tap.sent).clone();
    earlier.close().await;
    let open = async |generation| {
        let settings = settings("a", generation, ring("c", &[ONE]));
        Wire::open(Arc::new(SystemNetwork), settings, Clock::start()).await.unwrap()
    };
    let us = open(2).await;
    let attacker = tokio::net::UdpSocket::bind(ANY_PORT).await.unwrap();
    for frame in &recorded {
        attacker.send_to(frame, us.advertise()).await.unwrap();
    }
    until(|| count(&us, "refused_namesake") > 0).await;
    assert_eq!(us.namesake(), None);
    let other = open(3).await;
    until(|| {
        other.probe(us.advertise());
        us.namesake().is_some_and(|namesake| namesake.generation == 3) && other.namesake().is_some()
    })
    .await;
    assert_eq!(us.namesake().unwrap().address, other.advertise());
}

#[tokio::test]
async fn a_flood_of_junk_changes_nothing() {
    let (a, b) = (wire("a", ring("c", &[ONE])).await, wire("b", ring("c", &[ONE])).await);
    meet(&a, &b).await;
    let attacker = tokio::net::UdpSocket::bind(ANY_PORT).await.unwrap();
    let mut junk = vec![0; 1_400];
    for round in 0..200_usize {
        for packet in 0..100 {
            // Random bytes, the start of a frame with random bytes behind it, and what is too long.
            getrandom::fill(&mut junk).unwrap();
            if usize::is_multiple_of(packet, 2) {
                junk[..3].copy_from_slice(&[0xd5, 0x9b, 1]);
            }
            // What finds no room is lost, as in any flood.
            let _ = attacker.try_send_to(&junk[..(round * packet) % 1_401], b.advertise());
        }
        tokio::task::yield_now().await;
    }
    // Frames may get lost in a flood, and come through after it.
    until(|| {
        a.probe(b.advertise());
        a.send(b.advertise(), "b", TOPIC, b"hello").is_ok_and(|()| !b.shared().letters.is_empty())
    })
    .await;
    let refused = ["not_a_frame", "other_key", "too_long"].map(|reason| count(&b, &format!("refused_{reason}")));
    assert!(refused.iter().all(|count| *count > 0), "{refused:?}");
    assert_eq!(b.shared().lock().peers.known(), [a.advertise()]);
    assert!(b.shared().lock().refusals.sources().count() <= 10);
}

#[tokio::test]
async fn connections_without_a_frame_are_few_and_short() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let b = wire("b", ring("c", &[ONE])).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(tokio::net::TcpStream::connect(b.advertise()).await.unwrap());
    }
    until(|| count(&b, "connections_refused") == 4).await;
    drop(idle);
    // Each of these is closed at once, without an answer.
    let lengths = [0_u32, 5, 300, 65_000, 66_000, u32::MAX];
    let clock = Clock::start();
    let begun = clock.now();
    for length in lengths {
        let mut stream = until_connected(&b).await;
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        // It may be closed before all of it is written.
        let _ = stream.write_all(&vec![7; (length as usize).min(65_000)]).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    }
    assert_eq!(count(&b, "frames_received_tcp") + count(&b, "frames_sent_tcp"), 0);
    // Each had to wait for the place of the one before.
    assert!(clock.now().since(begun) >= 5 * Duration::from_millis(250));
}

/// A connection that has a place: those before gave theirs back.
async fn until_connected(to: &Wire) -> tokio::net::TcpStream {
    until(|| lock(&to.shared().inbound).is_empty()).await;
    tokio::net::TcpStream::connect(to.advertise()).await.unwrap()
}

#[tokio::test]
async fn without_keys_only_loopback_is_opened() {
    let open = async |bind: &str, insecure| {
        let bind: SocketAddr = bind.parse().unwrap();
        let settings = WireSettings { bind, insecure, ..settings("a", 1, ring("c", &[])) };
        Wire::open(Arc::new(SystemNetwork), settings, Clock::start()).await.map(drop)
    };
    assert!(open("127.0.0.1:0", false).await.is_ok() && open("0.0.0.0:0", true).await.is_ok());
    let refused = open("0.0.0.0:0", false).await.unwrap_err().to_string();
    assert!(refused.contains("openssl rand -base64 32") && refused.contains("\"insecure\": true"), "{refused}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let a = wire("a", ring("c", &[ONE])).await;
    let again = WireSettings { bind: a.advertise(), ..settings("b", 1, ring("c", &[ONE])) };
    let error = Wire::open(Arc::new(SystemNetwork), again, Clock::start()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains(&a.advertise().to_string()), "{error}");
}

#[tokio::test]
async fn ipv6_works_as_well() {
    let open = async |id| {
        let bind: SocketAddr = "[::1]:0".parse().unwrap();
        let settings = WireSettings { bind, advertise: bind, ..settings(id, 1, ring("c", &[ONE])) };
        Wire::open(Arc::new(SystemNetwork), settings, Clock::start()).await.unwrap()
    };
    let (a, b) = (open("a").await, open("b").await);
    meet(&a, &b).await;
    passes(&a, &b, "b", &[7; 2_000]).await;
}

#[tokio::test]
async fn two_chitchats_agree_over_it() {
    let (a, b) = (wire("a", ring("c", &[ONE])).await, wire("b", ring("c", &[ONE])).await);
    let start = async |wire: &Wire, id: &str, seed: SocketAddr| {
        let chitchat_id = chitchat::ChitchatId::new(id.to_owned(), 1, wire.advertise());
        let sieve = Arc::new(Mutex::new(Sieve::new(chitchat_id.clone(), "c".to_owned())));
        let config = chitchat::ChitchatConfig {
            chitchat_id,
            cluster_id: "c".to_owned(),
            gossip_interval: Duration::from_millis(50),
            listen_addr: wire.advertise(),
            seed_nodes: vec![seed.to_string()],
            failure_detector_config: chitchat::FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: Duration::from_secs(60),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        // Random, so that it cannot be compressed into a datagram.
        let mut value = [0; 2_000];
        getrandom::fill(&mut value).unwrap();
        let value: String = value.iter().map(|byte| char::from(b'0' + byte % 64)).collect();
        chitchat::spawn_chitchat(config, vec![("key".to_owned(), value)], &wire.transport(sieve)).await.unwrap()
    };
    let (of_a, of_b) = (start(&a, "a", b.advertise()).await, start(&b, "b", a.advertise()).await);
    let sees = |chitchat: Arc<tokio::sync::Mutex<chitchat::Chitchat>>| {
        move || {
            let chitchat = chitchat.try_lock();
            chitchat.is_ok_and(|c| c.node_states().values().filter(|state| state.get("key").is_some()).count() == 2)
        }
    };
    until(sees(of_a.chitchat())).await;
    until(sees(of_b.chitchat())).await;
    assert!(count(&a, "frames_sent_udp") > 0 && count(&a, "frames_sent_tcp") > 0);
    assert_eq!(count(&a, "messages_undecodable") + count(&b, "messages_undecodable"), 0);
    of_a.shutdown().await.unwrap();
    of_b.shutdown().await.unwrap();
}
