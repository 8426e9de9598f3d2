"""The comparison of the Autobahn suite's results with those expected."""

from __future__ import annotations

import json

import pytest

from tests.programs.conformance import run

OK = {"behavior": "OK", "behaviorClose": "OK"}
EXPECTED = {
    "may_differ": {
        "server": [
            {"cases": ["3.2"], "behavior": ["NON-STRICT"]},
            {"cases": ["7.1.6"], "behavior": ["X"], "close": ["INFORMATIONAL"]},
        ],
        "client": [],
    }
}


def test_ok_is_as_expected() -> None:
    results = {"1.1.1": OK, "3.2": OK, "7.1.6": OK}
    assert run.differences("server", EXPECTED, list(results), results) == []


def test_a_case_may_differ_in_the_ways_listed() -> None:
    results = {
        "3.2": OK | {"behavior": "NON-STRICT"},
        "7.1.6": {"behavior": "X", "behaviorClose": "INFORMATIONAL"},
    }
    assert run.differences("server", EXPECTED, list(results), results) == []
    assert run.differences("client", EXPECTED, list(results), results) == [
        "3.2: behavior is NON-STRICT, expected OK",
        "7.1.6: behavior is X, expected OK",
        "7.1.6: close is INFORMATIONAL, expected OK",
    ]


@pytest.mark.parametrize(
    ("case", "result", "difference"),
    [
        (
            "3.2",
            {"behavior": "FAILED"},
            "behavior is FAILED, expected NON-STRICT or OK",
        ),
        (
            "1.1.1",
            {"behavior": "UNIMPLEMENTED"},
            "behavior is UNIMPLEMENTED, expected OK",
        ),
        ("3.2", {"behaviorClose": "UNCLEAN"}, "close is UNCLEAN, expected OK"),
    ],
)
def test_differences(case: str, result: dict[str, str], difference: str) -> None:
    results = {case: OK | result}
    assert run.differences("server", EXPECTED, [case], results) == [
        f"{case}: {difference}"
    ]


def test_a_case_without_result_is_a_difference() -> None:
    assert run.differences("server", EXPECTED, ["1.1.1", "10.1"], {"1.1.1": OK}) == [
        "10.1: has no result"
    ]


def test_expected_file_names_its_reasons() -> None:
    expected = json.loads(run.EXPECTED.read_text())
    assert set(expected["may_differ"]) == set(run.ROLES)
    for entries in (expected["excluded"], *expected["may_differ"].values()):
        assert all(entry["reason"] and entry["cases"] for entry in entries)


def test_planned_cases() -> None:
    log = "Using spec\nCases = [u'1.1.1', '10.1.1']\nmore\n"
    assert run.planned_cases(log) == ["1.1.1", "10.1.1"]
    assert run.planned_cases("Traceback") == []
    log += "Running test case ID 1.1.1 for agent trio_ws from peer tcp4:127.0.0.1:1\n"
    assert run.begun_cases(log) == ["1.1.1"]
