"""Run the same scenarios against trio_ws, websockets and trio-websocket.

    python tests/programs/rivals/run.py [--only trio_ws] [--scenario a,c] [--page FILE]

Prints a Markdown table, and writes it for docs/rivals.rst. Each scenario has a process
of its own, killed at the limit. The exit code is 1 if trio_ws fails a scenario; what
the others do is a report, not a test.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.programs.progress import Progress
from tests.programs.rivals import endings, load
from tests.programs.rivals.adapters import LIBRARIES, Library
from tests.programs.rivals.harness import verdict

SCENARIOS = dict(sorted({**load.scenarios, **endings.scenarios}.items()))
LIMIT = 40  # seconds; each scenario has shorter limits of its own
AT_ONCE = 2


def run_here(name: str, key: str) -> None:
    """In the child: run one scenario, print its verdict."""
    logging.disable()
    library = LIBRARIES[name]()

    async def main() -> str:
        return await SCENARIOS[key].run(library)

    verdict(True, trio.run(main))


def run_apart(name: str, key: str) -> tuple[bool, str]:
    """In the parent: the verdict of one scenario, whatever happens to the child."""
    command = [sys.executable, __file__, "--run-one", name, key]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:  # run() has sent SIGKILL
        return False, "hangs"
    if not child.stdout:
        errors = [line for line in child.stderr.splitlines() if "Error: " in line]
        return False, f"broke: {errors[-1] if errors else child.returncode}"
    answer = json.loads(child.stdout)
    return answer["ok"], answer["text"]


def run_all(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[bool, str]]:
    """Run each scenario with each library, some at once; return the verdicts."""
    answers: dict[tuple[str, str], tuple[bool, str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool, Progress(len(pairs), "runs") as progress:
        runs = {pool.submit(run_apart, *pair): pair for pair in pairs}
        for run in as_completed(runs):
            name, key = runs[run]
            answers[name, key] = run.result()
            progress.step(f"{key}, {name}")
    return answers


def installed(name: str) -> Library | None:
    try:
        return LIBRARIES[name]()
    except ImportError:
        return None


def cell(ok: bool, text: str) -> str:
    if not ok:
        return f"**{text}**"
    return f"ok ({text})" if text else "ok"


def markdown(about: str, rows: list[list[str]], notes: list[str]) -> str:
    lines = [
        f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in rows
    ]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join([about, "", *lines, "", *notes])


def restructured(about: str, rows: list[list[str]], notes: list[str]) -> str:
    """Return the same as docs/rivals.rst includes it."""
    lines = [about, "", ".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [
            f"   {' ' if number else '*'} - {text}".rstrip()
            for number, text in enumerate(row)
        ]
    return "\n".join([*lines, "", *notes]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of libraries, with commas between")
    parser.add_argument("--scenario", help="letters, with commas between: a,c or i2")
    parser.add_argument("--page", type=Path, help="write the table for Sphinx here")
    parser.add_argument("--run-one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run_one:
        run_here(*arguments.run_one)

    names = arguments.only.split(",") if arguments.only else list(LIBRARIES)
    if unknown := set(names) - set(LIBRARIES):
        parser.error(f"no library {unknown}; there are {', '.join(LIBRARIES)}")
    wanted = tuple(arguments.scenario.split(",")) if arguments.scenario else ("",)
    keys = [key for key in SCENARIOS if key.startswith(wanted)]
    if not keys:
        parser.error(f"no such scenario; there are {', '.join(SCENARIOS)}")

    libraries = {name: installed(name) for name in names}
    present = [name for name, library in libraries.items() if library is not None]
    answers = run_all([(name, key) for key in keys for name in present])

    versions = [
        f"{name} {library.version if library else 'not installed'}"
        for name, library in libraries.items()
    ]
    about = (
        f"{datetime.date.today()}: {', '.join(versions)}, trio {version('trio')}, "
        f"Python {platform.python_version()}, {platform.system()}."
    )
    rows = [["", "Scenario", *present]]
    for key in keys:
        cells = [cell(*answers[name, key]) for name in present]
        rows.append([key, SCENARIOS[key].title, *cells])
    notes = [
        f"{one.name} {one.note}." for one in libraries.values() if one and one.note
    ]
    print(markdown(about, rows, notes))
    if arguments.page:
        arguments.page.write_text(restructured(about, rows, notes), encoding="utf-8")

    failed = [
        key for (name, key), (ok, _) in answers.items() if name == "trio_ws" and not ok
    ]
    missing = [name for name, library in libraries.items() if library is None]
    if missing:
        print(f"\nnot installed: {', '.join(missing)}", file=sys.stderr)
    return 1 if failed or "trio_ws" in missing else 0


if __name__ == "__main__":
    sys.exit(main())
