"""The programs in peers/, what each needs, and what each is known to do wrong."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from pathlib import Path

from tests.interop.process_peer import BUILT, FOLDER, Program


def _program(name: str) -> Path:
    return Path(shutil.which(name) or name)


def _node(package: str) -> list[list[Path]]:
    folders = BUILT / "node_modules", Path("/usr/share/nodejs")
    return [[_program("node")], [folder / package for folder in folders]]


_SITE = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))

#: Where `make test` can have them.
PROGRAMS = {
    "tornado": Program(
        [sys.executable, FOLDER / "tornado_peer.py"],
        [[site / "tornado" for site in _SITE]],
        {"can_fragment": False},
    ),
    "ws": Program(["node", FOLDER / "ws.js"], _node("ws")),
}

#: For `make interop`.
MORE = {
    "undici": Program(
        ["node", FOLDER / "undici.js"],
        _node("undici"),
        {"can_ping": False, "can_fragment": False},
    ),
    "gorilla": Program(
        [BUILT / "gorilla"], [[BUILT / "gorilla"]], {"can_fragment": False}
    ),
    "nhooyr": Program(
        [BUILT / "nhooyr"], [[BUILT / "nhooyr"]], {"can_fragment": False}
    ),
    "mojolicious": Program(
        ["perl", FOLDER / "mojolicious.pl"],
        [[Path("/usr/share/perl5/Mojolicious.pm")]],
        {"can_fragment": False},
    ),
    "beast": Program([BUILT / "beast"], [[BUILT / "beast"]]),
}

# What a program can't do, or does wrong, by its name and that of the test, brackets and
# the role of trio_ws included; the evidence stands in README.md.
FAULTS = [
    ("undici", r"client", "it is no server"),
    (
        "undici",
        r"theirs_closes.*-10(01|11)-",
        "browsers' API has 1000 and 3000 to 4999",
    ),
]


def fault(program: str, test: str) -> str | None:
    """Return what is wrong in that test, if anything."""
    for name, pattern, reason in FAULTS:
        if name == program and re.search(pattern, test):
            return reason
    return None
