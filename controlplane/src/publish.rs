//! From records to the cores: the snapshot's bytes, the secrets beside it, the limits' rings.

use crate::compile::{CompileError, TableSecret, limit_definitions};
use crate::entitlements::Others;
use crate::learned::Learned;
use crate::metrics::LimitRow;
use shared::clock::Nanos;
use shared::limit::{LimitTable, TableError};
use shared::published::{ListenerIdentity, Live, Published};
use shared::ring::CoreSender;
use shared::secret::Secret;
use shared::snapshot::{Snapshot, SnapshotError, SnapshotRecord, Unit};
use std::sync::Arc;

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

/// Owns the rings to the cores and the limits' rings.
pub struct Publisher {
    cores: Vec<CoreSender>,
    lookup_key: Arc<[u8; 32]>,
    limits: LimitTable,
    /// Ids, units and configured amounts of the published limits, in the rings' order.
    limit_names: Vec<(String, &'static str, u64)>,
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
            limit_names: Vec::new(),
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
        for definition in &mut definitions {
            let (id, unit) = (&definition.id, unit_name(definition.unit));
            definition.amount = learned.effective(id, unit, definition.amount, now);
            definition.entitlement = others.entitlement(id, unit, definition.amount);
        }
        let rings = self.limits.apply(&definitions, now)?;
        let named = record.limits.iter().map(|limit| (limit.id.clone(), unit_name(limit.unit), limit.amount));
        self.limit_names = named.collect();
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
        for ((id, unit, configured), ring) in self.limit_names.iter().zip(self.limits.rings().iter()) {
            let amount = learned.effective(id, unit, *configured, now);
            ring.set_amount(amount);
            ring.set_entitlement(others.entitlement(id, unit, amount));
        }
    }

    /// What this node spent and holds of a limit; `None` where `index` does not stand for `id` in
    /// what was published.
    pub fn used(&self, index: usize, id: &str, now: Nanos) -> Option<u64> {
        self.limit_names.get(index).filter(|(name, ..)| name == id)?;
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

    /// Every limit as it stands now, as far as metrics show them.
    pub fn limits(&self, now: Nanos) -> Vec<LimitRow> {
        let rows = self.limit_names.iter().zip(self.limits.rings().iter()).take(LIMITS_SHOWN_MAX);
        rows.map(|((id, unit, _), ring)| {
            ring.advance(now);
            LimitRow { id: id.clone(), unit, ring: ring.snapshot() }
        })
        .collect()
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
    }
}
