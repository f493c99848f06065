"""What goes wrong while the configuration changes: nodes and the database die, the network parts, files are
wrong. Nothing that was accepted is lost, nothing is half done, and nodes serve on.
"""

import base64
import itertools
import secrets
import threading
import time

import pytest
from cluster import Asked, Cluster, Node, soon
from live import ENCRYPTION_KEY, STORES, WRITER, Admin, LiveCluster, Seen, head
from network import Network
from postgres import PASSWORD, Postgres
from rig import wait_until
from wiretap import tapped

# The engine asks a store that failed every second, and gossip settles within a few ticks.
RECONCILED_SECONDS_MAX = 20


class Writers:
    """Each changes the configuration through one node: a new team, and another one, and so on."""

    rounds = itertools.count()

    def __init__(self, nodes: list[Node]):
        self.ending = threading.Event()
        self.round = next(Writers.rounds)
        # The team and its revision; what else was answered.
        self.accepted: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int, dict]] = []
        self.threads = [threading.Thread(target=self.run, args=(node,), daemon=True) for node in nodes]
        for thread in self.threads:
            thread.start()

    def run(self, node: Node) -> None:
        """One writer's work."""
        admin, number = Admin(node), 0
        while not self.ending.is_set():
            number += 1
            name = f"{node.name}-{self.round}-{number}"
            team = {"id": name, "name": name, "rate_limit_id": "l"}
            status, answer = admin.ask("PUT", f"/api/governance/teams/{name}", team)
            if status == 201:
                self.accepted.append((name, answer["revision"]))
            else:
                self.refused.append((node.name, status, answer))
                time.sleep(0.05)

    def stop(self) -> None:
        """No more changes."""
        self.ending.set()
        for thread in self.threads:
            thread.join()


def teams(node: Node) -> set[str]:
    """Those that a node knows."""
    status, page = Admin(node).ask("GET", "/api/config")
    assert status == 200, page
    return {team["id"] for team in page["governance"].get("teams", [])}


def assert_nothing_lost(live: LiveCluster, accepted: list[tuple[str, int]]) -> None:
    """Every accepted change is there on every node or, where nodes have stores of their own, in the history of
    the one that accepted it; and all have the same.
    """
    number, digest = live.agree(seconds=RECONCILED_SECONDS_MAX)
    known = [teams(node) for node in live.nodes]
    assert all(each == known[0] for each in known)
    missing = [(team, revision) for team, revision in accepted if team not in known[0]]
    if live.database:
        assert not missing, f"of {len(accepted)} accepted: {missing}, at {number} {digest}"
    for node in live.nodes:
        own = {entity for row in Admin(node).history() if row["is_superseded"] for entity in row["entities"]}
        missing = [(team, revision) for team, revision in missing if f"team/{team}" not in own]
    assert not missing, f"of {len(accepted)} accepted: {missing}"
    for node in live.nodes:
        rows = [row for row in Admin(node).history() if not row["is_superseded"]]
        assert [row["number"] for row in rows] == list(range(number, 0, -1)), "a chain without gaps"
        assert all(row["parent"] == below["digest"] for row, below in zip(rows, rows[1:], strict=False))


@pytest.mark.parametrize("live", STORES, indirect=True)
def test_a_node_killed_while_it_changes_something_loses_nothing(live: LiveCluster) -> None:
    live.add(3)
    live.start()
    live.agree()
    victim = live.nodes[1]
    for _ in range(3):
        writers = Writers(live.nodes)
        time.sleep(0.7)
        victim.kill()
        time.sleep(0.3)
        writers.stop()
        assert {team.split("-")[0] for team, _ in writers.accepted} == {node.name for node in live.nodes}
        live.start([victim])
        assert_nothing_lost(live, writers.accepted)


@pytest.mark.parametrize("live", ["postgres"], indirect=True)
def test_nodes_serve_without_their_database_and_change_nothing(live: LiveCluster, postgres: Postgres) -> None:
    live.add(3)
    live.start()
    live.agree()
    for _ in range(2):
        writers = Writers(live.nodes)
        time.sleep(0.7)
        postgres.kill()
        for node in live.nodes:
            admin = Admin(node)
            reason = wait_until(
                lambda admin=admin: (answer := admin.change(1))[0] == 503 and answer[1]["error"]["message"],
                RECONCILED_SECONDS_MAX, f"{node.name} refuses to change anything",
            )
            assert "postgres" in reason.lower(), reason
            assert node.chat()[0] == 200
            assert node.status()["state"] == "ready"
            assert node.status()["configuration_store"]["trouble"]
        # A node that starts now goes by what it had last.
        again = live.nodes[2]
        again.stop()
        again.start()
        soon(lambda: again.chat()[0] == 200, 30, "the node serves without its database", live.explain)
        assert "serving from the last good" in again.log()
        postgres.start()

        def all_write() -> bool:
            return all(Admin(node).change(2)[0] == 200 for node in live.nodes)

        soon(all_write, RECONCILED_SECONDS_MAX, "all change the configuration again", live.explain)
        writers.stop()
        assert {status for _, status, _ in writers.refused} <= {0, 503}, writers.refused[:3]
        assert_nothing_lost(live, writers.accepted)


@pytest.mark.parametrize("live", ["postgres"], indirect=True)
def test_the_first_start_waits_for_the_database_and_says_so(live: LiveCluster, postgres: Postgres) -> None:
    (node,) = live.add(1)
    postgres.kill()
    node.start()
    soon(lambda: (node.status().get("configuration_store") or {}).get("trouble"), 20, "it says what it waits for")
    status, text = node.admin.ask("GET", "/ready")
    assert status == 503, text
    postgres.start()
    soon(lambda: node.chat()[0] == 200, 30, "it serves as soon as the database is there", live.explain)


@pytest.mark.parametrize("live", STORES, indirect=True)
def test_a_node_that_was_away_catches_up_before_it_is_ready(live: LiveCluster) -> None:
    live.add(3)
    live.start()
    live.agree()
    away, admin = live.nodes[2], Admin(live.nodes[0])
    for turn in range(3):
        away.stop()
        first = turn * 40 + 1
        for number in range(first, first + 40):
            assert admin.change(number)[0] == 200
        seen = Seen()
        away.start()
        # As a load balancer would: nothing before it says that it is ready.
        soon(lambda: away.clients.ask("GET", "/ready")[0] == 200, 40, "it is ready", live.explain)
        for _ in range(20):
            assert away.chat("lab/away")[0] == 200
        seen.take()
        assert {key for _, model, key, _ in seen.rows if model == "away"} == {first + 39}
    live.agree()


@pytest.mark.parametrize("live", ["sqlite"], indirect=True)
def test_two_sides_that_changed_apart_end_alike_and_the_author_sees_what_does_not_hold(
    live: LiveCluster, network: Network
) -> None:
    live.add(3)
    live.start()
    live.agree()
    network.split([1], [2, 3])
    one, two = Admin(live.nodes[0]), Admin(live.nodes[1])
    for number in range(1, 4):
        assert one.change(100 + number)[0] == 200
    for number in range(1, 7):
        assert two.change(200 + number)[0] == 200
    live.agree(live.nodes[1:])
    network.heal()
    number, _ = live.agree()
    # The longer chain holds, and goes on.
    seen = Seen()
    for node in live.nodes:
        assert node.chat()[0] == 200
    seen.take()
    assert {key for _, _, key, _ in seen.rows} == {206}
    superseded = [row for row in one.history() if row["is_superseded"]]
    assert [row["node"] for row in superseded[:3]] == ["n1"] * 3
    assert one.change(300)[1]["revision"] == number + 1
    live.agree()
    assert "stays in its history" in live.nodes[0].log()


@pytest.mark.parametrize("live", STORES, indirect=True)
def test_planted_secrets_are_nowhere_in_clear(live: LiveCluster, request: pytest.FixtureRequest) -> None:
    live.add(2)
    planted = {name: f"sk-{secrets.token_hex(24)}" for name in ["provider", "header", "virtual", "file"]}
    for node in live.nodes:
        text = live.configuration(node)
        text["providers"]["lab"]["keys"].append({"name": "file", "value": planted["file"], "models": ["*"]})
        node.configure(text)
    client = {"id": "p", "name": "p", "value": planted["virtual"], "is_active": True}
    with tapped(1) as wire:
        live.start()
        live.agree()
        admin = Admin(live.nodes[0])
        key = {"name": "planted", "value": planted["provider"], "models": ["*"]}
        fields = {"network_config": {"extra_headers": {"x-planted": planted["header"]}}}
        answers = [
            admin.ask("POST", "/api/providers/lab/keys", key),
            admin.ask("PATCH", "/api/providers/lab", fields),
            admin.ask("POST", "/api/governance/virtual-keys", client),
            admin.ask("POST", "/api/governance/virtual-keys", {**client, "id": "q", "nmae": planted["virtual"]}),
        ]
        assert [status for status, _ in answers] == [201, 200, 201, 422], answers
        live.agree()
        for node in live.nodes:
            for path in ["/api/config", "/api/keys", "/api/providers", "/api/governance/virtual-keys", "/api/audit",
                         "/api/config/history", "/api/config/diff", "/metrics", "/cluster/status", "/nothing"]:
                status, text = node.admin.ask("GET", path, headers={"authorization": f"Bearer {WRITER}"})
                assert status in (200, 404), path
                answers.append((status, {"text": text.decode()}))
    places = {f"answer {at}": str(answer).encode() for at, (_, answer) in enumerate(answers)}
    places |= {f"packet {at}": frame.payload for at, frame in enumerate(wire.frames)}
    places |= {f"stream {at}": data for at, data in enumerate(wire.streams)}
    for node in live.nodes:
        places[f"the log of {node.name}"] = node.log().encode()
        state = [path for path in (node.folder / "state").rglob("*") if path.is_file()]
        assert state
        places |= {str(path): path.read_bytes() for path in state}
    if live.database:
        dump = request.getfixturevalue("postgres").dump(live.database)
        assert "INSERT INTO public.deepintshield_entities" in dump
        places["the database"] = dump.encode()
    else:
        assert any("config.db" in place for place in places)
    assert len(wire.frames) > 20
    needles = [*planted.values(), WRITER, ENCRYPTION_KEY, PASSWORD]
    for needle in needles:
        for shape in [needle.encode(), base64.b64encode(needle.encode()).rstrip(b"=")]:
            found = [place for place, data in places.items() if shape in data]
            assert not found, f"{needle} is in {found}"


def test_a_changed_file_is_used_and_a_wrong_one_changes_nothing(cluster: Cluster, provider: Asked) -> None:
    (node,) = cluster.add(1)
    cluster.start()
    seen = Seen()
    text = cluster.configuration(node)
    text["providers"]["lab"]["keys"][0]["value"] = "sk-2"
    node.configure(text)

    def is_used() -> bool:
        assert node.chat()[0] == 200
        seen.take()
        return seen.rows[-1][2] == 2

    soon(is_used, 10, "the changed file is used without being told", node.log_tail)
    wrong = cluster.configuration(node)
    wrong["providers"]["lab"]["keys"][0]["wieght"] = 3
    node.configure(wrong)
    soon(lambda: node.lines("wieght"), 10, "it says what is wrong", node.log_tail)
    assert any("weight" in line and "config.json" in line for line in node.lines("wieght"))
    assert is_used()
    node.config.write_text("{")
    node.reload()
    soon(lambda: len(node.lines("keeps the one it has")) >= 2, 10, "it says so again", node.log_tail)
    assert is_used()


@pytest.mark.parametrize("live", ["sqlite"], indirect=True)
def test_a_file_that_says_something_else_than_the_store_is_named(live: LiveCluster) -> None:
    (node,) = live.add(1)
    live.start()
    live.agree()
    assert Admin(node).set_active(False)[0] == 200
    changed = live.agree()
    difference = "says something else than the configuration store"
    assert not node.lines(difference), "it has just been imported"
    node.stop()
    node.start()
    soon(lambda: node.lines(difference), 20, "it says that the file differs", node.log_tail)
    assert live.agree() == changed
    # Read again, and nothing else.
    node.reload()
    soon(lambda: len(node.lines(difference)) == 2, 20, "it says so of each file once", node.log_tail)
    assert live.agree() == changed
