"""What one node publishes, all others know within 500 ms."""

import copy
import time
from collections.abc import Callable

import pytest
from cluster import Cluster, Node
from figures import note, percentile

CHANGES = 200
P99_SECONDS = 0.5
# Above this it did not arrive at all.
ARRIVED_SECONDS_MAX = 10


class Change:
    """A configuration with another hash, which a node was just told to read."""

    def __init__(self, author: Node, known: str):
        self.author, self.known = author, known
        self.told_at = time.monotonic()
        self.hash: str | None = None
        self.missing: set[str] | None = None


def begin(author: Node, number: int, known: str) -> Change:
    """Changes one number of the node's configuration and makes it read that."""
    text = copy.deepcopy(author.text)
    text["governance"]["rate_limits"][0]["request_max_limit"] = 1_000_000 + number
    author.configure(text)
    change = Change(author, known)
    author.reload()
    return change


def advance(change: Change, statuses: dict[str, dict], names: set[str]) -> bool:
    """Takes what the nodes say now into account; whether all know it."""
    own = statuses[change.author.name]["configuration"]["hash"]
    if change.hash is None and own != change.known:
        change.hash, change.missing = own, names - {change.author.name}
    if change.hash is None:
        return False
    for name in list(change.missing):
        peers = {peer["id"]: peer["configuration"]["hash"] for peer in statuses[name]["peers"]}
        if peers.get(change.author.name) == change.hash:
            change.missing.discard(name)
    return not change.missing


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_change_on_one_node_is_seen_by_all(formed: Callable[[int], Cluster], count: int) -> None:
    """Two hundred changes, on the nodes in turn, one at a time on each of them.

    Timed from the signal that makes a node read its new configuration, so that reading it counts too.
    """
    cluster = formed(count)
    names = {node.name for node in cluster.nodes}
    hashes = {node.name: node.status()["configuration"]["hash"] for node in cluster.nodes}
    assert all(hashes.values()), hashes
    # At most two at once: more would only show how busy this machine is.
    idle, running, times, number = list(cluster.nodes), [], [], 0
    while len(times) < CHANGES:
        while idle and len(running) < 2 and number < CHANGES:
            author = idle.pop(0)
            running.append(begin(author, number := number + 1, hashes[author.name]))
        statuses = {node.name: node.status() for node in cluster.nodes}
        now = time.monotonic()
        for change in list(running):
            if advance(change, statuses, names):
                times.append(now - change.told_at)
                hashes[change.author.name] = change.hash
                running.remove(change)
                idle.append(change.author)
            else:
                late = now - change.told_at < ARRIVED_SECONDS_MAX
                assert late, f"{change.author.name}'s change is unknown to {change.missing}\n{cluster.explain()}"
    p50, p99, most = (percentile(times, part) * 1e3 for part in (0.5, 0.99, 1.0))
    note(f"a change seen by all, {count} nodes", f"p50 {p50:.0f}, p99 {p99:.0f}, max {most:.0f} ms", "p99 at most 500 ms")
    assert p99 <= P99_SECONDS * 1e3, f"p50 {p50} ms, p99 {p99} ms, max {most} ms"
    assert not any(node.lines("node marked as suspect") for node in cluster.nodes)
