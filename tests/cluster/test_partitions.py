"""Networks that fall apart, in whole, in one direction, and again and again; and heal by themselves."""

import time
from collections.abc import Callable

import pytest
from cluster import TIMEOUT_SECONDS, Cluster, Load, soon
from figures import note, spread
from network import address

SUSPECT_SECONDS = 2
HEAL_SECONDS = 3


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_partition_heals_by_itself(formed: Callable[[int], Cluster], count: int) -> None:
    """The smaller side knows that it is one; both serve; after the end all are whole in three seconds.

    It lasts until each side has given the other up: then only seeds and discovery bring them together.
    """
    cluster = formed(count)
    smaller, larger = cluster.nodes[: count // 2], cluster.nodes[count // 2 :]
    load = Load(cluster.nodes)
    with cluster.watched() as watch:
        cut_at = time.monotonic()
        cluster.network.split([node.host for node in smaller], [node.host for node in larger])
        times = []
        for side, other in [(smaller, larger), (larger, smaller)]:
            for peer in other:
                seen = watch.wait_seen(side, peer, {"suspect", "dead"}, cut_at, SUSPECT_SECONDS + TIMEOUT_SECONDS)
                times += seen.values()
        soon(
            lambda: all(node.status()["cluster_health"] == "NOT HEALTHY" for node in smaller)
            and all(node.status()["cluster_health"] == "HEALTHY" for node in larger)
            and all(node.health_of(peer) == "dead" for node in larger for peer in smaller),
            TIMEOUT_SECONDS + 5,
            "only the larger side calls itself healthy, and has given the others up",
            cluster.explain,
        )
        cluster.network.heal()
        took = cluster.wait_whole(HEAL_SECONDS)
    load.stop()
    note(f"partition of {count} noticed", spread(times))
    note(f"partition of {count} healed", f"{took * 1e3:.0f} ms after its end", f"at most {HEAL_SECONDS} s")


def test_one_direction_alone_is_noticed_and_heals(formed: Callable[[int], Cluster]) -> None:
    """Nobody hears node 1 any more, which hears everybody: through the others, that it is missed."""
    cluster = formed(3)
    mute, others = cluster.nodes[0], cluster.nodes[1:]
    with cluster.watched() as watch:
        cut_at = time.monotonic()
        for other in others:
            cluster.network.cut(mute.host, other.host)
        seen = watch.wait_seen(others, mute, {"suspect", "dead"}, cut_at, SUSPECT_SECONDS + 1)
        assert all(node.chat()[0] == 200 for node in cluster.nodes)
        cluster.network.heal()
        took = cluster.wait_whole(HEAL_SECONDS)
    note("one-way cut noticed, 3 nodes", spread(list(seen.values())))
    note("one-way cut healed", f"{took * 1e3:.0f} ms after its end", f"at most {HEAL_SECONDS} s")


def test_two_that_cannot_reach_each_other_hear_through_a_third(formed: Callable[[int], Cluster]) -> None:
    """A broken path between two nodes is no death: gossip goes round it."""
    cluster = formed(3)
    one, two, _ = cluster.nodes
    with cluster.watched() as watch:
        cluster.network.cut(one.host, two.host)
        cluster.network.cut(two.host, one.host)
        time.sleep(TIMEOUT_SECONDS + 2)
        assert not watch.saw({"dead"}), watch.changes
        cluster.network.heal()
        cluster.wait_whole(HEAL_SECONDS)


def test_a_path_that_flaps_leaves_a_whole_cluster(formed: Callable[[int], Cluster]) -> None:
    """Cut and healed every 700 ms, ten times."""
    cluster = formed(3)
    one = cluster.nodes[0]
    load = Load(cluster.nodes)
    with cluster.watched() as watch:
        for _ in range(10):
            cluster.network.drop(one.host, f"ip saddr {{ {address(2)}, {address(3)} }}")
            time.sleep(0.35)
            cluster.network.heal()
            time.sleep(0.35)
        took = cluster.wait_whole(HEAL_SECONDS)
        assert not watch.saw({"dead"}), watch.changes
    load.stop()
    note("whole after ten flaps, 3 nodes", f"{took * 1e3:.0f} ms after the last", f"at most {HEAL_SECONDS} s")
