"""Nodes that die, freeze, leave and come back; and those that go on without them."""

import signal
import time
from collections.abc import Callable

import pytest
from cluster import TIMEOUT_SECONDS, Cluster, Load, Node, soon
from figures import note, spread

SUSPECT_SECONDS = 2
DEAD_SECONDS = TIMEOUT_SECONDS + 2
BACK_SECONDS = 10


def assert_missed(cluster: Cluster, victims: list[Node], what: str) -> list[Node]:
    """Kills some nodes at once; all others suspect them, then give them up, in time."""
    others = [node for node in cluster.living() if node not in victims]
    with cluster.watched(others) as watch:
        killed_at = time.monotonic()
        for victim in victims:
            victim.kill()
        suspected, dead = [], []
        for victim in victims:
            # One that is given up at once would have been missed as well.
            seen = watch.wait_seen(others, victim, {"suspect", "dead"}, killed_at, SUSPECT_SECONDS + 0.5)
            suspected += seen.values()
        for victim in victims:
            seen = watch.wait_seen(others, victim, {"dead"}, killed_at, DEAD_SECONDS + 0.5)
            dead += seen.values()
    note(f"suspect after {what}", spread(suspected), f"at most {SUSPECT_SECONDS} s")
    note(f"dead after {what}", spread(dead), f"at most {DEAD_SECONDS} s")
    assert max(suspected) <= SUSPECT_SECONDS and max(dead) <= DEAD_SECONDS
    return others


def assert_goes_on(cluster: Cluster, others: list[Node]) -> None:
    """The rest is a healthy cluster and serves."""

    def settled() -> bool:
        return all(node.status().get("cluster_health") == "HEALTHY" for node in others) and cluster.is_whole(others)

    soon(settled, 5, "the others are a healthy cluster", cluster.explain)
    for node in others:
        assert node.chat()[0] == 200, node.log_tail()
        assert node.lines("node marked as suspect"), node.log_tail()


@pytest.mark.parametrize(("count", "more"), [(3, 0), (5, 1), (7, 2)])
def test_killed_nodes_are_missed_and_the_others_go_on(
    formed: Callable[[int], Cluster], count: int, more: int
) -> None:
    """First one, then as many more at once as the cluster can lose. They come back under their ids."""
    cluster = formed(count)
    load_nodes = cluster.nodes[: count - 1 - more]
    load = Load(load_nodes)
    others = assert_missed(cluster, [cluster.nodes[-1]], f"a kill, {count} nodes")
    assert_goes_on(cluster, others)
    if more:
        others = assert_missed(cluster, others[-more:], f"{more} more, {count} nodes")
        assert_goes_on(cluster, others)
    load.stop()
    generations = {peer["id"]: peer["generation"] for peer in others[0].status()["peers"]}
    took = cluster.start([node for node in cluster.nodes if not node.runs])
    note(f"all back after {1 + more} restarts, {count} nodes", f"{took * 1e3:.0f} ms", f"at most {BACK_SECONDS} s")
    assert took <= BACK_SECONDS, cluster.explain()
    for peer in others[0].status()["peers"]:
        was_killed = cluster.nodes[int(peer["id"][1:]) - 1] not in others
        assert (peer["generation"] > generations[peer["id"]]) == was_killed, (peer["id"], generations)
    assert others[0].status()["members"] == count


def test_a_frozen_node_is_missed_and_rejoins_when_it_thaws(formed: Callable[[int], Cluster]) -> None:
    """Frozen until it is taken for dead, then resumed in the same life."""
    cluster = formed(3)
    frozen, others = cluster.nodes[0], cluster.nodes[1:]
    generation = frozen.status()["generation"]
    with cluster.watched(others) as watch:
        stopped_at = time.monotonic()
        frozen.send(signal.SIGSTOP)
        suspected = watch.wait_seen(others, frozen, {"suspect", "dead"}, stopped_at, SUSPECT_SECONDS)
        watch.wait_seen(others, frozen, {"dead"}, stopped_at, DEAD_SECONDS)
        frozen.send(signal.SIGCONT)
        took = cluster.wait_whole(BACK_SECONDS)
        # What the frozen node takes for the death of the others is its own absence.
        wrong = [change for change in watch.changes if change[2] != frozen.name]
        assert all(state == "healthy" for _, _, _, state in wrong), wrong
    assert frozen.status()["generation"] == generation
    assert frozen.chat()[0] == 200
    note("suspect after SIGSTOP, 3 nodes", spread(list(suspected.values())), f"at most {SUSPECT_SECONDS} s")
    note("whole again after SIGCONT", f"{took * 1e3:.0f} ms", f"at most {BACK_SECONDS} s")


def test_a_short_pause_kills_nobody(formed: Callable[[int], Cluster]) -> None:
    """A node that is frozen for two seconds may be suspect, and is never dead."""
    cluster = formed(3)
    frozen, others = cluster.nodes[0], cluster.nodes[1:]
    with cluster.watched() as watch:
        frozen.send(signal.SIGSTOP)
        time.sleep(2)
        frozen.send(signal.SIGCONT)
        cluster.wait_whole(BACK_SECONDS)
        assert not watch.saw({"dead"}), watch.changes
    assert not [line for node in others for line in node.lines("dead")]


def test_a_node_that_leaves_is_missed_by_nobody(formed: Callable[[int], Cluster]) -> None:
    """SIGTERM: it says goodbye, and is neither suspect nor dead for anybody. Its id is free again."""
    cluster = formed(3)
    leaving, others = cluster.nodes[2], cluster.nodes[:2]
    load = Load(others)
    with cluster.watched(others) as watch:
        left_at = time.monotonic()
        leaving.send(signal.SIGTERM)
        seen = watch.wait_seen(others, leaving, {"leaving"}, left_at, 3)
        leaving.stop()
        ended_after = time.monotonic() - left_at
        left = lambda: all(node.status()["members"] == 2 for node in others)  # noqa: E731
        soon(left, DEAD_SECONDS, "the others count two members", cluster.explain)
        # As long as a death would take to be seen, from its end.
        time.sleep(max(0.0, ended_after + DEAD_SECONDS - (time.monotonic() - left_at)))
        assert not watch.saw({"suspect", "dead"}), watch.changes
    load.stop()
    assert all(node.status()["cluster_health"] == "HEALTHY" for node in others)
    note("goodbye heard by all, 3 nodes", spread(list(seen.values())))
    took = cluster.form([leaving])
    status, said = leaving.chat()
    assert status == 200, f"a node that is ready has its part of the limit: {said}"
    note("whole again with a node that had left", f"{took * 1e3:.0f} ms", f"at most {BACK_SECONDS} s")
    assert took <= BACK_SECONDS
