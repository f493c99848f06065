//! The cores of a node: reservations, answer sizes, slices and permits as a node serves with them.

use super::recorded::Request;
use dataplane::answer_sizes::{AnswerSizes, SizeClass};
use dataplane::limiter::{Charge, Sent, Slices};
use dataplane::reservation::{Body, Needs, Used};
use shared::clock::Nanos;
use shared::limit::{LimitIndex, LimitRings};
use shared::snapshot::{Reserve, Snapshot};
use std::rc::Rc;

/// All requests are for one.
const MODEL: &str = "gpt-4o";
/// Usual prose.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// One core.
pub(crate) struct Core {
    slices: Rc<Slices>,
    sizes: AnswerSizes,
}

/// A request that runs.
pub(crate) struct Running {
    sent: Sent,
    class: Option<SizeClass>,
}

impl Core {
    pub(crate) fn new(rings: &LimitRings) -> Self {
        Self { slices: Slices::new(rings), sizes: AnswerSizes::default() }
    }

    /// Takes what a request needs of every limit, and sends it; with what it took of the first one.
    pub(crate) fn admit(
        &self,
        request: &Request,
        snapshot: &Snapshot,
        answer_tokens_max: u64,
        now: Nanos,
    ) -> Option<(Running, u64)> {
        let bytes = u32::try_from(request.recorded.prompt_tokens * BYTES_PER_TOKEN).unwrap_or(u32::MAX);
        let needs = Needs::new(&self.sizes, MODEL, Body { bytes, non_ascii_bytes: 0 }, answer_tokens_max, 1);
        let records = &snapshot.view().limits;
        let charges: Vec<Charge> = records
            .iter()
            .zip(0..)
            .map(|(record, place)| {
                let limit = LimitIndex(place);
                needs.charge(limit, record, self.slices.ring(limit).map(AsRef::as_ref))
            })
            .collect::<Result<_, _>>()
            .expect("the limits of this simulation count no money");
        let sent = self.slices.admit(&charges, now).ok()?.sent(now);
        let is_learned = records.iter().any(|record| record.charge.reserve == Reserve::Learned);
        let class = needs.class().filter(|_| is_learned);
        Some((Running { sent, class }, charges.first().map_or(0, |charge| charge.amount)))
    }

    /// The answer has ended.
    pub(crate) fn settle(&self, running: Running, request: &Request, snapshot: &Snapshot, now: Nanos) {
        let prompt = request.recorded.prompt_tokens;
        let used = Used { prompt, all: prompt + request.recorded.output_tokens, is_final: true };
        if let Some(class) = running.class {
            self.sizes.learn(MODEL, class, used.all);
        }
        let of_charge = |charge: &Charge| {
            let record = snapshot.view().limits.get(charge.limit.0 as usize);
            record.map_or(charge.amount, |record| used.counted(record, charge.amount, None))
        };
        running.sent.settle_each(of_charge, now);
    }

    /// Every 10 ms.
    pub(crate) fn tick(&self, now: Nanos) {
        self.slices.tick(now);
    }
}
