//! Reading typed values out of a parsed document while collecting every fault.
//!
//! A read that fails records why and yields nothing; the caller goes on with a default, so that
//! one run shows all faults. Whether a document loads is decided once, at the end.

mod object;
mod values;

use core::fmt::Write as _;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use super::Sources;
use super::asked::{Asked, What};
use super::faults::{Fault, Warning};
use super::inactive::{self, Inactive};
use super::model::Origin;
use super::prescan::Lines;
use super::references::Names;

pub(super) use object::Fields;
pub(super) use values::SecretText;

/// Faults and warnings that are kept of each; a person fixes these first.
const MESSAGES_MAX: usize = 100;

/// Longest piece of a document that a message repeats.
const QUOTED_CHARACTERS_MAX: usize = 48;

/// Where a value stands.
#[derive(Clone)]
pub(super) struct Place {
    /// As people read it: `providers.openai.keys[0]`.
    shown: String,
    /// As tables know it: `providers.*.keys[]`.
    pattern: String,
    /// Byte offset in the text.
    offset: usize,
}

impl Place {
    fn root(offset: usize) -> Self {
        Self { shown: String::new(), pattern: String::new(), offset }
    }

    /// The field `name` of this object, whose value begins at `offset`.
    fn field(&self, name: &str, offset: usize) -> Self {
        self.child(&quoted_if_odd(name), name, offset)
    }

    /// The entry `name` of this map, where names are the user's.
    fn entry(&self, name: &str, offset: usize) -> Self {
        self.child(&quoted_if_odd(name), "*", offset)
    }

    fn child(&self, shown: &str, pattern: &str, offset: usize) -> Self {
        let join = |before: &str, name: &str| match before {
            "" => name.to_owned(),
            _ => format!("{before}.{name}"),
        };
        Self { shown: join(&self.shown, shown), pattern: join(&self.pattern, pattern), offset }
    }

    fn element(&self, index: usize, offset: usize) -> Self {
        let mut shown = self.shown.clone();
        // Writing to a String cannot fail.
        let _ = write!(shown, "[{index}]");
        Self { shown, pattern: format!("{}[]", self.pattern), offset }
    }
}

/// Names in paths stay readable and one line long, whatever the file calls them.
fn quoted_if_odd(name: &str) -> String {
    let is_plain = !name.is_empty()
        && name.len() <= QUOTED_CHARACTERS_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$' | b'/'));
    if is_plain { name.to_owned() } else { quote(name) }
}

/// A piece of the document for a message: quoted, escaped, cut.
pub(super) fn quote(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_CHARACTERS_MAX).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: &'a Value<'a>,
    pub(super) place: Place,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value<'a>) -> Self {
        Self { value, place: Place::root(value.start()) }
    }

    /// Whether the value is a list, where one of a thing may stand without one.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, Value::Array(_))
    }

    /// What the value is, for "found …".
    fn kind(&self) -> &'static str {
        match self.value {
            Value::StringLit(_) => "a string",
            Value::NumberLit(_) => "a number",
            Value::BooleanLit(_) => "true or false",
            Value::Object(_) => "an object",
            Value::Array(_) => "a list",
            Value::NullKeyword(_) => "null",
        }
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value, Value::StringLit(_))
    }

    pub(super) fn is_empty_text(&self) -> bool {
        matches!(self.value, Value::StringLit(literal) if literal.value.is_empty())
    }

    /// Whether the text is `env.…` or `file:…`, so that messages must not repeat its value.
    pub(super) fn is_reference(&self) -> bool {
        matches!(self.value, Value::StringLit(literal) if Origin::of(&literal.value) != Origin::Literal)
    }
}

/// Whether a value asks for something: not `false`, empty, or switched off. Recursion is bounded
/// by the depth of the document.
fn asks_for_something(value: &Value<'_>) -> bool {
    match value {
        Value::NullKeyword(_) => false,
        Value::BooleanLit(literal) => literal.value,
        Value::Array(array) => !array.elements.is_empty(),
        Value::Object(object) => {
            let is_off = object.get_boolean("enabled").is_some_and(|literal| !literal.value);
            !is_off && object.properties.iter().any(|property| asks_for_something(&property.value))
        }
        Value::StringLit(_) | Value::NumberLit(_) => true,
    }
}

/// Collects what reading finds.
pub(super) struct Reader<'s> {
    lines: Lines<'s>,
    sources: &'s Sources<'s>,
    faults: Vec<Fault>,
    faults_left_out: usize,
    warnings: Vec<Warning>,
    warned: Vec<&'static str>,
    /// What was asked for, where somebody wants to know.
    asked: Option<Vec<Asked>>,
    /// Ids that exist and ids that are referred to.
    pub(super) names: Names,
}

impl<'s> Reader<'s> {
    pub(super) fn new(text: &'s str, sources: &'s Sources<'s>) -> Self {
        Self {
            lines: Lines::new(text),
            sources,
            faults: Vec::new(),
            faults_left_out: 0,
            warnings: Vec::new(),
            warned: Vec::new(),
            asked: None,
            names: Names::default(),
        }
    }

    /// The same, which notes everything that it asks for.
    pub(super) fn noting(text: &'s str, sources: &'s Sources<'s>) -> Self {
        Self { asked: Some(Vec::new()), ..Self::new(text, sources) }
    }

    /// What was asked for so far, in order.
    pub(super) fn take_asked(&mut self) -> Vec<Asked> {
        self.asked.take().unwrap_or_default()
    }

    /// Notes that this was asked for at this place.
    fn note(&mut self, place: &Place, what: impl FnOnce() -> What) {
        if let Some(asked) = &mut self.asked {
            asked.push(Asked { place: place.pattern.clone(), what: what() });
        }
    }

    /// Records a fault at `place`. `expected` may be empty.
    pub(super) fn fault(&mut self, place: &Place, problem: impl Into<String>, expected: impl Into<String>) {
        self.fault_near(place, problem, expected, None);
    }

    /// Records a fault with the name that was probably meant.
    pub(super) fn fault_near(
        &mut self,
        place: &Place,
        problem: impl Into<String>,
        expected: impl Into<String>,
        nearest: Option<&str>,
    ) {
        if self.faults.len() >= MESSAGES_MAX {
            self.faults_left_out += 1;
            return;
        }
        let (line, column) = self.lines.position(place.offset);
        self.faults.push(Fault {
            path: place.shown.clone(),
            line,
            column,
            problem: problem.into(),
            expected: expected.into(),
            nearest: nearest.map(str::to_owned),
        });
    }

    /// Records a fault of the text itself, which has no path yet.
    pub(super) fn fault_at(&mut self, offset: usize, problem: impl Into<String>) {
        self.fault(&Place::root(offset), problem, "");
    }

    /// Records something to know.
    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        if self.warnings.len() >= MESSAGES_MAX {
            return;
        }
        let (line, column) = self.lines.position(place.offset);
        self.warnings.push(Warning { path: place.shown.clone(), line, column, message: message.into() });
    }

    /// Warns once for each known field that this node does not act on.
    fn warn_if_inactive(&mut self, node: &Node<'_>) -> Option<&'static Inactive> {
        let known = inactive::find(&node.place.pattern)?;
        if asks_for_something(node.value) && !self.warned.contains(&known.pattern) {
            self.warned.push(known.pattern);
            self.warn(&node.place, known.message());
        }
        Some(known)
    }

    /// Whether something was found at this place or inside of it.
    pub(super) fn has_fault_below(&self, place: &Place) -> bool {
        self.faults.iter().any(|fault| {
            fault.path.strip_prefix(&place.shown).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The faults alone, where there is at least one.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.finish().err().unwrap_or_default()
    }

    /// Everything found, in the order of the text.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Vec<Fault>> {
        if self.faults.is_empty() {
            self.warnings.sort_by_key(|warning| (warning.line, warning.column));
            return Ok(self.warnings);
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        if self.faults_left_out > 0 {
            let (line, column) = self.lines.position(usize::MAX);
            self.faults.push(Fault {
                path: String::new(),
                line,
                column,
                problem: format!("and {} more faults", self.faults_left_out),
                expected: String::new(),
                nearest: None,
            });
        }
        Err(self.faults)
    }
}
