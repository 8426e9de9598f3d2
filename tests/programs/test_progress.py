"""What says how far a program is."""

from __future__ import annotations

import io
import re

import pytest

from tests.programs import progress
from tests.programs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use(stream: io.StringIO) -> str:
    with Progress(3, "cases", stream) as shown:
        shown.at(0, "first")
        shown.step("second")
        shown.say("this stays")
        shown.step("third")
    # How long it took is up to the machine.
    return re.sub(r"\[ *\d+ s\]", "[... s]", stream.getvalue())


def test_on_a_terminal_it_is_one_line() -> None:
    cleared, *lines = re.split(r"\r\x1b\[K", use(Terminal()))
    assert cleared == ""
    assert lines == [
        "[... s] 0 of 3 cases: first",
        "[... s] 1 of 3 cases: second",
        "this stays\n",
        "[... s] 2 of 3 cases: third",
        "",
    ]


@pytest.mark.parametrize("columns", [20, 200])
def test_a_line_is_no_longer_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Progress(3, "cases", stream) as shown:
        shown.at(1, "x" * 300)
        assert len(stream.getvalue().rpartition("\x1b[K")[2]) == columns - 1


def test_elsewhere_there_are_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert use(io.StringIO()) == "this stays\n"
    monkeypatch.setattr(progress, "QUIET", 0)
    assert use(io.StringIO()).splitlines() == [
        "[... s] 0 of 3 cases: first",
        "[... s] 1 of 3 cases: second",
        "this stays",
        "[... s] 2 of 3 cases: third",
    ]
