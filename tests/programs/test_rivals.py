"""The table that docs/rivals.rst shows, and the one in the terminal."""

from __future__ import annotations

from tests.programs.rivals import run

ROWS = [
    ["", "Scenario", "trio_ws", "other"],
    ["a", "something", run.cell(True, ""), run.cell(False, "hangs")],
    ["b", "another", run.cell(True, "0.5 s"), run.cell(True, "")],
]


def test_for_the_page() -> None:
    assert (
        run.restructured("today", ROWS, ["other has none."])
        == """today

.. list-table::
   :header-rows: 1

   * -
     - Scenario
     - trio_ws
     - other
   * - a
     - something
     - ok
     - **hangs**
   * - b
     - another
     - ok (0.5 s)
     - ok

other has none.
"""
    )


def test_for_the_terminal() -> None:
    assert run.markdown("today", ROWS[:2], []).splitlines() == [
        "today",
        "",
        "|  | Scenario | trio_ws | other |",
        "|---|---|---|---|",
        "| a | something | ok | **hangs** |",
    ]
