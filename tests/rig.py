"""A node and its simulated provider on free loopback ports, for the black-box suites.

Everything that is started here is stopped here, by its own process id, and whoever waits waits for
a condition with a deadline. No test logic, no retries: a program that does not come up, or does
not stop when it is told to, is a failure, and its log is in the message.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# From start to ready. Generous, because a debug build on a busy machine is slow; nothing waits
# this long unless it is broken.
START_SECONDS_MAX = 30
# A node without running requests has nothing to drain.
STOP_SECONDS_MAX = 15
POLL_SECONDS = 0.01
LOG_LINES_SHOWN = 60


def binary() -> str:
    """The node under test."""
    path = os.environ.get("DEEPINTSHIELD_BIN")
    if not path:
        raise RuntimeError("DEEPINTSHIELD_BIN must name the node's binary")
    return str(pathlib.Path(path).resolve(strict=True))


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different. Who loses the race fails to start."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, or an AssertionError that says `what` did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s it did not happen that {what}")
        time.sleep(POLL_SECONDS)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and body of one GET; status 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class Program:
    """A process with its output in a file."""

    def __init__(self, command: list[str], log: pathlib.Path, env: dict[str, str] | None = None):
        self.command = command
        self.log = log
        self.output = log.open("wb")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )

    def log_tail(self) -> str:
        """The end of its output, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([f"the end of {self.log.name}:", *lines[-LOG_LINES_SHOWN:]])

    def wait_ready(self, is_ready: Callable[[], bool], what: str) -> None:
        """Returns when `is_ready` says so; fails at once when the process ends instead."""

        def ready_or_gone() -> bool:
            if (code := self.process.poll()) is not None:
                raise AssertionError(f"{self.command} ended with {code}\n{self.log_tail()}")
            return is_ready()

        try:
            wait_until(ready_or_gone, START_SECONDS_MAX, what)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    def stop(self) -> int:
        """SIGTERM, and the exit code. A process that does not stop is killed, and that is a failure."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop on SIGTERM: {self.command}\n{self.log_tail()}") from None
        finally:
            self.output.close()

    def kill(self) -> None:
        """Ends it without asking."""
        self.process.kill()
        self.process.wait()
        self.output.close()


class Simulator(Program):
    """`deepintshield provider-sim` on a port of its own."""

    def __init__(self, folder: pathlib.Path, port: int, *options: str):
        self.port = port
        command = [binary(), "provider-sim", "--listen", f"127.0.0.1:{port}", *options]
        super().__init__(command, folder / "provider-sim.log")
        self.wait_ready(lambda: get(port, "/__sim/stats")[0] == 200, "the simulated provider answers")

    def stats(self) -> dict:
        """What it counted so far."""
        status, body = get(self.port, "/__sim/stats")
        assert status == 200, f"the simulated provider's counts: {status}\n{self.log_tail()}"
        return json.loads(body)


class Node(Program):
    """A node with a configuration made from a template.

    The template is a configuration whose `@NAME@` are replaced by `values`; a name that is left
    over is a mistake of the test. `@PORT@`, `@ADMIN_PORT@` and `@STATE@` are always known.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        template: pathlib.Path,
        values: dict[str, str],
        env: dict[str, str] | None = None,
    ):
        self.port, self.admin_port = free_ports(2)
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        own = {"PORT": str(self.port), "ADMIN_PORT": str(self.admin_port), "STATE": str(self.state)}
        config = folder / "config.json"
        config.write_text(filled(template.read_text(), {**own, **values}))
        super().__init__([binary(), "--config", str(config)], folder / "node.log", env)
        # Each connection meets another core, and one hears of it a tick later than the other.
        self.wait_ready(lambda: all(get(self.port, "/ready")[0] == 200 for _ in range(12)), "the node is ready")

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"


def filled(template: str, values: dict[str, str]) -> str:
    """The template with every `@NAME@` replaced."""
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


class Recorder:
    """A provider that keeps every request head as it came, and answers all of them alike.

    For what must *not* go upstream: the simulator counts keys, this sees every header.
    """

    def __init__(self) -> None:
        heads: list[dict[str, str]] = []
        self.heads = heads

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                heads.append({name.lower(): value for name, value in self.headers.items()})
                body = json.dumps(ANSWERS[self.path.endswith("/messages")]).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Closes its port."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


# The smallest answers that the SDKs read: of the OpenAI dialect, and of Anthropic's.
ANSWERS = {
    False: {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    True: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


@contextlib.contextmanager
def running(program: Program) -> Iterator[Any]:
    """Stops it at the end; it must then have ended with 0."""
    try:
        yield program
    except BaseException:
        program.stop()
        raise
    code = program.stop()
    assert code == 0, f"it ended with {code}: {program.command}\n{program.log_tail()}"
