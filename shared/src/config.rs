//! The configuration: from the file's text to types, with every fault named at once.
//!
//! [`load`] is pure: the environment and other files are reached through [`Sources`] only, so
//! the same text and sources always give the same answer. The text is JSON with comments and
//! trailing commas. What a loaded [`Config`] holds has been checked: references exist, numbers
//! are in range, texts have become types.
//!
//! Absent: watching the file, merging several files, writing one.

mod asked;
pub mod base_url;
pub mod durations;
mod faults;
mod inactive;
pub mod model;
mod nearest;
mod plain;
mod prescan;
mod read;
mod reader;
mod references;
#[cfg(test)]
mod tests;

use std::io;

use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

pub use asked::{Asked, What, asked_of};
pub use faults::{Fault, Warning};
pub use model::Config;
pub use plain::plain_json;

use prescan::{DEPTH_MAX, Excess, TEXT_BYTES_MAX, VALUES_MAX, check_bounds};
use reader::{Node, Reader};

/// Where `env.NAME`, `file:PATH` and `sealed:…` in a configuration lead.
#[derive(Clone, Copy)]
pub struct Sources<'s> {
    /// The value of an environment variable, if it is set.
    pub env: &'s dyn Fn(&str) -> Option<String>,
    /// The content of a text file. A newline at its end does not count.
    pub file: &'s dyn Fn(&str) -> io::Result<String>,
    /// What was sealed, by what stands behind `sealed:`, if it can be opened. Files have none.
    pub sealed: &'s dyn Fn(&str) -> Option<String>,
}

impl Sources<'static> {
    /// Sources that have nothing, for configurations without references.
    pub fn none() -> Self {
        Self { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()), sealed: &|_| None }
    }
}

/// A configuration that a node can start with.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    /// The typed configuration.
    pub config: Config,
    /// What its author should know, in the order of the text.
    pub warnings: Vec<Warning>,
}

/// The text of a configuration file: UTF-8. What is there and is no text is faulty, not absent.
pub fn text_of(bytes: &[u8]) -> Result<&str, Fault> {
    str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line_start = good.rfind('\n').map_or(0, |at| at + 1);
        Fault {
            path: String::new(),
            line: good.matches('\n').count() + 1,
            column: good[line_start..].chars().count() + 1,
            problem: "this byte is no UTF-8".to_owned(),
            expected: "a text in UTF-8".to_owned(),
            nearest: None,
        }
    })
}

/// Reads a configuration. On failure every fault is there (up to 100), in the order of the text,
/// except that a text that is no JSON has only its first.
pub fn load(text: &str, sources: &Sources<'_>) -> Result<Loaded, Vec<Fault>> {
    // Some editors put a byte order mark in front; it is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(text, sources);
    if let Err(excess) = check_bounds(text) {
        let (offset, problem) = match excess {
            Excess::Bytes => (0, format!("the file is larger than {TEXT_BYTES_MAX} bytes")),
            Excess::Depth(at) => (at, format!("nested deeper than {DEPTH_MAX} levels")),
            Excess::Values(at) => (at, format!("more than {VALUES_MAX} values")),
        };
        reader.fault_at(offset, problem);
        return Err(reader.into_faults());
    }
    let parsed = match parse_to_ast(text, &CollectOptions::default(), &STRICT_WITH_COMMENTS) {
        Ok(parsed) => parsed,
        Err(error) => {
            let problem = format!("not valid JSON: {}", error.kind());
            reader.fault_at(error.range().start, problem);
            return Err(reader.into_faults());
        }
    };
    let Some(value) = parsed.value else {
        reader.fault_at(0, "the file is empty: expected an object, {} at least");
        return Err(reader.into_faults());
    };
    let config = read::document(&mut reader, &Node::root(&value));
    reader.check_references();
    let warnings = reader.finish()?;
    Ok(Loaded { config, warnings })
}

/// JSON as everybody knows it, plus comments and trailing commas, which the public examples use.
const STRICT_WITH_COMMENTS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};
