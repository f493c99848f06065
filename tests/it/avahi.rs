//! Avahi on one host of a test's network: what the rest of the world uses for mDNS. It has a message
//! bus of its own, and sees nothing of the machine it runs on.

use crate::cluster_rig::Program;
use crate::namespaces::Space;
use crate::node_rig::{Scratch, text, until};
use std::process::{Command, Stdio};

/// A running Avahi with its bus.
pub(crate) struct Avahi<'s> {
    space: &'s Space,
    scratch: Scratch,
    /// Ends before its bus.
    _daemon: Program,
    _bus: Program,
}

impl<'s> Avahi<'s> {
    pub(crate) fn start(space: &'s Space) -> Self {
        let scratch = Scratch::new();
        let bus = scratch.path("bus");
        let bus_config = scratch.write(
            "bus.conf",
            &format!(
                "<busconfig><type>system</type><listen>unix:path={}</listen><policy context=\"default\">\
                 <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
                text(&bus)
            ),
        );
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(bus_config);
        let bus_daemon = Program::from(space.start(quiet(&mut command)));
        until("the message bus listens", || bus.exists().then_some(()));

        let config = scratch.write(
            "avahi.conf",
            "[server]\nhost-name=avahi\nallow-interfaces=e0\nuse-ipv4=yes\nuse-ipv6=no\n\
             [publish]\npublish-hinfo=no\npublish-workstation=no\n[wide-area]\nenable-wide-area=no\n",
        );
        // Its socket and pid file have fixed places below /run.
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec avahi-daemon \"$@\"", "sh"]);
        command.args(["--no-drop-root", "--no-chroot", "--no-rlimits", "-f"]).arg(config);
        let daemon = Program::from(space.start(quiet(on_bus(&mut command, &scratch))));
        let avahi = Self { space, scratch, _daemon: daemon, _bus: bus_daemon };
        until("avahi answers", || avahi.browse_once("_nothing._tcp"));
        avahi
    }

    /// Instances of a service that it sees: lines as `avahi-browse` prints them, resolved.
    pub(crate) fn browse(&self, service: &str) -> String {
        self.browse_once(service).expect("avahi runs")
    }

    /// Advertises an instance for as long as the value lives.
    pub(crate) fn publish(&self, instance: &str, service: &str, port: u16, property: &str) -> Program {
        let mut command = Command::new("avahi-publish");
        command.args(["--service", instance, service, &port.to_string(), property]);
        Program::from(self.space.start(quiet(on_bus(&mut command, &self.scratch))))
    }

    /// The same, on a host of another name, which [`Avahi::publish_address`] made known.
    pub(crate) fn publish_on(&self, host: &str, instance: &str, service: &str, port: u16, property: &str) -> Program {
        let mut command = Command::new("avahi-publish");
        command.args(["--host", host, "--service", instance, service, &port.to_string(), property]);
        Program::from(self.space.start(quiet(on_bus(&mut command, &self.scratch))))
    }

    /// Says that a host has this address.
    pub(crate) fn publish_address(&self, host: &str, address: &str) -> Program {
        let mut command = Command::new("avahi-publish");
        command.args(["--no-reverse", "--address", host, address]);
        Program::from(self.space.start(quiet(on_bus(&mut command, &self.scratch))))
    }

    fn browse_once(&self, service: &str) -> Option<String> {
        let mut command = Command::new("avahi-browse");
        command.args(["--resolve", "--parsable", "--terminate", service]).stderr(Stdio::null());
        on_bus(&mut command, &self.scratch);
        let ran = self.space.inside(|| command.output()).expect("`avahi-browse` is there: install avahi-utils");
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

fn on_bus<'c>(command: &'c mut Command, scratch: &Scratch) -> &'c mut Command {
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", text(&scratch.path("bus"))))
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
