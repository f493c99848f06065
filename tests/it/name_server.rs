//! A real DNS server for tests of discovery: knot, authoritative for two zones, on one address.
//! Records are changed while it runs.

use crate::cluster_rig::Program;
use crate::node_rig::{Scratch, text, until};
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// A zone whose records change.
pub(crate) const QUICK: &str = "quick.test";
/// A zone whose records do not.
pub(crate) const SLOW: &str = "slow.test";

/// knot, running or not. Its zones keep what they were told.
pub(crate) struct NameServer {
    scratch: Scratch,
    process: Option<Program>,
}

impl NameServer {
    /// Serves nothing yet; [`NameServer::start`] does.
    pub(crate) fn new(address: IpAddr) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.path("");
        let folder = text(&folder);
        let zones = [QUICK, SLOW].map(|zone| {
            let start = format!(
                "$ORIGIN {zone}.\n@ 60 SOA ns admin 1 60 60 60 1\n@ 60 NS ns\nns 60 A {}\n",
                if address.is_ipv4() { address.to_string() } else { "127.0.0.1".to_owned() }
            );
            scratch.write(zone, &start);
            format!("  - domain: {zone}\n    file: {zone}\n    module: mod-stats/counts\n")
        });
        let config = format!(
            "server:\n  rundir: \"{folder}\"\n  listen: {address}@53\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ndatabase:\n  storage: \"{folder}\"\ncontrol:\n  listen: \"{folder}/control\"\n\
             mod-stats:\n  - id: counts\n    query-type: on\ntemplate:\n  - id: default\n    storage: \"{folder}\"\n    \
             zonefile-sync: 0\n    semantic-checks: soft\nzone:\n{}",
            zones.concat()
        );
        scratch.write("knot.conf", &config);
        Self { scratch, process: None }
    }

    /// `start` says where: beside a node, or in a namespace.
    pub(crate) fn start(&mut self, start: impl FnOnce(&mut Command) -> std::process::Child) {
        let log = std::fs::File::create(self.scratch.path("knot.log")).expect("a log file");
        let mut command = Command::new("knotd");
        command.arg("-c").arg(self.scratch.path("knot.conf"));
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        self.process = Some(Program::from(start(&mut command)));
        until("the DNS server has its zones", || {
            [QUICK, SLOW].iter().all(|zone| self.asks(&["zone-read", zone, "@", "SOA"]).is_ok()).then_some(())
        });
    }

    /// Nobody answers any more.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Adds records to a zone: `owner TTL type data`.
    #[track_caller]
    pub(crate) fn add(&self, zone: &str, records: &[String]) {
        self.change(zone, "zone-set", records);
    }

    /// Takes records out of a zone: `owner type data`, or less to take out more.
    #[track_caller]
    pub(crate) fn remove(&self, zone: &str, records: &[String]) {
        self.change(zone, "zone-unset", records);
    }

    /// Questions so far about this type in this zone.
    pub(crate) fn questions(&self, zone: &str, kind: &str) -> u64 {
        let said = self.tell(&["zone-stats", zone, "mod-stats.query-type"]);
        let line = said.lines().find(|line| line.contains(&format!("[{kind}]")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    #[track_caller]
    fn change(&self, zone: &str, verb: &str, records: &[String]) {
        self.tell(&["zone-begin", zone]);
        for record in records {
            let mut command = vec![verb, zone];
            command.extend(record.split(' '));
            self.tell(&command);
        }
        self.tell(&["zone-commit", zone]);
    }

    #[track_caller]
    fn tell(&self, command: &[&str]) -> String {
        self.asks(command).unwrap_or_else(|said| panic!("knotc {command:?}: {said}"))
    }

    /// Waits until it has done what it is asked.
    fn asks(&self, command: &[&str]) -> Result<String, String> {
        let mut knotc = Command::new("knotc");
        knotc.arg("-b").arg("-s").arg(self.scratch.path("control")).args(command);
        let ran = knotc.output().expect("`knotc` is there: install knot");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr) + &text(&ran.stdout)) }
    }
}
