"""The short rows of the table of faults, without their times; and the table itself."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.platforms import needs_linux
from tests.programs.faults import run
from tests.programs.faults.emulator import Way, Weather
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
        # What the system doesn't allow, nobody can install where all is required.
        pytest.xfail(row["skipped"])
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


PACKET = bytes(1000)


def way_in(weather: Weather, now: float = 0.0) -> tuple[Way, Counter[str]]:
    seen = Counter[str]()
    way = Way(seen, random.Random(1))
    way.meet(weather, now)
    return way, seen


def test_packets_in_a_queue() -> None:
    way, seen = way_in(Weather(delay=0.1, rate=1000, queue=2.5))
    arrivals = [way.take(PACKET, 10.0) for _ in range(5)]
    assert arrivals == [[11.1], [12.1], [13.1], [], []]
    assert way.take(PACKET, 11.0) == [14.1]
    assert seen == {"packets": 6, "overflowed": 2, "queue": 2000}


def test_packets_behind_those_of_others() -> None:
    way, _ = way_in(Weather(rate=1000, others=12), now=10.0)
    assert way.take(PACKET, 14.0) == [19.0]  # those come as fast as they go
    assert way.take(PACKET, 14.5) == [20.0]
    assert way.take(PACKET, 40.0) == [53.0]
    way.meet(Weather(rate=1000), 41.0)
    assert way.take(PACKET, 41.0) == [42.0]


def test_packets_that_vanish() -> None:
    way, seen = way_in(Weather(longest=999))
    assert way.take(PACKET, 1.0) == []
    assert len(way.take(PACKET[1:], 1.0)) == 1
    way.meet(Weather(dead=True), 1.0)
    assert way.take(b"x", 1.0) == []
    assert seen["swallowed"] == 2


def test_packets_are_lost_twice_and_late_by_chance() -> None:
    way, seen = way_in(Weather(loss=0.05, twice=0.02, held=0.05, hold=1.0))
    arrivals = [way.take(PACKET, 1.0) for _ in range(10_000)]
    assert sum(not each for each in arrivals) == seen["lost"]
    assert 400 < seen["lost"] < 600
    assert sum(len(each) == 2 for each in arrivals) == seen["twice"]
    assert 140 < seen["twice"] < 240
    late = [each for each in arrivals if each and each[0] > 1.1]
    assert 340 < len(late) < 530
