"""What a release is made by: what needs no build of it."""

from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
from pathlib import Path

import pytest

import trio_ws
from tests.programs import dist

RUNNING = ".".join(platform.python_version_tuple()[:2])
CONFIGURED = tomllib.loads((dist.ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_versions_of_python() -> None:
    minors = dist.minors()
    assert RUNNING in minors
    assert CONFIGURED["project"]["requires-python"] == f">={minors[0]}"


def test_an_interpreter_is_asked_what_it_is(tmp_path: Path) -> None:
    try:
        assert dist.version(sys.executable) == RUNNING
    except ValueError as exc:
        assert re.search(  # noqa: PT017 - it depends on what is installed
            r"it has no .*Python\.h|it is no CPython|it is free-threaded", str(exc)
        )
    with pytest.raises(OSError, match="nowhere"):
        dist.version(str(tmp_path / "nowhere"))


@pytest.mark.skipif(os.name != "posix", reason="it is a script")
def test_an_interpreter_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(dist, "minors", lambda: ["3.98", "3.99"])
    assert dist.interpreters() == {}
    assert capsys.readouterr().out == f"left out: {shim}: no such version\n"


def test_a_failure_ends_it_and_says_why() -> None:
    with pytest.raises(SystemExit, match=r"(?s)^this was said.*has failed"):
        dist.run(sys.executable, "-c", "print('this was said'); exit(1)")


def test_wheels_of_other_machines_are_checked_as_those_of_this_one() -> None:
    configured = CONFIGURED["tool"]["cibuildwheel"]
    command = configured["test-command"].format(project=dist.ROOT)
    assert command == f"python -I {dist.CHECK} compiled"
    assert dist.CHECK.is_file()
    assert configured["environment"] == {"TRIO_WS_REQUIRE": "all"}


def test_the_changelog_has_this_version() -> None:
    changelog = (dist.ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[([0-9.]+)\]", changelog, re.MULTILINE)
    assert versions[0] == trio_ws.__version__
