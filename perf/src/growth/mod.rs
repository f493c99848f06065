//! What a request costs, against the size of what is around it: providers, keys, virtual keys, limits,
//! connections, cores.
//!
//! Each size is a node of its own. It is counted under callgrind (user instructions of the cores' threads, on
//! epoll; judged) and runs as it is (CPU time, kernel included; shown, for a busy machine disturbs it).

pub(crate) mod judge;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::{
    bed::{
        Bed, BedError, CONNECTIONS, doing,
        shape::{Answer, Shape},
    },
    counters::CpuClock,
    instructions::Counting,
    plot::{self, Series},
    rows::{Rows, say},
};
use judge::Growth;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Axis {
    /// Providers, and a virtual key that may use all of them
    Providers,
    /// Keys of one provider
    Keys,
    /// Virtual keys; 64 of them, far apart, ask
    VirtualKeys,
    /// Limits, each with a virtual key; 64 of them, far apart, ask
    Limits,
    /// Connections that all have a request under way
    Connections,
    /// Connections that wait, beside 64 that ask
    IdleConnections,
    /// Cores
    Cores,
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Self::Providers => "providers",
            Self::Keys => "keys",
            Self::VirtualKeys => "virtual-keys",
            Self::Limits => "limits",
            Self::Connections => "connections",
            Self::IdleConnections => "idle-connections",
            Self::Cores => "cores",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Providers => &[1, 10, 100, 500],
            Self::Keys => &[1, 4, 16, 64],
            Self::VirtualKeys => &[1, 100, 1_000, 10_000, 100_000],
            Self::Limits => &[1, 100, 1_000, 10_000],
            Self::Connections => &[1, 16, 64, 256, 1_000, 4_000, 9_000],
            Self::IdleConnections => &[1, 1_000, 5_000, 19_000],
            Self::Cores => &[1, 2],
        }
    }

    fn point(self, size: usize) -> Point {
        let mut point = Point { shape: Shape::default(), busy: CONNECTIONS, idle: 0 };
        match self {
            Self::Providers => point.shape.providers = size,
            Self::Keys => point.shape.keys = size,
            Self::VirtualKeys => point.shape.virtual_keys = size,
            Self::Limits => (point.shape.virtual_keys, point.shape.limits) = (size, size),
            Self::Connections => point.busy = size,
            Self::IdleConnections => point.idle = size,
            Self::Cores => point.shape.cores = size,
        }
        point
    }
}

/// One node that is measured.
#[derive(Debug, Clone, Copy)]
struct Point {
    shape: Shape,
    busy: usize,
    idle: usize,
}

/// What to measure.
#[derive(Debug)]
pub(crate) struct GrowthRun {
    /// The node's program.
    pub(crate) node: PathBuf,
    /// In this order.
    pub(crate) axes: Vec<Axis>,
    /// Sizes beyond this are left out.
    pub(crate) largest: usize,
    /// Counted requests; at least one and a half for each connection.
    pub(crate) requests: u64,
    /// Requests that CPU time is taken over.
    pub(crate) cpu_requests: u64,
    /// The folder of results.
    pub(crate) folder: PathBuf,
    /// First of three ports.
    pub(crate) port: u16,
    /// Cores of the node: it takes as many of them as it has cores.
    pub(crate) node_cores: Vec<usize>,
    /// Core of load and provider.
    pub(crate) load_core: usize,
}

/// Measures every size of every axis, and draws and judges each axis. Says whether nothing grows too fast.
pub(crate) fn run(what: &GrowthRun, rows: &mut Rows) -> Result<bool, BedError> {
    let bed = Bed::start(&what.node, what.port, what.load_core)?;
    let mut is_bounded = true;
    for &axis in &what.axes {
        let (mut counted, mut timed) = (Vec::new(), Vec::new());
        for &size in axis.sizes().iter().filter(|size| **size <= what.largest) {
            let point = axis.point(size);
            // One size that cannot be had here does not take the others with it.
            match measure(what, &bed, point) {
                Ok((instructions, micros)) => {
                    rows.add(
                        axis.name(),
                        &format!("user_instructions_per_request_at_{size}"),
                        instructions,
                        "instructions",
                    );
                    rows.add(axis.name(), &format!("cpu_per_request_at_{size}"), micros, "us");
                    say(&format!(
                        "{} {size}: {instructions:.0} user instructions, {micros:.1} us a request",
                        axis.name()
                    ));
                    counted.push((size as f64, instructions));
                    timed.push((size as f64, micros));
                }
                Err(error) => say(&format!("{} {size}: not measured: {error}", axis.name())),
            }
        }
        let growth = judge::judge(&counted);
        is_bounded &= growth.is_bounded() && !counted.is_empty();
        say(&format!("{}: the cost of a request {}", axis.name(), growth.name()));
        draw(&what.folder, axis, growth, counted, timed).map_err(doing("writing a plot"))?;
    }
    Ok(is_bounded)
}

fn draw(
    folder: &Path,
    axis: Axis,
    growth: Growth,
    counted: Vec<(f64, f64)>,
    timed: Vec<(f64, f64)>,
) -> std::io::Result<()> {
    let title = format!("a request against {}: {}", axis.name(), growth.name());
    for (name, unit, points) in [("instructions", "user instructions", counted), ("cpu", "CPU µs", timed)] {
        let series = Series { name: format!("{unit} a request"), points };
        let svg = plot::lines(&title, axis.name(), unit, &[series]);
        std::fs::write(folder.join(format!("{}-{name}.svg", axis.name())), svg)?;
    }
    Ok(())
}

/// User instructions and microseconds of CPU time of one request.
fn measure(what: &GrowthRun, bed: &Bed, point: Point) -> Result<(f64, f64), BedError> {
    let cores = what.node_cores.get(..point.shape.cores).unwrap_or(&what.node_cores);
    let at_least = point.busy as u64 * 3 / 2;
    let counting = Counting {
        requests: what.requests.max(at_least),
        // Every connection is opened before anything is counted.
        warm_up: at_least.max(what.requests / 4),
        connections: point.busy,
        idle: point.idle,
        answer: Answer::Whole,
    };
    let instructions = counting.node(bed, &what.node, point.shape, cores)?;

    let requests = point.shape.requests(bed.listen(), CONNECTIONS, Answer::Whole)?;
    let node = bed.begin("node", bed.node(&what.node, point.shape)?, cores, &requests[0])?;
    let waiting = bed.idle_connections(point.idle, &requests[0])?;
    bed.send(&requests, point.busy, (what.cpu_requests / 10).max(at_least))?;
    let clock = CpuClock::start(node.pid()).map_err(doing("CPU time"))?;
    let count = what.cpu_requests.max(at_least);
    bed.send(&requests, point.busy, count)?;
    let used = clock.used().map_err(doing("CPU time"))?;
    Bed::still_wait(&waiting)?;
    drop(waiting);
    node.stop().map_err(doing("the node"))?;
    Ok((instructions, used.as_secs_f64() * 1e6 / count as f64))
}
