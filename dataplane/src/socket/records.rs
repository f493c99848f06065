//! Reading through TLS: reads of records, and what they decrypt to.

use super::{Noticed, Outcome, Receiver};
use crate::buffers::Buffer;
use crate::tls::TlsSession;
use shared::bounds::{BUFFER_BYTES, REQUEST_BYTES, RESIDENT_READ_BYTES, STREAM_READ_BYTES};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::Context;

/// What reading has of TLS.
pub(super) struct Tls {
    session: Rc<RefCell<TlsSession>>,
    /// Bytes of the next read of records. One that was filled is followed by a larger one, so that a
    /// long record is not read in the small pieces that a quiet connection waits with.
    next_read: usize,
    /// The whole buffer that waited, while what it brought waits decrypted in the session.
    emptied: Option<Box<[u8]>>,
    /// The connection ended without a goodbye, or brought what cannot be decrypted.
    is_broken: bool,
}

impl Tls {
    pub(super) fn new(session: Rc<RefCell<TlsSession>>) -> Self {
        Self { session, next_read: RESIDENT_READ_BYTES, emptied: None, is_broken: false }
    }

    /// Whether there is something to take already.
    pub(super) fn has_plain(&self) -> bool {
        self.emptied.is_some() || self.session.borrow().has_plain()
    }

    /// A read of `asked` bytes brought `count`.
    fn grow(&mut self, count: usize, asked: usize) {
        self.next_read = match asked {
            _ if count < asked => RESIDENT_READ_BYTES,
            _ if asked < REQUEST_BYTES => REQUEST_BYTES,
            _ => BUFFER_BYTES,
        };
    }
}

impl Receiver {
    /// With TLS, bytes may be a goodbye: only what they decrypt to tells.
    pub(super) fn poll_noticed_tls(&mut self, cx: &mut Context<'_>) -> Noticed {
        loop {
            let Some(tls) = &self.tls else { return Noticed::Nothing };
            if tls.has_plain() {
                return Noticed::Bytes;
            }
            if tls.is_broken || tls.session.borrow().is_closed() {
                return Noticed::Gone;
            }
            self.order_records();
            if self.reader.poll_ended(cx).is_pending() {
                return Noticed::Nothing;
            }
            let outcome = self.reader.desk.borrow_mut().outcome.take();
            if let Some(outcome) = outcome {
                // What is broken is seen by the next turn.
                let _ = self.receive_records(outcome);
            }
        }
    }

    /// Leaves a read of records waiting, if none is.
    fn order_records(&mut self) {
        let Some(tls) = self.tls.as_ref().filter(|_| !self.reader.is_reading()) else { return };
        match tls.next_read {
            RESIDENT_READ_BYTES => self.order_resident(),
            bytes => self.reader.order(vec![0; bytes].into_boxed_slice(), 0, bytes),
        }
    }

    /// Decrypts what a read brought. An end without the peer's `close_notify` is a cut (RFC 8446, 6.1).
    fn receive_records(&mut self, outcome: Outcome) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let received = match &outcome.result {
            Ok(count) if *count > 0 => tls.session.borrow_mut().receive(outcome.fresh()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error.kind().into()),
        };
        tls.is_broken = received.is_err();
        received?;
        let (count, asked) = (outcome.fresh().len(), outcome.bytes.len() - outcome.from);
        match self.roomy.as_mut() {
            Some(_) if tls.session.borrow().has_plain() => tls.emptied = Some(outcome.bytes),
            // A ticket, or the beginning of a record.
            Some((shape, _)) => *shape = self.reader.order_room(Buffer::from_parts(outcome.bytes, *shape, 0)),
            None => {
                tls.grow(count, asked);
                self.keep_resident(outcome.bytes);
            }
        }
        Ok(())
    }

    /// Reads decrypted bytes behind the payload of `buffer`. Zero: the peer has ended its side.
    pub(super) async fn read_tls(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(0) };
            if let Some(bytes) = tls.emptied.take()
                && let Some((shape, _)) = self.roomy.take()
                && !buffer.is_real()
            {
                *buffer = Buffer::from_parts(bytes, shape, 0);
            }
            let (count, is_closed) = tls.session.borrow_mut().take_plain(buffer)?;
            if count > 0 || is_closed {
                return Ok(count);
            }
            if tls.is_broken {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.next_read = tls.next_read.max(STREAM_READ_BYTES);
            self.order_records();
            let outcome = self.reader.outcome().await;
            self.receive_records(outcome)?;
        }
    }
}
