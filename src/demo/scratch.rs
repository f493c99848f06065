//! A folder for as long as the demo runs.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Names that are tried. More than one is taken only where a killed process left its folder, or
/// where somebody puts things in the way.
const NAMES_MAX: u32 = 100;

/// Removed with everything in it when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder for the owner only, in the system's folder for temporary files.
    pub(super) fn new() -> io::Result<Self> {
        let process = std::process::id();
        let mut names = (0..NAMES_MAX).map(|number| format!("deepintshield-demo-{process}-{number}"));
        names
            .find_map(|name| {
                let path = std::env::temp_dir().join(name);
                // Fails when something is there, a link too, so that nobody can choose our folder.
                match DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => Some(Ok(Self(path))),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    Err(error) => Some(Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))),
                }
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "{} could not be removed", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_of_one_process_differ_and_leave_nothing() {
        let (one, other) = (Scratch::new().expect("a folder"), Scratch::new().expect("a folder"));
        assert_ne!(one.path(), other.path());
        fs::write(one.path().join("file"), "text").expect("the folder is ours");
        let paths = [one.path().to_owned(), other.path().to_owned()];
        drop((one, other));
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
