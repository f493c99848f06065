//! The families about limits that nodes share: parts, what is stranded, who may spend, and why not.

use super::exposition::Exposition;
use crate::limit_status::{EscrowStatus, LimitStatus};

pub(super) fn limits(text: &mut Exposition, limits: &[LimitStatus], escrow: Option<&EscrowStatus>) {
    let own = || limits.iter().filter(|limit| !limit.enforcement.is_empty());
    let mut gauge = |name: &str, help: &str, of: &dyn Fn(&LimitStatus) -> Option<f64>| {
        text.family(name, "gauge", help);
        for limit in own() {
            if let Some(value) = of(limit) {
                text.sample(name, &[("limit", &limit.id), ("unit", &limit.unit)], value);
            }
        }
    };
    let units = |units: u64| Some(units as f64);
    gauge("deepintshield_limit_overshoot_bound", "Units by which all nodes may exceed the limit at most.", &|limit| {
        units(limit.overshoot_bound)
    });
    gauge("deepintshield_limit_utilisation_ratio", "Units in use on all live nodes, of those there are.", &|limit| {
        Some(limit.utilisation)
    });
    gauge("deepintshield_limit_may_spend", "0 while this node may spend nothing of it.", &|limit| {
        limit.on_node_loss?;
        Some(f64::from(u8::from(limit.waits_for.is_none())))
    });
    gauge("deepintshield_limit_borrowed", "Units got from other nodes since the rows of both began.", &|limit| {
        limit.on_node_loss.and_then(|_| units(limit.borrowed))
    });
    gauge("deepintshield_limit_lent", "Units given to other nodes since the rows of both began.", &|limit| {
        limit.on_node_loss.and_then(|_| units(limit.lent))
    });
    gauge("deepintshield_limit_unconfirmed", "Nodes that have not confirmed what they were given.", &|limit| {
        limit.on_node_loss.and_then(|_| units(limit.unconfirmed))
    });
    gauge("deepintshield_limit_demand", "Units a second that are asked of this node.", &|limit| {
        limit.on_node_loss.map(|_| limit.demand_per_second)
    });
    gauge("deepintshield_limit_stranded", "Units that no node can spend now.", &|limit| limit.stranded.and_then(units));
    gauge("deepintshield_cluster_limit_entitlement", "Units that the live nodes hold together.", &|limit| {
        limit.entitlement.and_then(units)
    });
    let Some(escrow) = escrow else { return };
    let mut gauge = |name: &str, help: &str, of: &dyn Fn(&crate::limit_status::BookStatus) -> Option<f64>| {
        text.family(name, "gauge", help);
        for book in &escrow.books {
            if let Some(value) = of(book) {
                text.sample(name, &[("on_node_loss", &book.on_node_loss)], value);
            }
        }
    };
    gauge("deepintshield_escrow_epoch", "Number of the roster of nodes that hold parts; 0: there is none.", &|book| {
        Some(book.epoch as f64)
    });
    gauge("deepintshield_escrow_members", "Nodes in the roster.", &|book| Some(book.members.len() as f64));
    gauge("deepintshield_escrow_may_spend", "0 while this node may spend of no such limit.", &|book| {
        Some(f64::from(u8::from(book.waits_for.is_none())))
    });
    gauge("deepintshield_escrow_lease_seconds", "How much longer this node may spend without the others.", &|book| {
        book.lease_ms.map(|lease_ms| lease_ms as f64 / 1e3)
    });
    text.single("deepintshield_escrow_minted_total", "counter", "Lost parts of limits taken over here.", escrow.minted);
    let is_kept = u8::from(escrow.is_kept);
    text.single("deepintshield_escrow_kept", "gauge", "1 while the parts of this node survive its restart.", is_kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit_status::BookStatus;

    fn shown(limit: LimitStatus, escrow: Option<&EscrowStatus>) -> String {
        let mut text = Exposition::default();
        limits(&mut text, &[limit], escrow);
        text.finish()
    }

    fn limit() -> LimitStatus {
        let (id, unit) = ("team/requests".into(), "requests".into());
        LimitStatus { id, unit, enforcement: "strict", overshoot_bound: 7, utilisation: 0.25, ..LimitStatus::default() }
    }

    #[test]
    fn a_limit_of_a_node_alone_has_no_figures_of_sharing() {
        let text = shown(limit(), None);
        for (name, value) in [("overshoot_bound", "7"), ("utilisation_ratio", "0.25")] {
            let line = format!("deepintshield_limit_{name}{{limit=\"team/requests\",unit=\"requests\"}} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        for name in ["deepintshield_limit_borrowed{", "deepintshield_limit_stranded{", "deepintshield_escrow_"] {
            assert!(!text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn a_shared_limit_shows_parts_and_whether_they_may_be_spent() {
        let limit = LimitStatus {
            on_node_loss: Some("reclaim"),
            borrowed: 5,
            lent: 3,
            stranded: Some(40),
            entitlement: Some(60),
            waits_for: Some("nobody".into()),
            ..limit()
        };
        let book = BookStatus { on_node_loss: "reclaim", epoch: 4, lease_ms: Some(2_500), ..BookStatus::default() };
        let text = shown(limit, Some(&EscrowStatus { is_kept: true, minted: 2, books: vec![book] }));
        for (name, value) in [
            ("limit_borrowed", "5"),
            ("limit_lent", "3"),
            ("limit_stranded", "40"),
            ("limit_may_spend", "0"),
            ("cluster_limit_entitlement", "60"),
        ] {
            let line = format!("deepintshield_{name}{{limit=\"team/requests\",unit=\"requests\"}} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        for (name, value) in [("epoch", "4"), ("lease_seconds", "2.5"), ("may_spend", "1")] {
            let line = format!("deepintshield_escrow_{name}{{on_node_loss=\"reclaim\"}} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains("deepintshield_escrow_minted_total 2\n"), "{text}");
        assert!(text.contains("deepintshield_escrow_kept 1\n"), "{text}");
    }

    #[test]
    fn limits_of_others_alone_have_no_rows() {
        let foreign = LimitStatus { enforcement: "", ..limit() };
        assert!(!shown(foreign, None).contains("team/requests"));
    }
}
