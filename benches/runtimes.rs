//! What does one request and answer through a relay cost on monoio, on glommio and on tokio?
//!
//! The same relay on each: one task a connection that passes 1 KiB to the provider and 1 KiB back, in turn,
//! with `TCP_NODELAY`. It has a thread and a core of its own; client and provider are this thread, with
//! plain sockets, and every round sends over all connections before it reads. Counted is the CPU time of
//! the relay's thread, kernel included, as the scheduler knows it: a busy machine disturbs it least. monoio
//! is there with the ring that a node asks for, with its own, and on epoll. Absent: everything that a
//! gateway does, and what a runtime costs when it has nothing to do.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CONNECTIONS: usize = 64;
/// Of a request, and of an answer.
const MESSAGE_BYTES: usize = 1024;
/// Entries of a ring; more than operations under way.
const RING_ENTRIES: u32 = 1024;
const RELAY_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Says where it listens, and relays the first [`CONNECTIONS`] connections to the provider until all have ended.
type Relay = fn(&Listening, SocketAddr);
type Listening = SyncSender<SocketAddr>;

const RELAYS: [(&str, Relay); 5] = [
    ("monoio, as a node asks for it", on_monoio_deferred),
    ("monoio, as it comes", on_monoio),
    ("monoio, epoll", on_monoio_epoll),
    ("glommio", on_glommio),
    ("tokio", on_tokio),
];

/// A relay that runs, and both ends of its connections.
struct Bench {
    clients: Vec<TcpStream>,
    providers: Vec<TcpStream>,
    schedule: String,
    relay: JoinHandle<()>,
}

impl Bench {
    fn start(relay: Relay) -> Self {
        let provider = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = provider.local_addr().expect("it is bound");
        let (begun, has_begun) = sync_channel(1);
        let (listening, listens) = sync_channel(1);
        let relay = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            stay_on(RELAY_CORE);
            begun.send(nix::unistd::gettid()).expect("somebody waits for it");
            relay(&listening, to);
        });
        let relay = relay.expect("a thread");
        let thread = has_begun.recv().expect("the relay has begun");
        let listen = listens.recv().expect("the relay listens");
        let ends = (0..CONNECTIONS).map(|_| {
            let client = TcpStream::connect(listen).expect("the relay listens");
            let (provider, _) = provider.accept().expect("the relay connects");
            (unbuffered(client), unbuffered(provider))
        });
        let (clients, providers) = ends.unzip();
        Self { clients, providers, schedule: format!("/proc/self/task/{thread}/schedstat"), relay }
    }

    /// A request and an answer on every connection.
    fn round(&mut self) {
        let mut message = [7; MESSAGE_BYTES];
        for client in &mut self.clients {
            client.write_all(&message).expect("the relay reads");
        }
        for provider in &mut self.providers {
            provider.read_exact(&mut message).expect("the relay writes");
            provider.write_all(&message).expect("the relay reads");
        }
        for client in &mut self.clients {
            client.read_exact(&mut message).expect("the relay writes");
        }
    }

    /// CPU time of the relay's thread.
    fn used(&self) -> Duration {
        let text = fs::read_to_string(&self.schedule).expect("the relay's thread runs");
        let nanos = text.split_ascii_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("schedstat begins with nanoseconds"))
    }

    fn finish(self) {
        drop((self.clients, self.providers));
        self.relay.join().expect("the relay did not panic");
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn unbuffered(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// Where the machine has that core; otherwise it wanders.
fn stay_on(id: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id });
}

fn on_monoio_deferred(listening: &Listening, to: SocketAddr) {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    on_ring(ring, listening, to);
}

fn on_monoio(listening: &Listening, to: SocketAddr) {
    on_ring(io_uring::IoUring::builder(), listening, to);
}

fn on_ring(ring: io_uring::Builder, listening: &Listening, to: SocketAddr) {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    let mut runtime = builder.uring_builder(ring).with_entries(RING_ENTRIES).build().expect("a ring");
    runtime.block_on(relay_on_monoio(listening, to));
}

fn on_monoio_epoll(listening: &Listening, to: SocketAddr) {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("epoll");
    runtime.block_on(relay_on_monoio(listening, to));
}

async fn relay_on_monoio(listening: &Listening, to: SocketAddr) {
    use monoio::io::{AsyncReadRentExt, AsyncWriteRentExt};
    use monoio::net::TcpStream;

    async fn pass(mut client: TcpStream, to: SocketAddr) {
        let mut provider = TcpStream::connect_addr(to).await.expect("the provider listens");
        client.set_nodelay(true).and_then(|()| provider.set_nodelay(true)).expect("TCP sockets");
        let mut message = vec![0; MESSAGE_BYTES];
        loop {
            for is_request in [true, false] {
                let (from, to) = if is_request { (&mut client, &mut provider) } else { (&mut provider, &mut client) };
                let (read, filled) = from.read_exact(message).await;
                if read.is_err() {
                    return;
                }
                let (written, given_back) = to.write_all(filled).await;
                if written.is_err() {
                    return;
                }
                message = given_back;
            }
        }
    }

    let listener = monoio::net::TcpListener::bind(any_port()).expect("a free port");
    listening.send(listener.local_addr().expect("it is bound")).expect("somebody waits for it");
    let mut tasks = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let (client, _) = listener.accept().await.expect("a client");
        tasks.push(monoio::spawn(pass(client, to)));
    }
    for task in tasks {
        task.await;
    }
}

fn on_tokio(listening: &Listening, to: SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn pass(mut client: TcpStream, to: SocketAddr) {
        let mut provider = TcpStream::connect(to).await.expect("the provider listens");
        client.set_nodelay(true).and_then(|()| provider.set_nodelay(true)).expect("TCP sockets");
        let mut message = vec![0; MESSAGE_BYTES];
        loop {
            for is_request in [true, false] {
                let (from, to) = if is_request { (&mut client, &mut provider) } else { (&mut provider, &mut client) };
                if from.read_exact(&mut message).await.is_err() || to.write_all(&message).await.is_err() {
                    return;
                }
            }
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind(any_port()).await.expect("a free port");
        listening.send(listener.local_addr().expect("it is bound")).expect("somebody waits for it");
        let mut tasks = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let (client, _) = listener.accept().await.expect("a client");
            tasks.push(tokio::task::spawn_local(pass(client, to)));
        }
        for task in tasks {
            task.await.expect("no task panicked");
        }
    });
}

fn on_glommio(listening: &Listening, to: SocketAddr) {
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    use glommio::net::TcpStream;

    async fn pass(mut client: TcpStream, to: SocketAddr) {
        let mut provider = TcpStream::connect(to).await.expect("the provider listens");
        client.set_nodelay(true).and_then(|()| provider.set_nodelay(true)).expect("TCP sockets");
        let mut message = vec![0; MESSAGE_BYTES];
        loop {
            for is_request in [true, false] {
                let (from, to) = if is_request { (&mut client, &mut provider) } else { (&mut provider, &mut client) };
                if from.read_exact(&mut message).await.is_err() || to.write_all(&message).await.is_err() {
                    return;
                }
            }
        }
    }

    // Without a placement it stays where this thread is.
    let executor = glommio::LocalExecutorBuilder::default().make().expect("three rings");
    executor.run(async {
        let listener = glommio::net::TcpListener::bind(any_port()).expect("a free port");
        listening.send(listener.local_addr().expect("it is bound")).expect("somebody waits for it");
        let mut tasks = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = listener.accept().await.expect("a client");
            tasks.push(glommio::spawn_local(pass(client, to)).detach());
        }
        for task in tasks {
            task.await.expect("no task panicked");
        }
    });
}

fn relays(criterion: &mut Criterion) {
    stay_on(LOAD_CORE);
    let mut group = criterion.benchmark_group("a request and an answer through a relay");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    for (name, relay) in RELAYS {
        let mut bench = Bench::start(relay);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let before = bench.used();
                (0..rounds).for_each(|_| bench.round());
                bench.used().saturating_sub(before)
            });
        });
        bench.finish();
    }
    group.finish();
}

criterion_group!(all, relays);
criterion_main!(all);
