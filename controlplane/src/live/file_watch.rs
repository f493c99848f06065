//! Notices that the configuration file has changed: written in place, replaced, or swapped behind a
//! symbolic link, as mounted `ConfigMaps` are.
//!
//! It looks once a second, since a watch on the file itself misses what links to it. A file that
//! goes on changing is left alone until it rests; one that is gone is no news until it is back.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A change counts when it looks the same after this.
const REST: Duration = Duration::from_millis(200);

/// What tells one content from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Look {
    fn from(file: Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Tells of every change. Without a file it never does.
pub(crate) struct FileWatch {
    changes: Option<mpsc::Receiver<()>>,
}

impl FileWatch {
    /// From now on. To be called inside of the runtime.
    pub(crate) fn begin(path: Option<PathBuf>) -> Self {
        Self {
            changes: path.map(|path| {
                let (sender, changes) = mpsc::channel(1);
                tokio::spawn(watch(path, sender));
                changes
            }),
        }
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        let told = match &mut self.changes {
            Some(changes) => changes.recv().await,
            None => None,
        };
        if told.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn watch(path: PathBuf, sender: mpsc::Sender<()>) {
    let mut seen = look(&path).await;
    while !sender.is_closed() {
        tokio::time::sleep(INTERVAL).await;
        let mut now = look(&path).await;
        if now == seen || now.is_none() {
            continue;
        }
        tokio::time::sleep(REST).await;
        let before = now;
        now = look(&path).await;
        if now != before {
            continue;
        }
        seen = now;
        // One that waits to be read covers this change too.
        let _ = sender.try_send(());
    }
}

/// On the blocking pool: a file may be far away.
async fn look(path: &std::path::Path) -> Option<Look> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || std::fs::metadata(path).ok().map(Look::from)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::tests::Scratch;
    use std::fs;

    async fn is_told(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_change_a_file_is_noticed_and_rest_is_not() {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).unwrap();
        let (first, second, link) = (scratch.0.join("a"), scratch.0.join("b"), scratch.0.join("link"));
        fs::write(&first, "1").unwrap();
        fs::write(&second, "2").unwrap();
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let mut watch = FileWatch::begin(Some(link.clone()));
        assert!(!is_told(&mut watch).await, "nothing has changed");
        fs::write(&first, "in place").unwrap();
        assert!(is_told(&mut watch).await);
        std::os::unix::fs::symlink(&second, scratch.0.join("new")).unwrap();
        fs::rename(scratch.0.join("new"), &link).unwrap();
        assert!(is_told(&mut watch).await, "the link leads elsewhere");
        fs::remove_file(&second).unwrap();
        assert!(!is_told(&mut watch).await, "a file that is gone says nothing");
        fs::write(&second, "back").unwrap();
        assert!(is_told(&mut watch).await);
        assert!(!is_told(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_file_there_is_no_change() {
        assert!(!is_told(&mut FileWatch::begin(None)).await);
    }
}
