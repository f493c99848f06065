//! This process: where it listens, on how many cores, what it may buffer. All of it is ours;
//! the product line's own files have no such section.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use core::time::Duration;

/// `server`. Nothing here changes without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `host` and `port`: where clients connect. A file's default host is 0.0.0.0, the
    /// embedded configuration's is 127.0.0.1.
    pub listen: SocketAddr,
    /// `admin_host` and `admin_port`: metrics and the admin interface.
    pub admin_listen: SocketAddr,
    /// `cores`: threads that serve requests. `None`: one for each CPU we may use.
    pub cores: Option<NonZeroU16>,
    /// `pin_cores`: whether each serving thread stays on its CPU.
    pub pin_cores: bool,
    /// `driver`: how a core waits for the kernel.
    pub driver: Driver,
    /// `tls`: certificates of the client listener. `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// `admin_tls`: certificates of the admin listener. `None`: plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// `metrics_auth`: whether metrics and the state of the cluster need credentials too. `None`:
    /// where there are accounts and the admin listener is not on loopback.
    pub metrics_auth: Option<bool>,
    /// `state_dir`: the last good snapshot, the node's identity, spent limits.
    pub state_dir: String,
    /// `drain_timeout`: how long running requests may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// `log_format`.
    pub log_format: LogFormat,
    /// `body_buffer`.
    pub body_buffer: BodyBuffer,
    /// `overload`.
    pub overload: Overload,
}

impl Server {
    /// The host a file gets that names none: all addresses, as containers need.
    pub const FILE_HOST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    /// Default port of the client listener.
    pub const PORT: u16 = 8080;
    /// Default host of the admin listener: never reachable from outside unless asked for.
    pub const ADMIN_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Default port of the admin listener.
    pub const ADMIN_PORT: u16 = 8081;
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Self::PORT),
            admin_listen: SocketAddr::new(Self::ADMIN_HOST, Self::ADMIN_PORT),
            cores: None,
            pin_cores: true,
            driver: Driver::Auto,
            tls: None,
            admin_tls: None,
            metrics_auth: None,
            state_dir: "/var/lib/deepintshield".to_owned(),
            drain_timeout: Duration::from_secs(30),
            log_format: LogFormat::Auto,
            body_buffer: BodyBuffer::default(),
            overload: Overload::default(),
        }
    }
}

/// From where on the node has more to do than it can: it is not `/ready` then, and turns some of
/// the new requests away. Each counts for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overload {
    /// `loop_delay`: how late a core comes to its tick.
    pub loop_delay: Duration,
    /// `memory_percent`: of the machine's memory, or of the cgroup's.
    pub memory_percent: u8,
    /// `descriptors_percent`: of the open files that are allowed.
    pub descriptors_percent: u8,
}

impl Default for Overload {
    fn default() -> Self {
        Self { loop_delay: Duration::from_millis(250), memory_percent: 95, descriptors_percent: 95 }
    }
}

/// How a core waits for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// `auto`: `io_uring` where the kernel allows it, epoll elsewhere.
    #[default]
    Auto,
    /// `io_uring`: refuse to start without it.
    IoUring,
    /// `epoll`.
    Epoll,
}

/// Shape of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `auto`: text on a terminal and in the journal, JSON never unasked.
    #[default]
    Auto,
    /// `text`.
    Text,
    /// `json`: one object a line.
    Json,
}

/// PEM files of a listener; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `cert_file`: the chain, leaf first.
    pub cert_file: String,
    /// `key_file`: the leaf's private key.
    pub key_file: String,
}

/// How much of a request body a core keeps while it looks for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyBuffer {
    /// `body_buffer.request_bytes_max`: a body up to this size can be sent again to another
    /// key or provider; a larger one streams once its model is known.
    pub request_bytes_max: usize,
    /// `body_buffer.core_bytes_max`: what all requests of one core may hold together.
    pub core_bytes_max: usize,
}

impl Default for BodyBuffer {
    fn default() -> Self {
        Self { request_bytes_max: 1024 * 1024, core_bytes_max: 64 * 1024 * 1024 }
    }
}
