"""Compares this tree with another revision: for who changes the hot path.

    python tests/programs/benchmarks/compare.py REV [--group G] [--case C]

Both take turns, in processes that live for a few rounds. Prints, for each workload,
the least CPU time of either (for latency, the least p99 of a stretch) and two
ratios of this tree to the revision: of those minima, and the median of the rounds'
own. Where the two differ by more than what is asked about, the machine was too busy
to tell.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.benchmarks import report, workloads
from tests.programs.benchmarks.open_loop import STRETCHES
from tests.programs.benchmarks.peers import PURE, TRIO_WS, at
from tests.programs.benchmarks.run import MEMORY, Driver, chosen
from tests.programs.benchmarks.workloads import WORKLOADS
from tests.programs.progress import Progress

ROOT = Path(__file__).parents[3]


def built(revision: str) -> Path:
    """Build the package as it was, once; return the folder that it is in."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--verify", f"{revision}^{{commit}}"],
        check=True,
        capture_output=True,
        text=True,
    )
    commit = found.stdout.strip()
    target = ROOT / "build" / "compare" / commit[:12]
    if not target.exists():
        archive = subprocess.run(
            [*git, "archive", commit], check=True, capture_output=True
        ).stdout
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(folder, filter="data")
            pip = [sys.executable, "-m", "pip", "install", "--quiet"]
            subprocess.run(
                [*pip, "--no-deps", "--target", str(target), folder], check=True
            )
    return target


def row(case: str, now: list[float], before: list[float]) -> list[str]:
    pairs = [one / other for one, other in zip(now, before, strict=True)]
    return [
        case,
        report.number(min(before)),
        report.number(min(now)),
        f"{min(now) / min(before):.2f}",
        f"{statistics.median(pairs):.2f}",
    ]


def compare(given: argparse.Namespace, progress: Progress) -> list[list[str]]:
    ours = PURE if given.pure else TRIO_WS
    names = ours, at(ours, built(given.revision))
    todo = [
        dataclasses.replace(workload, peers=names, sessions=3)
        for workload in WORKLOADS
        if ours in workload.peers
        and chosen(given.group, [workload.group])
        and chosen(given.case, [workload.case])
    ]
    driver = Driver(names, given.rounds, 0.04, progress)
    rows = []
    try:
        for done, workload in enumerate(todo):
            what = f"{workload.group}, {workload.case}"
            progress.at(done, what)
            found = driver.measure(workload)
            key = STRETCHES if workload.group.startswith(workloads.LATENCY) else "cpu"
            rows.append(row(what, *(found[name][key] for name in names)))
        for case, arguments in MEMORY.items():
            if chosen(given.group, [workloads.MEMORY]) and chosen(given.case, [case]):
                kib: list[Any] = [
                    [driver.once(name, "memory", connections=1500, **arguments)["kib"]]
                    for name in names
                ]
                rows.append(row(f"KiB an idle connection, {case}", *kib))
    finally:
        driver.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="what to compare with")
    add = parser.add_argument
    add("--group", action="append", default=[], help="of workloads; repeatable")
    add("--case", action="append", default=[], help="of a group; the same")
    add("--rounds", type=int, default=15)
    add("--pure", action="store_true", help="with the codec in Python")
    given = parser.parse_args()
    with Progress(len(WORKLOADS), "workloads") as progress:
        rows = compare(given, progress)
    head = ["", given.revision, "this tree", "of minima", "of rounds"]
    for line in (head, ["---"] * len(head), *rows):
        print(report.cells(line))


if __name__ == "__main__":
    main()
