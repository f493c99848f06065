"""What a sliding window of a log holds, exactly: the fullest one, who filled it, and what one limiter
for everybody would have admitted. Pure; times are whole nanoseconds on one clock.

A window is [t, t + length): two requests exactly one length apart are not in one window. The
simulated provider counts the same way.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

SECOND = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Row:
    """One admitted request, as the provider saw it."""

    at: int
    units: int
    node: str


@dataclasses.dataclass(frozen=True)
class Fullest:
    """The fullest window: its units, its first and its last row."""

    units: int
    first: int
    last: int


def fullest(rows: Sequence[Row], length: int) -> Fullest:
    """Of all windows of this length, the (first) one with the most units. Rows are in order of time."""
    best = Fullest(0, 0, -1)
    units, oldest = 0, 0
    for newest, row in enumerate(rows):
        # A fullest window can be moved until it ends just after one of its rows.
        while row.at - rows[oldest].at >= length:
            units -= rows[oldest].units
            oldest += 1
        units += row.units
        if units > best.units:
            best = Fullest(units, oldest, newest)
    return best


def explain(rows: Sequence[Row], window: Fullest, begun: int) -> str:
    """When the window was and which node admitted what in it, second by second; `begun` is zero."""
    inside = rows[window.first : window.last + 1]
    nodes = sorted({row.node for row in inside})
    first, last = ((inside[place].at - begun) / SECOND for place in (0, -1))
    said = [f"the fullest window has {window.units} units from {first:.3f} s to {last:.3f} s"]
    said.append("  second    " + "".join(f"{node:>8}" for node in nodes))
    seconds: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
    for row in inside:
        seconds[(row.at - begun) // SECOND][row.node] += row.units
    for second in sorted(seconds):
        said.append(f"  {second:>6}    " + "".join(f"{seconds[second][node]:>8}" for node in nodes))
    totals = collections.Counter()
    for row in inside:
        totals[row.node] += row.units
    said.append("  together  " + "".join(f"{totals[node]:>8}" for node in nodes))
    return "\n".join(said)


def central(arrivals: Iterable[tuple[int, int]], limit_at: Callable[[int], int], length: int) -> int:
    """Units that one exact sliding log would have admitted of (time, units), in order of time, under the
    limit that held then."""
    log: collections.deque[tuple[int, int]] = collections.deque()
    held = admitted = 0
    for at, units in arrivals:
        while log and at - log[0][0] >= length:
            held -= log.popleft()[1]
        if held + units <= limit_at(at):
            log.append((at, units))
            held += units
            admitted += units
    return admitted
