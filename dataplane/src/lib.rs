//! The data plane: one thread a core, on `io_uring` or epoll, that serves every request from the
//! snapshot it has. Knows nothing of the control plane, of discovery or of stores.
#![forbid(unsafe_code)]

pub mod answer_sizes;
pub mod http1;
mod key_choice;
pub mod limiter;
pub mod provider;

mod advice;
mod attempt;
mod buffers;
mod charge;
mod connection;
mod core;
mod core_loop;
mod counters;
mod deadlines;
mod digits;
mod driver;
mod exchange;
mod hold;
mod identify;
mod known_callers;
mod known_model;
mod link;
mod listener;
pub mod lookup;
mod models;
mod name;
mod pages;
mod plan;
mod quoted_key;
mod rejection;
mod relay;
mod request;
pub mod reservation;
mod respond;
mod route;
mod routing;
mod same_head;
mod socket;
mod tls;
mod upstream;
mod words;

pub use core_loop::{Seat, run};
pub use driver::{Driver, FORCE_EPOLL};
pub use tls::check_identity;
