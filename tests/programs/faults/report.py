"""The table of what was measured, as Markdown and for the documentation."""

from __future__ import annotations

from math import inf
from typing import Any

#: What stands in the columns.
HEAD = ("", "Scenario", "Figure", "trio_ws", "Bound", "Beside")

NAMES = {"websockets": "websockets.trio", "bare": "trio's streams alone"}


def number(value: float, unit: str) -> str:
    """Write a figure as short as it may be."""
    if value == inf:
        return "never"
    text = (
        f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}"
    )
    return f"{text} {unit}".strip()


def beside(row: dict[str, Any], check: dict[str, Any]) -> str:
    """Say what others have, or why nothing."""
    parts = [
        f"{NAMES[name]}: {number(value, check['unit'])}"
        for name, value in check["others"].items()
    ]
    parts += [
        f"{NAMES[name]}: {problem}"
        for name, problem in row["problems"].items()
        if name in NAMES
    ]
    return "; ".join(parts) or row["why"]


def lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the lines of the table: one a figure, or one that says why none."""
    made: list[tuple[str, ...]] = []
    for row in found["rows"]:
        head = row["key"], row["title"]
        for problem in filter(None, [row["problems"].get("trio_ws")]):
            made.append((*head, problem, "", "", row["why"]))
            head = "", ""
        for check in row["checks"]:
            figure = number(check["figure"], check["unit"])
            bound = number(check["bound"], check["unit"])
            sign = "at least" if check["least"] else "at most"
            made.append(
                (
                    *head,
                    check["name"],
                    figure if check["holds"] else f"**{figure}**",
                    f"{sign} {bound}",
                    beside(row, check),
                )
            )
            head = "", ""
    return made


def about(found: dict[str, Any]) -> str:
    """Say with what it was measured."""
    facts = found["about"]
    return (
        f"{facts['date']}: trio_ws {facts['trio_ws']} ({facts['codec']}), websockets "
        f"{facts['websockets']}, trio {facts['trio']}, Python {facts['python']}, "
        f"{facts['system']}, load {facts['load']}"
    )


def markdown(found: dict[str, Any]) -> str:
    """Return all of it."""
    table = [HEAD, tuple("---" for _ in HEAD), *lines(found)]
    rows = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join([about(found), "", *rows])
