"""Run the tests of the protocol as other machines do: 32 bits, or big-endian.

    python3 tests/programs/machines.py FOLDER ARCHITECTURE [ARGUMENT...]

ARCHITECTURE is one of Debian's, such as i386 or s390x; the arguments are for pytest.
debootstrap fetches that architecture's Python, which has to be of the same minor
version as the one that runs this; qemu-user-static runs it. Both are needed (on Debian,
packages of these names), and root. MIRROR in the environment is debootstrap's.

Nothing of the folder's programs is run but Python, by an emulator that looks for its
libraries there. So neither a chroot nor binfmt_misc is needed, and what a test starts
as sys.executable, a script, is emulated as well.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

# What QEMU calls otherwise than Debian.
QEMU = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "arm", "ppc64el": "ppc64le"}

# Compiled ones, without which the tests of the protocol do.
LEFT_OUT = (
    "aiohttp",
    "coverage",
    "isal",
    "pytest-xdist",
    "trio-websocket",
    "trustme",
    "werkzeug",
)

SCRIPT = """#!/bin/sh
PYTHONHOME={root}/usr PYTHONPATH={project}:{packages} PYTHONDONTWRITEBYTECODE=1
export PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE TRIO_WS_PURE=1
exec {qemu} -L {root} -0 {script} {root}/usr/bin/python{version} "$@"
"""


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def unpack_python(root: Path, architecture: str) -> None:
    options = ["--foreign", "--variant=minbase", f"--include=python{VERSION}"]
    mirror = [os.environ["MIRROR"]] if "MIRROR" in os.environ else []
    release = platform_codename()
    run("debootstrap", *options, f"--arch={architecture}", release, root, *mirror)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        run("dpkg-deb", "--extract", package, root)


def install_packages(folder: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = [each for each in wanted if not each.startswith(LEFT_OUT)]
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--target", folder]
    pure = ["--only-binary=:all:", "--platform=any", "--implementation=py"]
    run(*pip, *pure, f"--python-version={VERSION}", *names)


def write_script(script: Path, **names: object) -> None:
    script.write_text(SCRIPT.format(script=script, **names))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def make(folder: Path, architecture: str) -> None:
    program = f"qemu-{QEMU.get(architecture, architecture)}-static"
    for needed in ("debootstrap", "dpkg-deb", program):
        if shutil.which(needed) is None:
            sys.exit(f"{needed} is missing; see the head of {__file__}")
    root, packages = folder / "root", folder / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    unpack_python(root, architecture)
    install_packages(packages)
    write_script(
        folder / "python",
        root=root,
        project=PROJECT,
        packages=packages,
        qemu=shutil.which(program),
        version=VERSION,
    )


def platform_codename() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]


def main() -> None:
    where, architecture, *arguments = sys.argv[1:]
    folder = Path(where).resolve() / architecture
    if not (folder / "python").exists():
        make(folder, architecture)
    python = folder / "python"
    code = "import struct, sys; print(struct.calcsize('P') * 8, 'bits,', sys.byteorder)"
    subprocess.run([python, "-c", code], check=True)
    tests = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/protocol"]
    # Nothing is compiled, so there is nothing to compare.
    tests.append("--ignore=tests/protocol/test_both.py")
    command = [str(python), *tests, *arguments]
    sys.exit(subprocess.run(command, cwd=PROJECT, check=False).returncode)


if __name__ == "__main__":
    main()
