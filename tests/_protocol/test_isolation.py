"""trio_ws._protocol does no I/O: it works where there is nothing to do it with."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import trio_ws._protocol

FOLDER = pathlib.Path(trio_ws._protocol.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))
FORBIDDEN = ("trio", "trio_ws", "socket", "_socket", "ssl", "_ssl", "select")
OPTIONAL = ("isal",)  # what does no I/O either, and may be missing

# A module that stands as None in sys.modules can't be imported.
PROGRAM = """
import sys

folder, forbidden, modules = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
sys.path.insert(0, folder)
for name in forbidden:
    assert name not in sys.modules, f"{name} was there before"
    sys.modules[name] = None

import importlib

for name in modules:
    importlib.import_module("_protocol." + name)

engine = sys.modules["_protocol._engine"].Engine(client=True, max_size=None)
engine.receive(b"\\x81\\x02hi")
assert engine.pop() == "hi"
for name in forbidden:
    assert sys.modules[name] is None, f"{name} came back"
print("imported", *modules)
"""


def test_the_folder_works_as_a_package_of_its_own() -> None:
    assert {"_engine", "_codec", "_handshake"} < set(MODULES)
    # Isolated, and without site, so that nothing is found but the standard library.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    result = subprocess.run(
        [*command, str(FOLDER.parent), " ".join(FORBIDDEN), " ".join(MODULES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER.parent,
    )
    assert result.stderr == ""
    assert result.stdout.split() == ["imported", *MODULES]
    assert result.returncode == 0


def _imports(path: pathlib.Path) -> list[tuple[int, str]]:
    """List what a file imports, as (level, module)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_stay_in_the_folder(name: str) -> None:
    for level, module in _imports(FOLDER / f"{name}.py"):
        top = module.partition(".")[0]
        if level == 0:
            # Imports that wait in a function or in TYPE_CHECKING count too.
            assert top in sys.stdlib_module_names or top in OPTIONAL
            assert top not in FORBIDDEN
        else:
            assert level == 1
            assert top in MODULES
