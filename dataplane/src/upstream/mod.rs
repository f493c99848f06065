//! Towards the providers: which connections there are, how one is made, what is sent on it and
//! how the head of an answer comes back.

mod address;
pub(crate) mod compose;
mod connect;
mod providers;
pub(crate) mod send;

pub(crate) use connect::use_driver;
pub(crate) use providers::{ProviderState, Providers, Upstream, dialect_of};
