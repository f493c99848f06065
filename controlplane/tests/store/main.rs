//! The stores of revisions on real databases: one contract for both, what operators meet, and what
//! is left after a kill or a full disk. Each test starts the `PostgreSQL` that it needs; where there
//! is none installed, it fails.

#![forbid(unsafe_code)]

mod contract;
mod full_disk;
mod kills;
mod postgres_server;
mod postgres_store;
mod revisions;
mod sqlite_store;
mod tls_store;
