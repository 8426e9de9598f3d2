"""Make a CPython for Windows that Wine runs, with what the tests need.

    python3.11 tests/programs/windows/make.py FOLDER
    FOLDER/python -m pytest tests/transports

It is not Windows, but it is Windows' socket module, trio's loop for Windows (AFD), and
has all that Windows lacks: Unix sockets, sendmsg(), SO_REUSEPORT, fork(), descriptors
of sockets. It needs Wine and MinGW (on Debian: wine, wine64, gcc-mingw-w64-x86-64),
some minutes and 500 MB.

The interpreter is the one that the wheel of panda3d has for programs that it packs,
since no package installs one; MinGW makes its launcher, and the library that forwards
modules of the stable ABI to it. The standard library's Python files are those of the
Python that runs this, which has to be of the same minor version.

Wine 8 isn't Windows in two things that show: it makes of a reset an end of stream, and
lacks what recent versions of cryptography ask for. A third, sitecustomize.py has.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
VERSION = (3, 11)  # of the interpreter in the wheel

TARGET = [
    "--platform=win_amd64",
    "--python-version=3.11",
    "--implementation=cp",
    "--only-binary=:all:",
]

# What packages need on Windows alone, which pip takes from the system it runs on.
FOR_WINDOWS = ["cffi", "colorama", "cryptography==41.0.7"]

# Not needed, and not made for every version of Windows' Python.
LEFT_OUT = ("aiohttp", "isal")

LAUNCHER = """
#include <wchar.h>
__declspec(dllimport) int Py_Main(int, wchar_t **);
int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
"""

FORWARDER = "int DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }\n"

# Wine takes a file for its console, which fails, but no pipe.
SCRIPT = """#!/usr/bin/env bash
set -o pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export WINEPREFIX=$here/prefix WINEDEBUG=-all PYTHONDONTWRITEBYTECODE=1
wine "$here/python.exe" "$@" </dev/null 2>&1 | cat
"""


def run(*command: object, **options: Any) -> str:
    done = subprocess.run(
        list(map(str, command)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    return str(done.stdout)


def pip(*arguments: object) -> None:
    run(sys.executable, "-m", "pip", "--quiet", *arguments)


def unpack_interpreter(folder: Path) -> None:
    """Take the interpreter, its libraries and its compiled modules out of a wheel."""
    wheels = folder / "wheels"
    pip("download", "--no-deps", "--dest", wheels, *TARGET, "panda3d")
    (wheel,) = wheels.glob("panda3d-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            room, _, file = name.partition("/")
            if room == "deploy_libs" and file:
                target = folder / ("DLLs" if file.endswith(".pyd") else "") / file
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(archive.read(name))
    shutil.rmtree(wheels)


def compile_launcher(folder: Path) -> None:
    library = f"python{VERSION[0]}{VERSION[1]}"
    gcc = "x86_64-w64-mingw32-gcc"
    (folder / "launcher.c").write_text(LAUNCHER)
    run(
        gcc,
        "-municode",
        "launcher.c",
        "-o",
        "python.exe",
        f"./{library}.dll",
        cwd=folder,
    )
    listing = run("x86_64-w64-mingw32-objdump", "-p", folder / f"{library}.dll")
    exports = listing.partition("[Ordinal/Name Pointer] Table")[2].split()
    names = [name for name in exports if name.startswith(("Py", "_Py"))]
    (folder / "python3.def").write_text(
        "LIBRARY python3.dll\nEXPORTS\n"
        + "".join(f"{name} = {library}.{name}\n" for name in names)
    )
    (folder / "forwarder.c").write_text(FORWARDER)
    options = ["-shared", "-nostdlib", "-e", "DllMainCRTStartup", "-o", "python3.dll"]
    run(gcc, *options, "forwarder.c", "python3.def", cwd=folder)


def copy_library(folder: Path) -> Path:
    """Copy the standard library; return where packages go."""
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        folder / "Lib",
        ignore=shutil.ignore_patterns(
            "lib-dynload", "*-packages", "test", "__pycache__", "config-*", "*.so"
        ),
        dirs_exist_ok=True,
    )
    site = folder / "Lib/site-packages"
    site.mkdir(exist_ok=True)
    shutil.copy(HERE / "sitecustomize.py", site)
    return site


def install_packages(site: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    packages = [each for each in wanted if not each.startswith(LEFT_OUT)]
    pip("install", "--target", site, "--upgrade", *TARGET, *packages, *FOR_WINDOWS)


def main() -> None:
    if sys.version_info[:2] != VERSION:
        sys.exit(
            f"expected Python 3.11, whose standard library it is; got {sys.version}"
        )
    for program in ("wine", "x86_64-w64-mingw32-gcc"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing; see the head of {__file__}")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    unpack_interpreter(folder)
    compile_launcher(folder)
    install_packages(copy_library(folder))
    script = folder / "python"
    script.write_text(SCRIPT)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    code = "import cryptography.x509, hypothesis, ssl, sys, trio; print(sys.version)"
    print(run(script, "-c", code, env={**os.environ, "LANG": "C.UTF-8"}).strip())


if __name__ == "__main__":
    main()
