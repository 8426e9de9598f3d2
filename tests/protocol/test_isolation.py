"""trio_ws._protocol does no I/O: it works where there is nothing to do it with."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import trio_ws._protocol
from trio_ws._protocol.frames.codec import codec

FOLDER = pathlib.Path(trio_ws._protocol.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("[!_]*.py")
)
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

engine = sys.modules[f"{package}.engine"].Engine(client=True, max_size=None)
engine.receive(b"\\x81\\x02hi")
assert engine.pop() == "hi"
for name in forbidden:
    assert sys.modules[name] is None, f"{name} came back"
print("imported", sys.modules[f"{package}.frames.codec"].codec(), *modules)
"""


# Compiled modules know the name of their package: they get one that is empty.
@pytest.mark.parametrize(
    ("package", "pure", "kind"),
    [("_protocol", "1", "python"), ("trio_ws._protocol", "", codec())],
)
def test_the_folder_works_as_a_package_of_its_own(
    package: str, pure: str, kind: str
) -> None:
    assert {"engine", "frames.decoder", "handshake.client"} < set(MODULES)
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
