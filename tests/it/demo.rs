//! `deepintshield demo` as a visitor meets it: what it prints is sent as it is printed, and after
//! SIGTERM nothing of it is left.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node_rig::until;

/// Nothing takes this long unless it is broken; a debug build on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_printed_lines_work_and_sigterm_leaves_nothing() {
    let mut demo = Demo::start("lines");
    let lines = demo.printed_lines();
    let [chat, stream, other, messages, models, metrics, status, long] = lines.as_slice() else {
        panic!("eight lines for curl were expected: {lines:?}");
    };

    for line in [chat, other] {
        let answer = line.send();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(r#""object":"chat.completion""#), "{answer}");
    }
    assert_ne!(chat.address, other.address);

    let answer = stream.send();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.matches("\ndata: {").count() > 10, "{answer}");
    assert!(answer.contains("\ndata: [DONE]\n\n"), "{answer}");

    let answer = messages.send();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""type":"message""#), "{answer}");

    let answer = models.send();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""id":"anthropic/claude-sonnet-4-5""#), "{answer}");

    // As printed: the fourth of these within a minute is refused.
    for _ in 0..3 {
        let answer = long.send();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let answer = long.send();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");

    let answer = metrics.send();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("deepintshield_ready 1\n"), "{answer}");

    // The lines were printed once all nodes had found each other.
    let answer = status.send();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""members":3,"healthy_members":3,"cluster_health":"HEALTHY""#), "{answer}");

    let (status, rest) = demo.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(rest.ends_with("stopped; nothing is left behind\n"), "{rest}");
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
    for address in demo.addresses() {
        assert!(TcpStream::connect(address).is_err(), "somebody still listens on {address}");
    }
}

#[test]
fn the_figures_show_the_load_that_was_asked_for() {
    let mut demo = Demo::start_with("load", &["--load", "50"]);
    // The first line of figures may have come before the first request.
    let is_answering = |line: &str| line.contains(" requests/s, ") && !line.contains(" 0 answered");
    let line = demo.next_line(is_answering);
    assert!(line.contains(" 0 failed, p50 "), "{line}");
    assert!(line.contains("sk-bf-demo/requests 0+0+0 of 60, "), "{line}");
    assert!(!line.contains("sk-bf-load/requests 0+0+0 of "), "{line}");
    assert!(line.ends_with("node 1 sees HEALTHY, 3 of 3 healthy\n"), "{line}");
    let (status, _) = demo.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_node_is_given_up_and_comes_back() {
    let mut demo = Demo::start("killed");
    let text = demo.printed_text();
    let process = text.lines().find_map(|line| line.trim_start().strip_prefix("kill -9 "));
    let process: i32 = process.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no process in {text}"));
    kill(Pid::from_raw(process), Signal::SIGKILL).expect("the node runs");
    demo.next_line(|line| line == "node 3 was killed; it is started again in 10 s\n");
    // Only while it is dead can a line of figures say so; the next ones say that it is back.
    demo.next_line(|line| line.contains("node 1 sees HEALTHY, 2 of 3 healthy, node-3 "));
    let line = demo.next_line(|line| line.starts_with("node 3 is started again, as process "));
    assert!(!line.contains(&process.to_string()), "{line}");
    demo.next_line(|line| line.ends_with("node 1 sees HEALTHY, 3 of 3 healthy\n"));
    let (status, _) = demo.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn the_nodes_end_with_a_demo_that_is_killed() {
    let mut demo = Demo::start("orphans");
    demo.printed_text();
    demo.child.kill().expect("it runs");
    demo.child.wait().expect("it was started here");
    for address in demo.addresses() {
        until("the node is gone", || TcpStream::connect(address).is_err().then_some(()));
    }
}

#[test]
fn a_taken_port_is_named_with_the_option_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.3:0").expect("a port is free");
    let taken = taken.local_addr().expect("it has an address");
    for (place, option) in ["--port", "--admin-port", "--gossip-port"].into_iter().enumerate() {
        let mut ports = free_ports();
        ports[place] = taken.port();
        let folder = folder("taken");
        let ran = command(&folder, ports).output().expect("the program starts");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(69), "{said}");
        assert!(said.contains(&taken.to_string()), "{said}");
        assert!(said.contains(&format!("another port with {option} PORT")), "{said}");
        assert_eq!(entries(&folder), Vec::<PathBuf>::new());
        fs::remove_dir(&folder).expect("the folder is ours");
    }
}

/// A running demo; killed if a test fails before it has stopped.
struct Demo {
    child: Child,
    output: BufReader<UnixStream>,
    folder: PathBuf,
    ports: [u16; 3],
}

impl Demo {
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, arguments: &[&str]) -> Self {
        let (ports, folder) = (free_ports(), folder(name));
        // A socket instead of a pipe: reading from it can have a deadline.
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let mut command = command(&folder, ports);
        let child = command.args(arguments).stdout(Stdio::from(OwnedFd::from(theirs))).spawn();
        // The command holds the other end of the output for as long as it lives.
        drop(command);
        Self { child: child.expect("the program starts"), output: BufReader::new(ours), folder, ports }
    }

    /// What is printed until a line passes `is_it`, which comes last.
    fn lines_until(&mut self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line);
            assert!(matches!(read, Ok(1..)), "{read:?} after {lines:?}");
            lines.push(line);
            if lines.last().is_some_and(|line| is_it(line)) {
                return lines;
            }
        }
    }

    fn next_line(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        self.lines_until(is_it).pop().expect("the line that was looked for")
    }

    /// What there is to try, once all of it is there.
    fn printed_text(&mut self) -> String {
        self.lines_until(|line| line.starts_with("  Node ")).concat()
    }

    /// Every line for curl, in order.
    fn printed_lines(&mut self) -> Vec<CurlLine> {
        let text = self.printed_text();
        let joined = text.replace("\\\n", " ");
        joined.lines().filter_map(|line| line.trim_start().strip_prefix("curl ")).map(CurlLine::read).collect()
    }

    /// SIGTERM; how it ended, and what it printed until then.
    fn terminate(&mut self) -> (ExitStatus, String) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("it runs");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output ends with it");
        (self.child.wait().expect("it was started here"), rest)
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        entries(&self.folder)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let of = |last| self.ports.map(|port| SocketAddr::from(([127, 0, 0, last], port)));
        (1..=3).flat_map(of).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// What a printed line asks curl to send.
#[derive(Debug)]
struct CurlLine {
    address: SocketAddr,
    path: String,
    headers: Vec<String>,
    body: Option<String>,
}

impl CurlLine {
    /// Reads the words after `curl`; an option that is not known here is a fault of the test.
    fn read(line: &str) -> Self {
        let mut words = shell_words(line).into_iter();
        let (mut url, mut headers, mut body) = (None, Vec::new(), None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-N" | "-i" => {}
                "-H" => headers.push(words.next().expect("a header")),
                "-d" => body = words.next(),
                other => {
                    assert!(url.is_none() && other.starts_with("http://"), "what is {other} in: curl {line}");
                    url = Some(word);
                }
            }
        }
        let url = url.unwrap_or_else(|| panic!("no URL in: curl {line}"));
        let (authority, path) = url["http://".len()..].split_once('/').expect("a path");
        let address = authority.parse().expect("an address and a port");
        Self { address, path: format!("/{path}"), headers, body }
    }

    /// The whole answer, head included, with its chunks as they came.
    fn send(&self) -> String {
        let mut connection = TcpStream::connect(self.address).expect("the demo listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut request = format!("{method} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.path, self.address);
        for header in &self.headers {
            request.extend([header, "\r\n"]);
        }
        if let Some(body) = &self.body {
            request.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n", body]);
        } else {
            request.push_str("\r\n");
        }
        connection.write_all(request.as_bytes()).expect("the request is taken");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the answer ends");
        answer
    }
}

/// Splits at blanks outside of single quotes, which is all the quoting that the lines have.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The demo with its temporary files in `folder`.
fn command(folder: &Path, ports: [u16; 3]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deepintshield"));
    let [port, admin_port, gossip_port] = ports.map(|port| port.to_string());
    command.args(["demo", "--port", &port, "--admin-port", &admin_port, "--gossip-port", &gossip_port]);
    command.env("TMPDIR", folder).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// An empty folder of one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("the folder for tests is ours");
    path
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("an entry can be read").path()).collect()
}

/// Ports that were free a moment ago on every address of this machine, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("0.0.0.0:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it has an address").port())
}
