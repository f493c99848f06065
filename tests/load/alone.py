"""What a request costs at a node whose peers do not answer, beside what it costs while they do.

Three nodes share strict limits with large parts. The first one serves; the other two are stopped
(SIGSTOP: they are there, and nothing comes back) and go on again, in turn, under the same load.
Two questions, each with a life of the nodes of its own:

    p99            an open loop well below what the node can do; pairs of a run with its peers and one
                   without, and the ratio of each pair
    instructions   the core's thread under callgrind, for so many requests with peers, without, and with
                   them under a flood of junk at the gossip port; what the other threads do meanwhile
                   goes by time and not by requests, so that it is shown and not judged
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from rig import POLL_SECONDS, Program, Simulator, binary, free_ports, get, running, wait_until

sys.path.append(str(pathlib.Path(__file__).parents[1] / "cluster"))
import attacker

CLIENT = "sk-bf-load-alone"
NODES = 3
TIMEOUT_SECONDS = 5
# Of forming, dying and coming back; under valgrind everything takes its time.
CHANGE_SECONDS_MAX = 90
P99_RATIO_MAX = 1.10
INSTRUCTIONS_RATIO_MAX = 1.03
FLOOD_RATE = 100_000
FLOOD_SECONDS = 10
FLOOD_REQUESTS_PART = 4
# The node serves on core 0; load, provider and peers are on the other one.
OTHER_CORE = 1
# Where others use the machine too: a class that is served before all usual programs.
URGENT, PRIORITY, PRIORITY_OF_PEERS = ["--rr"], "10", "5"
# For a life under valgrind, to come up.
READY_SECONDS_MAX = 120
GATHER_SECONDS = 3


class Member(Program):
    """A node of the cluster, on loopback."""

    def __init__(self, folder: pathlib.Path, number: int, gossip_ports: list[int], provider: int, tool: list[str]):
        self.name = f"n{number}"
        self.port, self.admin_port = free_ports(2)
        self.gossip_port = gossip_ports[number - 1]
        folder = folder / self.name
        folder.mkdir()
        config = folder / "config.json"
        self.valgrind = bool(tool)
        config.write_text(json.dumps(self.configuration(folder, gossip_ports, provider), indent=1))
        env = {"MONOIO_FORCE_LEGACY_DRIVER": "1"} if self.valgrind else {}
        # The first one's core pins itself; its control thread goes where there is room.
        place = [] if number == 1 else pinned(OTHER_CORE)
        super().__init__([*place, *tool, binary(), "--config", str(config)], folder / "node.log", env)

    def configuration(self, folder: pathlib.Path, gossip_ports: list[int], provider: int) -> dict:
        """Limits that are counted and never bite: a third of them is far above what one core can do."""
        return {
            "version": 1,
            "server": {
                "host": "127.0.0.1",
                "port": self.port,
                "admin_host": "127.0.0.1",
                "admin_port": self.admin_port,
                "cores": 1,
                "pin_cores": self.name == "n1",
                "state_dir": str(folder / "state"),
                # Under valgrind threads take turns, and a core that is late is no sign of anything.
                **({"overload": {"loop_delay": "10s"}} if self.valgrind else {}),
            },
            "cluster_config": {
                "enabled": True,
                "cluster_name": "alone",
                "node_id": self.name,
                "bind_address": "127.0.0.1",
                "expected_nodes": NODES,
                "initial_state": "new",
                "peers": [f"127.0.0.1:{port}" for port in gossip_ports],
                "gossip": {
                    "port": self.gossip_port,
                    "encryption_keys": [base64.b64encode(b"load".ljust(32, b"-")).decode()],
                    "config": {"timeout_seconds": TIMEOUT_SECONDS},
                },
            },
            "client": {"enforce_auth_on_inference": True},
            "providers": {
                "openai": {
                    "keys": [{"name": "main", "value": "sk-main", "models": ["*"], "weight": 1}],
                    "network_config": {"base_url": f"http://127.0.0.1:{provider}", "allow_private_network": True},
                }
            },
            "governance": {
                "virtual_keys": [
                    {"id": "v", "name": "v", "value": CLIENT, "is_active": True, "rate_limit_id": "l"}
                ],
                "rate_limits": [
                    {
                        "id": "l",
                        "enforcement": "strict",
                        "on_node_loss": "keep",
                        "request_max_limit": 100_000_000,
                        "request_reset_duration": "1m",
                        "token_max_limit": 900_000_000_000,
                        "token_reset_duration": "1m",
                    }
                ],
            },
        }

    def healths(self) -> list[str]:
        """Of the others, as this one sees them."""
        status, body = get(self.admin_port, "/cluster/status")
        return [peer["health"] for peer in json.loads(body).get("peers", [])] if status == 200 else []


def pinned(core: int) -> list[str]:
    """A command that keeps what follows on one core, where there are several."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def urged(program: Program, priority: str) -> None:
    """All its threads come before whatever else runs on this machine."""
    subprocess.run(["chrt", "--all-tasks", *URGENT, "--pid", priority, str(program.process.pid)], check=True)


@contextlib.contextmanager
def cluster(tool: list[str], is_urgent: bool = False) -> Iterator[tuple[list[Member], pathlib.Path]]:
    """Three nodes that see each other, of which the first has parts of the limits and may run under a tool."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider_port, *gossip_ports = free_ports(1 + NODES)
        provider = stack.enter_context(running(Simulator(folder, provider_port)))
        os.sched_setaffinity(provider.process.pid, {OTHER_CORE} if (os.cpu_count() or 1) > 1 else {0})
        members: list[Member] = []
        stack.callback(end, members)
        for number in range(1, NODES + 1):
            own = [word.replace("@FOLDER@", str(folder)) for word in tool] if number == 1 else []
            members.append(Member(folder, number, gossip_ports, provider_port, own))
        wait_until(lambda: is_ready(members[0]), READY_SECONDS_MAX, "the first node is ready")
        wait_until(lambda: sees(members[0], "healthy"), CHANGE_SECONDS_MAX, "the nodes see each other")
        wait_until(lambda: answers(members[0]), CHANGE_SECONDS_MAX, "the limits have been shared out")
        if is_urgent:
            for program in (provider, members[0]):
                urged(program, PRIORITY)
            for peer in members[1:]:
                urged(peer, PRIORITY_OF_PEERS)
        yield members, folder


def end(members: list[Member]) -> None:
    """All of them, also those that are stopped; who is left over is killed."""
    for member in members:
        if member.process.poll() is None:
            member.process.send_signal(signal.SIGCONT)
            member.process.send_signal(signal.SIGTERM)
    for member in members:
        try:
            member.process.wait(30)
        except subprocess.TimeoutExpired:
            member.kill()


def is_ready(member: Member) -> bool:
    """It serves; one that has ended instead is a failure at once."""
    if (code := member.process.poll()) is not None:
        raise AssertionError(f"{member.name} ended with {code}\n{member.log_tail()}")
    return get(member.port, "/ready")[0] == 200


def sees(member: Member, *healths: str) -> bool:
    """It takes all others for one of these."""
    seen = member.healths()
    return len(seen) == NODES - 1 and all(health in healths for health in seen)


def answers(member: Member) -> bool:
    """One request, which takes of every limit."""
    with socket.create_connection(("127.0.0.1", member.port), timeout=10) as connection:
        body = b'{"model":"openai/m","messages":[{"role":"user","content":"a"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {CLIENT}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection.recv(12) == b"HTTP/1.1 200"


def leave_alone(members: list[Member]) -> None:
    """The others stop where they are, and the first one has found out."""
    for member in members[1:]:
        member.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: sees(members[0], "dead"), CHANGE_SECONDS_MAX, "the first node takes the others for dead")


def bring_back(members: list[Member]) -> None:
    """They go on, and all see all."""
    for member in members[1:]:
        member.process.send_signal(signal.SIGCONT)
    wait_until(lambda: sees(members[0], "healthy"), CHANGE_SECONDS_MAX, "the others are back")


def loaded(member: Member, folder: pathlib.Path, *how: str, is_urgent: bool = False) -> dict[str, float]:
    """One run of `perf load` against a node; a request that fails is a failure of all of it."""
    figures = folder / "load.jsonl"
    figures.unlink(missing_ok=True)
    perf = str(pathlib.Path(binary()).with_name("perf"))
    url = f"http://127.0.0.1:{member.port}/v1/chat/completions"
    first = ["chrt", *URGENT, PRIORITY] if is_urgent else []
    command = [*first, *pinned(OTHER_CORE), perf, "load", "--url", url, "--header", f"authorization: Bearer {CLIENT}"]
    ran = subprocess.run(
        [*command, "--json", str(figures), *how], capture_output=True, text=True, timeout=600, check=False
    )
    if ran.returncode != 0:
        raise AssertionError(f"perf load ended with {ran.returncode}\n{ran.stdout}{ran.stderr}\n{member.log_tail()}")
    rows = [json.loads(line) for line in figures.read_text().splitlines()]
    return {row["metric"]: row["value"] for row in rows}


def latencies(options: argparse.Namespace) -> list[str]:
    """p99 with peers, without and with them again, so that there is also a ratio of two runs that are alike."""
    rows = []
    urgent = options.urgent
    with cluster([], urgent) as (members, folder):
        how = ("--rate", str(options.rate), "--seconds", str(options.pair_seconds), "--connections", "32")

        def p99() -> float:
            return loaded(members[0], folder, *how, is_urgent=urgent)["latency_p99"]

        p99()
        for _ in range(options.pairs):
            together = p99()
            leave_alone(members)
            alone = p99()
            bring_back(members)
            again = p99()
            rows.append((together, alone, again))
            print(f"alone: p99 {together:.0f} µs with peers, {alone:.0f} without, {again:.0f} again with", flush=True)
    together, alone, again = (statistics.median(side) for side in zip(*rows, strict=True))
    ratio = statistics.median(without / before for before, without, _ in rows)
    alike = statistics.median(after / before for before, _, after in rows)
    print(
        f"alone: {options.pairs} pairs of {options.pair_seconds:.0f} s at {options.rate:.0f} requests a second: median "
        f"p99 {together:.0f} µs with peers, {alone:.0f} without, {again:.0f} with them again; median ratio {ratio:.3f}, "
        f"at most {P99_RATIO_MAX}; of two runs that are alike {alike:.3f}",
        flush=True,
    )
    return [f"alone: the median p99 ratio is {ratio:.3f}"] if ratio > P99_RATIO_MAX else []


def instructions(options: argparse.Namespace) -> list[str]:
    """The core's user instructions a request in three states of the network."""
    if not shutil.which("callgrind_control"):
        print("alone: no valgrind here, so no instruction was counted", flush=True)
        return []
    output = "--callgrind-out-file=@FOLDER@/callgrind.out"
    tool = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--fair-sched=try", output]
    together, alone = [], []
    with cluster(tool) as (members, folder):
        count = Counting(members[0], folder, options.requests)
        # What is learned and allocated once is none of the others' business.
        count.of("warm-up")
        for _ in range(options.counts):
            together.append(count.of("with peers"))
            leave_alone(members)
            alone.append(count.of("without"))
            bring_back(members)
        # Most of what valgrind can do goes into the junk then.
        count.requests = max(1, count.requests // FLOOD_REQUESTS_PART)
        with flooded(members[0]) as sent:
            under_flood = count.of("under a flood")
        seconds = len(sent) * FLOOD_SECONDS
        print(f"alone: {sum(sent)} packets of junk went out in {seconds} s", flush=True)
    usual = statistics.median(together)
    faults = []
    for what, value in (("without peers", statistics.median(alone)), ("under a flood of junk", under_flood)):
        ratio = value / usual
        print(f"alone: {usual:.0f} instructions of the core a request, {value:.0f} {what}: {ratio:.4f}", flush=True)
        if not 2 - INSTRUCTIONS_RATIO_MAX <= ratio <= INSTRUCTIONS_RATIO_MAX:
            faults.append(f"alone: {ratio:.4f} times the instructions of the core {what}")
    return faults


class Counting:
    """Instructions of a node under callgrind, thread by thread."""

    def __init__(self, member: Member, folder: pathlib.Path, requests: int):
        self.member, self.folder, self.requests = member, folder, requests

    def control(self, what: str) -> None:
        """Tells callgrind to begin anew or to write down what it has."""
        command = ["callgrind_control", what, str(self.member.process.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def of(self, what: str) -> float:
        """The core's, for each of so many requests."""
        for old in self.folder.glob("callgrind.out.*"):
            old.unlink()
        self.control("--zero")
        answered = loaded(self.member, self.folder, "--requests", str(self.requests), "--connections", "16")["answered"]
        self.control("--dump")
        wait_until(lambda: self.threads(), 30, "callgrind has written")
        core, rest = self.threads()
        print(
            f"alone: {what}: {core / answered:.0f} instructions of the core a request, "
            f"{rest / answered:.0f} of all other threads together, {answered:.0f} requests",
            flush=True,
        )
        return core / answered

    def threads(self) -> tuple[float, float] | None:
        """Of the core, which is the thread that serves, and of all others."""
        core, rest = 0, 0
        for path in self.folder.glob("callgrind.out.*"):
            text = path.read_text(errors="replace")
            totals = [line for line in text.splitlines() if line.startswith(("totals:", "summary:"))]
            if not totals:
                continue
            value = int(totals[-1].split()[1])
            if "dataplane::exchange" in text:
                core += value
            else:
                rest += value
        return (core, rest) if core else None


@contextlib.contextmanager
def flooded(member: Member) -> Iterator[list[int]]:
    """Junk at its gossip port meanwhile, for ten seconds at a time; how much went out."""
    draw = random.Random(2)
    plans = []
    frames = gathered(member.gossip_port)
    for number in range(4096):
        payload = draw.choice(frames) if frames else b""
        if not payload or number % 4 == 0:
            payload = draw.randbytes(draw.randrange(1, 1200))
        elif number % 4 == 1:
            payload = payload[: draw.randrange(len(payload))]
        elif number % 4 == 2:
            # Only the tag tells that it is none of ours.
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        plans.append({"to": ["127.0.0.1", member.gossip_port], "from": None, "hex": payload.hex()})
    sent: list[int] = []
    is_over = threading.Event()

    def flood() -> None:
        while not is_over.is_set():
            sent.append(attacker.flood(plans, FLOOD_RATE, FLOOD_SECONDS))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield sent
    finally:
        is_over.set()
        thread.join()


def gathered(port: int) -> list[bytes]:
    """Frames that came to this port, where one may look."""
    frames = []
    try:
        tap = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        print("alone: no right to look at the wire: the junk has no true frames in it", flush=True)
        return []
    with tap:
        tap.settimeout(POLL_SECONDS)
        deadline = time.monotonic() + GATHER_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                packet = tap.recv(65536)
                udp = packet[(packet[0] & 15) * 4 :]
                if int.from_bytes(udp[2:4]) == port:
                    frames.append(udp[8:])
    return frames


QUESTIONS = {"p99": latencies, "instructions": instructions}


def alone(options: argparse.Namespace) -> list[str]:
    """Both questions, or the one that was asked."""
    return [fault for name, ask in QUESTIONS.items() if options.question in (None, name) for fault in ask(options)]
