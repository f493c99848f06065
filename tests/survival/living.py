"""What surrounds a node in these tests: a provider on each of a few addresses, the DNS server that
says which of them the provider's name means, and a place where a node can start again and again.

Runs only inside the namespace that `run` makes.
"""

import contextlib
import http.client
import json
import pathlib
import re
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rig import ANSWERS, Program, binary, free_ports, get, wait_until

HOST = "model.ai.test"
PROVIDER_PORT = 9000
ONE, TWO = "11.0.0.1", "11.0.0.2"
# A record is asked for again this often at most, and a failure backs off from a second.
MOVE_SECONDS_MAX = 30


class Provider:
    """A provider on one address. Its answers carry the address as their id."""

    def __init__(self, address: str):
        self.address = address
        self.heads: list[dict[str, str]] = []
        heads = self.heads

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                heads.append({name.lower(): value for name, value in self.headers.items()})
                body = json.dumps({**ANSWERS[False], "id": address}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, PROVIDER_PORT), Answer)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def keys(self) -> set[str]:
        """The credentials it has seen."""
        return {head.get("authorization", "none") for head in self.heads}

    def stop(self) -> None:
        """Closes its port."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class NameServer:
    """knot, authoritative for `ai.test`."""

    CONFIG = """
server:
  rundir: "@DIR@"
  listen: 127.0.0.1@53
database:
  storage: "@DIR@"
control:
  listen: "@DIR@/control"
mod-stats:
  - id: counts
    query-type: on
template:
  - id: default
    storage: "@DIR@"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
    semantic-checks: soft
zone:
  - domain: ai.test
    file: zone
    module: mod-stats/counts
"""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.serial = 1
        self.process: Program | None = None
        (folder / "knot.conf").write_text(self.CONFIG.replace("@DIR@", str(folder)))

    def start(self, *records: str) -> None:
        """Serves these records of the provider's name: `TTL TYPE VALUE`."""
        self.write(*records)
        self.process = Program(["knotd", "-c", str(self.folder / "knot.conf")], self.folder / "knot.log")
        self.process.wait_ready(lambda: self.asks("status").returncode == 0, "the DNS server answers")
        wait_until(lambda: "serial" in self.asks("zone-status", "ai.test").stdout, 10, "the zone is loaded")

    def serve(self, *records: str) -> None:
        """Serves these instead, from now on; none at all: the name does not exist."""
        self.write(*records)
        self.tell("zone-reload", "ai.test")

    def write(self, *records: str) -> None:
        """The zone's file."""
        self.serial += 1
        lines = [
            f"@ 60 SOA ns admin {self.serial} 60 60 60 0",
            "@ 60 NS ns",
            "ns 60 A 127.0.0.1",
            *(f"model {record}" for record in records),
        ]
        (self.folder / "zone").write_text("$ORIGIN ai.test.\n" + "\n".join(lines) + "\n")

    def fail(self) -> None:
        """Answers SERVFAIL until it is started again: the zone is there and has expired."""
        self.tell("-f", "zone-purge", "+expire", "ai.test")

    def questions(self) -> int:
        """Questions so far about addresses."""
        out = self.tell("zone-stats", "ai.test", "mod-stats.query-type")
        return sum(int(count) for count in re.findall(r"query-type\[(?:A|AAAA)\] = (\d+)", out))

    def tell(self, *command: str) -> str:
        """What it says to a command that has to work."""
        asked = self.asks(*command)
        assert asked.returncode == 0, f"knotc {command}: {asked.stdout}{asked.stderr}\n{self.process.log_tail()}"
        return asked.stdout

    def asks(self, *command: str) -> subprocess.CompletedProcess:
        """Runs its control program and waits for what was asked to be done."""
        line = ["knotc", "-b", "-s", str(self.folder / "control"), *command]
        return subprocess.run(line, capture_output=True, text=True, timeout=10, check=False)

    def stop(self) -> None:
        """Nobody listens on port 53 any more."""
        if self.process is not None:
            self.process.stop()
            self.process = None


class Home:
    """Where a node lives: its ports, its folder, its configuration file."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.port, self.admin_port = free_ports(2)
        self.state = folder / "state"
        self.config = folder / "config.json"
        self.last_good = self.state / "last-good.snapshot"
        self.starts = 0
        self.node: Program | None = None

    def configure(self, key: str, network: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> None:
        """Writes a configuration with one provider, reached by its name, and one virtual key."""
        network = {"base_url": f"http://{HOST}:{PROVIDER_PORT}", **(network or {})}
        config = {
            "version": 1,
            "server": {
                "host": "127.0.0.1",
                "port": self.port,
                "admin_host": "127.0.0.1",
                "admin_port": self.admin_port,
                "cores": 2,
                "pin_cores": False,
                "state_dir": str(self.state),
                **(server or {}),
            },
            "client": {"enforce_auth_on_inference": True},
            "providers": {
                "named": {
                    "keys": [{"name": "main", "value": key, "models": ["*"], "weight": 1}],
                    "network_config": network,
                    "custom_provider_config": {"base_provider_type": "openai"},
                }
            },
            "governance": {"virtual_keys": [{"id": "v", "name": "v", "value": "sk-bf-survivor", "is_active": True}]},
        }
        self.config.write_text(json.dumps(config, indent=1))

    def launch(self, *arguments: str, env: dict[str, str] | None = None) -> Program:
        """Starts a node here, with a log of its own, and waits for nothing."""
        self.starts += 1
        command = [binary(), "--config", str(self.config), *arguments]
        self.node = Program(command, self.folder / f"node-{self.starts}.log", env)
        return self.node

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> Program:
        """Starts a node here and waits until it is ready."""
        node = self.launch(*arguments, env=env)
        # Each connection meets another core, and one hears of it a tick later than the other.
        node.wait_ready(lambda: all(get(self.port, "/ready")[0] == 200 for _ in range(12)), "the node is ready")
        return node

    def log(self) -> str:
        """What the node of now has logged."""
        return self.node.log.read_text(errors="replace")

    def lines(self, text: str) -> list[str]:
        """Its lines with this text."""
        return [line for line in self.log().splitlines() if text in line]

    def wait_for_line(self, text: str) -> str:
        """The first line with this text, as soon as it is there."""
        try:
            return wait_until(lambda: self.lines(text), MOVE_SECONDS_MAX, f"it logs {text!r}")[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.node.log_tail()}") from None

    def chat(self) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request to the provider."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            body = json.dumps({"model": "named/m", "messages": [{"role": "user", "content": "alive?"}]})
            fields = {"content-type": "application/json", "authorization": "Bearer sk-bf-survivor"}
            connection.request("POST", "/v1/chat/completions", body, fields)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def served_by(self) -> str:
        """The address whose provider answers a request, which has to be answered."""
        status, body = self.chat()
        assert status == 200, f"{status} {body}\n{self.node.log_tail()}"
        return body["id"]

    def refused(self) -> tuple[int, str]:
        """Status and code of a request that must not be answered by a provider."""
        status, body = self.chat()
        assert status != 200, body
        return status, body["error"]["code"]


def nobody_listens(port: int) -> bool:
    """Whether a connection to it is refused."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
