"""What one node learns of a key or of a provider, all act upon; and what is one node's own problem."""

import copy
import pathlib
import re
import time
from collections.abc import Callable, Iterator

import pytest
from cluster import Asked, Cluster, Node, soon
from figures import note
from network import HERE
from rig import Program, binary

REST_SECONDS = 6
HEARD_SECONDS = 1
FAILING_PORT, SPARE_PORT, NOBODYS_PORT = 9001, 9002, 9003


def attempts(node: Node, provider: str) -> float:
    """Requests that a node sent to a provider so far."""
    lines = [line for line in node.metrics().splitlines() if line.startswith("deepintshield_attempts_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'provider="{provider}"' in line)


def refused_by(nodes: list[Node], begun: float, seconds: float) -> dict[str, float]:
    """Seconds from `begun` until each node refuses by itself what it has no key for."""
    found: dict[str, float] = {}

    def all_refuse() -> bool:
        for node in nodes:
            if node.name not in found:
                status, answer = node.chat()
                assert status in (200, 429, 503), (status, answer)
                if status != 200:
                    found[node.name] = time.monotonic() - begun
        return len(found) == len(nodes)

    soon(all_refuse, seconds, "every node leaves the key alone", lambda: str(found))
    return found


@pytest.mark.parametrize(("fault", "what"), [(f"429={REST_SECONDS}", "limited"), ("status=401", "refused")])
def test_a_key_that_one_node_saw_fail_rests_on_all(
    formed: Callable[[int], Cluster], provider: Asked, fault: str, what: str
) -> None:
    """The provider's only key: from then on the other nodes refuse by themselves, and come back in time."""
    cluster = formed(3)
    assert all(node.chat()[0] == 200 for node in cluster.nodes)
    first, others = cluster.nodes[0], cluster.nodes[1:]
    status, answer = first.chat(sim={"fault": fault})
    told_at = time.monotonic()
    assert status != 200, answer
    heard = refused_by(others, told_at, HEARD_SECONDS)
    note(f"a key {what} on one node rests on all, 3 nodes", f"{max(heard.values()) * 1e3:.0f} ms", "at most 1 s")

    def reached_provider() -> float:
        return sum(attempts(node, "lab") for node in cluster.nodes)

    # The counts of a core reach the metrics a little later.
    time.sleep(1)
    before = reached_provider()
    for node in cluster.nodes:
        status, answer = node.chat()
        assert status in (429, 503), (node.name, status, answer)
    time.sleep(1)
    assert reached_provider() == before, "nobody asks the provider with a key that rests"
    if what == "limited":
        soon(
            lambda: all(node.chat()[0] == 200 for node in cluster.nodes),
            REST_SECONDS + 2,
            "the key is used again on all nodes",
            cluster.explain,
        )
        rested = time.monotonic() - told_at
        assert rested >= REST_SECONDS - 1, rested


def chats(stats: bytes) -> list[bytes]:
    """The part of a provider's counts that is about chats."""
    return re.findall(rb'"500":(\d+)', stats)


@pytest.fixture
def two_providers(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[Cluster]:
    """Three nodes with a provider that answers 500 to everything, and a spare one; not started."""
    programs = []
    for name, port, options in [("failing", FAILING_PORT, ["--fault", "status:1:500"]), ("spare", SPARE_PORT, [])]:
        command = [binary(), "provider-sim", "--listen", f"{HERE}:{port}", *options]
        program = Program(command, tmp_path / f"provider-{name}.log")
        asked = Asked(HERE, port)
        program.wait_ready(lambda asked=asked: asked.ask("GET", "/__sim/stats")[0] == 200, f"{name} answers")
        asked.close()
        programs.append(program)
    for node in cluster.add(3):
        text = copy.deepcopy(node.text)
        for name, port in [("failing", FAILING_PORT), ("spare", SPARE_PORT)]:
            entry = copy.deepcopy(text["providers"]["lab"])
            entry["keys"][0]["name"] = name
            entry["network_config"]["base_url"] = f"http://{HERE}:{port}"
            entry["network_config"]["max_retries"] = 0
            text["providers"][name] = entry
        node.configure(text)
    yield cluster
    for program in programs:
        program.stop()


def ask(node: Node, provider: str) -> int:
    """One request that prefers a provider and may go to the spare one."""
    body = {
        "model": f"{provider}/m",
        "fallbacks": ["spare/m"],
        "messages": [{"role": "user", "content": "anybody"}],
        "max_tokens": 4,
    }
    fields = {"content-type": "application/json", "authorization": "Bearer sk-bf-lab"}
    return node.clients.ask("POST", "/v1/chat/completions", body, fields)[0]


def test_a_provider_that_fails_for_most_is_demoted_for_all(two_providers: Cluster) -> None:
    """Two nodes of three saw it fail. The third, which never asked it, goes to the spare one at once."""
    cluster = two_providers
    cluster.start()
    third = cluster.nodes[2]
    for _ in range(12):
        for node in cluster.nodes[:2]:
            assert ask(node, "failing") == 200, "the spare one answers"
    begun = time.monotonic()
    soon(
        lambda: any("fails for most nodes" in line for line in third.lines('provider="failing"')),
        3,
        "the third node has heard of it",
        third.log_tail,
    )
    note("a failing provider demoted on a node that never asked", f"{(time.monotonic() - begun) * 1e3:.0f} ms", "at most 3 s")
    counts = Asked(HERE, FAILING_PORT)
    in_a_row = 0

    def passed_over() -> bool:
        nonlocal in_a_row
        before = counts.ask("GET", "/__sim/stats")[1].split(b'"answers":')[1]
        assert ask(third, "failing") == 200
        after = counts.ask("GET", "/__sim/stats")[1].split(b'"answers":')[1]
        in_a_row = in_a_row + 1 if chats(before) == chats(after) else 0
        # One in a hundred tries whether it is back.
        return in_a_row >= 20

    soon(passed_over, 5, "its requests go to the spare one at once", third.log_tail)
    counts.close()


def test_a_provider_that_fails_for_one_node_is_that_nodes_problem(two_providers: Cluster) -> None:
    """One node has a broken way to the provider; the others go on using it."""
    cluster = two_providers
    broken, others = cluster.nodes[0], cluster.nodes[1:]
    text = copy.deepcopy(broken.text)
    text["providers"]["lab"]["network_config"]["base_url"] = f"http://{HERE}:{NOBODYS_PORT}"
    broken.configure(text)
    cluster.start()
    for _ in range(12):
        assert ask(broken, "lab") == 200, "the spare one answers"
        for node in others:
            assert ask(node, "lab") == 200
    # Several rounds of gossip, and a report of every core.
    time.sleep(2)
    before = [attempts(node, "lab") for node in others]
    for _ in range(10):
        for node in others:
            assert ask(node, "lab") == 200
    soon(
        lambda: [attempts(node, "lab") for node in others] == [count + 10 for count in before],
        3,
        "the others still use it",
        lambda: str([attempts(node, "lab") for node in others]),
    )
