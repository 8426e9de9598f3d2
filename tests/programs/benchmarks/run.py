"""The benchmark: trio_ws beside raw streams and other libraries.

    python tests/programs/benchmarks/run.py [--quick] [--json FILE]

Prints Markdown. README.md, beside this file, says what is measured and how.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.benchmarks import report, workloads
from tests.programs.benchmarks.peers import (
    AIOHTTP,
    PEERS,
    PICOWS,
    PICOWS_CORE,
    PURE,
    RAW_SOCKETS,
    RAW_TRIO,
    TRIO_WEBSOCKET,
    TRIO_WS,
    UVLOOP,
    WEBSOCKETS,
    WEBSOCKETS_TRIO,
    spec_of,
)
from tests.programs.benchmarks.workloads import WORKLOADS, Workload
from tests.programs.progress import Progress

QUICK_PEERS = (
    RAW_SOCKETS,
    RAW_TRIO,
    TRIO_WS,
    WEBSOCKETS_TRIO,
    WEBSOCKETS + UVLOOP,
    PICOWS + UVLOOP,
    PICOWS_CORE + UVLOOP,
)
QUICK_GROUPS = (
    workloads.ROUND_TRIP,
    workloads.FROM_CLIENT,
    workloads.FROM_SERVER,
    workloads.SATURATED,
    workloads.JSON,
    workloads.TLS,
    workloads.CONNECT,
    workloads.MEMORY,
)


class Failed(Exception):
    """A worker ended; it has said why on stderr."""


class Worker:
    """The process of a peer, as the driver sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        environment = {
            key: value for key, value in os.environ.items() if key != "TRIO_WS_PURE"
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs.benchmarks.worker", name],
            cwd=Path(__file__).parents[3],
            env=environment | spec_of(name).environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.greeting = self.answer()

    def ask(self, what: str, **arguments: object) -> None:
        self._write(json.dumps([what, arguments]))

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self.name)
        return json.loads(line)

    def turn(self) -> Any:
        self._write("go")
        return self.answer()

    def stop(self) -> None:
        self._write("stop")
        self.answer()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self.name) from None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Driver:
    """Asks the workers in turn; collects what they measured."""

    def __init__(
        self, peers: Iterable[str], rounds: int, seconds: float, progress: Progress
    ) -> None:
        self._progress = progress
        self._workers: dict[str, Worker] = {}
        self._rounds = rounds
        self._seconds = seconds
        self.failures: list[str] = []
        self.peers: list[str] = []
        self.about: dict[str, dict[str, str]] = {}
        for name in peers:
            worker = self._worker(name)
            if "missing" in worker.greeting:
                progress.say(f"without {name}: {worker.greeting['missing']}")
            else:
                self.peers.append(name)
                self.about[name] = worker.greeting["about"]

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            self._workers[name] = Worker(name)
        return self._workers[name]

    @contextmanager
    def _fresh(self, name: str) -> Iterator[Worker]:
        worker = Worker(name)
        try:
            yield worker
        finally:
            worker.kill()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _failed(self, what: str, name: str) -> None:
        self.failures.append(f"{what}: {name}")
        self._progress.say(f"FAILED, {what}: {name}")
        if name in self._workers:
            self._workers.pop(name).kill()

    def measure(self, workload: Workload) -> dict[str, dict[str, Any]]:
        """Let all peers do it, one after the other, round after round."""
        results: dict[str, dict[str, Any]] = {}
        rounds = min(self._rounds, workload.rounds)
        sessions = max(1, min(workload.sessions, rounds // 3))
        for number in range(sessions):
            share = rounds * (number + 1) // sessions - rounds * number // sessions
            with ExitStack() as stack:
                self._session(workload, share, stack, results)
        return results

    def _session(
        self,
        workload: Workload,
        rounds: int,
        stack: ExitStack,
        results: dict[str, dict[str, Any]],
    ) -> None:
        what = f"{workload.group}, {workload.case}"
        ready: list[Worker] = []
        for name in workload.peers:
            if name not in self.peers:
                continue
            if workload.sessions:
                worker = stack.enter_context(self._fresh(name))
            else:
                worker = self._worker(name)
            try:
                worker.ask(
                    "measure",
                    group=workload.group,
                    case=workload.case,
                    seconds=self._seconds,
                )
                begun = worker.answer()
            except Failed:
                self._failed(what, name)
                continue
            if "count" in begun:
                ready.append(worker)
                results.setdefault(name, begun)
        for _ in range(rounds):
            for worker in tuple(ready):
                try:
                    for key, value in worker.turn().items():
                        results[worker.name].setdefault(key, []).append(value)
                except Failed:
                    self._failed(what, worker.name)
                    ready.remove(worker)
                    del results[worker.name]
        if not workload.sessions:
            for worker in ready:
                worker.stop()

    def once(self, name: str, what: str, **arguments: object) -> Any:
        """Ask a process of its own."""
        self._progress.at(self._progress.done, f"{what}, {name}")
        with self._fresh(name) as worker:
            try:
                worker.ask(what, **arguments)
                return worker.answer()
            except Failed:
                self._failed(f"{what}, {arguments}", name)
                return None


# What isn't measured in turns ----------------------------------------------------

MEMORY_PEERS = (
    RAW_TRIO,
    TRIO_WS,
    PURE,
    WEBSOCKETS_TRIO,
    TRIO_WEBSOCKET,
    WEBSOCKETS,
    AIOHTTP,
    PICOWS,
    PICOWS_CORE,
)
MEMORY = {
    "plain": {"deflate": False, "use": False},
    "deflate, unused": {"deflate": True, "use": False},
    "deflate, both contexts used": {"deflate": True, "use": True},
}
NO_DEFLATE = (RAW_TRIO, TRIO_WEBSOCKET, PICOWS_CORE)
FAIRNESS_PEERS = (TRIO_WS, WEBSOCKETS_TRIO, TRIO_WEBSOCKET)
PROFILED = [
    (workloads.ROUND_TRIP, "32 B"),
    (workloads.ROUND_TRIP, "64 KiB"),
    *(
        (group, case)
        for group in (workloads.FROM_CLIENT, workloads.FROM_SERVER)
        for case in ("32 B", "64 KiB", "1 MiB")
    ),
    (workloads.SATURATED, "32 connections, 64 B"),
    (workloads.TLS, "32 B"),
    (workloads.TLS, "64 KiB"),
    (workloads.CONNECT, "once"),
    (workloads.BROADCAST, "10,000 connections, 64 B"),
]


def memory(driver: Driver, connections: int) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for case, arguments in MEMORY.items():
        for name in MEMORY_PEERS:
            if name in driver.peers and not (
                arguments["deflate"] and name in NO_DEFLATE
            ):
                found = driver.once(
                    name, "memory", connections=connections, **arguments
                )
                if found:
                    results.setdefault(case, {})[name] = found["kib"]
    return results


def fairness(driver: Driver, seconds: float) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for receiving in True, False:
        for connections in 1, 50:
            case = f"{'receiving' if receiving else 'sending'} on {connections}"
            for name in FAIRNESS_PEERS:
                if name in driver.peers:
                    found = driver.once(
                        name,
                        "lateness",
                        connections=connections,
                        receiving=receiving,
                        seconds=seconds,
                    )
                    if found:
                        results.setdefault(case, {})[name] = found
    return results


def profiles(driver: Driver, seconds: float) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for group, case in PROFILED:
        found = driver.once(TRIO_WS, "profile", group=group, case=case, seconds=seconds)
        if found:
            results[f"{group}, {case}"] = found
    return results


# The command line ----------------------------------------------------------------


def chosen(patterns: list[str], names: Iterable[str]) -> list[str]:
    return [
        name
        for name in names
        if not patterns or any(fnmatch.fnmatch(name, one) for one in patterns)
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer peers, workloads and rounds")
    add("--peer", action="append", default=[], help="a name or pattern; repeatable")
    add("--group", action="append", default=[], help="of workloads; the same")
    add("--case", action="append", default=[], help="of a group; the same")
    add("--rounds", type=int)
    add(
        "--json",
        type=Path,
        default=Path("build/bench.json"),
        help="write all that was measured here (%(default)s)",
    )
    add("--report", type=Path, help="measure nothing, report such a file instead")
    add("--pictures", type=Path, help="draw pictures into this folder")
    add("--summary", type=Path, help="draw the README's picture into this file")
    add("--profile", action="store_true", help="only tell whose code the CPU is in")
    return parser.parse_args()


def run(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    quick = given.quick
    rounds = given.rounds or (5 if quick else 9)
    peers = chosen(given.peer, QUICK_PEERS if quick else PEERS)
    every = [*dict.fromkeys(w.group for w in WORKLOADS), *report.EXTRA]
    groups = chosen(given.group, QUICK_GROUPS if quick else every)
    if given.profile:
        groups = [workloads.PROFILES]
    todo: list[Workload | str] = [
        workload
        for workload in WORKLOADS
        if workload.group in groups and chosen(given.case, [workload.case])
    ]
    todo += [group for group in report.EXTRA if group in groups]
    extra: dict[str, Callable[[Driver], Any]] = {
        workloads.MEMORY: lambda driver: memory(driver, 500 if quick else 1500),
        workloads.FAIRNESS: lambda driver: fairness(driver, 1.0),
        workloads.PROFILES: lambda driver: profiles(driver, 3.0),
    }
    started = time.perf_counter()
    with Progress(len(todo), "workloads") as progress:
        driver = Driver(peers, rounds, 0.02 if quick else 0.04, progress)
        results: dict[str, Any] = {"about": report.about(driver.about, rounds)}
        measured = results["results"] = {}
        try:
            for done, one in enumerate(todo):
                if isinstance(one, str):
                    progress.at(done, one)
                    results[one] = extra[one](driver)
                    continue
                progress.at(done, f"{one.group}, {one.case}")
                found = driver.measure(one)
                measured.setdefault(one.group, {})[one.case] = found
        finally:
            driver.close()
    results["about"]["minutes"] = round((time.perf_counter() - started) / 60, 1)
    return results, driver.failures


def dumped(results: dict[str, Any]) -> str:
    """Return JSON with the rounds of a peer on one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[^][{}]+\]", lambda match: " ".join(match[0].split()), text)


def main() -> int:
    given = arguments()
    failures: list[str] = []
    if given.report:
        results = json.loads(given.report.read_text())
    else:
        results, failures = run(given)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(dumped(results) + "\n")
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
        for name, svg in report.pictures(results):
            (given.pictures / f"{name}.svg").write_text(svg)
    if given.summary:
        given.summary.write_text(report.summary(results), encoding="utf-8")
    print(report.markdown(results))
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
