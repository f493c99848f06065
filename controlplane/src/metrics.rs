//! m
mod totals;
pub use totals::Totals;
