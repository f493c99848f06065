//! A disk that is full: nothing is half done, and nothing that was confirmed is lost.

use crate::revisions::{Scratch, append_all, consistent, holds, is_root, next, run, set};
use controlplane::live::{Head, Store, StoreError};
use controlplane::store::SqliteStore;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells the second process which small disk is its own.
const DISK: &str = "DEEPINTSHIELD_TEST_SMALL_DISK";

/// Runs itself once more where a disk of 1 MiB can be mounted that nobody else sees.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    if let Some(disk) = std::env::var_os(DISK) {
        return run(fill(&PathBuf::from(disk)));
    }
    let scratch = Scratch::new();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-c", "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\""]).arg(scratch.folder());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "full_disk::a_full_disk_refuses_and_loses_nothing", "--nocapture"]);
    let output = command.env(DISK, scratch.folder()).output().expect("unshare is installed (Debian: util-linux)");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("filled after"), "{said}");
}

async fn fill(disk: &Path) {
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 256 * 1024]).unwrap();
    let store = SqliteStore::new(disk.join("store.db"));
    let mut head = Head::default();
    let refused = loop {
        let changes = (0..20).map(|number| set(&format!("{number}"), json!([head.number, "x".repeat(1_000)])));
        let revision = next(&head, changes.collect());
        match store.append(&revision).await {
            Ok(()) => head = revision.head(),
            Err(StoreError::Unavailable(words)) => {
                assert!(words.contains("store.db"), "{words}");
                break revision;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(head.number < 1_000, "1 MiB holds no 20 MB");
    };
    writeln!(std::io::stdout().lock(), "filled after {} revisions", head.number).unwrap();
    assert!(head.number > 0);
    for _ in 0..3 {
        assert_eq!(consistent(&store).await.unwrap(), head);
        assert!(matches!(store.append(&refused).await, Err(StoreError::Unavailable(_))));
    }
    assert!(!holds(&store, refused.digest()).await);
    drop(store);
    std::fs::remove_file(ballast).unwrap();
    let store = SqliteStore::new(disk.join("store.db"));
    assert_eq!(consistent(&store).await.unwrap(), head);
    append_all(&store, std::slice::from_ref(&refused)).await;
    assert_eq!(consistent(&store).await.unwrap(), refused.head());
}
