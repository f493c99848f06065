//! When the last good snapshot is written: at once for a new configuration, seldom for addresses
//! alone. Writing happens on the blocking pool, one file at a time, so that a slow disk holds up
//! nothing; a disk that is full costs a warning.

use crate::last_good::{Content, EncryptionKey, FILE_NAME, encode};
use crate::state_dir::{StateDir, StateDirError};
use shared::clock::Nanos;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Time between two writes when only addresses changed.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a write that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(30);

/// Decides and writes.
pub(crate) struct Keeper {
    dir: Option<Arc<StateDir>>,
    key: Option<EncryptionKey>,
    wanted: Option<Wanted>,
    writing: Option<JoinHandle<Result<(), StateDirError>>>,
    /// No write for addresses alone before this.
    next_at: Nanos,
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Soon,
    AtOnce,
}

impl Keeper {
    /// Without a directory nothing is ever written.
    pub(crate) fn new(dir: Option<Arc<StateDir>>, key: Option<EncryptionKey>) -> Self {
        Self { dir, key, wanted: None, writing: None, next_at: Nanos(0), failed: false }
    }

    /// Notes that what is on disk is no longer what the cores have.
    pub(crate) fn snapshot_changed(&mut self, is_new_configuration: bool) {
        if is_new_configuration {
            self.wanted = Some(Wanted::AtOnce);
        } else {
            self.wanted = self.wanted.or(Some(Wanted::Soon));
        }
    }

    /// Whether [`Keeper::write`] should be called now. Collects the write before it.
    pub(crate) async fn is_due(&mut self, now: Nanos) -> bool {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return false;
        }
        self.collect(now).await;
        match self.wanted {
            Some(Wanted::AtOnce) => self.dir.is_some() && (!self.failed || now >= self.next_at),
            Some(Wanted::Soon) => self.dir.is_some() && now >= self.next_at,
            None => false,
        }
    }

    /// Whether something was not written yet.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.dir.is_some() && self.wanted.is_some()
    }

    /// Begins to write.
    pub(crate) fn write(&mut self, content: &Content<'_>, now: Nanos, wall: Duration) {
        let Some(dir) = self.dir.clone() else { return };
        self.wanted = None;
        self.next_at = now.after(ADDRESSES_INTERVAL);
        if let Some(bytes) = encode(content, self.key.as_ref(), wall) {
            self.writing = Some(tokio::task::spawn_blocking(move || dir.replace(FILE_NAME, &bytes)));
        }
    }

    /// Waits for a write that was begun.
    pub(crate) async fn collect(&mut self, now: Nanos) {
        let Some(writing) = self.writing.take() else { return };
        match writing.await {
            Ok(Ok(())) => self.failed = false,
            Ok(Err(error)) => {
                if !self.failed {
                    tracing::warn!(%error, "the last good snapshot could not be written; the one before it stays, and it is tried again");
                }
                self.failed = true;
                self.wanted = Some(Wanted::AtOnce);
                self.next_at = now.after(FAILURE_PAUSE);
            }
            Err(error) => tracing::error!(%error, "writing the last good snapshot ended in a panic"),
        }
    }
}
