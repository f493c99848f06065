//! One HTTP request and its answer, over a connection of its own. Only for asking our own nodes:
//! the answer is read until the connection closes and its framing is not undone.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The node is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two reads or writes. What the demo asks for is answered in milliseconds; a node that was
/// stopped (SIGSTOP) is shown so after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer, in bytes. The metrics of a node with a handful of models are some 20 KiB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Sends `request` (head and body, with `connection: close` in the head) and returns all that came
/// back, head included.
pub(super) fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(IDLE_TIMEOUT))?;
    connection.set_write_timeout(Some(IDLE_TIMEOUT))?;
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The answer to a GET, if its status is 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    ask(address, &request).ok().filter(|answer| answer.starts_with("HTTP/1.1 200 "))
}
