//! A real etcd with one member, and `etcdctl` to look into it.

use crate::node_rig::{Scratch, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ends with the value; its data too.
pub(crate) struct EtcdServer {
    child: Option<Child>,
    scratch: Scratch,
    address: Ipv4Addr,
    /// `user:password` for `etcdctl`, once users are asked for.
    user: Option<&'static str>,
    /// More options of its command line.
    options: &'static [&'static str],
}

impl EtcdServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more options on its command line.
    pub(crate) fn start_with(options: &'static [&'static str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // An address of its own, whose ports nobody takes while the server is stopped.
        let number = std::process::id().wrapping_mul(16).wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed));
        let [.., high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, high.max(1), low, 200);
        let mut server = Self { child: None, scratch: Scratch::new(), address, user: None, options };
        server.run();
        server
    }

    /// Starts it with the data that is there, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let client = self.endpoint();
        let peer = format!("http://{}:2380", self.address);
        let mut command = Command::new("etcd");
        command.args(["--name", "e", "--log-level", "error", "--data-dir", text(&self.scratch.path("data"))]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("e={peer}")]).args(self.options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("etcd is installed (Debian: etcd-server)"));
        until("etcd answers", || self.try_control(&["endpoint", "health"]));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("etcd runs");
            child.wait().expect("it is ours");
        }
    }

    /// Forgets everything; to be called while it is stopped.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.scratch.path("data")).expect("it had data");
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    /// What `etcdctl` prints; the test fails with it.
    #[track_caller]
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        self.try_control(arguments).unwrap_or_else(|| panic!("etcdctl {arguments:?} failed"))
    }

    /// Holds it up (`SIGSTOP`), or lets it go on (`SIGCONT`).
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("etcd runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is ours");
    }

    pub(crate) fn try_control(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint(), "--command-timeout", "2s"]);
        if let Some(user) = self.user {
            command.args(["--user", user]);
        }
        let ran = command.args(arguments).stderr(Stdio::null()).output();
        let ran = ran.expect("etcdctl is installed (Debian: etcd-client)");
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let printed = self.control(&["get", "--prefix", "/", "--keys-only"]);
        printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn wait_for_keys(&self, keys: &[&str]) {
        until(&format!("etcd has {keys:?}"), || (self.keys() == keys).then_some(()));
    }

    /// From now on `gateway`, with the password `right`, may use `/s/`, and nobody else anything.
    pub(crate) fn guard(&mut self) {
        for user in ["root", "gateway"] {
            self.control(&["user", "add", &format!("{user}:right")]);
            self.control(&["role", "add", user]);
            self.control(&["user", "grant-role", user, user]);
        }
        self.control(&["role", "grant-permission", "gateway", "readwrite", "/s/", "--prefix=true"]);
        self.control(&["auth", "enable"]);
        self.user = Some("root:right");
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.stop();
    }
}
