"""The troubleshooting of the public page, on the spot: each symptom is brought about, and the node's
own words have to name cause and remedy.

Here are the symptoms that need a network; those of one discovery method stand with its tests.
"""

import pathlib
import re
import subprocess
from collections.abc import Callable

import pytest
from cluster import TIMEOUT_SECONDS, Cluster, Node, gossip_key, soon
from figures import note
from network import GOSSIP_PORT, address, inside

# Joining is said to have failed after ten seconds alone.
SAID_SECONDS_MAX = 20


def says(node: Node, *texts: str) -> None:
    """Waits for one line of the node's log that has all of these."""

    def said() -> bool:
        return any(all(text in line for text in texts) for line in node.log().splitlines())

    soon(said, SAID_SECONDS_MAX, f"{node.name} says {texts}", node.log_tail)


def doctor_says(node: Node, *texts: str) -> None:
    """One finding, note or logged line of `doctor`, run beside the node, has all of these."""
    line = [*inside(node.host), node.binary, "--config", str(node.config), "doctor"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=40, check=False)
    # A finding is a line, and those below it that are indented.
    findings = [*re.split(r"\n(?=\S)", ran.stdout), *ran.stderr.splitlines()]
    found = any(all(text in finding for text in texts) for finding in findings)
    assert found, f"no finding of {node.name} has {texts}; exit code {ran.returncode}\n{ran.stdout}{ran.stderr}"


def changed(cluster: Cluster, node: Node, **changes: object) -> None:
    """Gives a node another `cluster_config` before it starts."""
    node.configure(cluster.configuration(node, **changes))


def alone(nodes: list[Node]) -> None:
    """Waits until these are ready, and are clusters of one."""
    for node in nodes:
        soon(lambda node=node: node.status().get("state") == "ready", 20, f"{node.name} is ready", node.log_tail)
        assert node.status()["members"] == 1, node.status()


def test_the_gossip_port_is_blocked_by_a_firewall(cluster: Cluster) -> None:
    """Cluster forms but only has 1 member; gossip port blocked; network isolation."""
    nodes = cluster.add(2)
    for protocol in ("udp", "tcp"):
        cluster.network.drop(2, f"{protocol} dport {GOSSIP_PORT}")
        cluster.network.drop(1, f"ip saddr {address(2)} {protocol} sport {GOSSIP_PORT}")
    for node in nodes:
        node.start()
    alone(nodes)
    for node in nodes:
        says(node, "failed to join cluster", "gossip port is open both ways for UDP and TCP")
        says(node, "timeout waiting for response", "are UDP and TCP of this port open")
    doctor_says(nodes[0], "cannot connect", nodes[1].address, "not reached by UDP or TCP", "open port 10101")
    cluster.network.heal()
    cluster.wait_whole(SAID_SECONDS_MAX)
    says(nodes[0], "successfully joined 1 peers on startup")
    says(nodes[0], "cluster health: HEALTHY")


def test_only_tcp_is_open(cluster: Cluster) -> None:
    """As in the page's own manifests: the cluster works, and says what is missing."""
    nodes = cluster.add(3)
    for node in nodes:
        cluster.network.drop(node.host, f"udp dport {GOSSIP_PORT}")
    took = cluster.start(nodes)
    note("forming over TCP alone, 3 nodes", f"{took * 1e3:.0f} ms")
    for node in nodes:
        says(node, "UDP does not get through", "gossip uses TCP alone", "open UDP")

    def all_use(transport: str) -> bool:
        return all(peer["transport"] == transport for node in nodes for peer in node.status()["peers"])

    soon(lambda: all_use("tcp"), SAID_SECONDS_MAX, "the status says so of every peer", cluster.explain)
    assert cluster.is_whole(), cluster.explain()
    doctor_says(nodes[0], nodes[1].address, "TCP only", "pen UDP between all nodes")
    cluster.network.heal()
    soon(lambda: all_use("udp"), 60, "UDP is used again", cluster.explain)
    assert cluster.is_whole()


def test_only_one_direction_is_open(cluster: Cluster) -> None:
    """Firewall blocking gossip: verify bidirectional connectivity."""
    nodes = cluster.add(2)
    cluster.network.cut(2, 1)
    for node in nodes:
        node.start()
    alone(nodes)
    for node in nodes:
        says(node, "failed to join cluster", "open both ways")
        doctor_says(node, "cannot connect", "both ways")
    cluster.network.heal()
    cluster.wait_whole(SAID_SECONDS_MAX)


def test_another_cluster_name(cluster: Cluster) -> None:
    """Each node thinks it's the only member, since they are members of different clusters."""
    nodes = cluster.add(2)
    changed(cluster, nodes[1], cluster_name="staging")
    for node in nodes:
        node.start()
    alone(nodes)
    for node, other in (nodes, nodes[::-1]):
        says(node, other.address, "another cluster_name", "compare cluster_config.cluster_name")
        says(node, "failed to join cluster", "cluster_name")
    doctor_says(nodes[0], "another cluster_name", "cluster_config.cluster_name")


def test_another_gossip_key(cluster: Cluster) -> None:
    """The nodes find each other and cannot understand each other."""
    nodes = cluster.add(2)
    gossip = dict(cluster.configuration(nodes[1])["cluster_config"]["gossip"], encryption_keys=[gossip_key("other")])
    changed(cluster, nodes[1], gossip=gossip)
    for node in nodes:
        node.start()
    alone(nodes)
    for node, other in (nodes, nodes[::-1]):
        says(node, other.address, "another gossip key", "compare gossip.encryption_keys")
        says(node, "failed to join cluster", "gossip.encryption_keys")
    doctor_says(nodes[0], "another gossip key", "gossip.encryption_keys")


def test_an_open_port_without_keys_is_refused(cluster: Cluster) -> None:
    """A cluster that anybody could join does not start unless that is said."""
    node = cluster.add(1)[0]
    gossip = dict(cluster.configuration(node)["cluster_config"]["gossip"], encryption_keys=[])
    changed(cluster, node, gossip=gossip)
    node.start()
    soon(lambda: not node.runs, 20, "it ends", node.log_tail)
    says(node, "no encryption keys", "openssl rand -base64 32", '"insecure": true')
    assert node.program.process.returncode != 0
    node.kill()


def test_two_nodes_with_one_id(formed: Callable[[int], Cluster]) -> None:
    """A copied state directory or a copied configuration: the second is told so, and ends."""
    cluster = formed(2)
    twin = cluster.add(1)[0]
    changed(cluster, twin, node_id="n1")
    twin.start()
    soon(lambda: not twin.runs, 15, "the newcomer ends", cluster.explain)
    says(twin, "another live node has this node's id", "node_id")
    assert twin.program.process.returncode == 78
    twin.kill()
    others = cluster.nodes[:2]
    # The one that was there first stays, and is taken up again.
    cluster.wait_whole(15, others)
    for node in others:
        assert node.chat()[0] == 200


def udp(cluster: Cluster, node: Node, **changes: object) -> None:
    """Makes a node look for others by broadcast alone."""
    discovery = {
        "enabled": True,
        "type": "udp",
        "service_name": "lab",
        "udp_broadcast_port": 9999,
        "allowed_address_space": ["10.77.0.0/24"],
        "interval": "1s",
        **changes,
    }
    changed(cluster, node, peers=[], discovery=discovery)


def test_an_address_filter_that_leaves_the_others_out(cluster: Cluster) -> None:
    """`not in allowed address space`, with the address that is not."""
    nodes = cluster.add(2)
    udp(cluster, nodes[0], allowed_address_space=["10.77.0.1/32", "192.168.0.0/16"])
    # Who is not left out by the other would find it, and be heard.
    udp(cluster, nodes[1], allowed_address_space=["10.77.0.2/32"])
    for node in nodes:
        node.start()
    alone(nodes)
    says(nodes[0], "not in allowed address space", nodes[1].address, "allowed_address_space")
    # A running node has the port that beacons come to.
    nodes[0].stop()
    doctor_says(nodes[0], "not in allowed address space", nodes[1].address)


def test_another_service_name(cluster: Cluster) -> None:
    """Ensure all nodes have identical service_name."""
    nodes = cluster.add(2)
    udp(cluster, nodes[0])
    udp(cluster, nodes[1], service_name="elsewhere")
    for node in nodes:
        node.start()
    alone(nodes)
    for node in nodes:
        says(node, "no new nodes discovered", "service_name")
    doctor_says(nodes[0], "service_name")


def test_the_broadcast_port_is_blocked(cluster: Cluster) -> None:
    """No nodes discovered via UDP broadcast; found as soon as it is open."""
    nodes = cluster.add(2)
    for node in nodes:
        udp(cluster, node)
        cluster.network.drop(node.host, "udp dport 9999")
        node.start()
    alone(nodes)
    for node in nodes:
        says(node, "no new nodes discovered")
    cluster.network.heal()
    cluster.wait_whole(SAID_SECONDS_MAX)
    says(nodes[0], "discovered 1 nodes")


@pytest.fixture(scope="session")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What gives a process another time of day."""
    library = tmp_path_factory.mktemp("skew") / "skew.so"
    source = pathlib.Path(__file__).with_name("skew.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True, timeout=60)
    return str(library)


@pytest.mark.parametrize("hours", [-24, 1])
def test_a_clock_that_is_wrong_is_seen_and_does_no_harm(cluster: Cluster, skewed: str, hours: int) -> None:
    """Nothing here goes by the time of day but generations, which only have to grow."""
    nodes = cluster.add(3)
    wrong = nodes[2]
    wrong.env = {"LD_PRELOAD": skewed, "SKEW_SECONDS": str(hours * 3600)}
    cluster.start(nodes)

    def offset() -> int | None:
        peers = {peer["id"]: peer["clock_offset_ms"] for peer in nodes[0].status()["peers"]}
        return peers.get(wrong.name)

    soon(lambda: offset() is not None, 10, "the clock was asked for", cluster.explain)
    assert abs(offset() - hours * 3_600_000) < 1_000, offset()
    doctor_says(nodes[0], "clocks of nodes are apart", wrong.address, "time server")
    # It is killed, comes back with the right time, and is believed.
    wrong.kill()
    wrong.env = {}
    took = cluster.start([wrong])
    assert took < TIMEOUT_SECONDS + 5
    assert wrong.chat()[0] == 200
