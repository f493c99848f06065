//! node

fn main() {}
