//! Accepts connections on one core and starts a task for each. A task that panics closes its own
//! connection and nothing else.

use crate::connection;
use crate::core::Core;
use crate::driver::Driver;
use monoio::net::{TcpListener, TcpStream};
use shared::bounds::CONNECTIONS_PER_CORE_MAX;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Accepts that wait at one time. `io_uring` ends each with one connection, and the next one is asked for
/// on the next turn of the loop, which a core with a thousand streams takes milliseconds for: with one
/// at a time, connections that come in a burst would wait in the kernel for as many turns.
const ACCEPTS_AT_ONCE: usize = 16;

/// Pause after an accept failed for want of descriptors or memory: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listening socket, shared by the accept task and whoever stops it.
#[derive(Clone)]
pub(crate) struct Listener {
    socket: Rc<TcpListener>,
    fd: RawFd,
    /// How many tasks accept.
    pub(crate) lanes: usize,
    /// The last accept failed, and that was said: once, not by every lane and again after each pause.
    has_failed: Rc<Cell<bool>>,
}

/// Takes the socket over into this core's driver.
pub(crate) fn adopt(listener: std::net::TcpListener, driver: Driver) -> io::Result<Listener> {
    // io_uring waits in the kernel, where a socket that must not block would answer at once.
    listener.set_nonblocking(driver == Driver::Epoll)?;
    let fd = listener.as_raw_fd();
    // Epoll's accepts go on without a turn of the loop in between.
    let lanes = if driver == Driver::Epoll { 1 } else { ACCEPTS_AT_ONCE };
    Ok(Listener { socket: Rc::new(TcpListener::from_std(listener)?), fd, lanes, has_failed: Rc::default() })
}

/// Ends listening: the kernel sends new connections to the other processes on the address.
pub(crate) fn stop(listener: &Listener) {
    crate::socket::abort(listener.fd);
}

/// Accepts until the listener is stopped. Never dropped while an accept is pending: one that
/// completes after that would leak its descriptor.
pub(crate) async fn accept_for_ever(core: Rc<Core>, listener: Listener) {
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) if core.connections.get() < CONNECTIONS_PER_CORE_MAX as u64 => {
                listener.has_failed.set(false);
                core.accepts.set(core.accepts.get() + 1);
                core.counters.accepted();
                monoio::spawn(guarded(Rc::clone(&core), stream));
            }
            Ok((stream, _)) => {
                core.counters.refused_connection();
                drop(stream);
            }
            Err(_) if core.is_draining() => return,
            Err(error) => {
                if !listener.has_failed.replace(true) {
                    tracing::warn!(%error, core = core.id, "cannot accept; raise the limit of open files if it says so");
                }
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn guarded(core: Rc<Core>, stream: TcpStream) {
    let _open = Open::new(&core);
    {
        let mut task = pin!(connection::serve(Rc::clone(&core), stream));
        let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        })
        .await;
        if outcome.is_err() {
            core.counters.panicked();
            tracing::error!(core = core.id, "a connection was closed by a fault of ours; the panic is logged above");
        }
    }
}

/// Counts a connection as open until it is dropped.
struct Open<'a>(&'a Core);

impl<'a> Open<'a> {
    fn new(core: &'a Core) -> Self {
        core.connections.set(core.connections.get() + 1);
        Self(core)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
    }
}
