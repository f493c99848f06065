"""The configuration changes while nodes serve: how soon all run it, and that no request notices."""

import pathlib
import threading
import time

import pytest
from cluster import CLIENT, Asked, Cluster
from figures import note, percentile
from live import STORES, Admin, LiveCluster, Pressure, Seen, delays

# From accepted to used by the last core of the last node.
DELAY_SECONDS_MAX = 1.0
REQUESTS_PER_SECOND = 300
MARGIN_SECONDS = 2


def write(cluster: Cluster, count: int) -> list[tuple[float, int]]:
    """`count` changes, each through the next node, on top of the one before: when each was accepted."""
    admins = [Admin(node) for node in cluster.nodes]
    accepted, revision = [], cluster.agree()[0]
    for number in range(1, count + 1):
        admin = admins[number % len(admins)]
        deadline = time.monotonic() + 20
        # The next node may not have the last change yet.
        while (answer := admin.change(number, if_match=f'"{revision}"'))[0] == 412:
            assert time.monotonic() < deadline, answer
        assert answer[0] == 200, answer
        accepted.append((time.monotonic(), number))
        revision = answer[1]["revision"]
    return accepted


@pytest.mark.parametrize("live", STORES, indirect=True)
def test_every_core_of_every_node_follows_within_a_second(
    live: LiveCluster, tmp_path: pathlib.Path, pytestconfig: pytest.Config
) -> None:
    changes = pytestconfig.getoption("--live-changes")
    seconds = 10 + changes // 8
    live.cores = 2
    live.add(3)
    live.start()
    live.agree()
    seen = Seen()
    load = Pressure(live.nodes, tmp_path, seconds, REQUESTS_PER_SECOND)
    begun = time.monotonic()
    try:
        time.sleep(MARGIN_SECONDS)
        accepted = write(live, changes)
        took = time.monotonic() - begun
        assert took < seconds - MARGIN_SECONDS, f"{changes} changes took {took:.0f} s, longer than the load"
        while time.monotonic() - begun < seconds:
            seen.take()
            time.sleep(0.5)
        figures = load.end()
    except BaseException:
        load.stop()
        raise
    seen.take()
    waits, mixed = delays(seen.rows, accepted)
    nodes = {model for _, model, _, _ in seen.rows}
    assert nodes == {node.name for node in live.nodes}
    name = "PostgreSQL" if live.database else "SQLite and gossip"
    p99 = percentile(waits, 0.99)
    note(
        f"{changes} changes of three nodes under load, {name}: accepted to used everywhere",
        f"p50 {percentile(waits, 0.5) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {max(waits) * 1e3:.0f} ms, "
        f"{len(seen.rows)} requests, {mixed} mixed",
        "p99 at most 1 s, none failed, none mixed",
    )
    assert figures["failures"] == 0, figures
    assert mixed == 0
    assert p99 <= DELAY_SECONDS_MAX


@pytest.mark.parametrize("live", STORES, indirect=True)
def test_a_revoked_virtual_key_is_let_in_nowhere_a_second_later(live: LiveCluster) -> None:
    live.cores = 2
    live.add(3)
    live.start()
    live.agree()
    waits = []
    for turn in range(6):
        admin = Admin(live.nodes[turn % 3])
        let_in: list[float] = []
        others: list[int] = []
        ending = threading.Event()

        def ask(node: object) -> None:
            # Each connection meets another core.
            while not ending.is_set():
                asked = Asked(node.address, node.clients.port)
                fields = {"content-type": "application/json", "authorization": f"Bearer {CLIENT}"}
                body = {"model": "lab/m", "messages": [{"role": "user", "content": "in?"}], "max_tokens": 1}
                status, _ = asked.ask("POST", "/v1/chat/completions", body, fields)
                asked.close()
                if status == 200:
                    let_in.append(time.monotonic())
                elif status != 403:
                    others.append(status)

        threads = [threading.Thread(target=ask, args=(node,), daemon=True) for node in live.nodes]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        status, answer = admin.set_active(False)
        revoked = time.monotonic()
        assert status == 200, answer
        time.sleep(DELAY_SECONDS_MAX + 0.5)
        ending.set()
        for thread in threads:
            thread.join()
        assert not others, others
        assert let_in and min(let_in) < revoked
        waits.append(max(0.0, max(let_in) - revoked))
        assert admin.set_active(True)[0] == 200
        live.agree()
    name = "PostgreSQL" if live.database else "SQLite and gossip"
    note(f"a revoked virtual key, {name}: last let in after", f"max {max(waits) * 1e3:.0f} ms of 6", "at most 1 s")
    assert max(waits) <= DELAY_SECONDS_MAX
