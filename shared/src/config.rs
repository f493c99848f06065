//! The configuration: from the file's text to types, with every fault named at once.

pub mod base_url;
pub mod durations;
pub mod model;
