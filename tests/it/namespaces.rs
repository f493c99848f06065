//! A network of its own for one test: a bridge, and hosts around it, each in a network namespace.
//! The bridge has a namespace too, so nothing of it is seen outside, and two tests may use the same
//! addresses. Everything goes with the value, also after a panic; what a killed test run left
//! behind is cleared away by the next one. No delays and no loss.
//!
//! Needs root and `ip` (iproute2).

#![allow(dead_code, reason = "what one method of discovery needs, another does not")]

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Of every namespace; the number of the process that made it follows.
const PREFIX: &str = "dit-";
/// Last part of the bridge's own address.
const SWITCH: u8 = 254;
/// Where `ip` keeps its namespaces.
const NAMES: &str = "/run/netns";

/// The bridge and its hosts.
pub(crate) struct Network {
    switch: Space,
    hosts: u8,
}

/// A network namespace with one address on the bridge. Whoever started something here ends it before.
pub(crate) struct Space {
    name: String,
    last: u8,
}

impl Network {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let network = Self { switch: Space::new(format!("{PREFIX}{}-{number}", std::process::id()), SWITCH), hosts: 0 };
        network.switch.ip("link add e0 type bridge");
        network.switch.take_addresses();
        network
    }

    /// The bridge's own namespace: a place for servers.
    pub(crate) fn switch(&self) -> &Space {
        &self.switch
    }

    /// Another host on the bridge.
    pub(crate) fn add(&mut self) -> Space {
        self.hosts += 1;
        let host = Space::new(format!("{}-{}", self.switch.name, self.hosts), self.hosts);
        let port = format!("p{}", self.hosts);
        self.switch.ip(&format!("link add {port} type veth peer name e0 netns {}", host.name));
        self.switch.ip(&format!("link set {port} master e0 up"));
        host.take_addresses();
        host.ip(&format!("route add default via {}", self.switch.address()));
        host
    }
}

impl Space {
    fn new(name: String, last: u8) -> Self {
        ip(&["netns", "add", &name]);
        let space = Self { name, last };
        space.ip("link set lo up");
        space
    }

    /// On the bridge.
    pub(crate) fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.last).into()
    }

    /// On the bridge too.
    pub(crate) fn address_v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.last.into()).into()
    }

    /// Runs it here, on a thread of its own. Sockets and programs that it makes stay here.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let name = Path::new(NAMES).join(&self.name);
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let space = File::open(&name).expect("the namespace is there");
                setns(space, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                act()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a program here.
    pub(crate) fn start(&self, command: &mut Command) -> Child {
        self.inside(|| command.spawn()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Takes the host off the bridge, or puts it back.
    pub(crate) fn connect(&self, is_connected: bool) {
        self.ip(if is_connected { "link set e0 up" } else { "link set e0 down" });
        if is_connected {
            self.ip(&format!("address replace {}/64 dev e0 nodad", self.address_v6()));
        }
    }

    /// Runs `ip` here, with arguments that have no spaces of their own.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        ip(&all);
    }

    /// Drops packets that come in and go out here, as a firewall of this host does;
    /// instead of those that were dropped before. In the words of nftables: `udp dport 9999`.
    pub(crate) fn block(&self, packets: &[&str]) {
        let rules: Vec<_> = packets.iter().map(|packet| format!("{packet} drop;")).collect();
        let rules = rules.concat();
        let script = format!(
            "add table inet it\ndelete table inet it\ntable inet it {{ \
             chain in {{ type filter hook input priority 0; {rules} }}\n\
             chain out {{ type filter hook output priority 0; {rules} }}\n}}\n"
        );
        let ran = self.inside(|| Command::new("nft").arg(&script).output()).expect("`nft` is there: install nftables");
        assert!(ran.status.success(), "nft {script}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn take_addresses(&self) {
        self.ip(&format!("address add {}/24 broadcast + dev e0", self.address()));
        self.ip(&format!("address add {}/64 dev e0 nodad", self.address_v6()));
        self.ip("link set e0 up");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn ip(arguments: &[&str]) {
    let ran = Command::new("ip").args(arguments).output().expect("`ip` is there: install iproute2");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "ip {}: {said}\nnetwork namespaces can be made by root only: run these tests as root",
        arguments.join(" ")
    );
}

/// Namespaces of test processes that are no more.
fn sweep() {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            remove(&name);
        }
    }
}

/// A fault here must not hide the one that ended a test.
fn remove(name: &str) {
    drop(Command::new("ip").args(["netns", "delete", name]).status());
}
