//! A node between raw sockets: the test writes the client's bytes and the provider's, in the order
//! it wants, and nothing here understands HTTP beyond the end of a head. Everything that waits has
//! a deadline, and a node that is told to stop must stop in order and must not have panicked.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing takes this long unless it is broken; a debug build on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// The smallest chat request.
pub(crate) const CHAT: &str = r#"{"model":"m","messages":[]}"#;
/// An answer to it that counts two tokens.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 58\r\n\r\n\
    {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},\"x\":[]}";
/// The last request of a connection, which ends the reading of its answers.
pub(crate) const LAST: &[u8] = b"GET /health HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";

/// A chat request with this body.
pub(crate) fn chat(body: &str) -> Vec<u8> {
    chat_with("", body)
}

/// A chat request with further header lines, each with its end.
pub(crate) fn chat_with(lines: &str, body: &str) -> Vec<u8> {
    format!("{}{lines}content-length: {}\r\n\r\n{body}", CHAT_HEAD, body.len()).into_bytes()
}

/// The head of a chat request up to its framing.
pub(crate) const CHAT_HEAD: &str =
    "POST /v1/chat/completions HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n";

/// A chat body of exactly this many bytes.
pub(crate) fn body_of(bytes: usize) -> String {
    let (front, back) = (r#"{"model":"m","messages":[],"user":""#, r#""}"#);
    format!("{front}{}{back}", "x".repeat(bytes - front.len() - back.len()))
}

/// A connection, with what was read ahead.
pub(crate) struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(false).expect("a socket of ours");
        stream.set_nodelay(true).expect("a socket of ours");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the other side takes it");
    }

    /// The same where the other side may have ended the connection already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Writes `piece` again and again until nobody has taken anything for `time`: bytes taken.
    pub(crate) fn fill(&mut self, piece: &[u8], time: Duration) -> usize {
        self.stream.set_write_timeout(Some(time)).expect("a timeout above zero");
        let mut taken = 0;
        while let Ok(count) = self.stream.write(piece) {
            taken += count;
            assert!(taken < 1 << 30, "somebody takes without end");
        }
        taken
    }

    /// Reads up to and with `mark`.
    pub(crate) fn until(&mut self, mark: &str) -> String {
        let mark = mark.as_bytes();
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|window| window == mark) {
                let rest = self.ahead.split_off(at + mark.len());
                let read = std::mem::replace(&mut self.ahead, rest);
                return String::from_utf8_lossy(&read).into_owned();
            }
            let read = self.read_more();
            let shown = String::from_utf8_lossy(&self.ahead);
            assert!(matches!(read, Ok(1..)), "{read:?} before {:?} after {shown}", String::from_utf8_lossy(mark));
        }
    }

    /// Reads exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            let read = self.read_more();
            assert!(matches!(read, Ok(1..)), "{read:?} after {} of {count} bytes", self.ahead.len());
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// A request or answer with `content-length`: its head, and its body.
    pub(crate) fn message(&mut self) -> (String, Vec<u8>) {
        let head = self.until("\r\n\r\n");
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
        let length = length.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let body = self.exactly(length);
        (head, body)
    }

    /// The next head, read with its body; `None` where the other side ends the connection.
    pub(crate) fn next_head(&mut self) -> Option<String> {
        while !self.ahead.windows(4).any(|four| four == b"\r\n\r\n") {
            match self.read_more() {
                Ok(1..) => {}
                Err(error) if is_patience(error.kind()) => {}
                Ok(0) | Err(_) => return None,
            }
        }
        Some(self.message().0)
    }

    /// What comes until the other side ends the connection, in order or not.
    pub(crate) fn rest(&mut self) -> String {
        loop {
            match self.read_more() {
                Ok(1..) => {}
                Err(error) if is_patience(error.kind()) => panic!("it does not end: {:?}", self.ahead),
                Ok(0) | Err(_) => return String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned(),
            }
        }
    }

    /// Whether the other side ends the connection with FIN, and not with a reset.
    pub(crate) fn ends_in_order(&mut self) -> bool {
        loop {
            match self.read_more() {
                Ok(1..) => {}
                Err(error) if is_patience(error.kind()) => panic!("it does not end: {:?}", self.ahead),
                end => return end.is_ok(),
            }
        }
    }

    /// Nothing comes and nothing ends for this long.
    pub(crate) fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout above zero");
        let read = self.read_more();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        read.is_err_and(|error| is_patience(error.kind()))
    }

    fn read_more(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.ahead.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What `found` finds; waits for it.
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        if let Some(found) = found() {
            return found;
        }
        sleep(POLL);
    }
    panic!("it did not happen that {what}");
}

/// A provider: a port, and whoever connects to it.
pub(crate) struct Provider(TcpListener);

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        Self(listener)
    }

    /// The node's next connection.
    pub(crate) fn accept(&self) -> Wire {
        wait_for("the node connects to the provider", || self.accepted())
    }

    /// A connection that is there already.
    pub(crate) fn accepted(&self) -> Option<Wire> {
        self.0.accept().ok().map(|(stream, _)| Wire::new(stream))
    }

    /// Its entry in a configuration, with further fields of `network_config` (each with its comma).
    pub(crate) fn entry(&self, network: &str) -> String {
        entry(self.0.local_addr().expect("it has an address").port(), network)
    }
}

/// The key of every provider here.
pub(crate) const KEY: &str = "key-that-nobody-may-see";

/// A provider `openai` at this port, with one key for every model.
pub(crate) fn entry(port: u16, network: &str) -> String {
    format!(
        r#""openai": {{ "keys": [{{ "name": "one", "value": "{KEY}", "models": ["*"], "weight": 1.0 }}],
        "network_config": {{ {network} "base_url": "http://127.0.0.1:{port}", "allow_private_network": true }} }}"#
    )
}

/// Limits of that provider, wide enough to never refuse.
pub(crate) const LIMITS: &str = r#""governance": {
    "rate_limits": [{ "id": "l", "request_max_limit": 1000, "request_reset_duration": "1h",
                      "token_max_limit": 1000000000, "token_reset_duration": "1h", "charge": "produced" }],
    "providers": [{ "name": "openai", "rate_limit_id": "l" }] },"#;

/// A node with one core; killed if a test fails before it has stopped.
pub(crate) struct Node {
    child: Child,
    port: u16,
    admin_port: u16,
    folder: PathBuf,
}

impl Node {
    /// Starts one with these providers and further sections (each with its comma), and waits until
    /// it is ready.
    pub(crate) fn start(name: &str, providers: &str, sections: &str) -> Self {
        Self::start_with(name, providers, sections, "")
    }

    /// The same with further fields of `server` (each with its comma).
    pub(crate) fn start_with(name: &str, providers: &str, sections: &str, server: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("state")).expect("the folder for tests is ours");
        let [port, admin_port] = free_ports();
        let state = folder.join("state").display().to_string();
        let configuration = format!(
            r#"{{ "version": 1, {sections} "server": {{ {server} "host": "127.0.0.1", "port": {port}, "admin_host": "127.0.0.1",
            "admin_port": {admin_port}, "cores": 1, "pin_cores": false, "state_dir": {state:?},
            "body_buffer": {{ "request_bytes_max": 1048576, "core_bytes_max": 16777216 }} }},
            "providers": {{ {providers} }} }}"#
        );
        fs::write(folder.join("config.json"), configuration).expect("the folder is ours");
        let log = File::create(folder.join("log")).expect("the folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_deepintshield"));
        command.arg("--config").arg(folder.join("config.json")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("one more descriptor")).stderr(log);
        let child = command.env_remove("RUST_LOG").spawn().expect("the program starts");
        let node = Self { child, port, admin_port, folder };
        wait_for("the node is ready", || {
            let mut wire = Wire::new(TcpStream::connect(address(node.port)).ok()?);
            wire.send("GET /ready HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
            wire.rest().starts_with("HTTP/1.1 200 ").then_some(())
        });
        node
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(address(self.port)).expect("the node listens"))
    }

    /// Waits until a series of `/metrics` has this value.
    pub(crate) fn shows(&self, series: &str, value: u64) {
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() / 10 {
            last = self.metric(series);
            if last == Some(value) {
                return;
            }
            sleep(POLL * 10);
        }
        panic!("{series} is {last:?} and not {value}");
    }

    fn metric(&self, series: &str) -> Option<u64> {
        let mut wire = Wire::new(TcpStream::connect(address(self.admin_port)).expect("the node listens"));
        wire.send("GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        let text = wire.rest();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Asks the admin interface: the answer's status, and its body.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut wire = Wire::new(TcpStream::connect(address(self.admin_port)).expect("the node listens"));
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = wire.rest();
        let status = answer.get(9..12).and_then(|digits| digits.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status"), body.expect("a whole head"))
    }

    /// Changes its configuration file and tells it to read that again.
    pub(crate) fn reload(&self, change: impl FnOnce(&str) -> String) {
        let file = self.folder.join("config.json");
        let text = fs::read_to_string(&file).expect("it was written here");
        fs::write(file, change(&text)).expect("the folder is ours");
        self.signal(Signal::SIGHUP);
    }

    /// Waits until its log has this.
    pub(crate) fn logs(&self, words: &str) {
        wait_for(&format!("the log has {words}"), || self.log().contains(words).then_some(()));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("it wrote a log")
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// Descriptors that the node has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Nothing is left of any request, and it stops when it is told to.
    pub(crate) fn stop(mut self) {
        self.shows("deepintshield_core_connections{core=\"0\"}", 0);
        self.shows("deepintshield_core_requests_in_flight{core=\"0\"}", 0);
        self.signal(Signal::SIGTERM);
        let status = wait_for("it stops", || self.child.try_wait().expect("it was started here"));
        let log = self.log();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it has an address").port())
}
