//! Single values: texts with their references, secrets, numbers, durations, choices.

use core::ops::RangeInclusive;
use core::time::Duration;

use jsonc_parser::ast::Value;
use zeroize::Zeroizing;

use super::{Node, Reader, quote};
use crate::config::asked::What;
use crate::config::base_url::{BaseUrl, HostPort};
use crate::config::durations::{Window, parse_duration};
use crate::config::model::Origin;
use crate::config::nearest::nearest;
use crate::secret::Secret;

/// Longest text, wherever it comes from: certificates are the longest ones.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// In front of a secret that was sealed.
pub(in crate::config) const SEALED: &str = "sealed:";

/// Longest secret; it has to fit into a request head.
const SECRET_BYTES_MAX: usize = 8 * 1024;

/// Longest id or name.
const NAME_BYTES_MAX: usize = 128;

const LITERAL_SECRET: &str = "the secret stands in the file; \"env.NAME\" or \"file:PATH\" keeps it out";

/// A secret and where its text came from.
pub(in crate::config) struct SecretText {
    pub(in crate::config) secret: Secret,
    pub(in crate::config) origin: Origin,
}

impl Reader<'_> {
    /// A string, or what `env.NAME` or `file:PATH` stands for.
    pub(in crate::config) fn text(&mut self, node: &Node<'_>) -> Option<String> {
        let (text, _) = self.resolved(node)?;
        Some(text.as_str().to_owned())
    }

    /// A string as it stands there, whatever it looks like.
    pub(in crate::config) fn literal(&mut self, node: &Node<'_>) -> Option<String> {
        let Value::StringLit(literal) = node.value else {
            self.wrong_kind(node, "a string");
            return None;
        };
        Some(literal.value.as_ref().to_owned())
    }

    /// A text that is an id, a name or a path: 1 to 128 bytes without control characters.
    pub(in crate::config) fn name(&mut self, node: &Node<'_>) -> Option<String> {
        let name = self.text(node)?;
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control) {
            return Some(name);
        }
        let expected = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
        self.fault(&node.place, "does not fit a name", expected);
        None
    }

    /// A secret that may travel in a header or on a command line: printable, no blanks around.
    /// One that stands in the file itself earns a warning.
    pub(in crate::config) fn secret(&mut self, node: &Node<'_>) -> Option<SecretText> {
        self.secret_or_hash(node, |_| false)
    }

    /// The same, where a text that `is_hash` may stand in the file without a warning.
    pub(in crate::config) fn secret_or_hash(
        &mut self,
        node: &Node<'_>,
        is_hash: impl FnOnce(&str) -> bool,
    ) -> Option<SecretText> {
        let (text, origin) = self.resolved(node)?;
        let is_broken_reference =
            origin == Origin::Literal && ["env.", "vault."].iter().any(|with| text.starts_with(with));
        let problem = if is_broken_reference {
            "looks like a reference and is none"
        } else if text.is_empty() {
            "is empty"
        } else if text.len() > SECRET_BYTES_MAX {
            "is longer than 8 KiB"
        } else if text.contains(char::is_control) || text.trim() != text.as_str() {
            "has a control character or blanks around it"
        } else {
            if origin == Origin::Literal && !is_hash(&text) {
                self.warn(&node.place, LITERAL_SECRET);
            }
            return Some(SecretText { secret: Secret::new(&text), origin });
        };
        let expected = "a secret, \"env.NAME\" or \"file:PATH\"";
        self.fault(&node.place, problem, expected);
        None
    }

    /// A header's value (RFC 9110, section 5.5, ASCII only), which may be a secret. Only a
    /// `credential` earns a warning where it stands in the file.
    pub(in crate::config) fn header_value(&mut self, node: &Node<'_>, is_credential: bool) -> Option<(Secret, Origin)> {
        let (text, origin) = self.resolved(node)?;
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'));
        if !is_printable || text.trim() != text.as_str() || text.len() > SECRET_BYTES_MAX {
            let expected = "printable ASCII without blanks around it, 8 KiB at most";
            self.fault(&node.place, "not a header value", expected);
            return None;
        }
        if is_credential && origin == Origin::Literal {
            self.warn(&node.place, LITERAL_SECRET);
        }
        Some((Secret::new(&text), origin))
    }

    pub(in crate::config) fn boolean(&mut self, node: &Node<'_>) -> Option<bool> {
        const EXPECTED: &str = "true or false";
        self.note(&node.place, || What::Boolean);
        if let Value::BooleanLit(literal) = node.value {
            return Some(literal.value);
        }
        let text = self.referenced(node, EXPECTED)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(&node.place, "stands for something else", EXPECTED);
        }
        parsed
    }

    /// A whole number in `range`.
    pub(in crate::config) fn integer(&mut self, node: &Node<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        self.note(&node.place, || What::Integer(range.clone()));
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let parsed = if let Value::NumberLit(literal) = node.value {
            parse_integer(literal.value)
        } else {
            parse_integer(&self.referenced(node, &expected)?)
        };
        let number = parsed.filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(&node.place, "out of range", expected);
        }
        number
    }

    /// A whole number that fits the type and `range`.
    pub(in crate::config) fn count<T: TryFrom<u64>>(
        &mut self,
        node: &Node<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        // Every caller's range lies within its type, so the conversion loses nothing.
        self.integer(node, range).and_then(|number| T::try_from(number).ok())
    }

    /// A TCP or UDP port, 1 to 65535.
    pub(in crate::config) fn port(&mut self, node: &Node<'_>) -> Option<u16> {
        self.count(node, 1..=65_535)
    }

    /// A port that may be written as a string, `"5432"`.
    pub(in crate::config) fn port_or_text(&mut self, node: &Node<'_>) -> Option<u16> {
        if !matches!(node.value, Value::StringLit(_)) {
            return self.port(node);
        }
        let text = self.text(node)?;
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|port| is_digits && *port != 0);
        if port.is_none() {
            self.fault(&node.place, "not a port", "a number from 1 to 65535");
        }
        port
    }

    /// A number in `range`, with or without a fraction.
    pub(in crate::config) fn number(&mut self, node: &Node<'_>, range: RangeInclusive<f64>) -> Option<f64> {
        self.note(&node.place, || What::Number(range.clone()));
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let Value::NumberLit(literal) = node.value else {
            self.wrong_kind(node, &expected);
            return None;
        };
        let parsed = literal.value.parse::<f64>().ok();
        let number = parsed.filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(&node.place, "out of range", expected);
        }
        number
    }

    /// Whole seconds, as fields named `…_in_seconds` have them.
    pub(in crate::config) fn seconds(&mut self, node: &Node<'_>, range: RangeInclusive<u64>) -> Option<Duration> {
        self.integer(node, range).map(Duration::from_secs)
    }

    /// A duration with a unit, `500ms` or `10s`, in `range`.
    pub(in crate::config) fn duration(
        &mut self,
        node: &Node<'_>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.text(node)?;
        self.duration_in(node, parse_duration(&text), range)
    }

    /// Milliseconds as a number, or a duration with a unit.
    pub(in crate::config) fn millis_or_duration(
        &mut self,
        node: &Node<'_>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        match node.value {
            Value::NumberLit(literal) => {
                self.note(&node.place, || What::Integer(0..=u64::MAX));
                let millis = parse_integer(literal.value).map(Duration::from_millis);
                self.duration_in(node, millis, range)
            }
            _ => self.duration(node, range),
        }
    }

    fn duration_in(
        &mut self,
        node: &Node<'_>,
        duration: Option<Duration>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            let expected =
                format!("a duration such as \"500ms\" or \"10s\", from {:?} to {:?}", range.start(), range.end());
            self.fault(&node.place, "not a duration, or out of range", expected);
        }
        duration
    }

    /// The window of a limit.
    pub(in crate::config) fn window(&mut self, node: &Node<'_>) -> Option<Window> {
        let text = self.text(node)?;
        let window = Window::parse(&text);
        if window.is_none() {
            let expected = "a count and one of s, m, h, d, w, M, Y, such as \"1m\"; a year at most";
            self.fault(&node.place, "not a window", expected);
        }
        window
    }

    pub(in crate::config) fn base_url(&mut self, node: &Node<'_>) -> Option<BaseUrl> {
        let text = self.text(node)?;
        match BaseUrl::parse(&text) {
            Ok(url) => Some(url),
            Err(fault) => {
                let expected = "http://HOST or https://HOST, with a port and a path if need be";
                self.fault(&node.place, format!("not a base URL: {fault}"), expected);
                None
            }
        }
    }

    pub(in crate::config) fn host_port(&mut self, node: &Node<'_>, port_default: Option<u16>) -> Option<HostPort> {
        let text = self.text(node)?;
        match HostPort::parse(&text, port_default) {
            Ok(address) => Some(address),
            Err(fault) => {
                let problem = format!("not an address: {fault}");
                self.fault(&node.place, problem, "\"HOST:PORT\"");
                None
            }
        }
    }

    /// One of the listed words.
    pub(in crate::config) fn choice<T: Copy>(&mut self, node: &Node<'_>, words: &[(&'static str, T)]) -> Option<T> {
        self.note(&node.place, || What::Choice(words.iter().map(|(word, _)| *word).collect()));
        let text = self.text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of {}", known.join(", "));
        let nearest = nearest(&text, known);
        self.fault_near(&node.place, "unknown word", expected, nearest);
        None
    }

    /// What a reference stands for, in a place where a plain string would be a fault.
    fn referenced(&mut self, node: &Node<'_>, expected: &str) -> Option<Zeroizing<String>> {
        match node.value {
            Value::StringLit(literal) if Origin::of(&literal.value) != Origin::Literal => {
                self.resolved(node).map(|(text, _)| text)
            }
            _ => {
                self.wrong_kind(node, expected);
                None
            }
        }
    }

    fn resolved(&mut self, node: &Node<'_>) -> Option<(Zeroizing<String>, Origin)> {
        self.note(&node.place, || What::Text);
        let Value::StringLit(literal) = node.value else {
            self.wrong_kind(node, "a string");
            return None;
        };
        let origin = Origin::of(&literal.value);
        let text = match &origin {
            Origin::Literal => Ok(literal.value.as_ref().to_owned()),
            Origin::Env(name) => (self.sources.env)(name).ok_or_else(|| {
                let problem = format!("the environment has no {name}");
                (problem, "the variable to be set where the node starts")
            }),
            Origin::File(path) => (self.sources.file)(path).map(without_last_newline).map_err(|error| {
                let problem = format!("cannot read {}: {}", quote(path), error.kind());
                (problem, "a text file that the node's user may read")
            }),
            Origin::Sealed => {
                (self.sources.sealed)(literal.value.strip_prefix(SEALED).unwrap_or_default()).ok_or_else(|| {
                    let problem = "is sealed and cannot be opened here".to_owned();
                    (problem, "the secret itself, or the DEEPINTSHIELD_ENCRYPTION_KEY that it was sealed with")
                })
            }
        };
        let text = text.and_then(|text| {
            let text = Zeroizing::new(text);
            if text.len() > TEXT_BYTES_MAX {
                Err(("is longer than 1 MiB".to_owned(), "a shorter text"))
            } else {
                Ok(text)
            }
        });
        match text {
            Ok(text) => Some((text, origin)),
            Err((problem, expected)) => {
                self.fault(&node.place, problem, expected);
                None
            }
        }
    }
}

impl Origin {
    /// What kind of text this is. `env.` counts only before a name that the environment can
    /// have, so that `env.example.com` stays a host.
    pub fn of(text: &str) -> Self {
        if text.starts_with(SEALED) {
            return Self::Sealed;
        }
        if let Some(name) = text.strip_prefix("env.") {
            let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_name {
                return Self::Env(name.to_owned());
            }
        }
        match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Self::File(path.to_owned()),
            _ => Self::Literal,
        }
    }
}

/// Editors and mounted secrets end files with a newline that is not part of the text.
fn without_last_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// `5`, and also `5.0` and `5e3`, which some tools write.
fn parse_integer(text: &str) -> Option<u64> {
    /// Above this, a double no longer holds every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        (number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number)).then_some(number as u64)
    })
}
