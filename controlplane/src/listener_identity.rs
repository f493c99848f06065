//! Certificate and private key of the client listener, read again while the node runs.
//!
//! Whether certificate and key fit each other is found out by the cores, which keep the pair
//! they have when a new one cannot be used.

use crate::sources;
use shared::config::model::TlsFiles;
use shared::published::ListenerIdentity;
use shared::secret::Secret;
use std::io;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A file of the pair could not be read. The pair in use stays.
#[derive(Debug, thiserror::Error)]
#[error("could not read {path}: {source}")]
pub struct IdentityError {
    path: String,
    source: io::Error,
}

/// The pair in use and where it comes from.
#[derive(Default)]
pub(crate) struct IdentityWatch {
    files: Option<TlsFiles>,
    current: Option<Arc<ListenerIdentity>>,
    has_failed: bool,
}

impl IdentityWatch {
    /// Reads the pair for the first time; without files the listener speaks plain HTTP.
    pub(crate) fn open(files: Option<TlsFiles>) -> Result<Self, IdentityError> {
        let current = files.as_ref().map(read).transpose()?.map(Arc::new);
        Ok(Self { files, current, has_failed: false })
    }

    /// The pair to publish.
    pub(crate) fn current(&self) -> Option<Arc<ListenerIdentity>> {
        self.current.clone()
    }

    /// Looks at the files again; says whether there is another pair. A failure is given once,
    /// until the files are readable again.
    pub(crate) fn look_again(&mut self) -> Result<bool, IdentityError> {
        let Some(files) = &self.files else { return Ok(false) };
        match read(files) {
            Ok(pair) => {
                self.has_failed = false;
                let is_new = self.current.as_deref() != Some(&pair);
                if is_new {
                    self.current = Some(Arc::new(pair));
                }
                Ok(is_new)
            }
            Err(_) if self.has_failed => Ok(false),
            Err(error) => {
                self.has_failed = true;
                Err(error)
            }
        }
    }
}

fn read(files: &TlsFiles) -> Result<ListenerIdentity, IdentityError> {
    let text = |path: &String| sources::file(path).map_err(|source| IdentityError { path: path.clone(), source });
    let certificates_pem = text(&files.cert_file)?;
    let key_pem = Zeroizing::new(text(&files.key_file)?);
    Ok(ListenerIdentity { certificates_pem, key_pem: Secret::new(&key_pem) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::tests::Scratch;

    #[test]
    fn a_changed_certificate_is_noticed_and_a_lost_one_keeps_the_pair_in_use() {
        let scratch = Scratch::new();
        std::fs::create_dir(&scratch.0).unwrap();
        let path = |name: &str| scratch.0.join(name).display().to_string();
        let files = TlsFiles { cert_file: path("cert"), key_file: path("key") };
        assert!(IdentityWatch::open(Some(files.clone())).is_err());
        std::fs::write(&files.cert_file, "one").unwrap();
        std::fs::write(&files.key_file, "key").unwrap();
        let mut watch = IdentityWatch::open(Some(files.clone())).unwrap();
        assert!(!watch.look_again().unwrap());

        std::fs::write(&files.cert_file, "two").unwrap();
        assert!(watch.look_again().unwrap());
        std::fs::remove_file(&files.key_file).unwrap();
        assert!(watch.look_again().unwrap_err().to_string().contains(&files.key_file));
        assert!(!watch.look_again().unwrap(), "said once");
        assert_eq!(watch.current().unwrap().certificates_pem, "two");
    }
}
