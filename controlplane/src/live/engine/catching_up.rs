//! What a node waits for before it is ready: the newest revision of the others, where they have
//! stores of their own; and what an empty store gets then.

use super::{Engine, Others, PeerHead, Told, described};
use crate::live::handle::Refused;
use crate::live::proposal::By;
use crate::live::revision::{Change, Head};
use shared::clock::Nanos;
use std::time::Duration;

/// Nobody was heard for so long: this node is the first, or alone.
const ALONE_AFTER: Duration = Duration::from_secs(5);
/// A node that cannot catch up is better than none.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How far a start is.
pub(super) struct CatchingUp {
    since: Nanos,
    is_over: bool,
    is_import_tried: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Waits,
    Caught,
    Alone,
    GaveUp,
}

impl CatchingUp {
    pub(super) fn begin(others: Others, now: Nanos) -> Self {
        Self { since: now, is_over: others != Others::ByGossip, is_import_tried: false }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn next_at(&self) -> Option<Nanos> {
        (!self.is_over).then(|| self.since.after(ALONE_AFTER))
    }

    /// The file has changed: what could not be imported may be now.
    pub(super) fn try_import_again(&mut self) {
        self.is_import_tried = false;
    }

    fn judge(&self, ours: &Head, peers: &[PeerHead], is_seen: bool, now: Nanos) -> Verdict {
        let waited = now.since(self.since);
        let has_told = !peers.is_empty() && peers.iter().all(|peer| peer.has_told);
        let is_newest = peers.iter().filter_map(|peer| peer.head.as_ref()).all(|head| head <= ours);
        if is_seen && has_told && is_newest {
            Verdict::Caught
        } else if waited >= ALONE_AFTER && is_seen && peers.is_empty() {
            Verdict::Alone
        } else if waited >= WAIT_MAX {
            Verdict::GaveUp
        } else {
            Verdict::Waits
        }
    }
}

impl Engine {
    /// Sees whether the wait is over, and what follows from that.
    pub(super) async fn catch_up(&mut self) {
        if !self.catching_up.is_over {
            let now = self.settings.clock.now();
            let verdict = self.catching_up.judge(&self.head, &self.doors.peers.borrow(), self.is_seen, now);
            let revision = self.head.number;
            match verdict {
                Verdict::Waits => return,
                Verdict::Caught => tracing::info!(revision, "the configuration is the newest of all nodes"),
                Verdict::Alone => {
                    tracing::info!(revision, "no other node was heard: the own configuration is the newest");
                }
                Verdict::GaveUp => {
                    tracing::warn!(
                        revision,
                        "the newest configuration of the others could not be had in time; the node \
                                    becomes ready with its own and goes on trying"
                    );
                }
            }
            self.catching_up.is_over = true;
            let _ = self.doors.told.send(Told::Waiting(None)).await;
        }
        self.import_once().await;
        self.compare_with_file().await;
    }

    pub(super) async fn say_waiting(&mut self) {
        if !self.catching_up.is_over {
            let reason = "catching up with the configuration of the others".to_owned();
            let _ = self.doors.told.send(Told::Waiting(Some(reason))).await;
        }
    }

    /// An empty document is not handed to the cores where the file has something for it.
    pub(super) fn awaits_import(&self) -> bool {
        self.head.number == 0 && self.settings.is_imported && !self.file.is_empty()
    }

    async fn import_once(&mut self) {
        let is_due = self.is_seen && self.trouble.is_none() && !self.catching_up.is_import_tried;
        if !is_due || !self.awaits_import() {
            return;
        }
        self.catching_up.is_import_tried = true;
        let changes = self.file.iter().map(|(id, value)| Change { id: id.clone(), value: Some((**value).clone()) });
        let comment = format!("imported from {}", self.settings.file_name);
        let kept = match self.prepare(changes.collect(), By::File).await {
            Ok(prepared) => Box::pin(self.keep(prepared, "file".to_owned(), comment.clone())).await,
            Err(refused) => Err(refused),
        };
        match kept {
            Ok(true) => {
                tracing::info!(revision = self.head.number, entities = self.entities.len(), "{comment}");
                self.ring().await;
            }
            // Somebody else has imported meanwhile; theirs holds.
            Ok(false) => {}
            Err(Refused::Faults(faults)) => {
                faults.iter().take(super::FAULTS_LOGGED_MAX).for_each(|fault| tracing::error!("{}", described(fault)));
                let why = format!("{} cannot be imported", self.settings.file_name);
                tracing::error!(faults = faults.len(), "{why}; the node has no configuration until that is put right");
                self.unusable =
                    Some(faults.first().map(described).map_or(why.clone(), |first| format!("{why}: {first}")));
            }
            // Tried again when the store is back.
            Err(_) => self.catching_up.is_import_tried = false,
        }
        self.say_standing().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Digest;

    fn head(number: u64) -> Head {
        Head { number, node: "n".into(), digest: Digest::default() }
    }

    fn peer(number: Option<u64>) -> PeerHead {
        let address = ([127, 0, 0, 1], 7).into();
        PeerHead {
            id: "b".into(),
            address,
            head: number.filter(|number| *number > 0).map(head),
            has_told: number.is_some(),
        }
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_node_waits_for_whom_it_hears_and_for_nobody_else_long() {
        let waiting = CatchingUp::begin(Others::ByGossip, Nanos(0));
        let judge = |peers: &[PeerHead], seconds| waiting.judge(&head(3), peers, true, at(seconds));
        assert_eq!(judge(&[], 4), Verdict::Waits);
        assert_eq!(judge(&[], 5), Verdict::Alone);
        assert_eq!(judge(&[peer(None)], 9), Verdict::Waits, "it has not said anything yet");
        assert_eq!(judge(&[peer(Some(3)), peer(Some(0))], 0), Verdict::Caught);
        assert_eq!(judge(&[peer(Some(3)), peer(Some(4))], 29), Verdict::Waits);
        assert_eq!(judge(&[peer(Some(4))], 30), Verdict::GaveUp);
        assert_eq!(waiting.judge(&head(0), &[], false, at(10)), Verdict::Waits, "the own store was not read");
    }

    #[test]
    fn alone_or_with_one_store_there_is_nothing_to_wait_for() {
        for others in [Others::Nobody, Others::ByStore] {
            assert!(CatchingUp::begin(others, Nanos(0)).is_over());
        }
    }
}
