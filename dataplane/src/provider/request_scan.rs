//! One pass over a JSON request body for the few fields that decide its route and its price.
//!
//! Strict where a provider could read the body differently: a field that stands twice, a key
//! that only a case-blind decoder would recognise, and anything that is not RFC 8259 are
//! refused. An escaped key (`"mod\u0065l"`) is the key it spells. What is not looked at:
//! messages, tools, and every field that costs nothing.

use super::json::{Cursor, survey, unescape};
pub use super::json::{DEPTH_MAX, Span, Text};
pub use super::request_fields::{Fallbacks, Field, IncludeUsage, RequestFields, ScanError, ScanFault, StreamOptions};

/// What the beginning of a body tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The fields that stand completely in it. Others may follow, and so may duplicates.
    pub fields: RequestFields,
}

impl Prefix {
    /// Whether a route can be looked up. A `stream` that has not come may still follow; for a
    /// body that is passed on unread the answer's content type tells.
    pub fn has_model(&self) -> bool {
        self.fields.model.is_some()
    }
}

/// Reads a complete body.
pub fn scan(body: &[u8]) -> Result<RequestFields, ScanError> {
    let mut walk = Walk::new(body)?;
    if walk.fields.non_ascii_bytes > 0
        && let Err(error) = std::str::from_utf8(body)
    {
        return Err(ScanError { fault: ScanFault::NotUtf8, at: error.valid_up_to() as u32 });
    }
    walk.object()?;
    walk.fields.is_complete = true;
    Ok(walk.fields)
}

/// Reads the beginning of a body that is longer than its buffer. An error is one that no
/// continuation can mend.
pub fn scan_prefix(beginning: &[u8]) -> Result<Prefix, ScanError> {
    let mut walk = Walk::new(beginning)?;
    if walk.fields.non_ascii_bytes > 0
        && let Err(error) = std::str::from_utf8(beginning)
        && error.error_len().is_some()
    {
        return Err(ScanError { fault: ScanFault::NotUtf8, at: error.valid_up_to() as u32 });
    }
    match walk.object() {
        Ok(()) => walk.fields.is_complete = true,
        Err(ScanError { fault: ScanFault::Truncated, .. }) => {
            // Names without the place to cut would be obeyed here and sent on as well.
            if walk.fields.fallbacks.cut.is_none() {
                walk.fields.fallbacks = Fallbacks::default();
            }
        }
        Err(error) => return Err(error),
    }
    Ok(Prefix { fields: walk.fields })
}

struct Walk<'b> {
    cursor: Cursor<'b>,
    fields: RequestFields,
    /// One bit for each [`Field`] that was met, `null` or not.
    seen: u16,
}

impl<'b> Walk<'b> {
    fn new(bytes: &'b [u8]) -> Result<Self, ScanError> {
        let Ok(len) = u32::try_from(bytes.len()) else {
            return Err(ScanError { fault: ScanFault::TooLong, at: u32::MAX });
        };
        let survey = survey(bytes);
        Ok(Self {
            cursor: Cursor { bytes, at: 0, check_control: survey.has_control },
            fields: RequestFields { bytes: len, non_ascii_bytes: survey.non_ascii, ..RequestFields::default() },
            seen: 0,
        })
    }

    /// The body itself: its members one after the other, then nothing but white space.
    fn object(&mut self) -> Result<(), ScanError> {
        if self.cursor.token()? != b'{' {
            return Err(self.cursor.fault(ScanFault::NotAnObject));
        }
        self.cursor.at += 1;
        self.fields.inside = self.cursor.at as u32;
        let mut comma_before = None;
        if self.cursor.token()? == b'}' {
            self.cursor.at += 1;
            return self.end();
        }
        loop {
            self.cursor.token()?;
            let member_from = self.cursor.at;
            let key = self.cursor.key()?;
            self.fields.members = self.fields.members.saturating_add(1);
            let is_fallbacks = match self.known(key, top_field)? {
                None => {
                    self.cursor.skip_value(1)?;
                    false
                }
                Some(field) => {
                    self.top_value(field)?;
                    field == Field::Fallbacks
                }
            };
            let member_to = self.cursor.at;
            let next = self.cursor.token()?;
            let next_at = self.cursor.at;
            match next {
                b',' | b'}' => self.cursor.at += 1,
                _ => return Err(self.cursor.fault(ScanFault::Unexpected)),
            }
            if is_fallbacks {
                // One comma goes with the member: the one behind it, else the one before it.
                self.fields.fallbacks.cut = Some(if next == b',' {
                    Span::between(member_from, next_at + 1)
                } else {
                    Span::between(comma_before.unwrap_or(member_from), member_to)
                });
            }
            if next == b'}' {
                return self.end();
            }
            comma_before = Some(next_at);
        }
    }

    fn end(&mut self) -> Result<(), ScanError> {
        match self.cursor.token() {
            Ok(_) => Err(self.cursor.fault(ScanFault::TrailingBytes)),
            Err(_) => Ok(()),
        }
    }

    /// Reads the value of a field at the top. It is stored only when it is complete.
    fn top_value(&mut self, field: Field) -> Result<(), ScanError> {
        match field {
            Field::Model => self.fields.model = self.text_or_null(field)?,
            Field::Stream => self.fields.stream = self.bool_or_null(field)?.0,
            Field::MaxTokens => self.fields.max_tokens = self.count_or_null(field)?,
            Field::MaxCompletionTokens => self.fields.max_completion_tokens = self.count_or_null(field)?,
            Field::MaxOutputTokens => {
                let count = self.count_or_null(field)?;
                self.fields.max_output_tokens = self.fields.max_output_tokens.max(count);
            }
            Field::N => {
                let count = self.count_or_null(field)?;
                self.fields.n = self.fields.n.max(count);
            }
            Field::BestOf => self.fields.best_of = self.count_or_null(field)?,
            Field::StreamOptions => self.stream_options()?,
            Field::Fallbacks => self.fallbacks()?,
            Field::GenerationConfig => self.generation_config()?,
            // These stand in an object of their own and are read there.
            Field::IncludeUsage | Field::GenerationMaxOutputTokens | Field::CandidateCount => {
                self.cursor.skip_value(1)?;
            }
        }
        Ok(())
    }

    fn stream_options(&mut self) -> Result<(), ScanError> {
        let field = Field::StreamOptions;
        if let Some(null) = self.null()? {
            self.fields.stream_options = StreamOptions::Null(null);
            return Ok(());
        }
        let from = self.cursor.at;
        let mut include_usage = IncludeUsage::Absent;
        let members = self.members(field, |walk, key| {
            if walk.known(key, stream_option)?.is_none() {
                return walk.cursor.skip_value(2);
            }
            let (value, word) = walk.bool_or_null(Field::IncludeUsage)?;
            include_usage = if value == Some(true) { IncludeUsage::True } else { IncludeUsage::No(word) };
            Ok(())
        })?;
        self.fields.stream_options =
            StreamOptions::Object { span: Span::between(from, self.cursor.at), is_empty: members == 0, include_usage };
        Ok(())
    }

    fn generation_config(&mut self) -> Result<(), ScanError> {
        let field = Field::GenerationConfig;
        if self.null()?.is_some() {
            return Ok(());
        }
        let (mut tokens, mut candidates) = (None, None);
        self.members(field, |walk, key| {
            match walk.known(key, generation_option)? {
                None => walk.cursor.skip_value(2)?,
                Some(Field::CandidateCount) => candidates = walk.count_or_null(Field::CandidateCount)?,
                Some(field) => tokens = walk.count_or_null(field)?,
            }
            Ok(())
        })?;
        self.fields.max_output_tokens = self.fields.max_output_tokens.max(tokens);
        self.fields.n = self.fields.n.max(candidates);
        Ok(())
    }

    /// Walks the members of an object that stands at the top under `field`, and counts them.
    fn members(
        &mut self,
        field: Field,
        mut member: impl FnMut(&mut Self, Text) -> Result<(), ScanError>,
    ) -> Result<u32, ScanError> {
        if self.cursor.token()? != b'{' {
            return Err(self.cursor.fault(ScanFault::WrongType(field)));
        }
        self.cursor.at += 1;
        let mut members = 0u32;
        if self.cursor.token()? == b'}' {
            self.cursor.at += 1;
            return Ok(members);
        }
        loop {
            let key = self.cursor.key()?;
            member(self, key)?;
            members = members.saturating_add(1);
            match self.cursor.token()? {
                b',' => self.cursor.at += 1,
                b'}' => {
                    self.cursor.at += 1;
                    return Ok(members);
                }
                _ => return Err(self.cursor.fault(ScanFault::Unexpected)),
            }
        }
    }

    fn fallbacks(&mut self) -> Result<(), ScanError> {
        let field = Field::Fallbacks;
        if self.null()?.is_some() {
            return Ok(());
        }
        if self.cursor.token()? != b'[' {
            return Err(self.cursor.fault(ScanFault::WrongType(field)));
        }
        self.cursor.at += 1;
        let mut fallbacks = Fallbacks::default();
        if self.cursor.token()? == b']' {
            self.cursor.at += 1;
            return Ok(());
        }
        loop {
            if self.cursor.token()? != b'"' {
                return Err(self.cursor.fault(ScanFault::WrongType(field)));
            }
            let name = self.readable_string()?;
            let Some(place) = fallbacks.names.get_mut(usize::from(fallbacks.count)) else {
                return Err(self.cursor.fault(ScanFault::TooManyFallbacks));
            };
            *place = name;
            fallbacks.count += 1;
            match self.cursor.token()? {
                b',' => self.cursor.at += 1,
                b']' => {
                    self.cursor.at += 1;
                    self.fields.fallbacks = fallbacks;
                    return Ok(());
                }
                _ => return Err(self.cursor.fault(ScanFault::Unexpected)),
            }
        }
    }

    fn null(&mut self) -> Result<Option<Span>, ScanError> {
        if self.cursor.token()? == b'n' { self.cursor.word(b"null").map(Some) } else { Ok(None) }
    }

    fn text_or_null(&mut self, field: Field) -> Result<Option<Text>, ScanError> {
        if self.null()?.is_some() {
            return Ok(None);
        }
        if self.cursor.token()? != b'"' {
            return Err(self.cursor.fault(ScanFault::WrongType(field)));
        }
        self.readable_string().map(Some)
    }

    /// A string whose value will be asked for: its escapes must mean something.
    fn readable_string(&mut self) -> Result<Text, ScanError> {
        let text = self.cursor.string()?;
        if text.is_escaped && unescape(text.span.of(self.cursor.bytes), &mut String::new()).is_none() {
            return Err(ScanError { fault: ScanFault::BadEscape, at: text.span.from });
        }
        Ok(text)
    }

    fn bool_or_null(&mut self, field: Field) -> Result<(Option<bool>, Span), ScanError> {
        match self.cursor.token()? {
            b't' => Ok((Some(true), self.cursor.word(b"true")?)),
            b'f' => Ok((Some(false), self.cursor.word(b"false")?)),
            b'n' => Ok((None, self.cursor.word(b"null")?)),
            _ => Err(self.cursor.fault(ScanFault::WrongType(field))),
        }
    }

    fn count_or_null(&mut self, field: Field) -> Result<Option<u64>, ScanError> {
        if self.null()?.is_some() {
            return Ok(None);
        }
        if !matches!(self.cursor.token()?, b'-' | b'0'..=b'9') {
            return Err(self.cursor.fault(ScanFault::WrongType(field)));
        }
        let number = self.cursor.number()?;
        let digits = number.of(self.cursor.bytes);
        let count = digits.iter().try_fold(0u64, |count, &digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            count.checked_mul(10)?.checked_add(u64::from(digit))
        });
        match count {
            Some(count) => Ok(Some(count)),
            None => Err(ScanError { fault: ScanFault::WrongType(field), at: number.from }),
        }
    }

    /// Which field a key is, if any; a second one of the same field is an error.
    #[inline]
    fn known(&mut self, key: Text, field_of: fn(&[u8]) -> Option<Field>) -> Result<Option<Field>, ScanError> {
        let field = match classify(key.span.of(self.cursor.bytes), field_of) {
            Key::Unknown => return Ok(None),
            Key::Field(field) => field,
            Key::Variant(field) => {
                return Err(ScanError { fault: ScanFault::CaseVariant(field), at: key.span.from });
            }
        };
        let bit = 1u16 << field as u8;
        if self.seen & bit != 0 {
            return Err(ScanError { fault: ScanFault::Duplicate(field), at: key.span.from });
        }
        self.seen |= bit;
        Ok(Some(field))
    }
}

fn top_field(key: &[u8]) -> Option<Field> {
    Some(match key {
        b"model" => Field::Model,
        b"stream" => Field::Stream,
        b"max_tokens" => Field::MaxTokens,
        b"max_completion_tokens" => Field::MaxCompletionTokens,
        b"max_output_tokens" => Field::MaxOutputTokens,
        b"n" => Field::N,
        b"best_of" => Field::BestOf,
        b"stream_options" => Field::StreamOptions,
        b"fallbacks" => Field::Fallbacks,
        // Google reads both spellings.
        b"generationConfig" | b"generation_config" => Field::GenerationConfig,
        _ => return None,
    })
}

fn stream_option(key: &[u8]) -> Option<Field> {
    (key == b"include_usage").then_some(Field::IncludeUsage)
}

fn generation_option(key: &[u8]) -> Option<Field> {
    Some(match key {
        b"maxOutputTokens" | b"max_output_tokens" => Field::GenerationMaxOutputTokens,
        b"candidateCount" | b"candidate_count" => Field::CandidateCount,
        _ => return None,
    })
}

/// What a key is to us, given the bytes between its quotes.
pub(super) enum Key {
    Unknown,
    Field(Field),
    /// Some decoders would take it for the field.
    Variant(Field),
}

#[inline]
fn classify(raw: &[u8], field_of: fn(&[u8]) -> Option<Field>) -> Key {
    match field_of(raw) {
        Some(field) => Key::Field(field),
        // A plain key means what its bytes are, whatever decoder reads it.
        None if raw.iter().all(|&byte| byte.is_ascii() && byte != b'\\' && !byte.is_ascii_uppercase()) => Key::Unknown,
        None => unusual_key(raw, field_of),
    }
}

/// What a key at the top of a body is.
pub(super) fn top_key(raw: &[u8]) -> Key {
    classify(raw, top_field)
}

/// The longest key that is looked for, in bytes as it may be written: the value has up to 21,
/// and an escape takes six bytes for one.
pub(super) const KEY_BYTES_MAX: usize = 21 * 6;

/// Decodes a key with escapes or capitals. Go's decoder ignores case, and takes U+017F for an
/// `s` and U+212A for a `k`; such a key must not reach a provider that would obey it.
#[cold]
fn unusual_key(raw: &[u8], field_of: fn(&[u8]) -> Option<Field>) -> Key {
    if raw.len() > KEY_BYTES_MAX {
        return Key::Unknown;
    }
    let mut key = String::with_capacity(KEY_BYTES_MAX);
    if unescape(raw, &mut key).is_none() {
        return Key::Unknown;
    }
    if let Some(field) = field_of(key.as_bytes()) {
        return Key::Field(field);
    }
    let folded: String = key
        .chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    let known = match folded.as_str() {
        "generationconfig" => Some("generationConfig"),
        "maxoutputtokens" => Some("maxOutputTokens"),
        "candidatecount" => Some("candidateCount"),
        other => Some(other),
    };
    match known.and_then(|name| field_of(name.as_bytes())) {
        Some(field) => Key::Variant(field),
        None => Key::Unknown,
    }
}

#[cfg(test)]
pub(super) mod tests;
