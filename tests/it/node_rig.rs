//! Programs for the tests of a node's life: a node and a simulated provider as real processes on
//! free loopback ports, and a client that keeps its connection. Whoever waits waits for a
//! condition with a deadline; whatever is started ends with the value that stands for it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::clock::Clock;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Generous: a debug build on a busy machine is slow, and nothing waits this long unless broken.
const WAIT_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// Waits until `found` gives something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::start();
    let end = clock.now().after(WAIT_MAX);
    while clock.now() < end {
        if let Some(value) = found() {
            return value;
        }
        std::thread::sleep(POLL);
    }
    panic!("not within {WAIT_MAX:?}: {what}");
}

/// So many answers in a row come from every core of a node with two, but for one chance in thousands.
const CORES_ASKED: usize = 12;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A folder of one test, removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("deepintshield-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file of the test");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The program, with nothing of this process's settings.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deepintshield"));
    for name in ["CONFIG", "STATE_DIR", "ENCRYPTION_KEY"] {
        command.env_remove(format!("DEEPINTSHIELD_{name}"));
    }
    command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Runs the program to its end: exit code, standard output, standard error.
#[track_caller]
pub(crate) fn outcome(arguments: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let ran = program().args(arguments).envs(env.iter().copied()).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code().unwrap_or(-1), text(&ran.stdout), text(&ran.stderr))
}

/// `provider-sim` on a free port.
pub(crate) struct Simulator {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Simulator {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = program();
        command.args(["provider-sim", "--listen", "127.0.0.1:0"]).args(options).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the simulated provider starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
        Self { address: address.unwrap_or_else(|| panic!("no address in {line:?}")), child }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where a node lives: its ports, its folder, its configuration file.
pub(crate) struct Home {
    pub(crate) scratch: Scratch,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    provider: SocketAddr,
}

impl Home {
    pub(crate) fn new(provider: SocketAddr) -> Self {
        let home = Self { scratch: Scratch::new(), port: free_port(), admin_port: free_port(), provider };
        home.configure("sk-one", "");
        home
    }

    /// Writes a configuration with one provider called `sim`, whose key is `key`.
    pub(crate) fn configure(&self, key: &str, more_of_server: &str) {
        let Self { scratch, port, admin_port, provider } = self;
        let state = text(&scratch.path("state")).to_owned();
        let text = format!(
            r#"{{
  "server": {{ "host": "127.0.0.1", "port": {port}, "admin_host": "127.0.0.1", "admin_port": {admin_port},
    "cores": 2, "pin_cores": false, "state_dir": "{state}"{more_of_server} }},
  "client": {{ "enforce_auth_on_inference": false }},
  "providers": {{ "sim": {{
    "keys": [{{ "name": "main", "value": "{key}", "models": ["*"], "weight": 1 }}],
    "network_config": {{ "base_url": "http://{provider}", "allow_private_network": true }},
    "custom_provider_config": {{ "base_provider_type": "openai" }} }} }}
}}
"#
        );
        // Whole or not at all: a node may be reading it.
        std::fs::rename(scratch.write("config.new", &text), self.config()).expect("the configuration is in place");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.scratch.path("config.json")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.config());
        command
    }

    /// Starts a node here and waits until it is ready.
    pub(crate) fn start(&self) -> Node {
        let mut node = Node::spawn(&mut self.command(), self.scratch.path("node.log"));
        until("the node is ready", || {
            node.assert_runs();
            // Each connection meets another core, and one hears of it a tick later than the other.
            (0..CORES_ASKED).all(|_| get(self.port, "/ready").0 == 200).then_some(())
        });
        node
    }
}

/// A node as a process.
pub(crate) struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Starts what `command` says; what it logs is appended to the file `log`.
    pub(crate) fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdout(Stdio::null()).stderr(output);
        Self { child: command.spawn().expect("the node starts"), log }
    }

    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("the node ended with {status}:\n{}", self.log());
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the node runs");
    }

    /// Ends it without asking, and collects it, as a supervisor does.
    pub(crate) fn kill_nine(mut self) {
        self.child.kill().expect("the node runs");
        self.child.wait().expect("it is ours");
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> i32 {
        let status = until("the node ends", || self.child.try_wait().expect("it is ours"));
        status.code().unwrap_or(-1)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Status and body of one GET on a connection of its own; status 0 where nobody answers.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    get_from((Ipv4Addr::LOCALHOST, port).into(), path)
}

/// The same, of any address.
pub(crate) fn get_from(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = Client::connect_to(address).and_then(|mut client| {
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))?;
        client.answer()
    });
    asked.map_or((0, String::new()), |answer| (answer.status, answer.body))
}

/// An answer that came whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The connection carries another request.
    pub(crate) keeps: bool,
}

/// A connection to a node.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to((Ipv4Addr::LOCALHOST, port).into())
    }

    pub(crate) fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a chat request to the provider `sim`; `fields` are header lines with their ends.
    pub(crate) fn send_chat(&mut self, fields: &str, stream: bool) -> io::Result<()> {
        let body = format!(
            r#"{{"model":"sim/m","stream":{stream},"messages":[{{"role":"user","content":"survive"}}],"max_tokens":64}}"#
        );
        let length = body.len();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{fields}\
             content-length: {length}\r\n\r\n{body}"
        );
        self.send(&request)
    }

    /// Sends a chat request and reads the whole answer.
    pub(crate) fn chat(&mut self) -> io::Result<Answer> {
        self.send_chat("", false)?;
        self.answer()
    }

    /// The bare connection; what was read ahead is lost.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }

    /// Sends these very bytes.
    pub(crate) fn send(&mut self, request: &str) -> io::Result<()> {
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// Reads one answer; one that is cut is an error.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| cut(&head))?;
        let lower = head.to_ascii_lowercase();
        let field = |name: &str| lower.split(name).nth(1).and_then(|rest| rest.split("\r\n").next()).map(str::trim);
        let body = match field("\r\ncontent-length:").map(str::parse) {
            Some(Ok(length)) => self.exactly(length)?,
            _ => self.chunks()?,
        };
        let keeps = field("\r\nconnection:") != Some("close");
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), keeps })
    }

    /// Reads a head up to its empty line.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(cut(&head));
            }
        }
        Ok(head)
    }

    /// Reads a chunked body to its end.
    pub(crate) fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| cut(&line))?;
            let chunk = self.exactly(length + 2)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn cut(so_far: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the answer ends after {so_far:?}"))
}

/// What is not a line of a log is no sentence for an operator.
pub(crate) fn lines_with<'l>(log: &'l str, text: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("scratch folders are text")
}
