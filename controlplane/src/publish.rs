//! From records to the cores: the snapshot's bytes, the secrets beside it, the limits' rings.

use crate::compile::{CompileError, TableSecret, limit_definitions};
use crate::entitlements::{Others, Pace};
use crate::learned::Learned;
use crate::metrics::LimitRow;
use shared::clock::Nanos;
use shared::limit::{LimitTable, TableError};
use shared::published::{ListenerIdentity, Live, Published};
use shared::ring::CoreSender;
use shared::secret::Secret;
use shared::snapshot::{LimitRecord, Snapshot, SnapshotError, SnapshotRecord, Unit};
use std::sync::Arc;
use std::time::Duration;

/// Limits that `/metrics` shows: the first ones of the configuration.
const LIMITS_SHOWN_MAX: usize = 5_000;

/// A snapshot was not published. The cores keep the one they have.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The limits cannot be counted.
    #[error(transparent)]
    Limits(#[from] TableError),
    /// A window cannot be counted.
    #[error(transparent)]
    Window(#[from] CompileError),
    /// The records could not be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// What is kept of a published limit beside its ring.
struct Row {
    id: String,
    unit: Unit,
    /// Units in a window, as configured.
    configured: u64,
    /// Of which limit it is the pace on this node.
    paces: Option<u32>,
    overshoot_probability: f64,
}

/// Owns the rings to the cores and the limits' rings.
pub struct Publisher {
    cores: Vec<CoreSender>,
    lookup_key: Arc<[u8; 32]>,
    limits: LimitTable,
    /// The published limits, in the rings' order.
    rows: Vec<Row>,
    /// The table that `secrets` was made from.
    secret_table: Option<Arc<[TableSecret]>>,
    secrets: Arc<[Secret]>,
}

impl Publisher {
    /// Nothing is published yet.
    pub fn new(cores: Vec<CoreSender>, lookup_key: [u8; 32]) -> Self {
        Self {
            cores,
            lookup_key: Arc::new(lookup_key),
            limits: LimitTable::default(),
            rows: Vec::new(),
            secret_table: None,
            secrets: Arc::new([]),
        }
    }

    /// Hands a configuration to every core, whole. What `others` use of a limit is not this node's,
    /// nor what was `learned` to be no more there.
    pub fn publish(
        &mut self,
        others: &Others<'_>,
        learned: &Learned,
        record: &SnapshotRecord,
        secrets: &Arc<[TableSecret]>,
        listener_identity: Option<Arc<ListenerIdentity>>,
        now: Nanos,
    ) -> Result<Snapshot, PublishError> {
        let snapshot = Snapshot::from_record(record)?;
        let mut definitions = limit_definitions(&record.limits)?;
        for (definition, _) in definitions.iter_mut().zip(&record.limits).filter(|(_, limit)| limit.paces.is_none()) {
            let (id, unit) = (&definition.id, unit_name(definition.unit));
            definition.amount = learned.effective(id, unit, definition.amount, now);
            definition.entitlement = others.entitlement(id, unit, definition.amount);
        }
        let rings = self.limits.apply(&definitions, now)?;
        let row = |limit: &LimitRecord| Row {
            id: limit.id.clone(),
            unit: limit.unit,
            configured: limit.amount,
            paces: limit.paces,
            overshoot_probability: limit.overshoot_probability,
        };
        self.rows = record.limits.iter().map(row).collect();
        if !self.secret_table.as_ref().is_some_and(|table| Arc::ptr_eq(table, secrets)) {
            self.secrets = secrets.iter().map(|entry| entry.secret.duplicate()).collect();
            self.secret_table = Some(Arc::clone(secrets));
        }
        let published = Arc::new(Published {
            snapshot: snapshot.clone(),
            secrets: Arc::clone(&self.secrets),
            lookup_key: Arc::clone(&self.lookup_key),
            limits: rings,
            listener_identity,
        });
        for core in &self.cores {
            core.publish(Arc::clone(&published));
        }
        Ok(snapshot)
    }

    /// Sets what this node may use of every limit, now that the others used what they did and
    /// providers said what they did.
    pub fn entitle(&self, others: &Others<'_>, learned: &Learned, now: Nanos) {
        let rings = self.limits.rings();
        for (row, ring) in self.rows.iter().zip(rings.iter()) {
            if let Some(paced) = row.paces.and_then(|paced| rings.get(paced as usize)) {
                // It follows the amount, which may be learned.
                let staleness = Duration::from_nanos(ring.window().window_ns());
                let pace = Pace::of(row.unit, paced.amount(), paced.window().window_ns(), staleness);
                ring.set_entitlement(pace.map_or(paced.amount(), |pace| pace.units));
            } else {
                let unit = unit_name(row.unit);
                let amount = learned.effective(&row.id, unit, row.configured, now);
                ring.set_amount(amount);
                ring.set_entitlement(others.entitlement(&row.id, unit, amount));
            }
        }
    }

    /// What this node spent and holds of a limit; `None` where `index` does not stand for `id` in
    /// what was published.
    pub fn used(&self, index: usize, id: &str, now: Nanos) -> Option<u64> {
        self.rows.get(index).filter(|row| row.id == id)?;
        let ring = self.limits.rings().get(index)?;
        ring.advance(now);
        Some(ring.used())
    }

    /// Hands the live state to every core.
    pub fn publish_live(&self, live: Live) {
        let live = Arc::new(live);
        for core in &self.cores {
            core.publish_live(Arc::clone(&live));
        }
    }

    /// Every limit as it stands now, as far as metrics show them. Paces are this node's own affair.
    pub fn limits(&self, now: Nanos) -> Vec<LimitRow> {
        let rows = self.rows.iter().zip(self.limits.rings().iter()).filter(|(row, _)| row.paces.is_none());
        rows.take(LIMITS_SHOWN_MAX)
            .map(|(row, ring)| {
                ring.advance(now);
                LimitRow {
                    id: row.id.clone(),
                    unit: unit_name(row.unit),
                    ring: ring.snapshot(),
                    overshoot_probability: row.overshoot_probability,
                }
            })
            .collect()
    }
}

/// As gossip and metrics write it.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::Concurrent => "concurrent",
    }
}
