"""Reads what the hostile suite printed, and fails unless every figure is perfect.

    judge.py SUITES RESULTS [DRIVER]

RESULTS/report is the suite's output, RESULTS/*.gateway the proxy's. With DRIVER (io_uring or
epoll) the node's log must say that this is what its cores wait with.

The suite itself always ends with 0: it measures. Here stands what the node promises.
"""

import pathlib
import re
import sys

REQUESTS = re.compile(
    r"^(?P<name>\S+)\.jsonl +n= *(?P<n>\d+) "
    r"MUST-refuse (?P<must>\d+/\d+) STRICT-refuse (?P<strict>\d+/\d+) MUST-accept (?P<accept>\d+/\d+) "
    r"\| non-canonical forwards (?P<dirty>\d+) "
)
ANSWERS = re.compile(r"^answers-(?P<name>\S+)\.jsonl +n= *(?P<n>\d+) clean (?P<clean>\d+/\d+)")

# What a program prints that ended in a way nobody wanted.
CRASHES = re.compile(r"panicked at|stack overflow|SIGSEGV|SIGABRT|memory allocation of")


def whole(ratio: str) -> bool:
    """Whether `36/36` is all there is."""
    part, total = ratio.split("/")
    return part == total


def lines(path: pathlib.Path) -> int:
    """Cases in a corpus."""
    return len(path.read_text().splitlines())


def judge(suites: pathlib.Path, results: pathlib.Path, driver: str | None) -> list[str]:
    """Everything that fell short, one sentence each."""
    requests: dict[str, re.Match[str]] = {}
    answers: dict[str, re.Match[str]] = {}
    for line in (results / "report").read_text().splitlines():
        if found := ANSWERS.match(line):
            answers[found["name"]] = found
        elif found := REQUESTS.match(line):
            requests[found["name"]] = found

    faults = []
    for corpus in sorted(suites.glob("*/requests.jsonl")):
        name = corpus.parent.name
        found = requests.get(name)
        if found is None:
            faults.append(f"{name}: no report")
            continue
        if int(found["n"]) != lines(corpus):
            faults.append(f"{name}: {found['n']} of {lines(corpus)} requests were judged")
        if not whole(found["must"]):
            faults.append(f"{name}: {found['must']} of those that must be refused were refused")
        if not whole(found["strict"]):
            faults.append(f"{name}: {found['strict']} of those that a strict reader refuses were refused")
        if not whole(found["accept"]):
            faults.append(f"{name}: {found['accept']} good requests were accepted")
        if found["dirty"] != "0":
            faults.append(f"{name}: {found['dirty']} requests went upstream that are not canonical")
    for corpus in sorted(suites.glob("*/responses.jsonl")):
        name = corpus.parent.name
        found = answers.get(name)
        if found is None:
            faults.append(f"{name}: no report")
        elif int(found["n"]) != lines(corpus):
            faults.append(f"{name}: {found['n']} of {lines(corpus)} answers were judged")
        elif not whole(found["clean"]):
            faults.append(f"{name}: {found['clean']} hostile answers reached the client clean")
    if not requests or not answers:
        faults.append("the suite reported no requests or no answers at all")

    for log in sorted(results.glob("*.gateway")):
        text = log.read_text(errors="replace")
        if crash := CRASHES.search(text):
            faults.append(f"{log.stem}: the gateway's log says '{crash[0]}'")
        if driver and f"cores wait with {driver}" not in text:
            faults.append(f"{log.stem}: the gateway's log does not say that it ran on {driver}")
    return faults


def main() -> int:
    """Prints the verdict; 1 when anything fell short."""
    suites, results = map(pathlib.Path, sys.argv[1:3])
    driver = sys.argv[3] if len(sys.argv) > 3 else None
    faults = judge(suites, results, driver)
    for fault in faults:
        print("not as promised:", fault)
    if faults:
        for log in sorted(results.glob("*.gateway")):
            tail = log.read_text(errors="replace").splitlines()[-10:]
            print(f"the end of the gateway's log, {log.stem}:", *tail, sep="\n    ")
    else:
        print("as promised: everything refused, accepted and clean that has to be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
