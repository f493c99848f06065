//! What `/metrics` shows: sums of the cores' reports, the limits as they stand, the cluster, the
//! process.

mod cluster;
mod exposition;
mod limits;
pub mod process;
mod render;
mod totals;

pub use cluster::ClusterFacts;
pub(crate) use render::RevisionFacts;
pub use render::{CONTENT_TYPE, Facts, LimitRow, render};
pub use totals::Totals;
