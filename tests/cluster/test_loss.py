"""Networks that lose, delay, reorder and double: nobody is taken for dead who is not."""

import time
from collections.abc import Callable, Iterator

import pytest
from cluster import TIMEOUT_SECONDS, Cluster, Load, soon
from figures import note
from network import GOSSIP_PORT, HERE
from relay import Relay, Weather

RELAY_PORT = 20_000
BAD_WEATHER_SECONDS = 10


def test_a_fifth_of_all_packets_lost_kills_nobody(
    formed: Callable[[int], Cluster], pytestconfig: pytest.Config
) -> None:
    """Five nodes; twenty seconds, ten minutes with `--loss-seconds 600`."""
    seconds = pytestconfig.getoption("--loss-seconds")
    cluster = formed(5)
    with cluster.watched() as watch:
        cluster.network.lose(20)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            assert not watch.saw({"dead"}), watch.changes
            cluster.assert_running(cluster.nodes)
            time.sleep(0.25)
        suspects = len(watch.saw({"suspect"}))
        cluster.network.heal()
        cluster.wait_whole(3)
        assert not watch.saw({"dead"}), watch.changes
    assert all(node.chat()[0] == 200 for node in cluster.nodes)
    note(f"20 % loss for {seconds} s, 5 nodes", f"0 deaths, {suspects} suspicions", "no false death")


def test_a_cluster_forms_where_a_fifth_is_lost(cluster: Cluster) -> None:
    """Joining is no luckier than staying."""
    nodes = cluster.add(3)
    cluster.network.lose(20)
    took = cluster.start(nodes)
    note("forming at 20 % loss, 3 nodes", f"{took * 1e3:.0f} ms")


@pytest.fixture
def relayed(cluster: Cluster) -> Iterator[tuple[Cluster, Relay]]:
    """Five nodes that know each other by ports of a relay."""
    nodes = cluster.add(5)
    ports = {node.number: RELAY_PORT + node.number for node in nodes}
    peers = [f"{HERE}:{port}" for port in ports.values()]
    targets = {ports[node.number]: (node.address, GOSSIP_PORT) for node in nodes}
    relay = Relay(targets, Weather(delay=0.05, jitter=0.1, twice=0.1, lost=0.05))
    for node in nodes:
        own = f"{HERE}:{ports[node.number]}"
        node.configure(cluster.configuration(node, peers=peers, advertise_address=own))
    yield cluster, relay
    relay.stop()


def test_late_doubled_and_reordered_datagrams_kill_nobody(relayed: tuple[Cluster, Relay]) -> None:
    """50 to 150 ms late, so that many overtake each other; 10 % twice, 5 % lost. A death is still seen."""
    cluster, relay = relayed
    cluster.start()
    load = Load(cluster.nodes[:4])
    with cluster.watched() as watch:
        time.sleep(BAD_WEATHER_SECONDS)
        assert not watch.saw({"dead"}), watch.changes
        suspects = len(watch.saw({"suspect"}))
        victim, others = cluster.nodes[4], cluster.nodes[:4]
        killed_at = time.monotonic()
        victim.kill()
        watch.wait_seen(others, victim, {"dead"}, killed_at, TIMEOUT_SECONDS + 3)
        soon(lambda: cluster.is_whole(others), 3, "the others stay whole", cluster.explain)
        assert {change[2] for change in watch.saw({"dead"})} == {victim.name}, watch.changes
    load.stop()
    counts = relay.counts
    assert counts["overtaken"] > 50 and counts["twice"] > 50 and counts["lost"] > 20, counts
    note(
        f"late, doubled, reordered for {BAD_WEATHER_SECONDS} s, 5 nodes",
        f"0 false deaths, {suspects} suspicions; {counts['overtaken']} overtaken, {counts['twice']} doubled",
        "no false death",
    )
