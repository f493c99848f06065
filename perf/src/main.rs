//! perf

fn main() {}
