//! From the start of a process to its first answer.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    Compare, Trouble,
    measure::{closed_load, mib, trouble},
    results::Figure,
    scenario::Scenario,
};
use crate::{
    child::Child,
    clock,
    node_memory::Memory,
    peer::{Peer, Wire},
    rig::{Rig, child_error},
    target::Target,
};

/// Providers of the configuration that a gateway starts from.
const PROVIDERS: usize = 100;
/// Longest wait for a first answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Between two attempts: the exactness of the figure.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);
/// Longest wait for one answer.
const READ_MAX: Duration = Duration::from_secs(5);
/// From readiness to the look at an idle node.
const IDLE_REST: Duration = Duration::from_secs(2);

/// Time to the first answer; of a gateway also that from its last good snapshot, and its memory on
/// two cores.
pub(super) fn start_up(what: &Compare, rig: &Rig, peer: Peer) -> Result<Vec<Figure>, Trouble> {
    let request = closed_load(what, rig, Scenario::StartUp, Some(peer))?.request;
    let name = peer.name();
    let absent = |error: std::io::Error| Trouble::Absent(format!("{name}: {error}"));
    // In a cluster limits are shared out before a node answers, which takes as long as its peers
    // like: what starts here is one node alone.
    let alone = if peer.is_clustered() { Peer::Gateway } else { peer };
    let command = rig.places.command(alone, Wire::default()).map_err(absent)?;
    let (child, took) = started(rig, name, command, rig.places.listen, &request)?;
    child.stop().map_err(child_error(name))?;
    let mut figures = vec![Figure::new("start_to_answer", took.as_secs_f64() * 1e3, "ms")];
    if peer == Peer::GatewayAll {
        figures.push(from_snapshot(rig, name)?);
        figures.push(idle_memory(rig, name)?);
    }
    Ok(figures)
}

/// A first life writes the snapshot; the second one has nothing else to start from.
fn from_snapshot(rig: &Rig, name: &str) -> Result<Figure, Trouble> {
    let ready =
        Target::parse(&format!("http://{}/ready", rig.places.listen)).map_err(crate::rig::RigError::from)?.get();
    let (command, file) = rig.places.gateway_of_providers(PROVIDERS).map_err(trouble("writing a configuration"))?;
    let again = copy(&command);
    let (child, _) = started(rig, name, command, rig.places.listen, &ready)?;
    child.stop().map_err(child_error(name))?;
    fs::remove_file(file).map_err(trouble("removing a configuration"))?;
    let (child, took) = started(rig, name, again, rig.places.listen, &ready)?;
    child.stop().map_err(child_error(name))?;
    Ok(Figure::new("snapshot_to_ready", took.as_secs_f64() * 1e3, "ms"))
}

fn idle_memory(rig: &Rig, name: &str) -> Result<Figure, Trouble> {
    let alive =
        Target::parse(&format!("http://{}/health", rig.places.listen)).map_err(crate::rig::RigError::from)?.get();
    let command = rig.places.idle_gateway(2).map_err(trouble("writing a configuration"))?;
    let (child, _) = started(rig, name, command, rig.places.listen, &alive)?;
    std::thread::sleep(IDLE_REST);
    let memory = Memory::sample(child.pid()).map_err(child_error(name))?;
    child.stop().map_err(child_error(name))?;
    Ok(Figure::new("resident_idle_2_cores", mib(memory.resident), "MiB"))
}

fn copy(command: &std::process::Command) -> std::process::Command {
    let mut copy = std::process::Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Starts it and asks until the answer is 200.
fn started(
    rig: &Rig,
    name: &str,
    command: std::process::Command,
    address: SocketAddr,
    request: &[u8],
) -> Result<(Child, Duration), Trouble> {
    let begun = clock::now();
    let mut child = rig.start_on_core(name, command).map_err(|error| Trouble::Absent(error.to_string()))?;
    while clock::now() < begun + ANSWER_MAX {
        if answers(address, request) {
            return Ok((child, clock::now().saturating_duration_since(begun)));
        }
        child.check_alive().map_err(child_error(name))?;
        std::thread::sleep(LOOK_INTERVAL);
    }
    Err(Trouble::Failed(format!("no answer within {} s", ANSWER_MAX.as_secs())))
}

fn answers(address: SocketAddr, request: &[u8]) -> bool {
    let mut status = [0; 12];
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(READ_MAX))?;
        stream.write_all(request)?;
        stream.read_exact(&mut status)
    });
    asked.is_ok() && status == *b"HTTP/1.1 200"
}
