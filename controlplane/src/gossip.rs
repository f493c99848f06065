//! One view of the cluster on every node: who is there, in what health, and what each of them
//! published. chitchat reconciles; transport, keys, health and identity are ours.
//!
//! Absent: limits that are never exceeded (they need transfers, not gossip), secrets.

mod frame;
pub mod gate;
pub mod keyring;
pub mod network;
mod peers;
mod port;
mod probe;
mod queue;
mod refusals;
mod replay;
mod streams;
mod transport;
pub mod values;
pub mod wire;
