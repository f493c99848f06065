"""Nodes on the network: started, watched, reloaded, killed. One class for one node, one for all of
them, one that writes down when a node saw what of another.

Everything that is waited for is a condition with a deadline; times are this process's own.
"""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from network import GOSSIP_PORT, HERE, Network, address, inside
from rig import Program, binary

PORT, ADMIN_PORT, PROVIDER_PORT = 8080, 8081, 9000
TIMEOUT_SECONDS = 5
# From the start of the last node until all see all: discovery, three good ticks, and a busy machine.
FORM_SECONDS_MAX = 30
WATCH_SECONDS = 0.02
# From then on until every node has its part of the limit.
UNITS_SECONDS_MAX = 30
CLIENT = "sk-bf-lab"
LOG_LINES_SHOWN = 25


def gossip_key(text: str) -> str:
    """A key for gossip that is the same for the same text."""
    return base64.b64encode(text.encode().ljust(32, b"-")[:32]).decode()


def soon(condition: Callable[[], Any], seconds: float, what: str, explain: Callable[[], str] = str) -> float:
    """Seconds until `condition` held; an AssertionError that says `what` did not happen."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"within {seconds} s it did not happen that {what}\n{explain()}")
        time.sleep(0.005)
    return time.monotonic() - begun


class Asked:
    """A connection for asking one listener, opened anew when it was lost."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body; status 0 where nobody answers within two seconds."""
        fresh = self.connection is None
        if fresh:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            if fresh:
                self.connection.connect()
                self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            text = None if body is None else json.dumps(body)
            self.connection.request(method, path, text, headers or {})
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            # A kept connection may have been closed by a node that is there again.
            return (0, b"") if fresh else self.ask(method, path, body, headers)

    def close(self) -> None:
        """Gives the connection back."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Node:
    """One node. It can be started again and again, in the same place."""

    def __init__(self, number: int, folder: pathlib.Path, host: int | None = None):
        self.number = number
        self.name = f"n{number}"
        self.host = number if host is None else host
        self.address = address(self.host)
        self.folder = folder / self.name
        self.folder.mkdir()
        self.config = self.folder / "config.json"
        self.starts = 0
        self.program: Program | None = None
        self.binary = binary()
        self.env: dict[str, str] = {}
        self.text: dict[str, Any] = {}
        self.admin = Asked(self.address, ADMIN_PORT)
        self.clients = Asked(self.address, PORT)

    def configure(self, text: dict[str, Any]) -> None:
        """Writes its configuration, whole or not at all: it may be reading it."""
        self.text = text
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(text, indent=1))
        new.rename(self.config)

    def start(self) -> None:
        """Starts it and waits for nothing."""
        self.starts += 1
        command = [*inside(self.host), self.binary, "--config", str(self.config)]
        log = self.folder / f"node-{self.starts}.log"
        self.program = Program(command, log, {"RUST_LOG": os.environ.get("RUST_LOG", "info"), **self.env})

    def reload(self) -> None:
        """Makes it read its configuration again."""
        self.send(signal.SIGHUP)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.program.process.send_signal(number)

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.program is not None and self.program.process.poll() is None

    def status(self) -> dict[str, Any]:
        """What it says of the cluster; empty when it does not answer."""
        status, body = self.admin.ask("GET", "/cluster/status")
        return json.loads(body) if status == 200 else {}

    def units(self) -> int:
        """How much of its limits it may use now, of all of them together. One that was started again has
        its part at once, of which nothing is left at first: what it spent before counts.
        """
        limits = self.status().get("limits", [])
        return self.entitled() - sum(limit["used_here"] for limit in limits)

    def entitled(self) -> int:
        """How much of its limits it may use in a window, of all of them together."""
        return sum(limit["entitlement_here"] for limit in self.status().get("limits", []))

    def health_of(self, other: "Node") -> str:
        """What it thinks of another node: a state, or `unknown`."""
        return {peer["id"]: peer["health"] for peer in self.status().get("peers", [])}.get(other.name, "unknown")

    def metrics(self) -> str:
        """The text of its metrics."""
        return self.admin.ask("GET", "/metrics")[1].decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where it is not there."""
        lines = [line for line in self.metrics().splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def chat(self, model: str = "lab/m", sim: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """One request to the provider through this node: status and answer."""
        body = {"model": model, "messages": [{"role": "user", "content": "alive?"}], "max_tokens": 4}
        if sim is not None:
            body["metadata"] = {"sim": sim}
        fields = {"content-type": "application/json", "authorization": f"Bearer {CLIENT}"}
        status, answer = self.clients.ask("POST", "/v1/chat/completions", body, fields)
        with contextlib.suppress(ValueError):
            return status, json.loads(answer)
        return status, {}

    def log(self) -> str:
        """Everything it has logged, in all its lives."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("node-*.log")))

    def lines(self, text: str) -> list[str]:
        """Its lines with this text."""
        return [line for line in self.log().splitlines() if text in line]

    def log_tail(self) -> str:
        """The end of its log, for a message; without what is said of every node here."""
        known = ("the admin listener can be reached", "the secret stands in the file")
        lines = [line for line in self.log().splitlines() if not any(text in line for text in known)]
        return "\n".join([f"{self.name} said at the end:", *lines[-LOG_LINES_SHOWN:]])

    def resident_kib(self) -> int:
        """Memory that it has in use."""
        status = pathlib.Path(f"/proc/{self.program.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def kill(self) -> None:
        """Ends it without asking, and forgets its connections."""
        if self.program is not None:
            self.program.kill()
        self.admin.close()
        self.clients.close()

    def stop(self) -> None:
        """SIGTERM; it has to end well."""
        code = self.program.stop()
        assert code == 0, f"{self.name} ended with {code}\n{self.log_tail()}"


class Cluster:
    """Some nodes with one provider."""

    def __init__(self, network: Network, folder: pathlib.Path, provider_port: int = PROVIDER_PORT):
        self.network, self.folder, self.provider_port = network, folder, provider_port
        self.nodes: list[Node] = []

    def add(self, count: int) -> list[Node]:
        """More nodes, configured to find all that are there by then; not started."""
        for _ in range(count):
            number = len(self.nodes) + 1
            self.network.add(number)
            self.nodes.append(Node(number, self.folder))
        for node in self.nodes:
            node.configure(self.configuration(node))
        return self.nodes[-count:]

    def configuration(self, node: Node, **cluster: Any) -> dict[str, Any]:
        """A configuration for a node; `cluster` replaces fields of its `cluster_config`."""
        return {
            "version": 1,
            "server": {
                "host": node.address,
                "port": PORT,
                "admin_host": node.address,
                "admin_port": ADMIN_PORT,
                "cores": 1,
                "pin_cores": False,
                "state_dir": str(node.folder / "state"),
                "drain_timeout": "5s",
                "log_format": "text",
            },
            "cluster_config": {
                "enabled": True,
                "cluster_name": "lab",
                "node_id": node.name,
                # No earlier cluster used the limits, so that nobody has to wait for its spending.
                "initial_state": "new",
                "expected_nodes": len(self.nodes),
                "bind_address": node.address,
                "peers": [f"{each.address}:{GOSSIP_PORT}" for each in self.nodes],
                "gossip": {
                    "port": GOSSIP_PORT,
                    "encryption_keys": [gossip_key("first")],
                    "config": {"timeout_seconds": TIMEOUT_SECONDS},
                },
                **cluster,
            },
            "client": {"enforce_auth_on_inference": True},
            "providers": {
                "lab": {
                    "keys": [{"name": "main", "value": "sk-main", "models": ["*"], "weight": 1}],
                    "network_config": {
                        "base_url": f"http://{HERE}:{self.provider_port}",
                        "allow_private_network": True,
                    },
                    "custom_provider_config": {"base_provider_type": "openai"},
                }
            },
            "governance": {
                "virtual_keys": [{"id": "v", "name": "v", "value": CLIENT, "is_active": True, "rate_limit_id": "l"}],
                # Never reached, also by a node that is alone with its part of it. Changed by tests that need
                # a configuration with another hash.
                "rate_limits": [
                    {
                        "id": "l",
                        "request_max_limit": 1_000_000,
                        "request_reset_duration": "1m",
                        "on_node_loss": "keep",
                    }
                ],
            },
        }

    def form(self, nodes: Iterable[Node] | None = None) -> float:
        """Starts nodes (all of them) and waits until they are a cluster; how long that took."""
        started = list(self.nodes if nodes is None else nodes)
        for node in started:
            node.start()
        took = self.wait_whole(FORM_SECONDS_MAX)
        self.assert_running(started)
        return took

    def start(self, nodes: Iterable[Node] | None = None) -> float:
        """The same, and waits until each has its part of the limit; how long it took to be a cluster."""
        took = self.form(nodes)

        def all_have_units() -> bool:
            return all(node.units() > 0 for node in self.living())

        soon(all_have_units, UNITS_SECONDS_MAX, "every node has its part of the limit", self.explain)
        return took

    def living(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes if node.runs]

    def is_whole(self, nodes: list[Node] | None = None) -> bool:
        """Whether every one of these nodes (those that run) takes all of them for healthy."""
        wanted = self.living() if nodes is None else nodes
        names = {node.name for node in wanted}
        for node in wanted:
            status = node.status()
            healthy = {peer["id"] for peer in status.get("peers", []) if peer["health"] == "healthy"}
            if status.get("state") != "ready" or names - healthy != {node.name}:
                return False
            if status["cluster_health"] != "HEALTHY" or status["healthy_members"] < len(wanted):
                return False
        return True

    def wait_whole(self, seconds: float, nodes: list[Node] | None = None) -> float:
        """Seconds until that is so."""

        def whole() -> bool:
            self.assert_running(nodes)
            return self.is_whole(nodes)

        return soon(whole, seconds, "all nodes see all others healthy", self.explain)

    def assert_running(self, nodes: list[Node] | None = None) -> None:
        """Nobody has ended who was not told to."""
        for node in nodes or []:
            assert node.runs, f"{node.name} has ended\n{node.log_tail()}"

    def explain(self) -> str:
        """How everything is, for a message."""
        said = []
        for node in self.nodes:
            status = node.status() if node.runs else {}
            peers = {peer["id"]: peer["health"] for peer in status.get("peers", [])}
            health = f"{status.get('state')} {status.get('cluster_health')} {status.get('healthy_members')}"
            said.append(f"{node.name} runs={node.runs} {health} of {status.get('members')}: {peers}")
        return "\n".join([*said, *(node.log_tail() for node in self.nodes)])

    @contextlib.contextmanager
    def watched(self, nodes: list[Node] | None = None) -> Iterator["Watch"]:
        """Writes down what these nodes (all) think of each other, meanwhile."""
        watch = Watch(self.nodes if nodes is None else nodes)
        try:
            yield watch
        finally:
            watch.stop()

    def end(self) -> None:
        """Stops everything; whatever still runs has to end well, and nobody may have panicked."""
        for node in self.living():
            node.send(signal.SIGCONT)
            node.send(signal.SIGTERM)
        for node in self.nodes:
            if node.program is not None and not node.program.output.closed:
                node.stop()
            assert "panicked" not in node.log(), node.log_tail()


class Watch:
    """Asks nodes for their view again and again, and keeps every change with its time."""

    def __init__(self, nodes: list[Node]):
        self.changes: list[tuple[float, str, str, str]] = []
        self.rounds = 0
        self.stopping = False
        # Connections of its own: the test asks the same nodes meanwhile.
        self.listeners = {node.name: Asked(node.address, ADMIN_PORT) for node in nodes}
        self.nodes = {node.name: node for node in nodes}
        self.views: dict[tuple[str, str], str] = {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        soon(lambda: self.rounds, 30, "every node was asked once")

    def run(self) -> None:
        """The thread's work."""
        while not self.stopping:
            for name, listener in self.listeners.items():
                if self.nodes[name].runs:
                    self.ask(name, listener)
            self.rounds += 1
            time.sleep(WATCH_SECONDS)

    def ask(self, name: str, listener: Asked) -> None:
        """Takes one node's view in."""
        status, body = listener.ask("GET", "/cluster/status")
        if status != 200:
            return
        now = time.monotonic()
        for peer in json.loads(body)["peers"]:
            pair = (name, peer["id"])
            if self.views.get(pair) != peer["health"]:
                self.views[pair] = peer["health"]
                self.changes.append((now, name, peer["id"], peer["health"]))

    def first(self, observer: Node, peer: Node, states: set[str], after: float) -> float | None:
        """When `observer` first took `peer` for one of these; `None`: not yet."""
        for at, who, whom, state in list(self.changes):
            if at >= after and who == observer.name and whom == peer.name and state in states:
                return at
        return None

    def saw(self, states: set[str], after: float = 0.0) -> list[tuple[float, str, str, str]]:
        """Every change to one of these states."""
        return [change for change in list(self.changes) if change[0] >= after and change[3] in states]

    def wait_seen(
        self, observers: list[Node], peer: Node, states: set[str], after: float, seconds: float
    ) -> dict[str, float]:
        """Seconds from `after` until each observer took `peer` for one of these states."""
        found: dict[str, float] = {}

        def all_have() -> bool:
            for observer in observers:
                if (at := self.first(observer, peer, states, after)) is not None:
                    found[observer.name] = at - after
            return len(found) == len(observers)

        what = f"{[observer.name for observer in observers]} take {peer.name} for {sorted(states)}"
        soon(all_have, seconds - (time.monotonic() - after), what, lambda: f"{found} {self.changes}")
        return found

    def stop(self) -> None:
        """No more questions."""
        self.stopping = True
        self.thread.join()
        for listener in self.listeners.values():
            listener.close()


class Load:
    """Clients that keep asking, each one node; every answer that is not 200 is kept."""

    def __init__(self, nodes: list[Node], per_second: float = 50, model: str = "lab/m"):
        self.answered, self.failures = 0, []
        self.stopping = False
        self.model = model
        self.threads = [
            threading.Thread(target=self.run, args=(node, len(nodes) / per_second), daemon=True) for node in nodes
        ]
        for thread in self.threads:
            thread.start()

    def run(self, node: Node, interval: float) -> None:
        """One client's work."""
        own = Asked(node.address, PORT)
        body = {"model": self.model, "messages": [{"role": "user", "content": "load"}], "max_tokens": 4}
        fields = {"content-type": "application/json", "authorization": f"Bearer {CLIENT}"}
        due = time.monotonic()
        while not self.stopping:
            status, answer = own.ask("POST", "/v1/chat/completions", body, fields)
            if status == 200:
                self.answered += 1
            else:
                self.failures.append((node.name, status, answer[:200]))
            due = max(due + interval, time.monotonic() - interval)
            time.sleep(max(0.0, due - time.monotonic()))
        own.close()

    def stop(self) -> None:
        """Ends it; every request has to have been answered well."""
        self.stopping = True
        for thread in self.threads:
            thread.join()
        assert self.answered > 0, self.failures[:5]
        assert not self.failures, f"{len(self.failures)} of {self.answered}: {self.failures[:5]}"
