"""Clusters with a limit: configured, loaded, counted at the provider, judged.

The provider's log is the truth about what was admitted; the clients know what was offered and when.
Both are read on one clock. A verdict is one line of figures, in the table at the end and as a file of
its own under results/limits, from which `write_table` makes one table of all that ever ran there.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

from cluster import Asked, Cluster, Node, soon
from figures import note
from offered import Offered, Sent
from windows import SECOND, Row, central, explain, fullest

RESULTS = pathlib.Path(__file__).parents[2] / "results" / "limits"
# Spent units count for longer than a window, since the provider may count later than the node (J), and in slots.
SPREAD_SECONDS = 0.25
SLOTS = 512
# Units a node and window: enough for shares of their own, and little enough for a small machine.
UNITS_A_NODE = 100
FIRST_UNIT_SECONDS = 30
POLL_SECONDS = 0.25
CLOCK_READINGS = 9
# A number that no row has.
NO_ROW = 1 << 62
BACK_SECONDS_MAX = 120
# Part of the limit that the last window of a run with trouble has to have.
BACK_AT_LEAST = 0.6


@dataclasses.dataclass(frozen=True)
class Form:
    """How long things take: short on every change, long when figures are wanted."""

    window: int
    # Windows of an undisturbed run.
    windows: float
    # Window of the runs in which something breaks, which need more of them.
    trouble_window: int
    # A node is stopped, cut off, or missing for so long, where nothing waits for it.
    trouble: float
    # A lease runs out and a window passes before what a lost node had is given out again: the time in
    # which that has happened.
    reclaimed: float
    # Least utilisation of an undisturbed cluster.
    utilisation: float



def possible(window: int) -> float:
    """The most utilisation that the longer window and its slots leave, where more is offered."""
    return window / (window + SPREAD_SECONDS + window / SLOTS)


# The window of the short form is so short that 0.97 is all that is possible; borrowing and a hot node
# that moves cost the same time as with a minute, which is a larger part of this window.
SHORT = Form(window=10, windows=2.5, trouble_window=5, trouble=8, reclaimed=20, utilisation=0.90)
LONG = Form(window=60, windows=4.5, trouble_window=30, trouble=30, reclaimed=90, utilisation=0.97)


def limit_of(units: int, window: int, **more: Any) -> dict[str, Any]:
    """A requests limit in the configuration."""
    return {"id": "l", "request_max_limit": units, "request_reset_duration": f"{window}s", **more}


def configure(cluster: Cluster, limit: dict[str, Any], state: str = "new") -> None:
    """Every node: this limit on the one virtual key, and how many nodes share it."""
    for node in cluster.nodes:
        text = cluster.configuration(node, expected_nodes=len(cluster.nodes), initial_state=state)
        text["governance"]["rate_limits"] = [limit]
        node.configure(text)


def start(cluster: Cluster, count: int, limit: dict[str, Any]) -> None:
    """Some nodes that share the limit, of which one at least has units to give out."""
    cluster.add(count)
    configure(cluster, limit)
    cluster.form()
    # Asked of one node only and not after the first yes: it takes a unit.
    first = cluster.nodes[0]
    soon(
        lambda: first.chat(f"lab/{first.name}")[0] == 200,
        FIRST_UNIT_SECONDS,
        "a node gives out the first unit of the limit",
        cluster.explain,
    )


class Log:
    """What the provider admitted, on this process's clock."""

    def __init__(self, provider: Asked):
        self.provider = provider
        self.read: list[Row] = []
        # Right within half of the quickest answer. Windows are counted on the provider's clock; this only
        # places them beside what happened here.
        self.zero = min(self.asked_zero() for _ in range(CLOCK_READINGS))[1]

    def asked_zero(self) -> tuple[int, int]:
        """How long an answer without rows took, and when the provider's clock was zero."""
        before = time.monotonic_ns()
        page = self.page(NO_ROW)
        after = time.monotonic_ns()
        return after - before, (before + after) // 2 - page["now_nanos"]

    def page(self, start: int) -> dict[str, Any]:
        """Rows from this number on."""
        status, body = self.provider.ask("GET", f"/__sim/admissions?from={start}")
        assert status == 200, (status, body[:200])
        return json.loads(body)

    def rows(self) -> list[Row]:
        """All of it. Which node a request came through is the name of its model."""
        while True:
            page = self.page(len(self.read))
            assert page["forgotten"] == 0, "the provider's log was too short"
            models = page["models"]
            self.read += [Row(at + self.zero, tokens, models[model]) for at, tokens, _, model in page["rows"]]
            if not page["rows"]:
                return self.read


@dataclasses.dataclass
class Run:
    """A load on a cluster, and afterwards everything about it."""

    cluster: Cluster
    log: Log
    limit: int
    window: int
    offered: Offered
    is_tokens: bool = False
    sent: list[Sent] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    # Seconds until the limit was used again.
    back: float | None = None
    # Since when another limit holds.
    lowered: tuple[int, int] | None = None
    happened: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since the load began."""
        return time.monotonic() - self.begun / SECOND

    @property
    def begun(self) -> int:
        """When the load began; every time in a message is counted from here."""
        return self.offered.begun

    def wait(self, seconds: float) -> None:
        """Until so many seconds after the load began."""
        time.sleep(max(0.0, self.begun / SECOND + seconds - time.monotonic()))

    def wait_back(self, at: int, part: float, lasts: float) -> None:
        """So long, and longer if need be, until after `at` such a part of the limit was used within a
        window; then two windows more."""
        self.wait(self.seconds + lasts)

        def is_back() -> bool:
            time.sleep(POLL_SECONDS)
            self.back = used_again(self.admitted(), at, self.window * SECOND, part * self.limit)
            return self.back is not None

        soon(is_back, BACK_SECONDS_MAX, f"{part} of the limit is used again", self.explain)
        self.wait(self.seconds + 2 * self.window)

    def say(self, what: str) -> int:
        """Writes down that something happens now; when that is."""
        now = time.monotonic_ns()
        self.happened.append((now, what))
        return now

    def end(self) -> None:
        """Ends the load and reads the log."""
        self.sent = self.offered.stop()
        self.rows = self.admitted()

    def admitted(self) -> list[Row]:
        """The provider's log so far, in units of the limit."""
        rows = self.log.rows()
        return rows if self.is_tokens else [dataclasses.replace(row, units=1) for row in rows]

    def utilisation(self) -> float:
        """What the provider admitted, of what one exact limiter would have admitted of the requests that
        a node answered, at the times when they were sent."""
        arrivals = [(sent.at, sent.units) for sent in self.sent if sent.status in (200, 429)]
        admitted = sum(row.units for row in self.rows if row.at >= self.begun)
        return admitted / max(1, central(arrivals, self.limit_at, self.window * SECOND))

    def limit_at(self, at: int) -> int:
        """The limit then."""
        return self.lowered[1] if self.lowered and at >= self.lowered[0] else self.limit

    def at_the_end(self) -> float:
        """Part of the limit that was admitted in the last window."""
        since = self.sent[-1].at - self.window * SECOND
        return sum(row.units for row in self.rows if row.at >= since) / self.limit_at(since)

    def most(self, after: int = 0) -> int:
        """Units in the fullest window of rows after this time."""
        return fullest([row for row in self.rows if row.at >= after], self.window * SECOND).units

    def assert_within(self, limit: int, after: int = 0, what: str = "") -> None:
        """No window of the rows after this time has more."""
        rows = [row for row in self.rows if row.at >= after]
        found = fullest(rows, self.window * SECOND)
        if found.units > limit:
            events = [f"  {(at - self.begun) / SECOND:8.3f} s  {text}" for at, text in self.happened]
            said = explain(rows, found, self.begun)
            raise AssertionError("\n".join([f"{found.units} > {limit} in {self.window} s {what}", said, *events]))

    def assert_no_failures(self) -> None:
        """Every request was answered, with yes or with no; and whoever heard no, until when."""
        failed = [sent for sent in self.sent if sent.status not in (200, 429)]
        assert not failed, f"{len(failed)} of {len(self.sent)}: {failed[:5]}"
        silent = [sent for sent in self.sent if sent.status == 429 and sent.retry_after is None]
        assert not silent, f"{len(silent)} refusals without retry-after: {silent[:5]}"

    def assert_units_agree(self) -> None:
        """The provider charged what the clients think that it charges."""
        wanted = sum(sent.units for sent in self.sent if sent.status == 200)
        charged = sum(row.units for row in self.rows if row.at >= self.begun)
        assert charged == wanted, (charged, wanted)

    def explain(self) -> str:
        """What happened, and what every node says of the limit, for a message about too little use."""
        events = [f"{(at - self.begun) / SECOND:8.3f} s  {text}" for at, text in self.happened]
        said = []
        for node in self.cluster.living():
            status = node.status()
            said.append(f"{node.name} {status.get('cluster_health')}: {json.dumps(status.get('limits'))}")
        used: collections.Counter = collections.Counter()
        for row in self.admitted():
            used[(row.at - self.begun) // SECOND] += row.units
        seconds = " ".join(str(used[second]) for second in range(int(self.seconds) + 1))
        return "\n".join([*events, f"units in each second: {seconds}", *said])

    def report(self, name: str, promise: str = "") -> float:
        """One line of figures; the utilisation."""
        used = self.utilisation()
        counts = collections.Counter(sent.status for sent in self.sent)
        failed = sum(count for status, count in counts.items() if status not in (200, 429))
        figures = {
            "scenario": name,
            "limit": f"{self.limit} / {self.window} s",
            "offered": len(self.sent),
            "admitted": sum(row.units for row in self.rows),
            "fullest window": self.most(),
            "overshoot": f"{max(0.0, self.most() / self.limit - 1):.1%}",
            "utilisation": f"{used:.3f}",
            "possible": f"{possible(self.window):.3f}",
            "last window": f"{self.at_the_end():.2f}",
            "refused": counts[429],
            "failed": failed,
            "back after": f"{self.back:.1f} s" if self.back is not None else "",
            "sent late": f"{self.offered.late * 1e3:.0f} ms",
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name.replace(' ', '-').replace('/', '-')}.json").write_text(json.dumps(figures))
        line = ", ".join(f"{what} {figure}" for what, figure in figures.items() if what != "scenario")
        problems = collections.Counter(sent.problem or str(sent.status) for sent in self.sent if sent.status not in (200, 429))
        note(name, line + (f" {dict(problems)}" if problems else ""), promise)
        return used


    def check(self, name: str, at_least: float = BACK_AT_LEAST) -> None:
        """The figures; the limit was kept; and in the last window so much of it was used."""
        self.report(name)
        self.assert_within(self.limit)
        assert self.at_the_end() >= at_least, (self.at_the_end(), self.explain())


def used_again(rows: list[Row], at: int, length: int, units: float) -> float | None:
    """Seconds from `at` to the end of the first window of later rows with so many units; `None`: no such."""
    recent: collections.deque[Row] = collections.deque()
    held = 0
    for row in rows:
        if row.at < at:
            continue
        while recent and row.at - recent[0].at >= length:
            held -= recent.popleft().units
        recent.append(row)
        held += row.units
        if held >= units:
            return (row.at - at) / SECOND
    return None


@contextlib.contextmanager
def loaded(
    cluster: Cluster, provider: Asked, limit: int, window: int, times: float, seed: int, units: float = 1.0, **offered: Any
) -> Iterator[Run]:
    """Offers so many times the limit's rate, in requests of so many units; afterwards the run is complete."""
    log = Log(provider)
    load = Offered(cluster.nodes, times * limit / window / units, seed, **offered)
    run = Run(cluster, log, limit, window, load, is_tokens=units != 1.0)
    try:
        yield run
    finally:
        if not run.sent:
            run.end()


def without_state(node: Node) -> None:
    """Takes away what a node keeps from one life to the next."""
    shutil.rmtree(node.folder / "state", ignore_errors=True)


def write_table() -> None:
    """All rows that there are, as one table."""
    files = sorted(RESULTS.glob("*.json")) if RESULTS.is_dir() else []
    rows = [json.loads(file.read_text()) for file in files]
    if not rows:
        return
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row.get(head, "")) for head in heads] for row in rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    # Others may be writing the same table.
    new = RESULTS / f"table.{os.getpid()}"
    new.write_text(text + "\n")
    new.rename(RESULTS / "table.md")
