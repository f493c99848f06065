//! The upstream body, made from the client's by splicing bytes: what need not change keeps
//! its very bytes, order and spacing.
//!
//! Three changes exist: another model name, no `fallbacks`, and `stream_options.include_usage`.
//! A body in which none applies is forwarded as it lies in the buffer.

use super::json::{Span, escape_into, escaped_len};
use super::request_scan::{IncludeUsage, RequestFields, StreamOptions};

/// What the upstream body should say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'m> {
    /// The provider's name of the model. `None` leaves the client's.
    pub model: Option<&'m str>,
    /// `fallbacks` is ours and some providers refuse members they do not know.
    pub without_fallbacks: bool,
    /// The answer must end with a usage event. Only meaningful for streams of the `OpenAI` dialect.
    pub with_usage: bool,
}

/// Changes to one body, in the order of their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'m> {
    splices: [Splice<'m>; 3],
    count: u8,
    hides_usage: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Splice<'m> {
    /// Left out; empty where something is only put in.
    cut: Span,
    put: Put<'m>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Put<'m> {
    #[default]
    Nothing,
    Json(&'static str),
    /// Escaped when it is written.
    Text(&'m str),
}

impl Put<'_> {
    fn len(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Json(json) => json.len(),
            Self::Text(text) => escaped_len(text),
        }
    }
}

impl<'m> Edits<'m> {
    /// What has to change in `body`, which `fields` were read from.
    ///
    /// Fields of an incomplete body are changed where they stand in it, but nothing is put in
    /// for what was not seen: it might follow, and stand twice then.
    pub fn new(fields: &RequestFields, body: &[u8], wanted: &Wanted<'m>) -> Self {
        let mut edits = Self::default();
        if let (Some(model), Some(name)) = (fields.model, wanted.model)
            && (model.is_escaped || model.span.of(body) != name.as_bytes())
        {
            edits.add(model.span, Put::Text(name));
        }
        let fallbacks = fields.fallbacks.cut.filter(|_| wanted.without_fallbacks);
        if let Some(cut) = fallbacks {
            edits.add(cut, Put::Nothing);
        }
        if wanted.with_usage {
            let members = fields.members.saturating_sub(u32::from(fallbacks.is_some()));
            edits.ask_for_usage(fields, members);
        }
        edits.sort();
        edits
    }

    /// Asks for the usage event, and remembers when the client did not want one.
    fn ask_for_usage(&mut self, fields: &RequestFields, members: u32) {
        let (cut, json) = match fields.stream_options {
            StreamOptions::Absent if !fields.is_complete => return,
            StreamOptions::Absent => {
                let place = Span { from: fields.inside, to: fields.inside };
                if members == 0 {
                    (place, r#""stream_options":{"include_usage":true}"#)
                } else {
                    (place, r#""stream_options":{"include_usage":true},"#)
                }
            }
            StreamOptions::Null(null) => (null, r#"{"include_usage":true}"#),
            StreamOptions::Object { include_usage: IncludeUsage::True, .. } => return,
            StreamOptions::Object { include_usage: IncludeUsage::No(word), .. } => (word, "true"),
            StreamOptions::Object { span, is_empty, include_usage: IncludeUsage::Absent } => {
                let inside = span.from.saturating_add(1);
                let place = Span { from: inside, to: inside };
                (place, if is_empty { r#""include_usage":true"# } else { r#""include_usage":true,"# })
            }
        };
        self.add(cut, Put::Json(json));
        self.hides_usage = true;
    }

    fn add(&mut self, cut: Span, put: Put<'m>) {
        if let Some(place) = self.splices.get_mut(usize::from(self.count)) {
            *place = Splice { cut, put };
            self.count += 1;
        }
    }

    /// By place. What is put in at `{` stands before a member that is cut there.
    fn sort(&mut self) {
        let count = usize::from(self.count);
        if let Some(used) = self.splices.get_mut(..count) {
            used.sort_unstable_by_key(|splice| (splice.cut.from, splice.cut.to));
        }
    }

    fn splices(&self) -> &[Splice<'m>] {
        self.splices.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Nothing changes: the body is forwarded as it is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The client did not ask for the usage event that will come: it has to be hidden from
    /// the answer (see [`super::usage::UsageReader::filter`]).
    pub fn hides_usage(&self) -> bool {
        self.hides_usage
    }

    /// The length of a body of `len_before` bytes after the changes: its Content-Length
    /// upstream. Right for a body whose beginning alone was scanned as well.
    pub fn len_after(&self, len_before: u64) -> u64 {
        self.splices().iter().fold(len_before, |len, splice| {
            let cut = u64::from(splice.cut.to.saturating_sub(splice.cut.from));
            len.saturating_sub(cut).saturating_add(splice.put.len() as u64)
        })
    }

    /// Appends the changed `body` (or the scanned beginning of one) to `out`.
    pub fn apply(&self, body: &[u8], out: &mut Vec<u8>) {
        let mut copied = 0usize;
        for splice in self.splices() {
            let cut = splice.cut.range();
            out.extend_from_slice(body.get(copied..cut.start).unwrap_or_default());
            match splice.put {
                Put::Nothing => {}
                Put::Json(json) => out.extend_from_slice(json.as_bytes()),
                Put::Text(text) => escape_into(text, out),
            }
            copied = cut.end;
        }
        out.extend_from_slice(body.get(copied..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
