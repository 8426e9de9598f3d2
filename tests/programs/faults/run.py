"""The table of faults: what is done to a server or a client, and what comes of it.

    python tests/programs/faults/run.py [--only 1,4] [--json docs/faults.json] [--long]

Each row has a process of its own for each library. Prints a Markdown table; the exit
code is 1 if a figure of trio_ws is beyond its bound.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

import trio_ws
from tests.programs.faults import (
    calls,
    crowds,
    floods,
    handshakes,
    links,
    losses,
    memory,
    mishaps,
    storm,
)
from tests.programs.faults.harness import OURS, Figures, Row, Size, Skipped
from tests.programs.faults.report import markdown
from tests.programs.progress import Progress

MODULES = calls, crowds, floods, handshakes, links, losses, memory, mishaps, storm
ROWS: dict[str, Row] = dict(
    sorted(
        (pair for module in MODULES for pair in module.rows.items()),
        key=lambda pair: int(pair[0]),
    )
)


def run_here(key: str, library: str, size: Size) -> None:
    """In the child: print the figures of one row."""

    async def main() -> Figures:
        return await ROWS[key].measure(library, size)

    try:
        answer: dict[str, Any] = {"figures": trio.run(main)}
    except Skipped as why:
        answer = {"skipped": str(why)}
    print(json.dumps(answer), flush=True)


def run_apart(key: str, library: str, size: Size) -> dict[str, Any]:
    """Return the figures of one row, or why there are none."""
    command = [sys.executable, __file__, "--one", key, library, "--size", size.value]
    seconds = ROWS[key].seconds * (20 if size is Size.LONG else 1)
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        out, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return {"broke": f"not over after {seconds:.0f} s"}
    if child.returncode or not out:
        lines = [line for line in errors.decode().splitlines() if line.strip(" |+-")]
        return {"broke": lines[-1] if lines else f"exit code {child.returncode}"}
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def measured(row: Row, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Hold what came of a row against its bounds."""
    ours = answers[OURS]
    beside: dict[str, Figures] = {
        name: answer.get("figures", {}) for name, answer in answers.items()
    }
    checks = []
    for bound in row.bounds:
        figure = ours.get("figures", {}).get(bound.name)
        if figure is None:
            continue
        checks.append(
            {
                "name": bound.name,
                "unit": bound.unit,
                "figure": figure,
                "least": bound.most is None,
                "bound": bound.limit(beside),
                "holds": bound.holds(figure, beside),
                "timed": bound.timed,
                "others": {
                    name: figures[bound.name]
                    for name, figures in beside.items()
                    if name != OURS and bound.name in figures
                },
            }
        )
    problems = {
        name: answer[key]
        for name, answer in answers.items()
        for key in ("broke", "skipped")
        if key in answer
    }
    return {
        "key": row.key,
        "title": row.title,
        "checks": checks,
        "problems": problems,
        "skipped": ours.get("skipped"),
        "why": row.why,
        "holds": "broke" not in ours and all(check["holds"] for check in checks),
    }


def late(row: dict[str, Any]) -> bool:
    """Whether figures that depend on the machine are beyond their bounds."""
    return any(check["timed"] and not check["holds"] for check in row["checks"])


def best(row: Row, answer: dict[str, Any], again: dict[str, Any]) -> None:
    """Take the better of such figures; of the others, the worse."""
    if "figures" not in again:
        answer.update(again)
        return
    for bound in row.bounds:
        if bound.name in again["figures"]:
            pair = answer["figures"][bound.name], again["figures"][bound.name]
            lower = (bound.most is not None) == bound.timed
            answer["figures"][bound.name] = min(pair) if lower else max(pair)


def about(size: Size) -> dict[str, Any]:
    """Say where and with what the table was made."""
    return {
        "date": datetime.date.today().isoformat(),
        "size": size.value,
        "trio_ws": trio_ws.__version__,
        "codec": trio_ws.codec(),
        "websockets": version("websockets"),
        "trio": version("trio"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }


def rows_of(keys: list[str], size: Size) -> Iterator[dict[str, Any]]:
    """Measure rows, one library after the other."""
    total = sum(1 + len(ROWS[key].others) for key in keys)
    with Progress(total, "runs") as progress:
        for key in keys:
            start = time.monotonic()
            answers: dict[str, dict[str, Any]] = {}
            for name in (OURS, *ROWS[key].others):
                progress.step(f"row {key}, {name}")
                answers[name] = run_apart(key, name, size)
            row = measured(ROWS[key], answers)
            if late(row):
                progress.say(f"row {key}: again, since others may have disturbed")
                best(ROWS[key], answers[OURS], run_apart(key, OURS, size))
                row = measured(ROWS[key], answers)
            row["seconds"] = round(time.monotonic() - start)
            for check in row["checks"]:
                if not check["holds"]:
                    progress.say(f"row {key}: {check['name']}: {check['figure']:.3g}")
            yield row


def merged(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Put rows that were measured alone into the table that is there."""
    if not path.exists():
        return found
    there = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["key"]: row for row in there["rows"] + found["rows"]}
    return {**found, "rows": [rows[key] for key in ROWS if key in rows]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="numbers of rows, with commas between")
    parser.add_argument(
        "--json", type=Path, help="a file to write, or to renew in part"
    )
    parser.add_argument("--long", action="store_true", help="rows in their full length")
    parser.add_argument("--size", default="normal", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size.LONG if given.long else Size(given.size)
    if given.one:
        key, library = given.one
        run_here(key, library, size)
        return 0
    keys = given.only.split(",") if given.only else list(ROWS)
    if unknown := set(keys) - set(ROWS):
        parser.error(f"no row {unknown}; there are {', '.join(ROWS)}")
    found: dict[str, Any] = {"about": about(size), "rows": []}
    for row in rows_of(keys, size):
        found["rows"].append(row)
        if given.json:  # after each: what has been measured isn't lost
            whole = merged(given.json, found)
            text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
            given.json.write_text(text, encoding="utf-8")
    print(markdown(found))
    return 0 if all(row["holds"] for row in found["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
