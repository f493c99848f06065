//! Ends the work upstream when the client it is done for has left. Cancels nothing: the upstream
//! connection is shut down, and whoever waits on it comes to the end of that wait.

use crate::socket::{Noticed, Receiver, abort};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// The bond between a client's connection and the upstream one that works for it.
#[derive(Default)]
pub(crate) struct Link {
    upstream: Cell<Option<RawFd>>,
    is_gone: Cell<bool>,
}

impl Link {
    /// This connection works for the client now.
    pub(crate) fn began(&self, fd: RawFd) {
        self.upstream.set(Some(fd));
        if self.is_gone.get() {
            abort(fd);
        }
    }

    /// No connection works for the client now. Said before a connection is closed: the number of
    /// its descriptor may belong to somebody else right after.
    pub(crate) fn ended(&self) {
        self.upstream.set(None);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Waits, but not for a client that has left.
    pub(crate) async fn pause(&self, time: Duration) {
        let mut sleep = pin!(monoio::time::sleep(time));
        poll_fn(|cx| if self.is_gone.get() { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }).await;
    }

    /// Runs `work` to its end; when the client leaves meanwhile, its upstream connection is ended
    /// at once, and so `work` comes to its end as well. It is borrowed: by value, it would lie in
    /// this future twice.
    pub(crate) async fn while_client_stays<W: Future>(
        &self,
        mut client: Option<&mut Receiver>,
        mut work: Pin<&mut W>,
    ) -> W::Output {
        if let Some(client) = &mut client {
            client.wait_quietly();
        }
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            let mut has_left = || client.as_mut().is_some_and(|client| client.poll_noticed(cx) == Noticed::Gone);
            if !self.is_gone.get() && has_left() {
                self.is_gone.set(true);
                if let Some(fd) = self.upstream.get() {
                    abort(fd);
                }
                // A pause has nobody but us to wake it.
                return work.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }
}
