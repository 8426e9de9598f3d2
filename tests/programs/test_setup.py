"""setup.py: what is compiled, where there is a compiler and where there is none."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

import trio_ws
from tests.platforms import needs_linux

SETUP = pathlib.Path(trio_ws.__file__).parents[1] / "setup.py"

# As the build runs it, but for the build.
CODE = """
import runpy
import sys

import setuptools

setuptools.setup = lambda **keywords: print(len(keywords["ext_modules"]))
runpy.run_path(sys.argv[1])
"""


def extensions(**environment: str) -> tuple[str, int]:
    """Return what setup.py says, and how many modules it lets compile."""
    names = ("CC", "TRIO_WS_PURE", "TRIO_WS_REQUIRE")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(SETUP)],
        capture_output=True,
        text=True,
        check=True,
        env=kept | environment,
    )
    said, _, count = result.stdout.strip().rpartition("\n")
    return said, int(count)


@needs_linux
@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="nothing is compiled there"
)
def test_without_a_compiler_it_says_so_in_a_line_and_compiles_nothing() -> None:
    said, count = extensions(CC="no-such-compiler")
    assert count == 0
    [line] = said.splitlines()
    # In the words of this version of setuptools.
    assert re.fullmatch(
        r"the codec isn't compiled: no C compiler that works "
        r"\(.*no-such-compiler.*\); it runs as Python",
        line,
    )


@needs_linux
@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="nothing is compiled there"
)
def test_where_all_is_required_it_is_not_left_out() -> None:
    said, count = extensions(CC="no-such-compiler", TRIO_WS_REQUIRE="all")
    assert (said, count > 0) == ("", True)


def test_what_need_not_be_compiled() -> None:
    assert extensions(TRIO_WS_PURE="1") == ("", 0)
