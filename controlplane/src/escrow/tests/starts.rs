//! What a node knows when it starts, and what it takes in.

use super::*;

#[test]
fn how_many_nodes_there_should_be_survives_a_restart() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    assert_eq!(cluster.nodes[0].escrow.expected_before(), None);
    assert!(!cluster.nodes[0].escrow.is_stocked());
    cluster.run(seconds(8));
    assert!(cluster.nodes[0].escrow.is_stocked());
    cluster.restart(0, true);
    assert_eq!(cluster.nodes[0].escrow.expected_before(), Some(3));
}

#[test]
fn a_node_that_is_started_again_is_stocked_before_anybody_asks_it() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    cluster.run(seconds(8));
    cluster.restart(0, true);
    // What it had counts as spent.
    assert!(!cluster.nodes[0].escrow.is_stocked());
    cluster.run(seconds(1));
    assert!(cluster.nodes[0].escrow.is_stocked());
}

#[test]
fn a_flood_of_messages_is_bounded_in_bytes() {
    let mut cluster = Cluster::new(3, 900, Policy::Reclaim);
    for _ in 0..1_000 {
        cluster.nodes[0].escrow.heard(name(1), vec![7; 60_000]);
    }
    assert!(cluster.nodes[0].escrow.inbox_bytes <= INBOX_BYTES_MAX);
    cluster.run(seconds(8));
    assert_eq!(cluster.total(), 900);
}
