//! Which routing rule holds for a request, and which of its targets the request gets. Decides from
//! the snapshot and the request's head, and allocates nothing; where a target leads is planned
//! elsewhere.

use crate::core::{Core, Serving};
use crate::http1::Field;
use crate::identify::Caller;
use crate::key_choice::{hash_of, mixed};
use crate::plan::{fraction, named_provider, speaks};
use crate::route::{Endpoint, Target};
use rkyv::rend::u32_le;
use rkyv::string::ArchivedString;
use shared::bounds::{REQUEST_FIELDS_MAX, ROUTING_HEADERS_MAX};
use shared::snapshot::ArchivedVirtualKeyRecord;
use shared::snapshot::routing::{
    ArchivedConditionRecord, ArchivedFits, ArchivedGroupRecord, ArchivedHopRecord, ArchivedPatternRecord,
    ArchivedRoutingRecord, ArchivedRuleRecord, ArchivedSubject, ArchivedTargetRecord,
};

/// What is known of a request before it is planned.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) target: &'a Target,
    pub(crate) caller: Caller,
    /// The head's fields, which point into `bytes`.
    pub(crate) fields: &'a [Field],
    pub(crate) bytes: &'a [u8],
    /// As the body or path says it.
    pub(crate) model: Option<&'a str>,
}

/// Where a rule leads a request.
#[derive(Clone, Copy)]
pub(crate) struct Routed<'s> {
    pub(crate) rule: &'s ArchivedRuleRecord,
    pub(crate) hop: &'s ArchivedHopRecord,
}

/// The first rule that holds, with the target that this request gets. Rules are about requests that
/// name a model, and that are not to be left as they are; a client's own key goes where it says.
pub(crate) fn find<'s>(core: &Core, serving: &'s Serving, asked: Asked<'_>) -> Option<Routed<'s>> {
    let routing = &serving.records().routing;
    if routing.routes.is_empty() {
        return None;
    }
    let is_untouched = asked.target.is_passthrough || asked.target.endpoint == Endpoint::Relay;
    let whole = asked.model.filter(|model| !model.is_empty())?;
    if is_untouched || asked.caller == Caller::Direct {
        return None;
    }
    let seen = Seen::new(serving, routing, asked, whole);
    let rule = routing.rules.get(first_that_holds(routing, &seen)?.to_native() as usize)?;
    let point = match seen.sticks_to(rule) {
        Some(value) => fraction(mixed(hash_of(value) ^ rule.salt.to_native())),
        None => fraction(core.random()),
    };
    let target = drawn(rule, point, |hop| {
        let provider = hop.provider.as_ref().and_then(|at| serving.records().providers.get(at.to_native() as usize));
        provider.is_none_or(|record| speaks(record, asked.target.dialect))
    });
    target.map(|target| Routed { rule, hop: &target.hop })
}

/// The rule of the first route that holds: of those that name the model and those that name none.
fn first_that_holds<'s>(routing: &'s ArchivedRoutingRecord, seen: &Seen<'_>) -> Option<&'s u32_le> {
    let named = |model: &str| {
        let at = routing.by_model.binary_search_by(|entry| entry.0.as_str().cmp(model)).ok()?;
        routing.by_model.get(at).map(|entry| entry.1.as_slice())
    };
    let whole = if seen.whole == seen.model { None } else { named(seen.whole) };
    let mut lists = [routing.any_model.as_slice(), named(seen.model).unwrap_or_default(), whole.unwrap_or_default()];
    // Each list is ascending, and so is what they come to together.
    while let Some(next) = lists.iter().filter_map(|list| list.first()).min() {
        let route = routing.routes.get(next.to_native() as usize)?;
        if route.conditions.iter().all(|condition| seen.holds(condition)) {
            return Some(&route.rule);
        }
        for list in &mut lists {
            if let Some((first, rest)) = list.split_first()
                && first == next
            {
                *list = rest;
            }
        }
    }
    None
}

/// The target at `point` (below 1) of those that `can` take the request, or of all where none can:
/// then its refusal says why.
fn drawn(
    rule: &ArchivedRuleRecord,
    point: f64,
    can: impl Fn(&ArchivedHopRecord) -> bool,
) -> Option<&ArchivedTargetRecord> {
    let can_any = rule.targets.iter().any(|target| can(&target.hop));
    let able = || rule.targets.iter().filter(|target| !can_any || can(&target.hop));
    let total: f64 = able().map(|target| target.weight.to_native()).sum();
    let mut left = point * total;
    let found = able().find(|target| {
        left -= target.weight.to_native();
        left < 0.0
    });
    // Sums of fractions may end a hair below the total.
    found.or_else(|| able().last())
}

/// Where a request has a header: its first field of that name.
type Place = u8;
const NOWHERE: Place = Place::MAX;
const _: () = assert!(REQUEST_FIELDS_MAX < NOWHERE as usize);

/// What conditions look at.
struct Seen<'a> {
    whole: &'a str,
    model: &'a str,
    provider: &'a str,
    endpoint: &'static str,
    virtual_key: Option<&'a ArchivedVirtualKeyRecord>,
    team: Option<&'a ArchivedGroupRecord>,
    customer: Option<&'a ArchivedGroupRecord>,
    fields: &'a [Field],
    bytes: &'a [u8],
    headers: &'a [ArchivedString],
    /// By the index of the header.
    places: [Place; ROUTING_HEADERS_MAX],
}

impl<'a> Seen<'a> {
    fn new(serving: &'a Serving, routing: &'a ArchivedRoutingRecord, asked: Asked<'a>, whole: &'a str) -> Self {
        let records = serving.records();
        let (named, model) = named_provider(serving, whole);
        let provider = named.or(asked.target.provider).and_then(|at| records.providers.get(at));
        let virtual_key = asked.caller.record(serving);
        let at = |index: Option<u32_le>| index.map_or(usize::MAX, |index| index.to_native() as usize);
        let mut seen = Self {
            whole,
            model,
            provider: provider.map_or("", |record| record.name.as_str()),
            endpoint: asked.target.endpoint.label(),
            virtual_key,
            team: virtual_key.and_then(|key| routing.teams.get(at(key.team.as_ref().copied()))),
            customer: virtual_key.and_then(|key| routing.customers.get(at(key.customer.as_ref().copied()))),
            fields: asked.fields,
            bytes: asked.bytes,
            headers: &routing.headers,
            places: [NOWHERE; ROUTING_HEADERS_MAX],
        };
        seen.find_headers();
        seen
    }

    /// Once for all conditions.
    fn find_headers(&mut self) {
        for (place, name) in self.places.iter_mut().zip(self.headers) {
            let is_it = |field: &Field| field.name.of(self.bytes).eq_ignore_ascii_case(name.as_bytes());
            let found = self.fields.iter().position(is_it).and_then(|at| Place::try_from(at).ok());
            *place = found.unwrap_or(NOWHERE);
        }
    }

    fn holds(&self, condition: &ArchivedConditionRecord) -> bool {
        let patterns = condition.patterns.as_slice();
        let fits = |text: &[u8]| patterns.iter().any(|pattern| fits(pattern, text));
        let text_fits = |text: Option<&ArchivedString>| fits(text.map_or("", ArchivedString::as_str).as_bytes());
        let any_fits = match &condition.subject {
            ArchivedSubject::Model => fits(self.model.as_bytes()) || fits(self.whole.as_bytes()),
            ArchivedSubject::Provider => fits(self.provider.as_bytes()),
            ArchivedSubject::Endpoint => fits(self.endpoint.as_bytes()),
            ArchivedSubject::VirtualKeyId => text_fits(self.virtual_key.map(|key| &key.id)),
            ArchivedSubject::VirtualKeyName => text_fits(self.virtual_key.map(|key| &key.name)),
            ArchivedSubject::TeamId => text_fits(self.team.map(|team| &team.id)),
            ArchivedSubject::TeamName => text_fits(self.team.map(|team| &team.name)),
            ArchivedSubject::CustomerId => text_fits(self.customer.map(|customer| &customer.id)),
            ArchivedSubject::CustomerName => text_fits(self.customer.map(|customer| &customer.name)),
            ArchivedSubject::Header(at) => {
                let mut values = self.values(at.to_native()).peekable();
                let is_there = values.peek().is_some();
                if patterns.is_empty() {
                    is_there
                } else if is_there {
                    values.any(fits)
                } else {
                    // What is not there is neither this nor something else.
                    return false;
                }
            }
        };
        any_fits != condition.is_negated
    }

    /// Every value of a header.
    fn values(&self, header: u32) -> impl Iterator<Item = &'a [u8]> {
        let header = header as usize;
        let name = self.headers.get(header).map_or("", |name| name.as_str());
        let place = self.places.get(header).copied().filter(|place| *place != NOWHERE);
        let from = place.and_then(|place| self.fields.get(usize::from(place)..)).unwrap_or_default();
        let bytes = self.bytes;
        let is_it = move |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        from.iter().filter(is_it).map(move |field| field.value.of(bytes))
    }

    /// What decides which target it is; `None`: chance.
    fn sticks_to(&self, rule: &ArchivedRuleRecord) -> Option<&'a [u8]> {
        let header = rule.sticky_header.as_ref().and_then(|at| self.values(at.to_native()).next());
        let key = || self.virtual_key.filter(|_| rule.sticks_to_virtual_key).map(|key| key.id.as_bytes());
        header.filter(|value| !value.is_empty()).or_else(key)
    }
}

fn fits(pattern: &ArchivedPatternRecord, text: &[u8]) -> bool {
    let wanted = pattern.text.as_bytes();
    match pattern.fits {
        ArchivedFits::Whole => text == wanted,
        ArchivedFits::Prefix => text.starts_with(wanted),
        ArchivedFits::Suffix => text.ends_with(wanted),
        ArchivedFits::Part => memchr::memmem::find(text, wanted).is_some(),
    }
}

#[cfg(test)]
mod tests;
