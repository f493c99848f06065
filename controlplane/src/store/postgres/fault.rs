//! What went wrong between us and the database, in words for whoever has to mend it. Pure.

use crate::live::StoreError;
use rustls::CertificateError;
use std::error::Error as _;
use std::io;
use std::time::Duration;
use tokio_postgres::Error;

/// Characters of the server's own words that are repeated.
const WORDS_MAX: usize = 300;

/// One call that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// There is no connection to work on.
    #[error("{0}")]
    Connect(String),
    #[error("{}", words(.0))]
    Sql(#[from] Error),
    /// Confirming it failed, so that it may be done all the same.
    #[error("{}", words(.0))]
    Commit(Error),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// The connection is as it was before the call.
    pub(super) fn spares_the_connection(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    /// `place`: where the database is, without the password.
    pub(super) fn into_error(self, place: &str) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Connect(problem) => return StoreError::Unavailable(format!("{place}: {problem}")),
            Self::Silent(_) => {
                return StoreError::Unavailable(format!("{place}: {self}: check the server and its load"));
            }
            Self::Sql(error) | Self::Commit(error) => error,
        };
        let words = words(&error);
        match error.code().map_or("", |code| code.code()) {
            "42P01" | "42703" | "23505" | "XX001" | "XX002" => StoreError::Unusable(format!(
                "{place}: {words}: something else than this program has changed it; restore a backup"
            )),
            "22P05" | "22021" => StoreError::Invalid(format!("{place}: {words}: use a database in UTF8")),
            _ => StoreError::Unavailable(format!("{place}: {words}")),
        }
    }
}

/// What the server, or the way to it, says, and what to do about it.
fn words(error: &Error) -> String {
    let Some(said) = error.as_db_error() else { return local_words(error) };
    let code = said.code().code();
    let remedy = match code {
        "28P01" => "check config_store.config.user and password",
        "28000" => "check config_store.config.user and ssl_mode, and the server's pg_hba.conf",
        "3D000" => "create the database, or check config_store.config.db_name",
        "42501" => {
            "the role needs CREATE on the schema, or has to own the database (GRANT CREATE ON SCHEMA public TO …)"
        }
        "25006" => "this server takes no writes (a standby, or set so): name the primary in config_store.config.host",
        "53100" => "the server's disk is full: make room",
        "53300" => "too many connections: raise max_connections there, or lower config_store.config.max_open_conns",
        "55P03" | "57014" | "40001" | "40P01" => "others use it heavily: try again",
        _ if code.starts_with("57") => "wait until the server is up",
        _ => "see the server's log",
    };
    let message: String = said.message().chars().take(WORDS_MAX).collect();
    format!("{message} ({code}): {remedy}")
}

/// Nothing that the server has said in SQL.
fn local_words(error: &Error) -> String {
    let Some(cause) = error.source() else { return error.to_string() };
    if let Some(cause) = cause.downcast_ref::<io::Error>() {
        if let Some(tls) = cause.get_ref().and_then(|inner| inner.downcast_ref()) {
            return tls_words(tls);
        }
        return cause.to_string();
    }
    match cause.to_string() {
        text if text.contains("password missing") => {
            "the server asks for a password: set config_store.config.password".to_owned()
        }
        text if text.contains("does not support TLS") => {
            "the server does not speak TLS: switch it on there, or choose config_store.config.ssl_mode disable"
                .to_owned()
        }
        text => format!("{error}: {text}"),
    }
}

/// What is wrong with the server's certificate.
fn tls_words(error: &rustls::Error) -> String {
    let remedy = match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => {
                "none of the authorities in config_store.config.ssl_root_cert (without it: the public ones) has signed it"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "name the server in config_store.config.host as its certificate does, or choose ssl_mode verify-ca"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew it, or check this clock",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "check this clock",
            _ => "the server needs a certificate of its own, signed by an authority",
        },
        _ => "check the server's settings for TLS",
    };
    format!("{error}: {remedy}")
}
