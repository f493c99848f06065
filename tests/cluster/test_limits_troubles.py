"""A limit is never exceeded either while packets are lost, the network is split, nodes are killed,
stopped and started anew, with or without what they knew, or while the limit itself is lowered.

Each scenario says how much of the limit is used meanwhile, and asserts only that it comes back.
"""

import signal
import time

import pytest
from cluster import Asked, Cluster, Node, soon
from limited import UNITS_A_NODE, Form, Run, configure, limit_of, loaded, start, without_state

PATIENCE_SECONDS = 60
BALANCER_SECONDS = 0.5
LOWER_EVERY_SECONDS = 1
ACKNOWLEDGED_SECONDS = 30
# A lease runs out and a window passes before what a lost node had is given out again.
RECLAIMED_SECONDS = 20
# Part of the limit that the last window of a run has to have, after the trouble.
BACK_AT_LEAST = 0.6


@pytest.mark.parametrize("count", [3, 7])
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
    assert used >= form.utilisation - 0.05, (used, cluster.explain())


@pytest.mark.parametrize("policy", ["keep", "reclaim"])
def test_a_partition(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Three nodes here, four there, all reached by clients and provider; then whole again."""
    window, limit = form.trouble_window, 7 * UNITS_A_NODE
    start(cluster, 7, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    with loaded(cluster, provider, limit, window, 1.5, seed=4) as run:
        run.wait(window)
        run.say("3 | 4")
        cluster.network.split([node.host for node in cluster.nodes[:3]], [node.host for node in cluster.nodes[3:]])
        lasts = form.trouble + (RECLAIMED_SECONDS if policy == "reclaim" else 0)
        run.wait(window + lasts)
        run.say("healed")
        cluster.network.heal()
        run.wait(window + lasts + 3 * window)
    check(run, f"strict, 7 nodes, 1.5x, partition 3|4 of {lasts:.0f} s, {policy}")
    run.assert_no_failures()


@pytest.mark.parametrize("policy", ["keep", "reclaim"])
def test_a_kill_in_mid_burst(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Nobody comes to take its units; with `keep` they are gone, with `reclaim` they come back in time."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    start(cluster, 3, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    victim = cluster.nodes[2]
    with loaded(cluster, provider, limit, window, 3.0, seed=5) as run:
        # Windows are full when a burst has passed: in the middle of the second one.
        run.wait(window + 0.15 * window)
        run.say(f"kill -9 {victim.name}")
        victim.kill()
        run.wait(run.seconds + BALANCER_SECONDS)
        run.offered.targets = cluster.nodes[:2]
        run.wait(run.seconds + 2 * window + (RECLAIMED_SECONDS if policy == "reclaim" else 0))
    check(run, f"strict, 3 nodes, 3.0x, kill -9 in mid-burst, {policy}", 0.5 if policy == "keep" else 0.9)


@pytest.mark.parametrize("policy", ["keep", "reclaim"])
def test_a_node_that_stood_still(cluster: Cluster, provider: Asked, form: Form, policy: str) -> None:
    """Requests wait at its sockets. When it goes on, they are let through if there is room, not because
    there was some when they came."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    start(cluster, 3, limit_of(limit, window, enforcement="strict", on_node_loss=policy))
    frozen = cluster.nodes[1]
    lasts = form.trouble + (RECLAIMED_SECONDS if policy == "reclaim" else 0)
    with loaded(cluster, provider, limit, window, 1.5, seed=6, patience=PATIENCE_SECONDS + lasts) as run:
        # Before the burst of the second window, so that it holds units.
        run.wait(0.9 * window)
        run.say(f"SIGSTOP {frozen.name}")
        frozen.send(signal.SIGSTOP)
        run.wait(run.seconds + lasts)
        run.say(f"SIGCONT {frozen.name}")
        frozen.send(signal.SIGCONT)
        run.wait(run.seconds + 3 * window)
    waited = [sent for sent in run.sent if sent.node == frozen.name]
    assert len(waited) > window, "requests waited at the stopped node"
    check(run, f"strict, 3 nodes, 1.5x, SIGSTOP for {lasts:.0f} s, {policy}")


@pytest.mark.parametrize("state", ["with its state", "without its state"])
def test_a_restart(cluster: Cluster, provider: Asked, form: Form, state: str) -> None:
    """kill -9 in mid-burst, and started again at once."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    rule = limit_of(limit, window, enforcement="strict")
    start(cluster, 3, rule)
    configure(cluster, rule, "existing")
    with loaded(cluster, provider, limit, window, 3.0, seed=7) as run:
        run.wait(window + 0.15 * window)
        restart(run, cluster.nodes[2:], state)
        run.wait(run.seconds + RECLAIMED_SECONDS + 2 * window)
    check(run, f"strict, 3 nodes, 3.0x, restart {state}")


@pytest.mark.parametrize("state", ["with their state", "without their state"])
@pytest.mark.parametrize("count", [3, 7])
def test_a_restart_of_all(cluster: Cluster, provider: Asked, form: Form, count: int, state: str) -> None:
    """All at once, in mid-burst. What was given out before is not given out again."""
    window, limit = form.trouble_window, count * UNITS_A_NODE
    rule = limit_of(limit, window, enforcement="strict")
    start(cluster, count, rule)
    configure(cluster, rule, "existing")
    with loaded(cluster, provider, limit, window, 2.0, seed=8) as run:
        run.wait(window + 0.3 * window)
        restart(run, cluster.nodes, state)
        run.wait(run.seconds + RECLAIMED_SECONDS + 2 * window)
    check(run, f"strict, {count} nodes, 2.0x, all restarted {state}")


def test_a_limit_that_is_lowered(cluster: Cluster, provider: Asked, form: Form) -> None:
    """To a half, one node after the other. When the last one says that it has it, the new one holds."""
    window, old = form.trouble_window, 3 * 2 * UNITS_A_NODE
    new = old // 2
    start(cluster, 3, limit_of(old, window, enforcement="strict"))
    with loaded(cluster, provider, old, window, 1.5, seed=9) as run:
        run.wait(window + 0.3 * window)
        before = {node.name: mark(node) for node in cluster.nodes}
        configure(cluster, limit_of(new, window, enforcement="strict"))
        for node in cluster.nodes:
            node.reload()
            run.say(f"lowered at {node.name}")
            soon(
                lambda node=node: mark(node) not in ("", before[node.name]),
                ACKNOWLEDGED_SECONDS,
                f"{node.name} runs the new configuration",
                node.log_tail,
            )
            time.sleep(LOWER_EVERY_SECONDS)
        holds = run.say("the last one has it")
        run.wait(run.seconds + 3 * window)
    run.report(f"strict, 3 nodes, 1.5x, lowered live to {new}")
    run.assert_within(old)
    run.assert_within(new, after=holds, what="after the last node had the new limit")
    run.assert_no_failures()
    assert run.at_the_end() >= BACK_AT_LEAST * new / old, cluster.explain()


def mark(node: Node) -> str:
    """The hash of what a node runs; empty where it does not answer."""
    return node.status().get("configuration", {}).get("hash", "")


def restart(run: Run, nodes: list[Node], state: str) -> None:
    """kill -9 for all of them, then a start of all of them."""
    run.say(f"kill -9 {[node.name for node in nodes]}")
    for node in nodes:
        node.kill()
    for node in nodes:
        if state.startswith("without"):
            without_state(node)
        node.start()
    run.say(f"started {state}")


def check(run: Run, name: str, at_least: float = BACK_AT_LEAST) -> None:
    """The figures; the limit was kept; and in the end it is used again."""
    run.report(name)
    run.assert_within(run.limit)
    assert run.at_the_end() >= at_least, (run.at_the_end(), run.cluster.explain())
