//! Objects: fields by name, each known or a fault; maps with the user's own names; lists.

use std::collections::BTreeMap;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged as _;

use super::{Node, Place, Reader, quote};
use crate::config::asked::What;
use crate::config::inactive;
use crate::config::nearest::nearest;

/// The fields of one object. A field that nobody asked for when the reading is over is unknown.
pub(in crate::config) struct Fields<'a> {
    pub(in crate::config) place: Place,
    waiting: BTreeMap<&'a str, &'a ObjectProp<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field's value. `null` is the same as leaving the field out.
    pub(in crate::config) fn get(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<Node<'a>> {
        self.asked.push(name);
        reader.note(&self.place, || What::Field(name));
        let property = self.waiting.remove(name)?;
        let node = Node { value: &property.value, place: self.place.field(name, property.value.start()) };
        if matches!(node.value, Value::NullKeyword(_)) {
            return None;
        }
        reader.warn_if_inactive(&node);
        Some(node)
    }

    /// The field read by `read`; `None` where it is left out or wrong.
    pub(in crate::config) fn read<'s, T>(
        &mut self,
        reader: &mut Reader<'s>,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'s>, &Node<'a>) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(reader, name)?;
        read(reader, &node)
    }

    /// Like [`Fields::get`], where leaving it out is a fault.
    pub(in crate::config) fn required(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        expected: &str,
    ) -> Option<Node<'a>> {
        let node = self.get(reader, name);
        reader.note(&self.place, || What::Required(name));
        if node.is_none() {
            reader.fault(&self.place, format!("{name:?} is missing"), expected);
        }
        node
    }

    /// Whether the field is there, unread or null or not.
    pub(in crate::config) fn has(&self, name: &str) -> bool {
        self.waiting.contains_key(name)
    }

    /// Lets the fields that nobody asked for pass, where a larger fault makes them meaningless.
    pub(in crate::config) fn skip_the_rest(&mut self) {
        self.waiting.clear();
    }

    fn finish(self, reader: &mut Reader<'_>) {
        for (name, property) in self.waiting {
            let node = Node { value: &property.value, place: self.place.field(name, property.range.start) };
            if reader.warn_if_inactive(&node).is_some() {
                continue;
            }
            let inactive_names = inactive::names_below(&self.place.pattern);
            let candidates = self.asked.iter().copied().chain(inactive_names);
            let nearest = nearest(name, candidates);
            let expected = match nearest {
                Some(_) => String::new(),
                None => listed(&self.asked),
            };
            reader.fault_near(&node.place, "unknown field", expected, nearest);
        }
    }
}

/// "one of a, b, c", unless that is too long to read.
fn listed(names: &[&str]) -> String {
    const NAMES_MAX: usize = 16;
    match names.len() {
        0 => "no fields here".to_owned(),
        1..=NAMES_MAX => format!("one of {}", names.join(", ")),
        _ => "one of the documented fields".to_owned(),
    }
}

impl Reader<'_> {
    /// Reads an object with `read`, and then faults every field that `read` did not ask for.
    pub(in crate::config) fn object<'a, T>(
        &mut self,
        node: &Node<'a>,
        read: impl FnOnce(&mut Self, &mut Fields<'a>) -> T,
    ) -> Option<T> {
        self.note(&node.place, || What::Object);
        let Value::Object(object) = node.value else {
            self.wrong_kind(node, "an object");
            return None;
        };
        self.note(&node.place, || What::Reading);
        for name in inactive::names_below(&node.place.pattern) {
            self.note(&node.place, || What::Field(name));
        }
        let mut fields =
            Fields { place: node.place.clone(), waiting: self.properties(node, object), asked: Vec::new() };
        let value = read(self, &mut fields);
        fields.finish(self);
        Some(value)
    }

    /// Reads an object whose names are the user's own, in the file's order.
    pub(in crate::config) fn map<'a>(
        &mut self,
        node: &Node<'a>,
        count_max: usize,
        mut read: impl FnMut(&mut Self, &'a str, &Node<'a>),
    ) {
        self.note(&node.place, || What::Map);
        let Value::Object(object) = node.value else {
            self.wrong_kind(node, "an object");
            return;
        };
        if !self.fits(node, object.properties.len(), count_max) {
            return;
        }
        let properties = self.properties(node, object);
        let mut in_order: Vec<_> = properties.into_iter().collect();
        in_order.sort_by_key(|(_, property)| property.range.start);
        for (name, property) in in_order {
            let node = Node { value: &property.value, place: node.place.entry(name, property.range.start) };
            read(self, name, &node);
        }
    }

    /// Reads a list; elements that `read` refuses are left out.
    pub(in crate::config) fn list<'a, T>(
        &mut self,
        node: &Node<'a>,
        count_max: usize,
        mut read: impl FnMut(&mut Self, &Node<'a>) -> Option<T>,
    ) -> Vec<T> {
        self.note(&node.place, || What::List);
        let Value::Array(array) = node.value else {
            self.wrong_kind(node, "a list");
            return Vec::new();
        };
        if !self.fits(node, array.elements.len(), count_max) {
            return Vec::new();
        }
        let mut values = Vec::with_capacity(array.elements.len());
        for (index, value) in array.elements.iter().enumerate() {
            let node = Node { value, place: node.place.element(index, value.start()) };
            values.extend(read(self, &node));
        }
        values
    }

    pub(in crate::config) fn wrong_kind(&mut self, node: &Node<'_>, expected: &str) {
        let problem = format!("found {}", node.kind());
        self.fault(&node.place, problem, expected);
    }

    fn fits(&mut self, node: &Node<'_>, count: usize, count_max: usize) -> bool {
        if count > count_max {
            let expected = format!("at most {count_max}");
            self.fault(&node.place, format!("has {count} entries"), expected);
        }
        count <= count_max
    }

    /// Properties by name; the second one of a name is a fault and left out.
    fn properties<'a>(&mut self, node: &Node<'a>, object: &'a Object<'a>) -> BTreeMap<&'a str, &'a ObjectProp<'a>> {
        let mut by_name = BTreeMap::new();
        for property in &object.properties {
            let name = property.name.as_str();
            if let std::collections::btree_map::Entry::Vacant(place) = by_name.entry(name) {
                place.insert(property);
            } else {
                let place = node.place.field(name, property.range.start);
                let problem = format!("{} is written twice in this object", quote(name));
                self.fault(&place, problem, "");
            }
        }
        by_name
    }
}
