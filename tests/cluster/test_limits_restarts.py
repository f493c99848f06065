"""Nodes that are started anew, with or without what they knew, and a limit that is lowered while they
run: what was given out before is not given out again.
"""

import time

import pytest
from cluster import Asked, Cluster, Node, soon
from limited import BACK_AT_LEAST, UNITS_A_NODE, Form, Run, configure, limit_of, loaded, start, without_state

LOWER_EVERY_SECONDS = 1
ACKNOWLEDGED_SECONDS = 30


@pytest.mark.parametrize("state", ["with its state", "without its state"])
def test_a_restart(cluster: Cluster, provider: Asked, form: Form, state: str) -> None:
    """kill -9 in mid-burst, and started again at once."""
    window, limit = form.trouble_window, 3 * UNITS_A_NODE
    rule = limit_of(limit, window, enforcement="strict")
    start(cluster, 3, rule)
    configure(cluster, rule, "existing")
    with loaded(cluster, provider, limit, window, 3.0, seed=7) as run:
        run.wait(window + 0.15 * window)
        killed = restart(run, cluster.nodes[2:], state)
        run.wait_back(killed, BACK_AT_LEAST, form.reclaimed)
    run.check(f"strict, 3 nodes, 3.0x, restart {state}")


@pytest.mark.parametrize("state", ["with their state", "without their state"])
@pytest.mark.parametrize("count", [3, pytest.param(7, marks=pytest.mark.long)])
def test_a_restart_of_all(cluster: Cluster, provider: Asked, form: Form, count: int, state: str) -> None:
    """All at once, in mid-burst. What was given out before is not given out again."""
    window, limit = form.trouble_window, count * UNITS_A_NODE
    rule = limit_of(limit, window, enforcement="strict")
    start(cluster, count, rule)
    configure(cluster, rule, "existing")
    with loaded(cluster, provider, limit, window, 2.0, seed=8) as run:
        run.wait(window + 0.3 * window)
        killed = restart(run, cluster.nodes, state)
        run.wait_back(killed, BACK_AT_LEAST, form.reclaimed)
    run.check(f"strict, {count} nodes, 2.0x, all restarted {state}")


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
        run.lowered = (holds, new)
        run.wait(run.seconds + 3 * window)
    run.report(f"strict, 3 nodes, 1.5x, lowered live to {new}")
    run.assert_within(old)
    run.assert_within(new, after=holds, what="after the last node had the new limit")
    run.assert_no_failures()
    assert run.at_the_end() >= BACK_AT_LEAST, run.explain()


def mark(node: Node) -> str:
    """The hash of what a node runs; empty where it does not answer."""
    return node.status().get("configuration", {}).get("hash", "")


def restart(run: Run, nodes: list[Node], state: str) -> int:
    """kill -9 for all of them, then a start of all of them; when they were dead."""
    killed = run.say(f"kill -9 {[node.name for node in nodes]}")
    for node in nodes:
        node.kill()
    for node in nodes:
        if state.startswith("without"):
            without_state(node)
        node.start()
    run.say(f"started {state}")
    return killed
