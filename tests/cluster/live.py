"""Configurations that change while nodes run: nodes with a store, writers, and what the provider saw.

A change is one revision of two entities: the provider gets a field with a number, which the simulated
provider charges as tokens, and its key gets a value with the same number. So each request that arrives
says which revision each half of its configuration is of.
"""

import json
import pathlib
import subprocess
import time
from typing import Any

from cluster import CLIENT, PROVIDER_PORT, Asked, Cluster, Node
from network import HERE, inside
from postgres import PASSWORD, PORT as POSTGRES_PORT
from rig import binary, wait_until

STORES = ["postgres", "sqlite"]
WRITER = "planted-admin-token"
ENCRYPTION_KEY = "cGxhbnRlZC1lbmNyeXB0aW9uLWtleS0tMzItYnl0ZXM="
FIELDS = {"authorization": f"Bearer {WRITER}", "content-type": "application/json"}
CONNECTIONS = 64
ANSWER_SECONDS_MAX = 20
CATCH_UP_SECONDS_MAX = 30
# Of one page of the simulator's log.
ROWS_MAX = 20_000


class LiveCluster(Cluster):
    """Nodes whose shared configuration is in a store: one that they share, or one each."""

    def __init__(self, *arguments: Any, database: str | None):
        super().__init__(*arguments)
        self.database = database
        self.cores = 1

    def configuration(self, node: Node, **cluster: Any) -> dict[str, Any]:
        text = super().configuration(node, **cluster)
        node.env["DEEPINTSHIELD_ENCRYPTION_KEY"] = ENCRYPTION_KEY
        # Load comes from the node's own host, by loopback.
        text["server"] |= {"host": "0.0.0.0", "cores": self.cores, "metrics_auth": False}
        text["config_store"] = {"enabled": True, **self.store(node)}
        text["governance"]["auth_config"] = {
            "is_enabled": True,
            "api_tokens": [{"name": "writer", "role": "write", "value": WRITER}],
        }
        text["providers"]["lab"]["network_config"]["extra_headers"] = {"x-sim-completion-tokens": "0"}
        text["providers"]["lab"]["keys"][0]["value"] = "sk-0"
        return text

    def store(self, node: Node) -> dict[str, Any]:
        """Where its configuration is kept."""
        if self.database is None:
            # The node makes its state directory before it opens what is in it.
            return {"type": "sqlite", "config": {"path": str(node.folder / "state" / "config.db")}}
        reach = {"host": HERE, "port": str(POSTGRES_PORT), "user": "postgres", "password": PASSWORD}
        return {"type": "postgres", "config": {**reach, "db_name": self.database, "ssl_mode": "disable"}}

    def agree(self, nodes: list[Node] | None = None, seconds: float = CATCH_UP_SECONDS_MAX) -> tuple[int, str]:
        """Waits until all run the same revision; its number and what identifies it."""
        living = self.living() if nodes is None else nodes

        def agreed() -> tuple[int, str] | None:
            heads = {head(node) for node in living}
            return heads.pop() if len(heads) == 1 and None not in heads else None

        return wait_until(agreed, seconds, f"all run one revision: {[head(node) for node in living]}")


def head(node: Node) -> tuple[int, str] | None:
    """The revision that every core of a node runs; `None` while some run another one."""
    status = node.status()
    if not status:
        return None
    mark = status["configuration"]
    return (mark["epoch"], mark["hash"]) if status["adopted_revision"] == mark["epoch"] else None


class Admin:
    """Somebody who changes the configuration through one node."""

    def __init__(self, node: Node):
        self.node = node
        self.asked = Asked(node.address, node.admin.port)

    def ask(self, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, dict[str, Any]]:
        """Status and document; 0 where nobody answers."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        status, text = self.asked.ask(method, path, body, {**FIELDS, **named})
        return status, json.loads(text) if text else {}

    def change(self, number: int, **fields: str) -> tuple[int, dict[str, Any]]:
        """The change with this number."""
        key = {"name": "main", "value": f"sk-{number}", "models": ["*"], "weight": 1}
        body = {"network_config": {"extra_headers": {"x-sim-completion-tokens": str(number)}}, "keys": [key]}
        return self.ask("PATCH", "/api/providers/lab", body, **fields)

    def set_active(self, is_active: bool) -> tuple[int, dict[str, Any]]:
        """Lets the clients' virtual key in, or not."""
        return self.ask("PATCH", "/api/governance/virtual-keys/v", {"is_active": is_active})

    def history(self) -> list[dict[str, Any]]:
        """Every revision, the newest first, superseded ones too."""
        rows, cursor = [], ""
        while True:
            status, page = self.ask("GET", f"/api/config/history?limit=100{cursor}")
            assert status == 200, page
            rows += page["items"]
            if page.get("next") is None:
                return rows
            cursor = f"&cursor={page['next']}"


class Pressure:
    """Load on every node from its own host, until its time is over. No request may fail."""

    def __init__(self, nodes: list[Node], folder: pathlib.Path, seconds: int, per_second: int):
        perf = str(pathlib.Path(binary()).with_name("perf"))
        self.runs = []
        for node in nodes:
            log = folder / f"load-{node.name}.log"
            figures = folder / f"load-{node.name}.jsonl"
            command = [
                *inside(node.host), perf, "load", "--url", f"http://127.0.0.1:{node.clients.port}/v1/chat/completions",
                *("--connections", str(CONNECTIONS), "--seconds", str(seconds), "--rate", str(per_second)),
                *("--model", f"lab/{node.name}", "--header", f"authorization: Bearer {CLIENT}"),
                *("--json", str(figures)),
            ]
            output = log.open("wb")
            self.runs.append((subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output), figures, log))
            output.close()
        self.seconds = seconds

    def end(self) -> dict[str, float]:
        """Waits for its end; the sum of what was counted."""
        sums: dict[str, float] = {}
        for process, figures, log in self.runs:
            code = process.wait(self.seconds + ANSWER_SECONDS_MAX + 30)
            assert code == 0, log.read_text(errors="replace")
            for line in figures.read_text().splitlines():
                row = json.loads(line)
                sums[row["metric"]] = sums.get(row["metric"], 0) + row["value"]
        return sums

    def stop(self) -> None:
        """Ends it early; to be used where something else has failed."""
        for process, _, _ in self.runs:
            process.kill()
            process.wait()


class Seen:
    """What the provider admitted: when, of which node, by which revision of either half."""

    def __init__(self) -> None:
        self.asked = Asked(HERE, PROVIDER_PORT)
        before = time.monotonic()
        page = self.page()
        # Its clock beside ours, to a fraction of this answer's time.
        self.offset = (before + time.monotonic()) / 2 - page["now_nanos"] / 1e9
        self.next = page["next"]
        while (page := self.page())["rows"]:
            self.next = page["next"]
        self.rows: list[tuple[float, str, int, int]] = []

    def page(self) -> dict[str, Any]:
        """What came since the last one."""
        status, text = self.asked.ask("GET", f"/__sim/admissions?from={getattr(self, 'next', 0)}")
        assert status == 200
        return json.loads(text)

    def take(self) -> None:
        """Everything until now."""
        while rows := (page := self.page())["rows"]:
            assert page["next"] - self.next == len(rows), "the simulator forgot rows: it is asked too seldom"
            self.next = page["next"]
            for at, tokens, key, model in rows:
                # A key without a number is of no change.
                _, _, number = page["keys"][key].partition("-")
                number = int(number) if number.isdigit() else -1
                self.rows.append((at / 1e9 + self.offset, page["models"][model], number, tokens))
            if len(rows) < ROWS_MAX:
                return


def delays(rows: list[tuple[float, str, int, int]], accepted: list[tuple[float, int]]) -> tuple[list[float], int]:
    """How long after each change was accepted a request still went by an older one, whichever node and core it
    was of; and how many requests mixed two revisions. `accepted`: when, and the change's number, in the order of
    their revisions. All requests have prompts of the same length.
    """
    place = {number: index for index, (_, number) in enumerate(accepted, 1)}
    place[0] = 0
    prompt = min(tokens - key for _, _, key, tokens in rows)
    mixed = sum(tokens - key != prompt for _, _, key, tokens in rows)
    # The last request by each revision or an older one: those after it cannot be earlier.
    last = [0.0] * (len(accepted) + 1)
    for at, _, key, _ in rows:
        index = place[key]
        last[index] = max(last[index], at)
    for index in range(1, len(last)):
        last[index] = max(last[index], last[index - 1])
    return [max(0.0, last[index - 1] - at) for index, (at, _) in enumerate(accepted, 1)], mixed
