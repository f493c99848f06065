//! How the process was told to listen, as the last good snapshot keeps it.

use serde::{Deserialize, Serialize};
use shared::config::model::{BodyBuffer, Driver, LogFormat, Overload, Server, TlsFiles};
use std::num::NonZeroU16;
use std::time::Duration;

/// [`Server`] in JSON. Fields are those of the configuration file where it has them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerPart {
    listen: String,
    admin_listen: String,
    cores: Option<NonZeroU16>,
    pin_cores: bool,
    driver: u8,
    tls: Option<(String, String)>,
    #[serde(default)]
    admin_tls: Option<(String, String)>,
    #[serde(default)]
    metrics_auth: Option<bool>,
    state_dir: String,
    drain_timeout_ms: u64,
    log_format: u8,
    body_buffer: (u64, u64),
    /// Delay in milliseconds, percent of memory, percent of descriptors.
    overload: (u64, u8, u8),
}

const DRIVERS: [Driver; 3] = [Driver::Auto, Driver::IoUring, Driver::Epoll];
const LOG_FORMATS: [LogFormat; 3] = [LogFormat::Auto, LogFormat::Text, LogFormat::Json];

impl From<&Server> for ServerPart {
    fn from(server: &Server) -> Self {
        Self {
            listen: server.listen.to_string(),
            admin_listen: server.admin_listen.to_string(),
            cores: server.cores,
            pin_cores: server.pin_cores,
            driver: position(&DRIVERS, &server.driver),
            tls: server.tls.as_ref().map(files),
            admin_tls: server.admin_tls.as_ref().map(files),
            metrics_auth: server.metrics_auth,
            state_dir: server.state_dir.clone(),
            drain_timeout_ms: u64::try_from(server.drain_timeout.as_millis()).unwrap_or(u64::MAX),
            log_format: position(&LOG_FORMATS, &server.log_format),
            body_buffer: (server.body_buffer.request_bytes_max as u64, server.body_buffer.core_bytes_max as u64),
            overload: {
                let Overload { loop_delay, memory_percent, descriptors_percent } = server.overload;
                (u64::try_from(loop_delay.as_millis()).unwrap_or(u64::MAX), memory_percent, descriptors_percent)
            },
        }
    }
}

impl TryFrom<ServerPart> for Server {
    type Error = &'static str;

    fn try_from(part: ServerPart) -> Result<Self, Self::Error> {
        let (request_bytes_max, core_bytes_max) = part.body_buffer;
        let (delay_ms, memory_percent, descriptors_percent) = part.overload;
        Ok(Self {
            listen: part.listen.parse().map_err(|_| "its listen address is none")?,
            admin_listen: part.admin_listen.parse().map_err(|_| "its admin address is none")?,
            cores: part.cores,
            pin_cores: part.pin_cores,
            driver: *DRIVERS.get(usize::from(part.driver)).ok_or("its driver is unknown")?,
            tls: part.tls.map(|(cert_file, key_file)| TlsFiles { cert_file, key_file }),
            admin_tls: part.admin_tls.map(|(cert_file, key_file)| TlsFiles { cert_file, key_file }),
            metrics_auth: part.metrics_auth,
            state_dir: part.state_dir,
            drain_timeout: Duration::from_millis(part.drain_timeout_ms),
            log_format: *LOG_FORMATS.get(usize::from(part.log_format)).ok_or("its log format is unknown")?,
            body_buffer: BodyBuffer {
                request_bytes_max: usize::try_from(request_bytes_max).map_err(|_| "its body buffer is too large")?,
                core_bytes_max: usize::try_from(core_bytes_max).map_err(|_| "its body buffer is too large")?,
            },
            overload: Overload { loop_delay: Duration::from_millis(delay_ms), memory_percent, descriptors_percent },
        })
    }
}

fn files(tls: &TlsFiles) -> (String, String) {
    (tls.cert_file.clone(), tls.key_file.clone())
}

fn position<T: PartialEq>(known: &[T], value: &T) -> u8 {
    known.iter().position(|other| other == value).and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}
