//! What went wrong with the database file, in words for whoever has to mend it. Pure.

use crate::live::StoreError;
use rusqlite::{Error, ErrorCode};
use std::io;
use std::path::Path;

/// One call that failed. Nothing of it was done, unless it was its commit.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sql(#[from] Error),
    /// Confirming it failed.
    #[error("{0}")]
    Commit(Error),
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// What the connection believes may not be what is in the file. One to a full disk stays: to make
    /// another would need room.
    pub(super) fn needs_a_new_connection(&self) -> bool {
        let (Self::Sql(error) | Self::Commit(error)) = self else { return matches!(self, Self::File(_)) };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }

    pub(super) fn into_error(self, path: &Path) -> StoreError {
        let path = path.display();
        let error = match self {
            Self::Store(error) => return error,
            Self::File(error) => {
                let remedy = "check config_store.config.path, that its folder exists, and who may write there";
                return StoreError::Unavailable(format!("{path}: {error}: {remedy}"));
            }
            // The last bytes of the commit may be on the disk although it could not say so.
            Self::Commit(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
                return StoreError::Uncertain(format!("{path}: {error}: check the disk"));
            }
            Self::Sql(error) | Self::Commit(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Unavailable(format!("{path}: no room on its disk: make some")),
            Some(ErrorCode::SystemIoFailure) => StoreError::Unavailable(format!("{path}: {error}: check the disk")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Unavailable(format!("{path}: another process holds it: end that one"))
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                StoreError::Unavailable(format!("{path}: {error}: check who may read and write it, and its folder"))
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Unusable(format!(
                "{path}: {error}: restore a backup, or move the file away and let the configuration file be imported \
                 again"
            )),
            _ => StoreError::Unusable(format!("{path}: {error}: something else than this program has changed it")),
        }
    }
}
