"""From what was measured to tables, and to what was aimed at."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import charts
from .open_loop import PERCENTILES, STRETCH, STRETCHES, carries
from .peers import (
    AIOHTTP,
    PICOWS,
    PURE,
    RAW_TRIO,
    TRIO_WEBSOCKET,
    TRIO_WS,
    UVLOOP,
    WEBSOCKETS,
    WEBSOCKETS_TRIO,
)
from .targets import Results, targets
from .workloads import FAIRNESS, LATENCY, MEMORY, PROFILES

EXTRA = (MEMORY, FAIRNESS, PROFILES)

# What the README shows, and of whom: each library as fast as it gets.
SUMMARY = (("round trip", "32 B"), ("saturated server", "32 connections, 64 B"))
SUMMARY_PEERS = (
    RAW_TRIO,
    TRIO_WS,
    PURE,
    WEBSOCKETS_TRIO,
    TRIO_WEBSOCKET,
    WEBSOCKETS + UVLOOP,
    AIOHTTP + UVLOOP,
    PICOWS + UVLOOP,
)


def about(peers: dict[str, dict[str, str]], rounds: int) -> dict[str, Any]:
    """Say what was measured, and on what."""
    packages = {"trio": version("trio")}
    for found in peers.values():
        for name, text in found.items():
            packages.setdefault(name, text)  # that of trio_ws, not of it made pure
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "processor": f"{os.cpu_count()} x {processor()}",
        "peers": peers,
        "packages": packages,
        "rounds": rounds,
    }


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)", text, re.M)
    return name[1] if name else platform.machine()


# Tables --------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def number(value: float) -> str:
    """Three digits that say something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2}f}"


NOTES = {
    "round trip": "Both ends in one process, on one loop.",
    "one way, client to server": "Pipelined; both ends in one process, on one loop. "
    "Raw sockets have no loop.",
    "one way, server to client": "Pipelined; both ends in one process, on one loop. "
    "Raw sockets have no loop.",
    "saturated server": "Of the server alone, for each message and its echo. The "
    "load generator, a process of its own, has one message under way on each "
    "connection.",
    "compressed JSON": "A round trip, both ends in one process; no message is the "
    "same as the one before it.",
    "TLS round trip": "Both ends in one process, on one loop.",
    "connect, upgrade, close": "Both ends in one process, on one loop. Raw streams "
    "connect, exchange 200 bytes each way, and close.",
    "broadcast": "Of the server, for one message to all. Raw sockets: as many calls "
    "of send().",
    LATENCY: "p50 / p90 / p99 / p99.9, each from when a message was due, at so many "
    "messages a second, of 64 B, by Poisson arrivals. In brackets: the median of the "
    f"p99 of each {STRETCH} messages in a row.",
    "growth with connections": "Of the server, for each message and its echo.",
    "growth with messages": "One way, 32 B, for each message.",
    "growth with size": "One way, for each KiB of a message.",
    "growth with pieces": "Of a server that receives a message and echoes it whole; "
    "for each fragment, or byte.",
}


def timed(group: str, cases: Mapping[str, Any], brief: bool) -> Table:
    def cell(times: Mapping[str, list[float]]) -> str:
        cpu, wall = times["cpu"], times["wall"]
        median = number(statistics.median(cpu))
        if brief:
            return median
        return f"{median} ({number(min(cpu))}) / {number(statistics.median(wall))}"

    table = matrix(f"{group}: microseconds of CPU", NOTES[group], cases, cell)
    by_name = {name: times for found in cases.values() for name, times in found.items()}
    if any("deflate" in times for times in by_name.values()):
        table.head.append("compresses with")
        for line in table.rows:
            line.append(by_name[line[0]].get("deflate", ""))
    return table


def latency(group: str, cases: Mapping[str, Any]) -> Table:
    def cell(times: Mapping[str, list[float]]) -> str:
        if not carries(times):
            return f"a backlog grows: {number(statistics.median(times['carried']))}/s"
        shown = [number(statistics.median(times[name])) for name in PERCENTILES]
        stretches = number(statistics.median(times[STRETCHES]))
        shown[PERCENTILES.index("p99")] += f" ({stretches})"
        return " / ".join(shown)

    every = [times for found in cases.values() for times in found.values()]
    pinned = all(all(times["pinned"]) for times in every)
    late = max(statistics.median(times["late"]) for times in every)
    return matrix(
        f"{group}: microseconds",
        f"{NOTES[LATENCY]} Server and load generator are two processes, "
        f"{'each on a core of its own' if pinned else 'not pinned to cores'}; the "
        f"latter sent 99 % within {number(late)} of when they were due, or sooner.",
        cases,
        cell,
    )


def matrix(
    title: str, note: str, cases: Mapping[str, Any], cell: Callable[[Any], str]
) -> Table:
    """Make a table of what there is for some cases and some peers."""
    names = dict.fromkeys(name for found in cases.values() for name in found)
    return Table(
        title,
        note,
        ["", *cases],
        [
            [
                name,
                *(
                    cell(found[name]) if name in found else ""
                    for found in cases.values()
                ),
            ]
            for name in names
        ],
    )


def tables(results: Results, *, brief: bool = False) -> dict[str, Table]:
    """Make all tables, by what stands before the colon of their titles.

    A brief one has medians of CPU alone, without minima and wall time.
    """
    found = [
        latency(group, cases)
        if group.startswith(LATENCY)
        else timed(group, cases, brief)
        for group, cases in results["results"].items()
    ]
    if MEMORY in results:
        found.append(
            matrix(
                "memory: KiB an idle connection",
                "Resident memory of the server's process.",
                results[MEMORY],
                number,
            )
        )
    if FAIRNESS in results:
        found.append(
            matrix(
                "fairness: milliseconds that a sleep of 2 ms wakes late",
                "Beside a firehose of messages of 32 B: median, 99 %, maximum.",
                results[FAIRNESS],
                lambda late: ", ".join(
                    number(late[key]) for key in ("median", "99 %", "maximum")
                ),
            )
        )
    if PROFILES in results:
        cases = results[PROFILES]
        owners = dict.fromkeys(name for shares in cases.values() for name in shares)
        found.append(
            Table(
                "profiles: of trio_ws, % of CPU",
                "By the frame that runs.",
                ["", *owners],
                [
                    [case, *(f"{100 * shares.get(name, 0):.0f}" for name in owners)]
                    for case, shares in cases.items()
                ],
            )
        )
    found.append(target_table(results))
    return {table.title.partition(":")[0]: table for table in found}


def about_text(results: Results) -> str:
    """Say when and on what all that was measured."""
    found = results["about"]
    packages = ", ".join(f"{name} {text}" for name, text in found["packages"].items())
    return (
        f"{found['date']}, {found['processor']}, {found['system']}, "
        f"{found['python']}, {packages}."
    )


def picture(
    results: Results, group: str, case: str, *, standalone: bool = False
) -> str:
    """Draw one column of a table, the best on top."""
    return charts.bars(chart(results, group, case), standalone=standalone)


def summary(results: Results) -> str:
    """Draw what the README shows."""
    return charts.bars(
        *(chart(results, group, case, SUMMARY_PEERS) for group, case in SUMMARY),
        standalone=True,
    )


def chart(
    results: Results, group: str, case: str, only: Collection[str] = ()
) -> charts.Chart:
    if group == MEMORY:
        values = results[MEMORY][case]
        unit = "KiB an idle connection"
    elif group.startswith(LATENCY):
        values = {
            name: statistics.median(times[STRETCHES])
            for name, times in results["results"][group][case].items()
            if carries(times)
        }
        unit = f"99 % of {STRETCH} messages in a row, microseconds"
    else:
        values = {
            name: statistics.median(times["cpu"])
            for name, times in results["results"][group][case].items()
        }
        unit = "microseconds of CPU"
    found = results["results"].get(group, {}).get(case, {})

    def text(name: str) -> str:
        settings, _, _ = found.get(name, {}).get("deflate", "").partition(", memLevel")
        return ", ".join(filter(None, (number(values[name]), settings)))

    rows = [
        charts.Bar(name, values[name], text(name), ours=name.startswith(TRIO_WS))
        for name in sorted(values, key=lambda name: values[name])
        if not only or name in only
    ]
    return charts.Chart(f"{group}, {case}: {unit}", rows)


def pictures(results: Results) -> Iterator[tuple[str, str]]:
    """Draw all columns of which there are pictures; yield name and SVG."""
    shown = dict(results["results"])
    if MEMORY in results:
        shown[MEMORY] = results[MEMORY]
    for group, cases in shown.items():
        for case, found in cases.items():
            if len(found) > 2:
                name = re.sub(r"\W+", "-", f"{group} {case}".lower())
                yield name, picture(results, group, case, standalone=True)


# What was aimed at ---------------------------------------------------------------


def target_table(results: Results) -> Table:
    rows = [target.row(results) for target in targets()]
    measured = [row for row in rows if row[-1]]
    missing = len(rows) - len(measured)
    return Table(
        "targets: what was aimed at",
        "Ratios of medians of CPU, of trio_ws unless it says otherwise."
        + (f" Not measured: {missing}." if missing else ""),
        ["", "bound", "measured", ""],
        measured,
    )


# Markdown ------------------------------------------------------------------------


def markdown(results: Results) -> str:
    found = results["about"]
    parts = [
        f"{about_text(results)}\n\n"
        f"Medians of {found['rounds']} interleaved rounds: CPU (its minimum) / wall "
        f"time. Compression off unless it is measured, keepalive as each library has "
        f"it by default. Took {found['minutes']} minutes."
    ]
    for table in tables(results).values():
        lines = [f"### {table.title}", "", table.note, "", cells(table.head)]
        lines.append(cells(["---"] * len(table.head)))
        lines += [cells(row) for row in table.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def cells(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"
