//! Where shared configuration is kept, and whether load follows what is measured.

use core::fmt;

use super::{Origin, Secret};

/// `config_store`, when it is enabled.
#[derive(Debug, PartialEq)]
pub enum ConfigStore {
    /// One node's own database file.
    Sqlite {
        /// Path of the file.
        path: String,
    },
    /// A database that all nodes share. Never on the request path.
    Postgres(Postgres),
}

/// What `config_store` says of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRules {
    /// `import`: an empty store gets what the file says.
    pub is_imported: bool,
    /// `references`: what the admin interface may refer to, besides what the file does; `*` at the
    /// end stands for anything.
    pub references: Vec<String>,
}

impl Default for StoreRules {
    fn default() -> Self {
        Self { is_imported: true, references: Vec::new() }
    }
}

/// How to reach the shared database.
#[derive(PartialEq)]
pub struct Postgres {
    /// Name or address.
    pub host: String,
    /// Port; the file may write it as a string.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// `None`: the server trusts us or asks for a certificate.
    pub password: Option<Secret>,
    /// Where the password's text came from.
    pub password_origin: Option<Origin>,
    /// Database name.
    pub db_name: String,
    /// How much of TLS is asked for.
    pub ssl_mode: SslMode,
    /// `ssl_root_cert`: path of a PEM file with the authorities that may sign the server's
    /// certificate. `None`: the public ones.
    pub ssl_root_cert: Option<String>,
    /// Connections of this node at most.
    pub max_open_conns: u16,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("password_origin", &self.password_origin)
            .field("db_name", &self.db_name)
            .field("ssl_mode", &self.ssl_mode)
            .field("ssl_root_cert", &self.ssl_root_cert)
            .field("max_open_conns", &self.max_open_conns)
            .finish_non_exhaustive()
    }
}

/// libpq's words for TLS to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// `disable`
    Disable,
    /// `prefer`: TLS if offered, unchecked.
    #[default]
    Prefer,
    /// `require`: TLS, certificate unchecked.
    Require,
    /// `verify-ca`
    VerifyCa,
    /// `verify-full`
    VerifyFull,
}

/// `load_balancer_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadBalancer {
    /// Whether weights of keys and providers follow latency and errors.
    pub enabled: bool,
}
