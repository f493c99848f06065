//! The data plane: one thread a core, on `io_uring` or epoll, that serves every request from the
//! snapshot it has. Knows nothing of the control plane, of discovery or of stores.
#![forbid(unsafe_code)]

pub mod http1;
pub mod limiter;
pub mod provider;
