//! Some nodes that are to find each other: real processes, each at an address of its own, with one
//! `cluster_config` for all or one for each. On loopback addresses (127.x.y.1, .2, …; nothing
//! needed), or in network namespaces around a bridge (root; see `namespaces`). Nodes are started,
//! stopped, killed and added one by one, and whoever waits waits for what `/cluster/status` or a log
//! says. Everything ends with the value.

#![allow(dead_code, reason = "what one method of discovery needs, another does not")]

use crate::namespaces::{Network, Space};
use crate::node_rig::{Node, Scratch, free_port, get_from, program, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::clock::Clock;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Nothing waits this long unless it is broken.
const WAIT_MAX: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);
/// 32 bytes that are no secret.
pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// 32 others.
pub(crate) const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// Nodes that run, ran or will run.
pub(crate) struct Cluster {
    /// Before the namespaces, which can only go when nothing runs in them.
    seats: Vec<Seat>,
    network: Option<Network>,
    scratch: Scratch,
    subnet: [u8; 3],
    ports: Ports,
    resolv_conf: Option<PathBuf>,
}

/// The same for all, since each node has an address of its own.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) clients: u16,
    pub(crate) admin: u16,
    pub(crate) gossip: u16,
}

/// Where one node lives.
struct Seat {
    node: Option<Node>,
    space: Option<Space>,
    address: IpAddr,
    starts: u32,
}

/// A program beside the nodes, which ends with the value.
pub(crate) struct Program(Child);

impl From<Child> for Program {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Cluster {
    /// `size` nodes that are not started yet, on loopback addresses that no other test has.
    pub(crate) fn on_loopback(size: usize, cluster_config: &Value) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(16).wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed));
        let [.., high, low] = number.to_be_bytes();
        // 127.0 is everybody's.
        let ports = Ports { clients: free_port(), admin: free_port(), gossip: free_port() };
        Self::new(None, [127, high.max(1), low], ports).with_seats(size, cluster_config)
    }

    /// The same, each in a network namespace around one bridge.
    pub(crate) fn in_namespaces(size: usize, cluster_config: &Value) -> Self {
        let ports = Ports { clients: 8080, admin: 8081, gossip: 10_101 };
        Self::new(Some(Network::new()), [10, 77, 0], ports).with_seats(size, cluster_config)
    }

    fn new(network: Option<Network>, subnet: [u8; 3], ports: Ports) -> Self {
        Self { seats: Vec::new(), network, scratch: Scratch::new(), subnet, ports, resolv_conf: None }
    }

    fn with_seats(mut self, size: usize, cluster_config: &Value) -> Self {
        for _ in 0..size {
            self.add(cluster_config);
        }
        self
    }

    /// A place for one more node, which is not started yet; its number.
    pub(crate) fn add(&mut self, cluster_config: &Value) -> usize {
        let space = self.network.as_mut().map(Network::add);
        let number = self.seats.len();
        let address = space.as_ref().map_or_else(|| self.spare_address(number as u8 + 1), Space::address);
        self.seats.push(Seat { node: None, space, address, starts: 0 });
        self.configure(number, cluster_config);
        number
    }

    /// Writes the configuration of one node. `cluster_config` is laid over what the rig says itself:
    /// name, addresses, ports, [`KEY`], death after three seconds. `null` takes a field out.
    pub(crate) fn configure(&self, number: usize, cluster_config: &Value) {
        let Ports { clients, admin, gossip } = self.ports;
        let address = self.address(number);
        let state = self.scratch.path(&format!("state-{number}"));
        let mut config = json!({
            "server": {
                "host": address, "port": clients, "admin_host": self.admin_host(number), "admin_port": admin,
                "cores": 1, "pin_cores": false, "state_dir": text(&state),
            },
            "cluster_config": {
                "enabled": true, "node_id": format!("n{number}"), "bind_address": address,
                "gossip": {
                    "port": gossip, "encryption_keys": [KEY], "config": { "timeout_seconds": 3 },
                },
            },
        });
        lay_over(&mut config["cluster_config"], cluster_config);
        // Whole or not at all: a node may be reading it.
        let written = self.scratch.write("config.new", &config.to_string());
        std::fs::rename(written, self.config(number)).expect("the configuration is in place");
    }

    /// Lays more over the configuration that a node has already.
    pub(crate) fn extend(&self, number: usize, more: &Value) {
        let text = std::fs::read_to_string(self.config(number)).expect("the configuration is there");
        let mut config = serde_json::from_str(&text).expect("it is JSON");
        lay_over(&mut config, more);
        let written = self.scratch.write("config.new", &config.to_string());
        std::fs::rename(written, self.config(number)).expect("the configuration is in place");
    }

    /// Nodes that are started from now on ask this DNS server, and no other.
    pub(crate) fn resolve_by(&mut self, server: IpAddr) {
        let settings = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
        self.resolv_conf = Some(self.scratch.write("resolv.conf", &settings));
    }

    /// An address next to the nodes' that is nobody's. In namespaces no host has it yet.
    pub(crate) fn spare_address(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last).into()
    }

    /// Where this node, and all it opens, is.
    pub(crate) fn address(&self, number: usize) -> IpAddr {
        self.seats[number].address
    }

    /// Where this node's gossip is.
    pub(crate) fn gossip_address(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.address(number), self.ports.gossip)
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// The namespace of a node.
    pub(crate) fn space(&self, number: usize) -> &Space {
        self.seats[number].space.as_ref().expect("this cluster lives in namespaces")
    }

    /// The namespace of the bridge.
    pub(crate) fn switch(&self) -> &Space {
        self.network.as_ref().expect("this cluster lives in namespaces").switch()
    }

    /// Another host on the bridge, for a program that is no node.
    pub(crate) fn add_host(&mut self) -> Space {
        self.network.as_mut().expect("this cluster lives in namespaces").add()
    }

    /// A folder that goes with the cluster.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.seats.len()).for_each(|number| self.spawn(number));
        (0..self.seats.len()).for_each(|number| self.wait_for_start(number));
    }

    /// Starts a node and waits until it answers on its admin port.
    #[track_caller]
    pub(crate) fn start(&mut self, number: usize) {
        self.spawn(number);
        self.wait_for_start(number);
    }

    /// Starts a node, which may also refuse to.
    pub(crate) fn spawn(&mut self, number: usize) {
        let mut command = self.command(number);
        let seat = &mut self.seats[number];
        assert!(seat.node.is_none(), "node {number} runs already");
        seat.starts += 1;
        let log = self.scratch.path(&format!("node-{number}-{}.log", seat.starts));
        seat.node = Some(match &seat.space {
            Some(space) => space.inside(|| Node::spawn(&mut command, log)),
            None => Node::spawn(&mut command, log),
        });
    }

    /// Runs `doctor` on a node's configuration, where that node is: exit code and all it says.
    pub(crate) fn doctor(&self, number: usize) -> (i32, String) {
        let alone = self.command(number);
        // One that does not end is ended, and its exit code says so.
        let mut command = Command::new("timeout");
        command.arg(WAIT_MAX.as_secs().to_string()).arg(alone.get_program()).args(alone.get_args()).arg("doctor");
        for (name, value) in alone.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let ran = match &self.seats[number].space {
            Some(space) => space.inside(|| command.output()),
            None => command.output(),
        };
        let ran = ran.expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.code().unwrap_or(-1), text(&ran.stdout) + &text(&ran.stderr))
    }

    /// `doctor` finds something, and says each of these.
    #[track_caller]
    pub(crate) fn assert_doctor_says(&self, number: usize, says: &[&str]) {
        let (code, said) = self.doctor(number);
        assert_eq!(code, 1, "{said}");
        for words in says {
            assert!(said.contains(words), "{words:?} is not in:\n{said}");
        }
    }

    /// Starts any program where this node is.
    pub(crate) fn start_beside(&self, number: usize, command: &mut Command) -> Child {
        match &self.seats[number].space {
            Some(space) => space.start(command),
            None => command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")),
        }
    }

    /// Ends a node without asking.
    pub(crate) fn kill(&mut self, number: usize) {
        self.take(number).kill_nine();
    }

    /// Asks a node to leave and waits for its end, which has to be in order; its log.
    #[track_caller]
    pub(crate) fn stop(&mut self, number: usize) -> String {
        let mut node = self.take(number);
        node.signal(Signal::SIGTERM);
        let code = node.ended();
        assert_eq!(code, 0, "node {number} did not end in order:\n{}", node.log());
        node.log()
    }

    /// Waits for the end that a node comes to by itself: exit code and log.
    #[track_caller]
    pub(crate) fn ended(&mut self, number: usize) -> (i32, String) {
        let mut node = self.take(number);
        (node.ended(), node.log())
    }

    pub(crate) fn signal(&self, number: usize, signal: Signal) {
        self.seats[number].node.as_ref().expect("the node runs").signal(signal);
    }

    /// What a node has logged since it was started the last time.
    pub(crate) fn log(&self, number: usize) -> String {
        self.seats[number].node.as_ref().expect("the node runs").log()
    }

    /// `/cluster/status` of a node's admin listener; `None` where nobody answers.
    pub(crate) fn status(&self, number: usize) -> Option<Value> {
        let (code, body) = self.get(number, "/cluster/status");
        if code == 200 { serde_json::from_str(&body).ok() } else { None }
    }

    /// Code and body of one GET of a node's admin listener; code 0 where nobody answers.
    pub(crate) fn get(&self, number: usize, path: &str) -> (u16, String) {
        let address = SocketAddr::new(self.admin_host(number), self.ports.admin);
        match &self.seats[number].space {
            Some(space) => space.inside(|| get_from(address, path)),
            None => get_from(address, path),
        }
    }

    /// Waits until each of these nodes counts exactly them, all healthy.
    #[track_caller]
    pub(crate) fn wait_together(&mut self, numbers: &[usize]) {
        let count = numbers.len();
        self.wait(numbers, &format!("{count} members, all healthy"), |_, status| {
            status["members"] == count && status["healthy_members"] == count && status["cluster_health"] == "HEALTHY"
        });
    }

    /// Waits until each of these nodes counts so many healthy members, dead ones beside them or not.
    #[track_caller]
    pub(crate) fn wait_healthy(&mut self, numbers: &[usize], healthy: usize) {
        self.wait(numbers, &format!("{healthy} healthy members"), |_, status| status["healthy_members"] == healthy);
    }

    /// Waits until these nodes' logs have this text.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, numbers: &[usize], line: &str) {
        self.wait(numbers, &format!("the line {line:?}"), |log, _| log.contains(line));
    }

    /// Waits until these nodes' sources see so many peers, as the last line about it says.
    #[track_caller]
    pub(crate) fn wait_discovered(&mut self, numbers: &[usize], count: usize) {
        self.wait(numbers, &format!("{count} peers discovered"), |log, _| discovered(log) == Some(count));
    }

    /// Waits until every one of these nodes shows it, by its log and its status.
    #[track_caller]
    pub(crate) fn wait(&mut self, numbers: &[usize], what: &str, is_so: impl Fn(&str, &Value) -> bool) {
        let clock = Clock::start();
        let end = clock.now().after(WAIT_MAX);
        let mut missing = numbers.to_vec();
        while !missing.is_empty() {
            for number in numbers {
                self.seats[*number].node.as_mut().expect("the node runs").assert_runs();
            }
            missing.retain(|number| !is_so(&self.log(*number), &self.status(*number).unwrap_or_default()));
            if missing.is_empty() {
                // All at one time, not one after the other.
                missing = numbers.to_vec();
                missing.retain(|number| !is_so(&self.log(*number), &self.status(*number).unwrap_or_default()));
            }
            let is_in_time = clock.now() < end;
            assert!(is_in_time, "not within {WAIT_MAX:?}, on {missing:?}: {what}\n{}", self.account());
            std::thread::sleep(POLL);
        }
    }

    /// What all nodes say, for a test that fails.
    pub(crate) fn account(&self) -> String {
        let mut account = String::new();
        for (number, seat) in self.seats.iter().enumerate().filter(|(_, seat)| seat.node.is_some()) {
            let status = self.status(number).unwrap_or_default();
            let log = self.log(number);
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            let address = seat.address;
            account.extend(["--- node ", &format!("{number} at {address}: {status}"), "\n", &last, "\n"]);
        }
        account
    }

    fn take(&mut self, number: usize) -> Node {
        self.seats[number].node.take().expect("the node runs")
    }

    /// The configuration file of a node.
    pub(crate) fn config(&self, number: usize) -> PathBuf {
        self.scratch.path(&format!("config-{number}.json"))
    }

    /// Loopback, which in a namespace is the node's own.
    fn admin_host(&self, number: usize) -> IpAddr {
        match &self.seats[number].space {
            Some(_) => Ipv4Addr::LOCALHOST.into(),
            None => self.seats[number].address,
        }
    }

    /// The program with its configuration; where there is a DNS server, in a mount namespace where
    /// only that is asked. The shell and `unshare` become the node, so signals reach it.
    fn command(&self, number: usize) -> Command {
        let node = program();
        let mut command = match &self.resolv_conf {
            Some(resolv_conf) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]);
                command.arg(resolv_conf).arg(node.get_program());
                command
            }
            None => Command::new(node.get_program()),
        };
        for (name, value) in node.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg("--config").arg(self.config(number)).stdin(std::process::Stdio::null());
        command
    }

    #[track_caller]
    fn wait_for_start(&mut self, number: usize) {
        self.wait(&[number], "an answer on the admin port", |_, status| status.is_object());
    }
}

/// What the last line about discovered peers says.
fn discovered(log: &str) -> Option<usize> {
    let number = |text: &str| text.split(' ').next()?.parse().ok();
    log.lines().rev().find_map(|line| match line.split_once("no new nodes discovered; ") {
        Some((_, rest)) => number(rest),
        None => line.split_once("discovered ").and_then(|(_, rest)| rest.contains(" nodes").then(|| number(rest))?),
    })
}

/// Objects member by member, everything else whole; `null` takes a member out.
fn lay_over(below: &mut Value, above: &Value) {
    let (Value::Object(members), Value::Object(others)) = (&mut *below, above) else {
        below.clone_from(above);
        return;
    };
    for (name, other) in others {
        if other.is_null() {
            members.remove(name);
        } else {
            lay_over(members.entry(name).or_insert(Value::Null), other);
        }
    }
}

#[test]
fn three_nodes_that_know_of_nobody_answer_each_for_itself() {
    let mut cluster = Cluster::on_loopback(3, &json!({ "enabled": false }));
    cluster.start_all();
    cluster.wait(&[0, 1, 2], "one member", |_, status| status["members"] == 1);
    let log = cluster.stop(1);
    assert!(log.contains("ready"), "{log}");
    cluster.kill(2);
    assert!(cluster.status(1).is_none() && cluster.status(2).is_none());
    cluster.start(2);
    cluster.wait_together(&[2]);
}

#[test]
fn hosts_around_a_bridge_reach_each_other_and_nobody_else_reaches_them() {
    let mut cluster = Cluster::in_namespaces(2, &json!({ "enabled": false }));
    cluster.start_all();
    let clients = |number: usize| SocketAddr::new(cluster.address(number), cluster.ports().clients);
    assert_eq!(cluster.space(0).inside(|| get_from(clients(1), "/health").0), 200);
    assert_eq!(cluster.switch().inside(|| get_from(clients(0), "/health").0), 200);
    cluster.space(1).connect(false);
    assert_eq!(cluster.get(1, "/cluster/status").0, 200, "its own loopback is still there");
    cluster.space(1).connect(true);
    assert_eq!(cluster.space(0).inside(|| get_from(clients(1), "/health").0), 200);
}
