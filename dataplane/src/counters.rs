//! What a core counts. Plain numbers, sent up as sums at an interval; a report that finds no room
//! stays here and grows.

use crate::core::{Core, Serving};
use crate::name::Name;
use crate::rejection::Rejection;
use shared::bounds::TOLD_PER_REPORT_MAX;
use shared::clock::Nanos;
use shared::published::RestingKey;
use shared::report::{
    AttemptLabels, Denial, Estimates, Gauges, Histogram, KeyLabels, LimitWaits, Report, Traffic, TrafficLabels,
};
use shared::ring::ReportSender;
use shared::told::{KeyTold, ProviderLimits};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Rows of traffic that a core keeps apart between two reports; all others share one.
const ROWS_MAX: usize = 4096;

/// A core's counters.
pub(crate) struct Counters {
    core: u32,
    report: RefCell<Report>,
    /// Rows by indices, so that the request path neither hashes nor copies names.
    rows: RefCell<Vec<(RowKey, Traffic)>>,
    /// By the indices of keys.
    waits: RefCell<Vec<(u32, Histogram)>>,
    /// By the indices of keys.
    told: RefCell<Vec<Told>>,
    in_flight: Cell<u64>,
    streams: Cell<u64>,
    tick_delay: Cell<u64>,
}

/// What a row is about, by the indices of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    /// Provider's index; `u32::MAX`: none.
    pub(crate) provider: u32,
    /// Index of the model label; `u32::MAX`: other, `u32::MAX - 1`: none.
    pub(crate) model: u32,
    pub(crate) endpoint: &'static str,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
}

/// No provider was chosen.
pub(crate) const NO_PROVIDER: u32 = u32::MAX;
/// The request had no model.
pub(crate) const NO_MODEL: u32 = u32::MAX - 1;
/// A model that metrics do not tell apart.
pub(crate) const OTHER_MODEL: u32 = u32::MAX;

/// What happened to one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Happened {
    pub(crate) duration: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) overhead: Option<Duration>,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) is_stream: bool,
    pub(crate) is_cut: bool,
    pub(crate) is_abandoned: bool,
    pub(crate) is_usage_missing: bool,
}

/// What an answer said of its provider's limits, by the index of the key that it was asked with.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) key: u32,
    pub(crate) model: Name,
    pub(crate) limits: ProviderLimits,
    pub(crate) as_of: Nanos,
    pub(crate) refused_for: Option<Duration>,
}

impl Counters {
    pub(crate) fn new(core: u32) -> Self {
        Self {
            core,
            report: RefCell::new(Report { core, ..Report::default() }),
            rows: RefCell::default(),
            waits: RefCell::default(),
            told: RefCell::default(),
            in_flight: Cell::new(0),
            streams: Cell::new(0),
            tick_delay: Cell::new(0),
        }
    }

    /// Counts a request that has ended.
    pub(crate) fn request(&self, key: RowKey, happened: &Happened) {
        let mut rows = self.rows.borrow_mut();
        let at = match rows.iter().position(|(other, _)| *other == key) {
            Some(at) => at,
            None if rows.len() < ROWS_MAX => {
                rows.push((key, Traffic::default()));
                rows.len() - 1
            }
            None => return,
        };
        let row = &mut rows[at].1;
        row.requests += 1;
        row.streams += u64::from(happened.is_stream);
        row.cut += u64::from(happened.is_cut);
        row.abandoned += u64::from(happened.is_abandoned);
        row.usage_missing += u64::from(happened.is_usage_missing);
        row.input_tokens = row.input_tokens.saturating_add(happened.input_tokens);
        row.output_tokens = row.output_tokens.saturating_add(happened.output_tokens);
        row.duration.record_us(micros(happened.duration));
        if let Some(first_byte) = happened.first_byte {
            row.first_byte.record_us(micros(first_byte));
        }
        if let Some(overhead) = happened.overhead {
            row.overhead.record_us(micros(overhead));
        }
    }

    /// Counts an attempt at a provider.
    pub(crate) fn attempt(&self, serving: &Serving, provider: usize, key: Option<usize>, outcome: &'static str) {
        let records = serving.records();
        let mut report = self.report.borrow_mut();
        let provider = records.providers.get(provider).map_or("", |record| record.name.as_str());
        let key = key.and_then(|key| records.keys.get(key)).map_or("", |record| record.name.as_str());
        // A look-up without allocating: the usual row is there already.
        if let Some(count) = report
            .attempts
            .iter_mut()
            .find(|(labels, _)| labels.outcome == outcome && labels.provider == provider && labels.key == key)
            .map(|(_, count)| count)
        {
            *count += 1;
            return;
        }
        let labels = AttemptLabels { provider: provider.to_owned(), key: key.to_owned(), outcome };
        report.attempts.insert(labels, 1);
    }

    /// Counts a refusal by a limit.
    pub(crate) fn limit_refused(&self, id: &str) {
        let mut report = self.report.borrow_mut();
        match report.refusals.get_mut(id) {
            Some(count) => *count += 1,
            None => drop(report.refusals.insert(id.to_owned(), 1)),
        }
    }

    /// Counts a request that a routing rule was about.
    pub(crate) fn routed(&self, rule: &str) {
        let mut report = self.report.borrow_mut();
        match report.routed.get_mut(rule) {
            Some(count) => *count += 1,
            None => drop(report.routed.insert(rule.to_owned(), 1)),
        }
    }

    /// Counts a request that has waited for units.
    pub(crate) fn limit_waited(&self, id: &str, waited: Duration, is_admitted: bool) {
        let one = LimitWaits { waits: 1, given_up: u64::from(!is_admitted), waited_us: micros(waited) };
        self.report.borrow_mut().limit_waits.entry(id.to_owned()).or_default().add(&one);
    }

    /// Counts a request that was refused before it was understood.
    pub(crate) fn refused_head(&self, refusal: &Rejection) {
        let row = refusal.cause.row();
        let key = RowKey {
            provider: NO_PROVIDER,
            model: NO_MODEL,
            endpoint: "malformed",
            status: row.status,
            code: row.code,
        };
        self.request(key, &Happened::default());
    }

    pub(crate) fn key_rests(&self, resting: RestingKey) {
        let mut report = self.report.borrow_mut();
        if report.resting_keys.len() < 256 {
            report.resting_keys.push(resting);
        }
    }

    pub(crate) fn denied(&self, denial: Denial) {
        let mut report = self.report.borrow_mut();
        if report.denials.len() < 256 {
            report.denials.push(denial);
        }
    }

    /// Counts how long a key's answer took to begin.
    pub(crate) fn waited(&self, key: usize, wait: Duration) {
        let Ok(key) = u32::try_from(key) else { return };
        let mut waits = self.waits.borrow_mut();
        let at = waits.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            waits.push((key, Histogram::default()));
            waits.len() - 1
        });
        waits[at].1.record_us(micros(wait));
    }

    /// Notes what a provider said of its limits; the newest for each key and model stays.
    pub(crate) fn told(&self, told: &Told) {
        let mut all = self.told.borrow_mut();
        let same = |other: &&mut Told| other.key == told.key && other.model.as_str() == told.model.as_str();
        if let Some(before) = all.iter_mut().find(same) {
            if before.as_of <= told.as_of {
                *before = *told;
            }
        } else if all.len() < TOLD_PER_REPORT_MAX {
            all.push(*told);
        }
    }

    pub(crate) fn accepted(&self) {
        self.report.borrow_mut().sums.connections_accepted += 1;
    }

    pub(crate) fn refused_connection(&self) {
        self.report.borrow_mut().sums.connections_refused += 1;
    }

    pub(crate) fn connected(&self) {
        self.report.borrow_mut().sums.upstream_connects += 1;
    }

    pub(crate) fn reused(&self) {
        self.report.borrow_mut().sums.upstream_reuses += 1;
    }

    pub(crate) fn stale(&self) {
        self.report.borrow_mut().sums.upstream_stale += 1;
    }

    pub(crate) fn panicked(&self) {
        self.report.borrow_mut().sums.panics += 1;
    }

    pub(crate) fn client_bytes_in(&self, count: u64) {
        self.report.borrow_mut().sums.client_bytes_in += count;
    }

    pub(crate) fn client_bytes_out(&self, count: u64) {
        self.report.borrow_mut().sums.client_bytes_out += count;
    }

    pub(crate) fn reserved_too_little(&self, tokens: u64) {
        self.report.borrow_mut().sums.reserved_too_little_tokens += tokens;
    }

    pub(crate) fn usage_flagged(&self, is_flagged: bool) {
        self.report.borrow_mut().sums.usage_flagged += u64::from(is_flagged);
    }

    /// Counts an answer whose tokens had been estimated, and how many more there were of them.
    pub(crate) fn estimated(&self, id: &str, beyond: u64, beyond_entitlement: u64) {
        let mut report = self.report.borrow_mut();
        if !report.estimates.contains_key(id) {
            report.estimates.insert(id.to_owned(), Estimates::default());
        }
        if let Some(estimates) = report.estimates.get_mut(id) {
            estimates.answers += 1;
            estimates.exceeded += u64::from(beyond > 0);
            estimates.exceeded_tokens += beyond;
            estimates.beyond_entitlement_tokens += beyond_entitlement;
        }
    }

    /// Counts a request as running until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self)
    }

    /// Counts an answer as being streamed until the guard is dropped.
    pub(crate) fn stream_began(&self) -> Streaming<'_> {
        self.streams.set(self.streams.get() + 1);
        Streaming(self)
    }

    pub(crate) fn ticked(&self, late_by: Duration) {
        self.tick_delay.set(self.tick_delay.get().max(micros(late_by)));
    }

    /// Gives rows their names before the indices change their meaning.
    pub(crate) fn flush_labels(&self, serving: Option<&Serving>) {
        let mut rows = self.rows.borrow_mut();
        let mut report = self.report.borrow_mut();
        for (key, traffic) in rows.drain(..) {
            report.traffic.entry(key.labels(serving)).or_default().add(&traffic);
        }
        for (key, waits) in self.waits.borrow_mut().drain(..) {
            let Some(labels) = serving.and_then(|serving| key_labels(serving, key as usize)) else { continue };
            report.waits.entry(labels).or_default().add(&waits);
        }
        for told in self.told.borrow_mut().drain(..) {
            let Some(key) = serving.and_then(|serving| key_labels(serving, told.key as usize)) else { continue };
            told.add_to(key, &mut report.told);
        }
    }

    /// Sends the sums up, with what the core has right now.
    pub(crate) fn report(&self, core: &Core, serving: Option<&Serving>, reports: &ReportSender) {
        self.flush_labels(serving);
        let mut report = self.report.borrow_mut();
        report.gauges = Gauges {
            connections: core.connections.get(),
            // A core that still takes connections may have one in its hands any moment: the node
            // must not end before.
            requests_in_flight: self.in_flight.get() + u64::from(core.is_saying_farewell.get()),
            streams: self.streams.get(),
            waiting: serving.map_or(0, |serving| serving.slices.waiting() as u64),
            idle_upstreams: serving.map_or(0, |serving| serving.providers.idle_connections()),
            buffered_body_bytes: core.buffered_body_bytes.get(),
            tick_delay_us: self.tick_delay.take(),
            epoch: serving.map_or(0, |serving| serving.records().epoch.to_native()),
        };
        let fresh = Report { core: self.core, ..Report::default() };
        let sent = reports.send(std::mem::replace(&mut *report, fresh));
        if let Err(unsent) = sent {
            *report = unsent;
        }
    }
}

impl RowKey {
    fn labels(self, serving: Option<&Serving>) -> TrafficLabels {
        let records = serving.map(Serving::records);
        let provider = records.and_then(|records| records.providers.get(self.provider as usize));
        let model = match self.model {
            NO_MODEL => String::new(),
            index => records
                .and_then(|records| records.model_labels.get(index as usize))
                .map_or_else(|| "other".to_owned(), ToString::to_string),
        };
        TrafficLabels {
            provider: provider.map(|record| record.name.to_string()).unwrap_or_default(),
            model,
            endpoint: self.endpoint,
            status: self.status,
            code: self.code,
        }
    }
}

impl Told {
    fn add_to(self, key: KeyLabels, all: &mut Vec<KeyTold>) {
        let Self { key: _, model, limits, as_of, refused_for } = self;
        let model = model.as_str().to_owned();
        let told = KeyTold { key, model, limits, as_of, refused_for };
        // The report before may have found no room.
        if let Some(before) = all.iter_mut().find(|other| other.key == told.key && other.model == told.model) {
            *before = told;
        } else if all.len() < TOLD_PER_REPORT_MAX {
            all.push(told);
        }
    }
}

/// A running request.
pub(crate) struct InFlight<'a>(&'a Counters);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

/// An answer that is being streamed.
pub(crate) struct Streaming<'a>(&'a Counters);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

fn key_labels(serving: &Serving, key: usize) -> Option<KeyLabels> {
    let record = serving.records().keys.get(key)?;
    let provider = serving.records().providers.get(record.provider.to_native() as usize)?;
    Some(KeyLabels { provider: provider.name.to_string(), key: record.name.to_string() })
}

/// Index of a model's label.
pub(crate) fn model_label(serving: &Serving, model: &str) -> u32 {
    if model.is_empty() {
        return NO_MODEL;
    }
    let labels = &serving.records().model_labels;
    labels.binary_search_by(|label| label.as_str().cmp(model)).map_or(OTHER_MODEL, |at| at as u32)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
