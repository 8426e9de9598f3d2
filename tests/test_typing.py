"""What type checkers say of a user's programs: of tests/typing, line by line.

With mypy, which the tests have, and with pyright; with trio's own annotations and with
those of trio-typing, which takes their place wherever it is installed. ``make
typing`` installs pyright and trio-typing beside the rest; without it, only mypy is
asked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "tests/typing").glob("*.py"))

# Has pyright, trio and trio-typing.
BESIDE = ROOT / "build/typing" / ("Scripts" if os.name == "nt" else "bin")

pytestmark = [
    pytest.mark.cpython("mypy is made for it alone"),
    pytest.mark.skipif(sys.platform == "win32", reason="the same on all systems"),
]

Errors = Mapping[int, set[str]]  # what is wrong with each line


def interpreter(stubs: str) -> Path:
    """Return the Python that has trio, with trio-typing or without."""
    return BESIDE / "python" if stubs else Path(sys.executable)


def run(folder: Path, *command: object, **environment: str) -> str:
    """Run a checker in a folder where there is no configuration."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    ).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which trio_ws is as if it was installed, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "trio_ws").symlink_to(ROOT / "trio_ws")
    return folder


def by_line(found: Iterable[tuple[int, str]]) -> Errors:
    errors: dict[int, set[str]] = {}
    for line, rule in found:
        errors.setdefault(line, set()).add(rule)
    return errors


def mypy(program: Path, python: Path, installed: Path, folder: Path) -> Errors:
    # What is wrong in a package that is installed, it doesn't say either.
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    told = run(
        folder,
        *(sys.executable, "-m", "mypy", "--python-executable", python),
        *("--no-error-summary", "--hide-error-context"),
        # Which saves the second program most of the time.
        *("--cache-dir", installed / f"cache-{python.parent.parent.name}", program),
        MYPYPATH=str(installed),
    )
    pattern = rf"{re.escape(str(program))}:(\d+): error: .*\[([a-z-]+)\]"
    lines = [line for line in told.splitlines() if ": note: " not in line]
    found = [re.fullmatch(pattern, line) for line in lines]
    assert all(found), told
    return by_line((int(match[1]), match[2]) for match in found if match)


def pyright(program: Path, python: Path, installed: Path, folder: Path) -> Errors:
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(installed)],
        "reportUnusedExpression": False,
        # What trio-typing says of TaskStatus and of nurseries is for mypy alone.
        "reportUnknownMemberType": python.parent != BESIDE,
        "reportUnknownVariableType": python.parent != BESIDE,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    copy = folder / program.name
    copy.write_text(program.read_text())
    told = run(folder, BESIDE / "pyright", "--pythonpath", python, "--outputjson", copy)
    found = json.loads(told)["generalDiagnostics"]
    return by_line(
        (one["range"]["start"]["line"] + 1, one["rule"])
        for one in found
        if one["severity"] == "error"
    )


Checker = Callable[[Path, Path, Path, Path], Errors]
CHECKERS: dict[str, Checker] = {"mypy": mypy, "pyright": pyright}

# What there is to ask, and with which annotations.
IS_MADE = (BESIDE / "pyright").exists()
ASKED = [*CHECKERS] if IS_MADE else ["mypy"]
STUBS = ["", "trio-typing"] if IS_MADE else [""]


def expected(program: Path, checker: str) -> Errors:
    """What the comments of a program say."""
    lines = program.read_text(encoding="utf-8").splitlines()
    comments = [re.search(r"  # E: ([a-z-]+), (\w+)$", line) for line in lines]
    group = 1 + [*CHECKERS].index(checker)
    return {n: {match[group]} for n, match in enumerate(comments, 1) if match}


@pytest.mark.parametrize("stubs", STUBS, ids=lambda stubs: stubs or "trio")
@pytest.mark.parametrize("checker", ASKED)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program(
    program: Path, checker: str, stubs: str, installed: Path, tmp_path: Path
) -> None:
    python = interpreter(stubs)
    found = CHECKERS[checker](program, python, installed, tmp_path)
    wanted = expected(program, checker)
    # Some say more of a line that is wrong.
    assert {n: rules & wanted.get(n, rules) for n, rules in found.items()} == wanted


if IS_MADE:

    def test_all_types_are_known(installed: Path) -> None:
        """Which pyright can only say of the Python that it runs with."""
        told = run(
            installed,
            *(BESIDE / "pyright", "--verifytypes", "trio_ws", "--ignoreexternal"),
            "--outputjson",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=str(installed),
        )
        completeness = json.loads(told)["typeCompleteness"]
        unknown = [
            one["name"] for one in completeness["symbols"] if not one["isTypeKnown"]
        ]
        assert unknown == []
        assert completeness["completenessScore"] == 1
        assert completeness["exportedSymbolCounts"]["withKnownType"] > 90
