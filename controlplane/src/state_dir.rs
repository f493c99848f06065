//! The node's own folder: one process at a time, files replaced whole or not at all.
//!
//! Knows names and bytes, not what they mean. A node whose folder cannot be used runs without
//! one; that decision is the caller's.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Holds the lock; its content means nothing.
const LOCK_FILE: &str = "lock";
/// Key of the HMAC that virtual keys are looked up by. It stays the same across restarts, since
/// the last good snapshot holds values made with it.
const LOOKUP_KEY_FILE: &str = "lookup.key";

/// What went wrong with the folder. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process has it.
    #[error(
        "the state directory {} is in use by another process; stop that one, or give this one a `server.state_dir` of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// The operating system refused something.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `create`, `read` …
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// An opened and locked folder. The lock goes when this is dropped, or with the process.
pub struct StateDir {
    path: PathBuf,
    is_new: bool,
    _lock: Flock<File>,
}

impl StateDir {
    /// Creates the folder where it is missing (mode 0700) and locks it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let is_new = !lock_path.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => StateDirError::InUse(path.to_owned()),
            other => failed("lock", &lock_path)(other.into()),
        })?;
        Ok(Self { path: path.to_owned(), is_new, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// No process had it before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The lookup key; made and kept at the first call ever.
    pub fn lookup_key(&self) -> Result<[u8; 32], StateDirError> {
        let path = self.path.join(LOOKUP_KEY_FILE);
        if let Some(bytes) = self.read(LOOKUP_KEY_FILE, 64)? {
            let reason = "it does not hold 32 bytes; remove it and the last good snapshot beside it";
            return <[u8; 32]>::try_from(bytes).map_err(|_| StateDirError::Damaged { path, reason });
        }
        let key = random_key().map_err(failed("draw random bytes for", &path))?;
        self.replace(LOOKUP_KEY_FILE, &key)?;
        Ok(key)
    }

    /// Reads a file whole; `None` when there is none. A longer one than `bytes_max` is damaged.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        if bytes.len() as u64 > bytes_max {
            return Err(StateDirError::Damaged { path, reason: "it is longer than it can be" });
        }
        Ok(Some(bytes))
    }

    /// Writes a file so that after a crash at any moment the old one or the new one is there,
    /// whole: another name, fsync, rename, fsync of the folder. Mode 0600.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StateDirError> {
        let path = self.path.join(name);
        let unfinished = self.path.join(format!("{name}.new"));
        let written = write_new(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished)));
        if written.is_err() {
            // A full disk is the likely reason; what remains is removed with the next attempt.
            drop(fs::remove_file(&unfinished));
        }
        written?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }

    /// Removes a file, for good; one that is not there is no fault.
    pub fn remove(&self, name: &str) -> Result<(), StateDirError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StateDirError> {
    // A leftover of a crash may be there; `create_new` never follows a link.
    drop(fs::remove_file(path));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::Io { doing, path, source }
}

/// 32 bytes nobody can guess.
pub(crate) fn random_key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder of one test, removed with it.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            let name = getrandom::u64().unwrap();
            Self(std::env::temp_dir().join(format!("deepintshield-test-{name:016x}")))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_process_on_the_same_folder_is_refused_until_the_first_is_gone() {
        let scratch = Scratch::new();
        let first = StateDir::open(&scratch.0).unwrap();
        assert!(first.is_new());
        assert!(matches!(StateDir::open(&scratch.0), Err(StateDirError::InUse(_))));
        drop(first);
        assert!(!StateDir::open(&scratch.0).unwrap().is_new());
    }

    #[test]
    fn folder_and_files_are_for_the_owner_only() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.0).unwrap();
        dir.replace("a", b"1").unwrap();
        assert_eq!((mode(dir.path()), mode(&scratch.0.join("a"))), (0o700, 0o600));
    }

    #[test]
    fn the_lookup_key_is_made_once() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.0).unwrap();
        let first = dir.lookup_key().unwrap();
        assert_eq!(dir.lookup_key().unwrap(), first);
        dir.replace(LOOKUP_KEY_FILE, &first[..31]).unwrap();
        assert!(matches!(dir.lookup_key(), Err(StateDirError::Damaged { .. })));
    }

    #[test]
    fn a_file_is_replaced_whole_even_over_a_leftover() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.0).unwrap();
        fs::write(scratch.0.join("a.new"), b"left by a crash").unwrap();
        dir.replace("a", b"first").unwrap();
        dir.replace("a", b"2nd").unwrap();
        assert_eq!(dir.read("a", 16).unwrap().unwrap(), b"2nd");
        assert!(dir.read("a", 2).is_err());
        assert!(dir.read("b", 2).unwrap().is_none());
        assert!(!scratch.0.join("a.new").exists());
        dir.remove("a").unwrap();
        dir.remove("a").unwrap();
        assert!(dir.read("a", 16).unwrap().is_none());
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_which_and_why() {
        let error = StateDir::open(Path::new("/proc/deepintshield")).err().unwrap().to_string();
        assert!(error.contains("/proc/deepintshield"), "{error}");
    }
}
