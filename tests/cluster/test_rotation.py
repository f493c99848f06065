"""Gossip keys are exchanged while everything runs."""

import copy
from collections.abc import Callable

from cluster import TIMEOUT_SECONDS, Cluster, Load, Node, gossip_key, soon
from figures import note

OLD, NEW = gossip_key("first"), gossip_key("second")
STEP_SECONDS_MAX = 10


def use_keys(node: Node, keys: list[str]) -> None:
    """Gives a node other keys, and makes it take them."""
    text = copy.deepcopy(node.text)
    text["cluster_config"]["gossip"]["encryption_keys"] = keys
    node.configure(text)
    node.reload()


def accepted(cluster: Cluster) -> set[tuple[str, ...]]:
    """The ids of the keys that nodes know of each other; one entry where all are alike."""
    return {tuple(sorted(peer["gossip_keys"])) for node in cluster.nodes for peer in node.status()["peers"]}


def test_keys_are_exchanged_under_load_and_nobody_is_lost(formed: Callable[[int], Cluster]) -> None:
    """The new key is added, then sends, then is the only one; node by node, and no step waits for long."""
    cluster = formed(3)
    load = Load(cluster.nodes, per_second=100)
    with cluster.watched() as watch:
        for keys, what in [([OLD, NEW], "added"), ([NEW, OLD], "sends"), ([NEW], "alone")]:
            for node in cluster.nodes:
                use_keys(node, keys)

            def all_know(keys: list[str] = keys) -> bool:
                known = accepted(cluster)
                return len(known) == 1 and len(next(iter(known))) == len(keys)

            took = soon(all_know, STEP_SECONDS_MAX, f"all know that the new key is {what}", cluster.explain)
            note(f"rotation: new key {what}, 3 nodes", f"{took * 1e3:.0f} ms until all know", "no peer, no request lost")
            assert cluster.is_whole(), cluster.explain()
        wrong = [change for change in watch.changes if change[3] != "healthy"]
        assert not wrong, wrong
    load.stop()

    # A node that slept through it is not let in with the old key, and is with the new one.
    late = cluster.add(1)[0]
    for node in cluster.nodes[:3]:
        use_keys(node, [NEW])
    use = copy.deepcopy(late.text)
    use["cluster_config"]["gossip"]["encryption_keys"] = [OLD]
    late.configure(use)
    late.start()
    soon(lambda: late.status().get("state") == "ready", 20, "the late node is ready", late.log_tail)
    soon(lambda: any("key" in line for line in late.lines("WARN")), 10, "it says that its key is wrong", late.log_tail)
    assert late.status()["members"] == 1
    assert cluster.is_whole(cluster.nodes[:3])
    use_keys(late, [NEW])
    took = cluster.wait_whole(TIMEOUT_SECONDS)
    note("a node with an old key gets the new one", f"{took * 1e3:.0f} ms until it is in")
