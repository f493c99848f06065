"""Nodes of this version of the gossip protocol and of the next one are one cluster."""

import copy
import os
import pathlib
from collections.abc import Callable

import pytest
from cluster import Cluster, Load, soon
from figures import note

NEXT = os.environ.get("DEEPINTSHIELD_NEXT_BIN", "")


@pytest.fixture
def next_binary() -> str:
    """The build that speaks the next version."""
    assert NEXT, "DEEPINTSHIELD_NEXT_BIN must name a binary built with --features next-protocol"
    return str(pathlib.Path(NEXT).resolve(strict=True))


def test_a_cluster_of_two_versions(cluster: Cluster, next_binary: str) -> None:
    """They form one cluster, hear each other's changes, and are replaced by each other, one by one."""
    nodes = cluster.add(3)
    nodes[1].binary = next_binary
    took = cluster.start(nodes)
    note("two versions: 2 + 1 nodes form a cluster", f"{took * 1e3:.0f} ms")
    spoken = {node.name: node.status()["protocol"] for node in nodes}
    assert spoken["n2"] == spoken["n1"] + 1 and spoken["n1"] == spoken["n3"], spoken
    seen = {peer["id"]: peer["protocol"] for peer in nodes[0].status()["peers"]}
    assert seen == {"n2": spoken["n2"], "n3": spoken["n3"]}

    for author in nodes[:2]:
        text = copy.deepcopy(author.text)
        text["governance"]["rate_limits"][0]["request_max_limit"] += author.number
        before = author.status()["configuration"]["hash"]
        author.configure(text)
        author.reload()
        soon(lambda node=author, old=before: node.status()["configuration"]["hash"] != old, 5, "it has a new hash")
        new = author.status()["configuration"]["hash"]
        for node in nodes:
            if node is not author:
                soon(lambda node=node, name=author.name, new=new: knows(node, name, new), 3, "the others know it")

    # Rolling on: node 1 becomes one of the next version, node 2 one of this.
    load = Load([nodes[2]])
    for node, binary in [(nodes[0], next_binary), (nodes[1], nodes[2].binary)]:
        node.stop()
        node.binary = binary
        cluster.start([node])
    load.stop()
    spoken = {node.name: node.status()["protocol"] for node in nodes}
    assert spoken["n1"] == spoken["n2"] + 1 == spoken["n3"] + 1, spoken


def knows(node, name: str, value: str) -> bool:
    """Whether a node knows another one's configuration by this hash."""
    return {peer["id"]: peer["configuration"]["hash"] for peer in node.status()["peers"]}.get(name) == value
