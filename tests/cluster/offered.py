"""An offered load: clients that send when their time has come, whatever became of the others.

Arrivals are a Poisson process with a given total rate. Each goes to a node that a Zipf law chooses;
which node is the hot one changes every 2 to 10 seconds. Same seed, same arrivals. A node gets a
connection for each request that waits there, so that one that stands still does not hold the others
up. Nothing is sent twice.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import random
import threading
import time
from collections.abc import Callable

from cluster import CLIENT, PORT, Node

# Zipf's exponent: with seven nodes the hot one gets 0.46 of all, with three 0.59.
SKEW = 1.2
HOT_SECONDS = (2.0, 10.0)
# Requests that wait at one node; more are not sent, and counted as failed.
WAITING_MAX = 2_000
ANSWER_HEAD_BYTES_MAX = 65_536


@dataclasses.dataclass(slots=True)
class Sent:
    """One request: what it is worth, and what became of it. `status` 0: no whole answer."""

    node: str
    units: int
    at: int
    status: int = 0
    retry_after: float | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Ask:
    """A body to send, and its units by the provider's formula."""

    body: bytes
    units: int


def one_request(node: Node, _dice: random.Random) -> Ask:
    """The smallest chat. The model says through which node it went, which the provider keeps."""
    text = {"model": f"lab/{node.name}", "messages": [{"role": "user", "content": "offered"}], "max_tokens": 4}
    return Ask(json.dumps(text).encode(), 1)


class Offered:
    """Sends from its start until it is stopped; then `sent` has every request in order of time."""

    def __init__(
        self,
        nodes: list[Node],
        per_second: float,
        seed: int,
        ask: Callable[[Node, random.Random], Ask] = one_request,
        patience: float = 10.0,
    ):
        self.per_second, self.ask, self.patience = per_second, ask, patience
        self.dice = random.Random(seed)
        self.targets = list(nodes)
        self.sent: list[Sent] = []
        self.idle: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = collections.defaultdict(list)
        self.waiting: collections.Counter = collections.Counter()
        self.tasks: set[asyncio.Task] = set()
        self.stopping = False
        # The most that a request was sent after its time, seconds: this machine was busy.
        self.late = 0.0
        self.error: BaseException | None = None
        self.begun = time.monotonic_ns()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        """The thread's work."""
        try:
            asyncio.run(self.offer())
        except BaseException as error:  # noqa: BLE001 - it is raised again by who stops it
            self.error = error

    async def offer(self) -> None:
        """Sends each request at its time, and then waits for the answers."""
        due = time.monotonic()
        moves = due
        order: list[Node] = []
        while not self.stopping:
            due += self.dice.expovariate(self.per_second)
            while due >= moves:
                order = self.moved(order)
                moves += self.dice.uniform(*HOT_SECONDS)
            targets = [node for node in order if node in self.targets]
            weights = [1 / rank**SKEW for rank in range(1, len(targets) + 1)]
            node = self.dice.choices(targets, weights)[0]
            ask = self.ask(node, self.dice)
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self.late = max(self.late, time.monotonic() - due)
            sent = Sent(node.name, ask.units, time.monotonic_ns())
            self.sent.append(sent)
            if self.waiting[node.name] >= WAITING_MAX:
                sent.problem = "too many wait"
                continue
            self.waiting[node.name] += 1
            task = asyncio.create_task(self.one(node, ask, sent))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self.tasks:
            await asyncio.wait(self.tasks)
        for _, writer in itertools.chain.from_iterable(self.idle.values()):
            writer.close()

    def moved(self, order: list[Node]) -> list[Node]:
        """A new order of the nodes, whose first is another one than before."""
        nodes = order or list(self.targets)
        hot = order[0] if order else None
        while True:
            new = self.dice.sample(nodes, len(nodes))
            if new[0] is not hot or len(nodes) == 1:
                return new

    async def one(self, node: Node, ask: Ask, sent: Sent) -> None:
        """One request, and its whole answer."""
        try:
            async with asyncio.timeout(self.patience):
                await self.exchange(node, ask, sent)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            # TimeoutError is an OSError.
            sent.status, sent.problem = 0, type(error).__name__
        finally:
            self.waiting[node.name] -= 1

    async def exchange(self, node: Node, ask: Ask, sent: Sent) -> None:
        """Over a connection that rests, or a new one."""
        reader, writer = await self.connection(node)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: lab\r\ncontent-type: application/json\r\n"
                + f"authorization: Bearer {CLIENT}\r\ncontent-length: {len(ask.body)}\r\n\r\n".encode()
                + ask.body
            )
            status, fields = await read_head(reader)
            await skip_body(reader, fields)
            if "retry-after" in fields:
                sent.retry_after = float(fields["retry-after"])
            sent.status = status
            if fields.get("connection", "") != "close":
                self.idle[node.name].append((reader, writer))
                writer = None
        finally:
            if writer is not None:
                writer.close()

    async def connection(self, node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that the node has not closed."""
        idle = self.idle[node.name]
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(node.address, PORT, limit=ANSWER_HEAD_BYTES_MAX)

    def stop(self) -> list[Sent]:
        """No more requests; returns when the last answer is there, or given up."""
        self.stopping = True
        self.thread.join(self.patience + 10)
        assert not self.thread.is_alive(), "the offered load does not end"
        if self.error is not None:
            raise self.error
        return self.sent


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and fields of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def skip_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> None:
    """Reads the answer to its end."""
    if fields.get("transfer-encoding") != "chunked":
        await reader.readexactly(int(fields.get("content-length", "0")))
        return
    while size := int((await reader.readline()).split(b";")[0] or b"x", 16):
        await reader.readexactly(size + 2)
    with contextlib.suppress(asyncio.IncompleteReadError):
        await reader.readexactly(2)
