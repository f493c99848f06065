//! How many user instructions does a request need, and is that more than it was?
//!
//! Counts, so that a machine that is busy or slow says the same: each proxy lives twice under callgrind,
//! the second time with twice the requests, and what its busiest thread did more is what they cost. That is
//! the thread of the core; what the control thread does goes by time and is left out.

pub(crate) mod baseline;

use std::{path::Path, process::Command};

use crate::{
    bed::{
        Bed, BedError, CONNECTIONS, doing,
        shape::{Answer, Shape},
    },
    request_cost::callgrind,
};

/// What is counted, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counting {
    /// Requests that are counted; the second life sends twice as many.
    pub(crate) requests: u64,
    /// Requests of each life before those.
    pub(crate) warm_up: u64,
    /// Keep-alive connections.
    pub(crate) connections: usize,
    /// Further connections, that wait.
    pub(crate) idle: usize,
    /// How the provider answers.
    pub(crate) answer: Answer,
}

impl Counting {
    /// A chat request, over as many connections as everywhere here.
    pub(crate) fn of(requests: u64) -> Self {
        Self { requests, warm_up: requests / 4, connections: CONNECTIONS, idle: 0, answer: Answer::Whole }
    }

    /// User instructions of the cores' threads for one request to a node of this shape.
    pub(crate) fn node(self, bed: &Bed, program: &Path, shape: Shape, cores: &[usize]) -> Result<f64, BedError> {
        self.count(bed, "gateway", shape, cores, || bed.node(program, shape))
    }

    /// Those of a proxy of this program that has one thread.
    pub(crate) fn floor(self, bed: &Bed, command: &str, cores: &[usize]) -> Result<f64, BedError> {
        self.count(bed, command, Shape::default(), cores, || bed.floor(command))
    }

    fn count(
        self,
        bed: &Bed,
        name: &str,
        shape: Shape,
        cores: &[usize],
        command: impl Fn() -> Result<Command, BedError>,
    ) -> Result<f64, BedError> {
        let output = callgrind::output(bed.folder());
        let requests = shape.requests(bed.listen(), CONNECTIONS, self.answer)?;
        let life = |count: u64| {
            let command = callgrind::thread_by_thread(&command()?, &output);
            let child = bed.begin(name, command, cores, &requests[0])?;
            let idle = bed.idle_connections(self.idle, &requests[0])?;
            bed.send(&requests, self.connections, self.warm_up)?;
            bed.send(&requests, self.connections, count)?;
            Bed::still_wait(&idle)?;
            drop(idle);
            child.stop().map_err(doing(name))?;
            callgrind::by_thread(&output).map_err(doing(name))
        };
        let (once, twice) = (life(self.requests)?, life(2 * self.requests)?);
        Ok(callgrind::more_by_busiest(&once, &twice, shape.cores) as f64 / self.requests.max(1) as f64)
    }
}
