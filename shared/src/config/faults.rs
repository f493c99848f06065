//! What is wrong with a configuration, in words a person can act on.
//!
//! A message names the place, what was expected and the nearest known name. It never repeats
//! the value of a field that may hold a secret.

use core::fmt;

/// A reason not to start. Prints as `LINE:COLUMN PATH: PROBLEM, expected …, did you mean "…"?`;
/// put the file's name and a `:` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Like `providers.openai.keys[0].weight`; empty for the document as a whole.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is there, or is not.
    pub problem: String,
    /// What would be accepted; may be empty where the problem says it.
    pub expected: String,
    /// The known name that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.line, self.column, &self.path)?;
        f.write_str(&self.problem)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        match &self.nearest {
            Some(name) => write!(f, ", did you mean {name:?}?"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Fault {}

/// Something to know about a configuration that loads. Prints as `LINE:COLUMN PATH: MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// As in [`Fault::path`].
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What it means for this node.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.line, self.column, &self.path)?;
        f.write_str(&self.message)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, line: usize, column: usize, path: &str) -> fmt::Result {
    let separator = if path.is_empty() { "" } else { ": " };
    write!(f, "{line}:{column} {path}{separator}")
}
