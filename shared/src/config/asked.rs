//! What the reader asks a document for, noted while it reads: whoever tries enough documents knows
//! what may stand in a configuration, without a second description that could say something else.

use core::ops::RangeInclusive;

use jsonc_parser::{CollectOptions, parse_to_ast};

use super::reader::{Node, Reader};
use super::{STRICT_WITH_COMMENTS, Sources, read};

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Where: `providers.*.keys[]`.
    pub place: String,
    /// What.
    pub what: What,
}

/// What may be asked for at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An object with fields of ours.
    Object,
    /// That object is there, and its fields are read.
    Reading,
    /// A field of the object at this place.
    Field(&'static str),
    /// That it is there.
    Required(&'static str),
    /// An object with names of the user's.
    Map,
    /// A list.
    List,
    /// A text, or a reference to one.
    Text,
    /// One of these words, or a reference to one.
    Choice(Vec<&'static str>),
    /// `true` or `false`, or a reference.
    Boolean,
    /// A whole number, or a reference.
    Integer(RangeInclusive<u64>),
    /// A number.
    Number(RangeInclusive<f64>),
}

/// Everything that is asked for when this text is read, in order. For small texts of one's own.
pub fn asked_of(text: &str) -> Vec<Asked> {
    let sources = Sources::none();
    let mut reader = Reader::noting(text, &sources);
    if let Ok(parsed) = parse_to_ast(text, &CollectOptions::default(), &STRICT_WITH_COMMENTS)
        && let Some(value) = parsed.value
    {
        read::document(&mut reader, &Node::root(&value));
    }
    reader.take_asked()
}
