//! One thread of the simulated provider: its runtime, its listener, its connections.
//!
//! `io_uring` where the kernel allows it, epoll where it does not. The stop signal is looked at on a
//! tick; connections that are open then are cut.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::AsRawFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder, net::TcpListener};
use nix::sys::socket::{Shutdown, shutdown};

use super::{
    connection,
    core::{Core, Provider},
};

/// How often a thread looks whether it should stop.
const STOP_TICK: Duration = Duration::from_millis(50);
/// Pause after a failed accept: usually there are no descriptors left, and trying again at once
/// would take the thread from those that could give one back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections that may wait to be accepted (the kernel's own bound is usually lower).
const BACKLOG: i32 = 16_384;
/// Submission entries of a ring.
const RING_ENTRIES: u32 = 4_096;
/// Completions that a ring has room for: more than connections, since one that finds no room costs
/// a system call later.
const RING_COMPLETIONS: u32 = 32_768;

/// Binds `address` once for each of `threads`.
pub(crate) fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<StdListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(threads);
    for _ in 0..threads {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Only among our own threads: with one, a second simulator on the port must fail.
        if threads > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = StdListener::from(socket);
        // With port 0 the first one finds the port, and the others follow it.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Serves `listener` on this thread until `stop` is set.
pub(crate) fn serve(
    provider: Arc<Provider>,
    thread: usize,
    listener: StdListener,
    stop: &AtomicBool,
) -> io::Result<()> {
    let core = Rc::new(Core::new(provider, thread));
    if monoio::utils::detect_uring() {
        let mut flags = io_uring::IoUring::builder();
        flags.setup_cqsize(RING_COMPLETIONS).setup_single_issuer().setup_defer_taskrun();
        let ring = || RuntimeBuilder::<IoUringDriver>::new();
        let runtime = ring().with_entries(RING_ENTRIES).uring_builder(flags).enable_timer().build();
        // Before kernel 6.1, or short of lockable memory: a plain, small ring.
        let runtime = runtime.or_else(|_| ring().with_entries(256).enable_timer().build());
        match runtime {
            Ok(mut runtime) => return runtime.block_on(listen(core, listener, stop)),
            Err(error) => tracing::warn!(%error, "no io_uring, using epoll"),
        }
    }
    listener.set_nonblocking(true)?;
    RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(listen(core, listener, stop))
}

async fn listen(core: Rc<Core>, listener: StdListener, stop: &AtomicBool) -> io::Result<()> {
    let listener = Rc::new(TcpListener::from_std(listener)?);
    let is_stopping = Rc::new(Cell::new(false));
    // In a task of its own, so that a pending accept is never dropped: one that completes
    // nevertheless would lose its descriptor.
    let accepting = monoio::spawn(accept(core, listener.clone(), is_stopping.clone()));
    while !stop.load(Ordering::Relaxed) {
        monoio::time::sleep(STOP_TICK).await;
    }
    is_stopping.set(true);
    // Ends the pending accept. A ring that is closed with one in flight holds its listener a while
    // longer than the process lives, and the next start finds the address in use.
    shutdown(listener.as_raw_fd(), Shutdown::Both)?;
    accepting.await;
    Ok(())
}

async fn accept(core: Rc<Core>, listener: Rc<TcpListener>, is_stopping: Rc<Cell<bool>>) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                monoio::spawn(connection::serve(core.clone(), tcp));
            }
            Err(_) if is_stopping.get() => return,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
