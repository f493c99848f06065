//! One view of the cluster on every node: who is there, in what health, and what each of them
//! published. chitchat reconciles; transport, keys, health and identity are ours.
//!
//! Absent: limits that are never exceeded (they need transfers, not gossip), secrets.

pub mod rotation;
pub mod values;
