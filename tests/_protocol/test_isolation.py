"""trio_ws._protocol does no I/O: it works where there is nothing to do it with."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import trio_ws._protocol
from trio_ws._protocol._codec import codec

FOLDER = pathlib.Path(trio_ws._protocol.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("_[!_]*.py"))
FORBIDDEN = ("trio", "socket", "_socket", "ssl", "_ssl", "select")
OPTIONAL = ("isal",)  # what does no I/O either, and may be missing

# A module that stands as None in sys.modules can't be imported.
PROGRAM = """
import sys

folder, package = sys.argv[1:3]
forbidden, modules = sys.argv[3].split(), sys.argv[4].split()
parent = package.rpartition(".")[0]
if parent:
    sys.modules[parent] = type(sys)(parent)
    sys.modules[parent].__path__ = [folder]
else:
    forbidden.append("trio_ws")
    sys.path.insert(0, folder)
for name in forbidden:
    assert name not in sys.modules, f"{name} was there before"
    sys.modules[name] = None

import importlib

for name in modules:
    importlib.import_module(f"{package}.{name}")

engine = sys.modules[f"{package}._engine"].Engine(client=True, max_size=None)
engine.receive(b"\\x81\\x02hi")
assert engine.pop() == "hi"
for name in forbidden:
    assert sys.modules[name] is None, f"{name} came back"
print("imported", sys.modules[f"{package}._codec"].codec(), *modules)
"""


# Compiled modules know the name of their package: they get one that is empty.
@pytest.mark.parametrize(
    ("package", "pure", "kind"),
    [("_protocol", "1", "python"), ("trio_ws._protocol", "", codec())],
)
def test_the_folder_works_as_a_package_of_its_own(
    package: str, pure: str, kind: str
) -> None:
    assert {"_engine", "_codec", "_handshake"} < set(MODULES)
    # Isolated, and without site, so that nothing is found but the standard library.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(FOLDER.parent), package]
    result = subprocess.run(
        [*command, " ".join(FORBIDDEN), " ".join(MODULES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER.parent,
        env=os.environ | ({"TRIO_WS_PURE": pure} if pure else {}),
    )
    assert result.stderr == ""
    assert result.stdout.split() == ["imported", kind, *MODULES]
    assert result.returncode == 0


def _imports(path: pathlib.Path) -> list[tuple[int, str]]:
    """List what a file imports, as (level, module)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module] if node.module else [a.name for a in node.names]
            found += [(node.level, module) for module in modules]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_stay_in_the_folder(name: str) -> None:
    for level, module in _imports(FOLDER / f"{name}.py"):
        top = module.partition(".")[0]
        if level == 0:
            # Imports that wait in a function or in TYPE_CHECKING count too.
            assert top in sys.stdlib_module_names or top in OPTIONAL
            assert top not in (*FORBIDDEN, "trio_ws")
        else:
            assert level == 1
            assert top in MODULES
