//! From records to the cores: the snapshot's bytes, the secrets beside it, the limits' rings.

use crate::compile::{CompileError, TableSecret, limit_definitions};
use crate::entitlements::{Others, Pace};
use crate::escrow::{Handed, LimitKey, LimitTerms, Policy};
use crate::learned::Learned;
use crate::metrics::LimitRow;
use crate::spent::{Followed, Spent};
use shared::clock::Nanos;
use shared::limit::{ChargeRule, LimitRing, LimitTable, TableError, UNITS_MAX};
use shared::published::{ListenerIdentity, Live, Published};
use shared::ring::CoreSender;
use shared::secret::Secret;
use shared::snapshot::{Enforcement, LimitRecord, OnNodeLoss, Snapshot, SnapshotError, SnapshotRecord, Unit};
use std::collections::HashMap;
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
    key: LimitKey,
    /// The amount is what the provider says.
    is_learned: bool,
    /// Units in a window, as configured.
    configured: u64,
    window_ns: u64,
    enforcement: Enforcement,
    on_node_loss: Option<OnNodeLoss>,
    /// A request may count for as long as it runs.
    is_held: bool,
    /// Of which limit it is the pace on this node.
    paces: Option<u32>,
    overshoot_probability: f64,
}

impl Row {
    fn of(limit: &LimitRecord) -> Self {
        let is_held = match limit.unit {
            Unit::Requests => false,
            Unit::Tokens => !matches!(limit.charge.rule, ChargeRule::Admission | ChargeRule::AdmissionRefunded),
            Unit::Concurrent | Unit::MicroUsd => true,
        };
        Self {
            id: limit.id.clone(),
            unit: limit.unit,
            key: LimitKey::new(&limit.id, unit_name(limit.unit), limit.window_ns),
            is_learned: limit.is_learned,
            configured: limit.amount,
            window_ns: limit.window_ns,
            enforcement: limit.enforcement,
            on_node_loss: limit.on_node_loss,
            is_held,
            paces: limit.paces,
            overshoot_probability: limit.overshoot_probability,
        }
    }

    /// Whether the nodes hold parts of it. What nobody knows the amount of is nobody's.
    fn is_shared(&self, by: Sharing<'_, '_>, amount: u64) -> bool {
        matches!(by, Sharing::Cluster(_))
            && self.paces.is_none()
            && self.enforcement != Enforcement::Gossip
            && amount < UNITS_MAX
    }
}

/// How this node comes to what it may use.
#[derive(Clone, Copy)]
pub enum Sharing<'o, 'v> {
    /// It is alone and has all of every limit.
    Alone,
    /// Of most limits it has what the escrow says; of those kept by news alone, what the others
    /// leave.
    Cluster(&'o Others<'v>),
}

impl Sharing<'_, '_> {
    fn left_by_others(self, id: &str, unit: &str, amount: u64) -> u64 {
        match self {
            Self::Alone => amount,
            Self::Cluster(others) => others.entitlement(id, unit, amount),
        }
    }
}

/// Owns the rings to the cores and the limits' rings.
pub struct Publisher {
    cores: Vec<CoreSender>,
    lookup_key: Arc<[u8; 32]>,
    limits: LimitTable,
    /// `None`: what is spent is forgotten with the process, and nothing is said about it.
    spent: Option<Spent>,
    /// The published limits, in the rings' order.
    rows: Vec<Row>,
    /// The longest that a request may take, as its provider's configuration has it.
    longest_request: Duration,
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
            spent: None,
            rows: Vec::new(),
            longest_request: Duration::ZERO,
            secret_table: None,
            secrets: Arc::new([]),
        }
    }

    /// With what earlier processes spent, and for those that come.
    pub(crate) fn remembering(self, spent: Spent) -> Self {
        Self { spent: Some(spent), ..self }
    }

    /// Hands a configuration to every core, whole. What was `learned` to be no more there is nobody's.
    pub fn publish(
        &mut self,
        sharing: Sharing<'_, '_>,
        learned: &Learned,
        record: &SnapshotRecord,
        secrets: &Arc<[TableSecret]>,
        listener_identity: Option<Arc<ListenerIdentity>>,
        now: Nanos,
    ) -> Result<Snapshot, PublishError> {
        let snapshot = Snapshot::from_record(record)?;
        let mut definitions = limit_definitions(&record.limits)?;
        let rows: Vec<Row> = record.limits.iter().map(Row::of).collect();
        for (definition, row) in definitions.iter_mut().zip(&rows).filter(|(_, row)| row.paces.is_none()) {
            let (id, unit) = (&definition.id, unit_name(definition.unit));
            definition.amount = learned.effective(id, unit, definition.amount, now);
            let is_shared = row.is_shared(sharing, definition.amount);
            definition.entitlement = (!is_shared).then(|| sharing.left_by_others(id, unit, definition.amount));
        }
        let rings = self.limits.apply(&definitions, now)?;
        self.rows = rows;
        self.longest_request = record
            .providers
            .iter()
            .map(|provider| Duration::from_millis(u64::from(provider.total_timeout_ms)))
            .max()
            .unwrap_or_default();
        self.keep_pace();
        self.remember(sharing, now);
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

    /// Before a core can use them: what was spent of the limits before.
    fn remember(&mut self, sharing: Sharing<'_, '_>, now: Nanos) {
        let Some(spent) = &mut self.spent else { return };
        let rows = self.rows.iter().zip(self.limits.rings().iter());
        let followed = rows
            .filter(|(row, _)| row.paces.is_none() && row.unit != Unit::Concurrent)
            .map(|(row, ring)| Followed {
                key: row.key,
                unit: row.unit,
                ring: Arc::clone(ring),
                is_shared: row.is_shared(sharing, ring.amount()),
            })
            .collect();
        spent.follow(followed, now);
    }

    /// What is spent is written down where it is time. `handed` is what other nodes handed over.
    pub(crate) fn look_at_spent(&mut self, handed: &dyn Fn(LimitKey) -> Option<Handed>, now: Nanos) {
        if let Some(spent) = &mut self.spent {
            spent.look(handed, now);
        }
    }

    /// Waits for what is being written; for ever where nothing is.
    pub(crate) async fn spent_written(&mut self) {
        match &mut self.spent {
            Some(spent) => spent.written().await,
            None => std::future::pending().await,
        }
    }

    /// The escrow has got the terms.
    pub(crate) fn terms_are_set(&mut self) {
        if let Some(spent) = &mut self.spent {
            spent.is_charged();
        }
    }

    /// Cores get nothing more, for good.
    pub(crate) fn close(&mut self) {
        if let Some(spent) = &mut self.spent {
            spent.close();
        }
    }

    /// Writes down what was spent when all is over.
    pub(crate) async fn end(&mut self, handed: &dyn Fn(LimitKey) -> Option<Handed>) {
        if let Some(spent) = &mut self.spent {
            spent.end(handed).await;
        }
    }

    /// Sets what this node may use of every limit, now that the others used what they did and
    /// providers said what they did. True: the terms of shared limits have changed.
    pub fn entitle(&self, sharing: Sharing<'_, '_>, learned: &Learned, now: Nanos) -> bool {
        let rings = self.limits.rings();
        let mut has_changed = false;
        for (row, ring) in self.rows.iter().zip(rings.iter()) {
            if row.paces.is_some() {
                continue;
            }
            let unit = unit_name(row.unit);
            let amount = learned.effective(&row.id, unit, row.configured, now);
            let before = ring.amount();
            ring.set_amount(amount);
            let is_shared = row.is_shared(sharing, amount);
            has_changed |= amount != before && (is_shared || row.is_shared(sharing, before));
            if !is_shared {
                ring.set_valid_until(Nanos(u64::MAX));
                ring.set_entitlement(sharing.left_by_others(&row.id, unit, amount));
            }
        }
        self.keep_pace();
        has_changed
    }

    /// A pace follows the amount of its limit, which may be learned.
    fn keep_pace(&self) {
        let rings = self.limits.rings();
        for (row, ring) in self.rows.iter().zip(rings.iter()) {
            let Some(paced) = row.paces.and_then(|paced| rings.get(paced as usize)) else { continue };
            let staleness = Duration::from_nanos(ring.window().window_ns());
            let pace = Pace::of(row.unit, paced.amount(), paced.window().window_ns(), staleness);
            ring.set_entitlement(pace.map_or(paced.amount(), |pace| pace.units));
        }
    }

    /// The limits that the nodes hold parts of. `policy` is for those that do not say what becomes
    /// of a lost node's part.
    pub(crate) fn terms(&self, sharing: Sharing<'_, '_>, policy: Policy) -> Vec<LimitTerms> {
        let rows = self.rows.iter().zip(self.limits.rings().iter());
        rows.filter(|(row, ring)| row.is_shared(sharing, ring.amount()))
            .map(|(row, ring)| {
                (row, ring, self.spent.as_ref().map_or((u64::MAX, None), |spent| spent.not_known(row.key)))
            })
            .map(|(row, ring, (unknown_spend, handed_before))| LimitTerms {
                key: row.key,
                ring: Arc::clone(ring),
                amount: ring.amount(),
                policy: row.on_node_loss.map_or(policy, |loss| match loss {
                    OnNodeLoss::Keep => Policy::Keep,
                    OnNodeLoss::Reclaim => Policy::Reclaim,
                }),
                hold_max: if row.is_held { self.longest_request } else { Duration::ZERO },
                unknown_spend,
                handed_before,
            })
            .collect()
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

    /// Every limit as it stands now, as far as metrics show them, of a cluster of so many `nodes`.
    /// Paces are this node's own affair.
    pub fn limits(&self, nodes: u64, now: Nanos) -> Vec<LimitRow> {
        let rings = self.limits.rings();
        let rows = || self.rows.iter().zip(rings.iter());
        let paces: HashMap<u32, u64, ahash::RandomState> =
            rows().filter_map(|(row, ring)| Some((row.paces?, ring.entitlement()))).collect();
        let shown = (0_u32..).zip(rows()).filter(|(_, (row, _))| row.paces.is_none()).take(LIMITS_SHOWN_MAX);
        shown
            .map(|(index, (row, ring))| {
                ring.advance(now);
                let each = paces.get(&index).copied().unwrap_or_else(|| ring.amount());
                let is_gossip = row.enforcement == Enforcement::Gossip;
                LimitRow {
                    id: row.id.clone(),
                    unit: unit_name(row.unit),
                    key: row.key,
                    configured: (!row.is_learned).then_some(row.configured),
                    window_ns: row.window_ns,
                    enforcement: enforcement_name(row.enforcement),
                    ring: ring.snapshot(),
                    is_valid: ring.is_valid_at(now),
                    overshoot_bound: if is_gossip { each.saturating_mul(nodes.saturating_sub(1)) } else { 0 },
                    overshoot_probability: row.overshoot_probability,
                    is_shared: false,
                    refused: 0,
                    back_ms: back_ms(row.unit, ring, now),
                }
            })
            .collect()
    }

    /// Tells the cores when units that this node has not can be here: one instant for each shared
    /// limit, by its key.
    pub(crate) fn foretell(&self, at: &HashMap<LimitKey, Nanos, ahash::RandomState>) {
        for (row, ring) in self.rows.iter().zip(self.limits.rings().iter()) {
            ring.set_elsewhere_at(at.get(&row.key).copied());
        }
    }
}

/// After what time one unit, half and all of what is used is free again, where less is free than
/// used. Nobody knows when what runs at once ends.
fn back_ms(unit: Unit, ring: &LimitRing, now: Nanos) -> Vec<u64> {
    let (used, free) = (ring.used(), ring.unused());
    if unit == Unit::Concurrent || used <= free || !ring.is_valid_at(now) {
        return Vec::new();
    }
    let after = |units: u64| {
        let at = ring.available_at(free.saturating_add(units), now)?;
        u64::try_from(at.since(now).as_nanos().div_ceil(1_000_000)).ok()
    };
    [1, used / 2, used].into_iter().map_while(after).collect()
}

fn enforcement_name(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Strict => "strict",
        Enforcement::Admission => "admission",
        Enforcement::Statistical => "statistical",
        Enforcement::Gossip => "gossip",
    }
}

/// As gossip and metrics write it.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::Concurrent => "concurrent",
        Unit::MicroUsd => "micro_usd",
    }
}
