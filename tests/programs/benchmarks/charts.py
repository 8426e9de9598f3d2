"""Bars, as SVG by hand: text takes the colour of the page around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABELS, VALUES, ROW = 720, 210, 80, 24
CHARACTER = 6.5  # is as wide, on average
OURS, THEIRS = "#2f80ed", "#9aa5b1"

# In a file of its own there is no page whose colour to take.
_STANDALONE = """<style>
  svg { color: #1f2328; background: #ffffff }
  @media (prefers-color-scheme: dark) { svg { color: #d1d7e0; background: #131416 } }
</style>"""


class Bar(NamedTuple):
    label: str
    value: float
    text: str
    ours: bool


class Chart(NamedTuple):
    title: str
    rows: Sequence[Bar]


def bars(*charts: Chart, standalone: bool = False) -> str:
    """Draw charts, one below the other: a bar for each row, the longest all over."""
    body: list[str] = []
    height = 0
    for chart in charts:
        body += _chart(chart, height)
        height += ROW * len(chart.rows) + 34
    title = escape("; ".join(chart.title for chart in charts))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" style="max-width: {WIDTH}px; width: 100%"'
        ' font-family="sans-serif" font-size="13" fill="currentColor">',
        f"<title>{title}</title>",
        _STANDALONE if standalone else "",
        *body,
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _chart(chart: Chart, offset: int) -> Iterator[str]:
    title, rows = chart
    longest = max((row.value for row in rows), default=1.0)
    values = max(
        VALUES, int(CHARACTER * max((len(row.text) for row in rows), default=0))
    )
    yield (
        f'<text x="{LABELS}" y="{offset + 16}" font-weight="bold">'
        f"{escape(title)}</text>"
    )
    for number, row in enumerate(rows):
        top = offset + 28 + ROW * number
        length = max(1.0, (WIDTH - LABELS - values) * row.value / longest)
        weight = ' font-weight="bold"' if row.ours else ""
        yield (
            f'<text x="{LABELS - 8}" y="{top + 14}" text-anchor="end"{weight}>'
            f"{escape(row.label)}</text>"
            f'<rect x="{LABELS}" y="{top + 1}" width="{length:.1f}" height="{ROW - 6}"'
            f' rx="2" fill="{OURS if row.ours else THEIRS}"/>'
            f'<text x="{LABELS + length + 6:.1f}" y="{top + 14}"{weight}>'
            f"{escape(row.text)}</text>"
        )
