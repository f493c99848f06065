"""Load on one node of two cores, and what must hold under it.

    load.py [replay] [streams] [alone] [--seconds N] [--speed N] [--streams N] [--settle N] …

`perf` sends, checks every answer and compares with what the provider counted; here stands what
is started, what is asked of it, and which figures are a failure.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from alone import QUESTIONS, alone
from rig import Node, Simulator, binary, free_ports, running

HERE = pathlib.Path(__file__).parent
TRACE = HERE.parents[2] / "shared/traces/AzureLLMInferenceTrace_conv.csv"
RESULTS = pathlib.Path(os.environ.get("RESULTS", "results/load"))

WINDOW_SECONDS = 60
# Of what the trace offers in a window: far enough below for every window to be full.
LIMITED_TO = 0.6
# Of what an exact sliding log admits of the same arrivals.
REQUESTS_UTILISATION_MIN = 0.98
# Longer prompts are cut here; the node's estimate and the provider's count see the same.
PROMPT_TOKENS_MAX = 4096
# What the provider takes to answer, so that reservations are held while requests run.
SIMULATED_ANSWER = ("--ttft-ms", "100", "--token-ms", "2")

# Nine thousand are open long before the first one ends, and a busy machine can still follow.
STREAMS_OPENED_PER_SECOND = 1000
# Descriptors of the node that are not a stream's: idle connections to the provider among them.
DESCRIPTORS_BESIDE_STREAMS = 2000

# Settled memory after a round, against that after the same round before it.
SETTLED_RATIO_MAX = 1.2


class Failed(Exception):
    """What did not hold, one sentence each."""


@contextlib.contextmanager
def providers_and_node(
    limits: dict[str, int], simulated: tuple[str, ...] = ()
) -> Iterator[tuple[Simulator, Simulator, Node]]:
    """Two simulated providers and a node in front of them."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulators = []
        for name, port in zip(("first", "second"), free_ports(2), strict=True):
            (folder / name).mkdir()
            simulators.append(stack.enter_context(running(Simulator(folder / name, port, *simulated))))
        first, second = simulators
        values = {"PROVIDER_PORT": first.port, "SECOND_PROVIDER_PORT": second.port, **limits}
        values = {name: str(value) for name, value in values.items()}
        node = stack.enter_context(running(Node(folder, HERE / "config.json", values)))
        yield first, second, node


class Measurement:
    """One run of `perf`, and its figures by name."""

    def __init__(self, name: str, *arguments: str):
        RESULTS.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.json = RESULTS / f"{name}.jsonl"
        self.log = RESULTS / f"{name}.log"
        perf = str(pathlib.Path(binary()).with_name("perf"))
        command = [perf, *arguments, "--proxy", name, "--json", str(self.json)]
        self.json.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def figures(self, seconds_max: float) -> dict[tuple[int, str], float]:
        """Waits for its end; the values by run and metric."""
        try:
            code = self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failed(f"{self.name}: no end after {seconds_max} s") from None
        print(f"--- {self.name}", self.log.read_text(errors="replace"), sep="\n", flush=True)
        if code != 0:
            raise Failed(f"{self.name}: perf ended with {code} (1: the figures say why; 70: it could not measure)")
        rows = [json.loads(line) for line in self.json.read_text().splitlines()]
        return {(row["run"], row["metric"]): row["value"] for row in rows}

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        self.process.kill()
        self.process.wait()


def offered(speed: float, seconds: float) -> tuple[float, float]:
    """Requests and tokens that a replay offers in a window, on average."""
    rows = [line.split(",") for line in TRACE.read_text().splitlines()[1:]]
    moments = [seconds_of_day(row[0]) for row in rows]
    sent = [row for row, moment in zip(rows, moments, strict=True) if moment - moments[0] < seconds * speed]
    tokens = sum(min(int(row[1]), PROMPT_TOKENS_MAX) + int(row[2]) for row in sent)
    windows = min(seconds, (moments[-1] - moments[0]) / speed) / WINDOW_SECONDS
    return len(sent) / windows, tokens / windows


def seconds_of_day(moment: str) -> float:
    """Of `2023-11-16 18:15:46.6805900`; the trace lies within one day."""
    hours, minutes, seconds = moment.split(" ")[1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def replay(options: argparse.Namespace) -> list[str]:
    """Recorded arrivals against a requests limit and, at the same time, against a tokens limit."""
    if not TRACE.exists():
        print(f"missing data: {TRACE.name} (recorded traffic), so no limit was replayed against")
        return []
    requests, tokens = offered(options.speed, options.seconds)
    limits = {"REQUESTS_LIMIT": int(requests * LIMITED_TO), "TOKENS_LIMIT": int(tokens * LIMITED_TO)}
    print(f"replay: {options.seconds} s at {options.speed} times the recorded pace; a window of {WINDOW_SECONDS} s is ")
    print(f"        offered {requests:.0f} requests and {tokens:.0f} tokens; {limits}", flush=True)

    def measured(name: str, model: str, sim: Simulator, *limit: str) -> Measurement:
        return Measurement(
            name,
            *("replay", "--trace", str(TRACE), "--speed", str(options.speed), "--for", str(options.seconds)),
            *("--url", f"{node.url}/v1/chat/completions", "--sim", f"http://127.0.0.1:{sim.port}"),
            *("--header", f"authorization: Bearer sk-bf-load-{name.removeprefix('replay-')}"),
            *("--model", model, "--max-prompt-tokens", str(PROMPT_TOKENS_MAX), "--window", str(WINDOW_SECONDS)),
            *limit,
        )

    with providers_and_node(limits, SIMULATED_ANSWER) as (first, second, node):
        measurements = [
            measured("replay-requests", "openai/gpt-4o-mini", first,
                     "--requests-limit", str(limits["REQUESTS_LIMIT"]),
                     "--require-utilisation", str(REQUESTS_UTILISATION_MIN)),
            measured("replay-tokens", "second/gpt-4o-mini", second, "--tokens-limit", str(limits["TOKENS_LIMIT"])),
        ]  # fmt: skip
        try:
            return [fault for one in measurements for fault in judged_replay(one, options.seconds + 60)]
        finally:
            for one in measurements:
                one.stop()


def judged_replay(measurement: Measurement, seconds_max: float) -> list[str]:
    """`perf` fails by itself on a lost or doubled request and on overshoot."""
    try:
        figures = measurement.figures(seconds_max)
    except Failed as failed:
        return [str(failed)]
    what = measurement.name.removeprefix("replay-")
    value = {metric: value for (_, metric), value in figures.items()}
    faults = []
    if value["sent"] != value["answered"] + value["refused"] or value["provider_admitted"] != value["answered"]:
        faults.append(f"{measurement.name}: the counts of both ends differ")
    if value["refused"] == 0:
        faults.append(f"{measurement.name}: nothing was refused, so nothing was tested")
    if value["answers_with_other_usage"] != 0:
        faults.append(f"{measurement.name}: {value['answers_with_other_usage']:.0f} answers with another usage")
    if value[f"{what}_fullest_window"] > value[f"{what}_limit"]:
        faults.append(f"{measurement.name}: a window held more than the limit")
    print(
        f"replay of {value['sent']:.0f} requests, {what} limited to {value[f'{what}_limit']:.0f} in {WINDOW_SECONDS} s: "
        f"{value['answered']:.0f} answered, {value['refused']:.0f} refused, "
        f"fullest window {value[f'{what}_fullest_window']:.0f}, overshoot {value[f'{what}_overshoot']:.0f}, "
        f"utilisation {value[f'{what}_utilisation']:.4f} of an exact limiter's",
        flush=True,
    )
    return faults


def streams(options: argparse.Namespace) -> list[str]:
    """Thousands of streams at once, every byte checked, and the memory that they leave behind."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY and 2 * options.streams + DESCRIPTORS_BESIDE_STREAMS > descriptors:
        options.streams = (descriptors - DESCRIPTORS_BESIDE_STREAMS) // 2
        print(f"streams: a process may open {descriptors} files here, so only {options.streams} streams", flush=True)
    limits = {"REQUESTS_LIMIT": 1, "TOKENS_LIMIT": 1}
    with providers_and_node(limits) as (_, _, node):
        measurement = Measurement(
            "streams",
            *("streams", "--url", f"{node.url}/v1/chat/completions", "--pid", str(node.process.pid)),
            *("--header", "authorization: Bearer sk-bf-load-streams"),
            *("--streams", str(options.streams), "--events", str(options.events)),
            *("--interval-ms", str(options.interval_ms), "--ramp", str(STREAMS_OPENED_PER_SECOND)),
            *("--rounds", "2", "--settle", str(options.settle)),
        )
        try:
            figures = measurement.figures(2 * (120 + options.events * options.interval_ms / 1000 + options.settle))
        except Failed as failed:
            return [str(failed)]
        finally:
            measurement.stop()
    faults = []
    for run in (1, 2):
        at_once = figures[run, "streams_at_once_max"]
        if at_once != options.streams:
            faults.append(f"streams: only {at_once:.0f} of {options.streams} were under way together")
        if figures[run, "events_right"] != options.streams * options.events:
            faults.append(f"streams: {figures[run, 'events_right']:.0f} events were right")
    ratio = figures[0, "settled_resident_last_to_first"]
    if ratio > SETTLED_RATIO_MAX:
        faults.append(f"streams: {options.settle} s after the load, {ratio:.2f} times the memory of the same warm-up")
    kib = {moment: figures[2, f"memory_resident_{moment}"] for moment in ("peak", "after", "settled")}
    print(
        f"{options.streams} streams at once, {options.events} events each, all right; "
        f"{figures[1, 'memory_per_stream']:.1f} KiB a stream; resident {kib['peak']:.0f} KiB at the peak, "
        f"{kib['after']:.0f} after it, {kib['settled']:.0f} settled, {ratio:.2f} times that of the warm-up",
        flush=True,
    )
    return faults


PARTS = {"replay": replay, "streams": streams, "alone": alone}
# `alone` compares two latencies of a few hundred microseconds: for a machine that is quiet.
USUAL = ("replay", "streams")


def main() -> int:
    """Runs the parts that were asked for; 1 when something did not hold."""
    parser = argparse.ArgumentParser(description="load on one node of two cores")
    parser.add_argument("parts", nargs="*", metavar="PART", help="replay, streams, alone; the first two when none is named")
    parser.add_argument("--seconds", type=float, default=150.0, help="of one replay; more than two windows")
    parser.add_argument("--speed", type=float, default=20.0, help="how many times faster than recorded")
    parser.add_argument("--streams", type=int, default=9000, help="streams at once")
    parser.add_argument("--events", type=int, default=100, help="of each stream")
    parser.add_argument("--interval-ms", type=float, default=250.0, help="between two events of a stream")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds between the load and the look at the memory")
    parser.add_argument("--question", choices=QUESTIONS, help="of `alone`: only this one")
    parser.add_argument("--pairs", type=int, default=5, help="of `alone`: runs with peers and without")
    parser.add_argument("--pair-seconds", type=float, default=10.0, help="of each of those runs")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second of those runs")
    parser.add_argument("--urgent", action="store_true", help="of `alone`: p99 at real-time priority (chrt), as root")
    parser.add_argument("--requests", type=int, default=20000, help="of `alone`: for each count of instructions")
    parser.add_argument("--counts", type=int, default=3, help="of `alone`: counts with peers and without")
    options = parser.parse_args()
    # So that whoever stops this (a time limit) stops what was started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part is called {unknown[0]}; there are: {', '.join(PARTS)}")
    faults = [fault for part in options.parts or USUAL for fault in PARTS[part](options)]
    for fault in faults:
        print(f"FAILED: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
