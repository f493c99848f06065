"""A limit is never exceeded either while packets are lost, the network is split, and nodes are killed or
stand still.

Each scenario says how much of the limit was used, and asserts only that it comes back.
"""

import signal

import pytest
from cluster import Asked, Cluster
from limited import BACK_AT_LEAST, UNITS_A_NODE, Form, limit_of, loaded, start

PATIENCE_SECONDS = 60
BALANCER_SECONDS = 0.5
LONG = pytest.mark.long


@pytest.mark.parametrize("count", [pytest.param(3, marks=LONG), 7])
def test_lost_packets(cluster: Cluster, provider: Asked, form: Form, count: int) -> None:
    """5 % between any two nodes."""
    limit, window = count * UNITS_A_NODE, form.window
    start(cluster, count, limit_of(limit, window, enforcement="strict"))
    cluster.network.lose(5)
    with loaded(cluster, provider, limit, window, 1.5, seed=count) as run:
        run.wait(form.windows * window)
    cluster.network.heal()
    used = run.report(f"strict, {count} nodes, 1.5x, 5 % loss")
    run.assert_within(limit)
    run.assert_no_failures()
    assert used >= form.utilisation - 0.05, (used, run.explain())


@pytest.mark.parametrize("policy", ["keep", "reclaim"])
def test_a_partition(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Three nodes here, four there, all reached by clients and provider; then whole again."""
    window, limit = form.trouble_window, 7 * UNITS_A_NODE
    start(cluster, 7, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    with loaded(cluster, provider, limit, window, 1.5, seed=4) as run:
        run.wait(window)
        run.say("3 | 4")
        cluster.network.split([node.host for node in cluster.nodes[:3]], [node.host for node in cluster.nodes[3:]])
        lasts = form.trouble + (form.reclaimed if policy == "reclaim" else 0)
        run.wait(window + lasts)
        healed = run.say("healed")
        cluster.network.heal()
        run.wait_back(healed, BACK_AT_LEAST, window)
    run.check(f"strict, 7 nodes, 1.5x, partition 3/4 of {lasts:.0f} s, {policy}")
    run.assert_no_failures()


@pytest.mark.parametrize("policy", [pytest.param("keep", marks=LONG), "reclaim"])
def test_a_kill_in_mid_burst(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Nobody comes to take its units; with `keep` they are gone, with `reclaim` they come back in time."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    start(cluster, 3, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    victim = cluster.nodes[2]
    with loaded(cluster, provider, limit, window, 3.0, seed=5) as run:
        # Windows are full when a burst has passed: in the middle of the second one.
        run.wait(window + 0.15 * window)
        killed = run.say(f"kill -9 {victim.name}")
        victim.kill()
        run.wait(run.seconds + BALANCER_SECONDS)
        run.offered.targets = cluster.nodes[:2]
        # What is not gone. The last window may miss a little of its burst.
        left = sum(node.entitled() for node in cluster.nodes[:2]) / limit if policy == "keep" else 1
        part = 0.8 * left
        run.wait_back(killed, part, form.reclaimed if policy == "reclaim" else 0)
    run.check(f"strict, 3 nodes, 3.0x, kill -9 in mid-burst, {policy}", part)


@pytest.mark.parametrize("policy", [pytest.param("keep", marks=LONG), "reclaim"])
def test_a_node_that_stood_still(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Requests wait at its sockets. When it goes on, they are let through if there is room, not because
    there was some when they came."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    start(cluster, 3, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    frozen = cluster.nodes[1]
    lasts = form.trouble + (form.reclaimed if policy == "reclaim" else 0)
    with loaded(cluster, provider, limit, window, 1.5, seed=6, patience=PATIENCE_SECONDS + lasts) as run:
        # Before the burst of the second window, so that it holds units.
        run.wait(0.9 * window)
        run.say(f"SIGSTOP {frozen.name}")
        frozen.send(signal.SIGSTOP)
        run.wait(run.seconds + lasts)
        resumed = run.say(f"SIGCONT {frozen.name}")
        frozen.send(signal.SIGCONT)
        run.wait_back(resumed, BACK_AT_LEAST, window)
    waited = [sent for sent in run.sent if sent.node == frozen.name]
    assert len(waited) > window, "requests waited at the stopped node"
    run.check(f"strict, 3 nodes, 1.5x, SIGSTOP for {lasts:.0f} s, {policy}")
