"""The short rows of the table of faults, without their times; and the table itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.platforms import needs_linux
from tests.programs.faults import run
from tests.programs.faults.harness import BARE, OURS, RIVAL, Bound, Row, Size
from tests.programs.faults.report import lines, markdown

MARKS: dict[str, Any] = {
    "1": pytest.mark.cpython("it measures memory"),
    "2": pytest.mark.cpython("it measures memory"),
    "7": pytest.mark.realtime(seconds=0.3),
    "8": pytest.mark.realtime(seconds=0.2),
}
SHORT = [
    pytest.param(key, marks=MARKS.get(key, ()))
    for key, row in run.ROWS.items()
    if row.quick
]


@needs_linux
@pytest.mark.parametrize("key", SHORT)
def test_a_short_row(key: str) -> None:
    row = run.measured(run.ROWS[key], {OURS: run.run_apart(key, OURS, Size.QUICK)})
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert row["problems"] == {}
    wrong = [each for each in row["checks"] if not (each["timed"] or each["holds"])]
    assert row["checks"]
    assert wrong == []


async def never(library: str, size: Size) -> dict[str, float]:
    raise AssertionError("only what came of it is asked for")


BOUNDS = (
    Bound("late", 5, "ms", over=BARE, timed=True),
    Bound("came", least=10),
    Bound("of others alone", 1),
)
ROW = Row("1", "A row", BOUNDS, never, (RIVAL, BARE), "none runs", 1, False)


def test_a_bound_over_what_others_take() -> None:
    ours = {"figures": {"late": 8, "came": 10}}
    bare = {"figures": {"late": 4, "of others alone": 2}}
    row = run.measured(ROW, {OURS: ours, BARE: bare, RIVAL: {"broke": "it hung"}})
    late, came = row["checks"]
    assert (late["bound"], late["holds"], late["others"]) == (9, True, {BARE: 4})
    assert (came["bound"], came["holds"], came["others"]) == (10, True, {})
    assert row["holds"]
    assert row["problems"] == {RIVAL: "it hung"}


@pytest.mark.parametrize(
    "ours",
    [
        {"figures": {"late": 10, "came": 10}},
        {"figures": {"late": 8, "came": 9}},
        {"broke": "it died"},
    ],
)
def test_a_row_that_does_not_hold(ours: dict[str, Any]) -> None:
    row = run.measured(ROW, {OURS: ours, BARE: {"figures": {"late": 4}}})
    assert not row["holds"]


def test_a_second_time_counts_for_what_depends_on_time_alone() -> None:
    answer = {"figures": {"late": 10, "came": 10}}
    run.best(ROW, answer, {"figures": {"late": 4, "came": 9}})
    assert answer == {"figures": {"late": 4, "came": 9}}
    run.best(ROW, answer, {"figures": {"late": 6, "came": 10}})
    assert answer == {"figures": {"late": 4, "came": 9}}


def test_the_table() -> None:
    ours = {"figures": {"late": 12.3, "came": 1000}}
    row = run.measured(ROW, {OURS: ours, BARE: {"figures": {"late": 4}}})
    found = {"about": run.about(Size.QUICK), "rows": [row]}
    assert lines(found) == [
        (
            "1",
            "A row",
            "late",
            "**12 ms**",
            "at most 9 ms",
            "trio's streams alone: 4 ms",
        ),
        ("", "", "came", "1,000", "at least 10", "none runs"),
    ]
    assert markdown(found).count("\n") == 5


def test_a_row_that_cannot_be_measured() -> None:
    row = run.measured(ROW, {OURS: {"skipped": "it needs root"}})
    assert row["holds"]
    (line,) = lines({"rows": [row]})
    assert line == ("1", "A row", "it needs root", "", "", "none runs")


def test_rows_that_were_measured_alone(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    first, second = list(run.ROWS)[:2]
    assert run.merged(path, {"rows": [{"key": second}]})["rows"] == [{"key": second}]
    path.write_text(json.dumps({"rows": [{"key": second, "old": True}]}))
    found = run.merged(path, {"rows": [{"key": first}]})
    assert [row["key"] for row in found["rows"]] == [first, second]


def test_no_such_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "77"])
    with pytest.raises(SystemExit):
        run.main()
