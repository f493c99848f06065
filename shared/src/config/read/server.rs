//! `server`: addresses, cores, TLS files, buffers.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::DAY;
use crate::config::model::{BodyBuffer, Driver, LogFormat, Overload, Server, TlsFiles};
use crate::config::reader::{Fields, Node, Reader};

/// Cores of the largest machines, with room.
const CORES_MAX: u64 = 1_024;

/// Reads `server` out of the document. A file without it listens on all addresses.
pub(super) fn read(reader: &mut Reader<'_>, document: &mut Fields<'_>, has_accounts: bool) -> Server {
    let base = Server { listen: SocketAddr::new(Server::FILE_HOST, Server::PORT), ..Server::default() };
    match document.get(reader, "server") {
        Some(node) => {
            reader.object(&node, |reader, fields| read_fields(reader, fields, &base, has_accounts)).unwrap_or(base)
        }
        None => base,
    }
}

fn read_fields(reader: &mut Reader<'_>, fields: &mut Fields<'_>, base: &Server, has_accounts: bool) -> Server {
    let host = fields.read(reader, "host", read_host);
    let port = fields.read(reader, "port", Reader::port);
    let admin_host = fields.read(reader, "admin_host", read_host);
    let admin_port = fields.read(reader, "admin_port", Reader::port);
    let server = Server {
        listen: SocketAddr::new(host.unwrap_or(base.listen.ip()), port.unwrap_or(base.listen.port())),
        admin_listen: SocketAddr::new(
            admin_host.unwrap_or(base.admin_listen.ip()),
            admin_port.unwrap_or(base.admin_listen.port()),
        ),
        cores: fields.read(reader, "cores", |r, n| r.count(n, 1..=CORES_MAX)).and_then(core::num::NonZeroU16::new),
        pin_cores: fields.read(reader, "pin_cores", Reader::boolean).unwrap_or(base.pin_cores),
        driver: fields.read(reader, "driver", |r, n| r.choice(n, &DRIVERS)).unwrap_or(base.driver),
        tls: fields.read(reader, "tls", |r, n| r.object(n, read_tls)).flatten(),
        admin_tls: fields.read(reader, "admin_tls", |r, n| r.object(n, read_tls)).flatten(),
        metrics_auth: fields.read(reader, "metrics_auth", Reader::boolean),
        state_dir: fields.read(reader, "state_dir", read_path).unwrap_or_else(|| base.state_dir.clone()),
        drain_timeout: fields
            .read(reader, "drain_timeout", |r, n| r.duration(n, &(Duration::ZERO..=DAY)))
            .unwrap_or(base.drain_timeout),
        log_format: fields.read(reader, "log_format", |r, n| r.choice(n, &LOG_FORMATS)).unwrap_or(base.log_format),
        body_buffer: fields
            .read(reader, "body_buffer", |r, n| r.object(n, read_body_buffer))
            .unwrap_or(base.body_buffer),
        overload: fields.read(reader, "overload", |r, n| r.object(n, read_overload)).unwrap_or(base.overload),
    };
    check_addresses(reader, fields, &server, has_accounts);
    server
}

const DRIVERS: [(&str, Driver); 3] = [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];

const LOG_FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Two listeners on one address, or an admin listener that everybody reaches.
fn check_addresses(reader: &mut Reader<'_>, fields: &Fields<'_>, server: &Server, has_accounts: bool) {
    let (data, admin) = (server.listen, server.admin_listen);
    let hosts_overlap = data.ip() == admin.ip() || data.ip().is_unspecified() || admin.ip().is_unspecified();
    if data.port() == admin.port() && hosts_overlap {
        let problem = "the admin listener has the address of the client listener";
        reader.fault(&fields.place, problem, "another admin_port");
    }
    if server.metrics_auth == Some(true) && !has_accounts {
        let problem = "metrics_auth without accounts: nobody could read the metrics";
        reader.fault(&fields.place, problem, "governance.auth_config.is_enabled");
    }
    if admin.ip().is_loopback() {
        return;
    }
    if !has_accounts {
        reader.warn(
            &fields.place,
            "the admin listener can be reached from other machines and asks for no credentials: it changes nothing",
        );
    } else if server.admin_tls.is_none() {
        reader.warn(
            &fields.place,
            "the admin listener can be reached from other machines without admin_tls: credentials travel in clear",
        );
    }
}

pub(super) fn read_host(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<IpAddr> {
    let text = reader.text(node)?;
    if text == "localhost" {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let address = text.parse().ok();
    if address.is_none() {
        let expected = "an address such as \"0.0.0.0\", \"127.0.0.1\" or \"::\"";
        reader.fault(&node.place, "not an address to listen on", expected);
    }
    address
}

/// A path without NUL, which no file system has.
pub(super) fn read_path(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let path = reader.text(node)?;
    if path.is_empty() || path.contains('\0') {
        reader.fault(&node.place, "not a path", "the path of a file or a folder");
        return None;
    }
    Some(path)
}

fn read_tls(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<TlsFiles> {
    let expected = "the path of a PEM file";
    let cert = fields.required(reader, "cert_file", expected);
    let key = fields.required(reader, "key_file", expected);
    let cert_file = cert.and_then(|node| read_path(reader, &node))?;
    let key_file = key.and_then(|node| read_path(reader, &node))?;
    Some(TlsFiles { cert_file, key_file })
}

fn read_overload(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Overload {
    let base = Overload::default();
    let delays = Duration::from_millis(20)..=Duration::from_secs(10);
    Overload {
        loop_delay: fields.read(reader, "loop_delay", |r, n| r.duration(n, &delays)).unwrap_or(base.loop_delay),
        memory_percent: fields
            .read(reader, "memory_percent", |r, n| r.count(n, 1..=100))
            .unwrap_or(base.memory_percent),
        descriptors_percent: fields
            .read(reader, "descriptors_percent", |r, n| r.count(n, 1..=100))
            .unwrap_or(base.descriptors_percent),
    }
}

fn read_body_buffer(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> BodyBuffer {
    const KIB: u64 = 1_024;
    let base = BodyBuffer::default();
    let buffer = BodyBuffer {
        request_bytes_max: fields
            .read(reader, "request_bytes_max", |r, n| r.count(n, 16 * KIB..=1_024 * KIB * KIB))
            .unwrap_or(base.request_bytes_max),
        core_bytes_max: fields
            .read(reader, "core_bytes_max", |r, n| r.count(n, 1_024 * KIB..=256 * 1_024 * KIB * KIB))
            .unwrap_or(base.core_bytes_max),
    };
    if buffer.request_bytes_max > buffer.core_bytes_max {
        let problem = "request_bytes_max is larger than core_bytes_max";
        reader.fault(&fields.place, problem, "room for at least one request");
    }
    buffer
}
