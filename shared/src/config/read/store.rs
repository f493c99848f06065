//! `config_store` and `load_balancer_config`.

use super::read_switch;
use super::server::read_path;
use crate::config::model::{ConfigStore, LoadBalancer, Postgres, SslMode, StoreRules};
use crate::config::reader::{Fields, Node, Reader};

/// Whether an empty store gets what the file says.
const IMPORTS: [(&str, bool); 2] = [("once", true), ("never", false)];

/// References that the admin interface may use.
const REFERENCES_MAX: usize = 1_000;

#[derive(Clone, Copy)]
enum Type {
    Sqlite,
    Postgres,
}

const TYPES: [(&str, Type); 2] = [("sqlite", Type::Sqlite), ("postgres", Type::Postgres)];

const SSL_MODES: [(&str, SslMode); 5] = [
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// No store where it is switched off, or has a fault.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<(Option<ConfigStore>, StoreRules)> {
    reader.object(node, |reader, fields| {
        let rules = read_rules(reader, fields);
        (read_store(reader, fields), rules)
    })
}

fn read_store(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ConfigStore> {
    let is_enabled = read_switch(reader, fields, "enabled");
    if !is_enabled {
        // Its fields are known; whether they would do is not asked before it is enabled.
        fields.get(reader, "type");
        fields.get(reader, "config");
        return None;
    }
    let kind = fields.required(reader, "type", "sqlite or postgres");
    let kind = kind.and_then(|node| reader.choice(&node, &TYPES));
    let config = fields.required(reader, "config", "how to reach the store")?;
    match kind? {
        Type::Sqlite => reader.object(&config, read_sqlite)?,
        Type::Postgres => reader.object(&config, read_postgres)?.map(ConfigStore::Postgres),
    }
}

fn read_rules(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> StoreRules {
    let import = fields.read(reader, "import", |r, n| r.choice(n, &IMPORTS));
    let references = fields.get(reader, "references").map(|node| {
        // A list of references names them, and does not follow them.
        reader.list(&node, REFERENCES_MAX, Reader::literal)
    });
    StoreRules { is_imported: import.unwrap_or(true), references: references.unwrap_or_default() }
}

fn read_sqlite(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ConfigStore> {
    let path = fields.required(reader, "path", "the path of the database file")?;
    let path = read_path(reader, &path)?;
    Some(ConfigStore::Sqlite { path })
}

fn read_postgres(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Postgres> {
    let host = fields.required(reader, "host", "a name or an address");
    let user = fields.required(reader, "user", "the role to log in as");
    let db_name = fields.required(reader, "db_name", "the name of the database");
    let host = host.and_then(|node| reader.name(&node));
    let user = user.and_then(|node| reader.name(&node));
    let db_name = db_name.and_then(|node| reader.name(&node));
    let port = fields.read(reader, "port", |r, n| r.port_or_text(n));
    let password = fields.read(reader, "password", Reader::secret);
    let (password, password_origin) = match password {
        Some(text) => (Some(text.secret), Some(text.origin)),
        None => (None, None),
    };
    let ssl_mode = fields.read(reader, "ssl_mode", |r, n| r.choice(n, &SSL_MODES));
    let ssl_root_cert = fields.read(reader, "ssl_root_cert", read_path);
    let max_open_conns = fields.read(reader, "max_open_conns", |r, n| r.count(n, 1..=10_000));
    Some(Postgres {
        host: host?,
        port: port.unwrap_or(5_432),
        user: user?,
        password,
        password_origin,
        db_name: db_name?,
        ssl_mode: ssl_mode.unwrap_or_default(),
        ssl_root_cert,
        max_open_conns: max_open_conns.unwrap_or(50),
    })
}

pub(super) fn read_load_balancer(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<LoadBalancer> {
    reader.object(node, |reader, fields| LoadBalancer { enabled: read_switch(reader, fields, "enabled") })
}
