"""A terminal that knows what trio_ws/_command/sinks.py asks of one."""

from __future__ import annotations

import re

_STEP = re.compile(r"\x1b7|\x1b8|\x1b\[[ABL]|[\r\n]|[^\x1b\r\n]")


class Terminal:
    """Rows of characters, and a cursor; what falls out at the top is in ``past``."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.rows = [""] * rows
        self.past: list[str] = []
        self.columns = columns
        self._row = self._column = 0
        self._saved = 0, 0

    def feed(self, text: str) -> None:
        end = 0
        for match in _STEP.finditer(text):
            assert match.start() == end, f"not for a terminal: {text[end:]!r}"
            end = match.end()
            self._step(match[0])
        assert end == len(text), f"not for a terminal: {text[end:]!r}"

    def _step(self, step: str) -> None:
        match step:
            case "\r":
                self._column = 0
            case "\n":
                self._column = 0  # which the terminal's driver adds
                self._down()
            case "\x1b7":
                self._saved = self._row, self._column
            case "\x1b8":
                self._row, self._column = self._saved
            case "\x1b[A":
                self._row = max(self._row - 1, 0)
            case "\x1b[B":
                self._row = min(self._row + 1, len(self.rows) - 1)
            case "\x1b[L":
                self.rows.insert(self._row, "")
                self.rows.pop()
            case _:
                self._put(step)

    def _down(self) -> None:
        if self._row == len(self.rows) - 1:
            self.past.append(self.rows.pop(0))
            self.rows.append("")
        else:
            self._row += 1

    def _put(self, char: str) -> None:
        assert self._column < self.columns, "this would wrap"
        row = self.rows[self._row].ljust(self._column)
        self.rows[self._row] = row[: self._column] + char + row[self._column + 1 :]
        self._column += 1

    @property
    def text(self) -> list[str]:
        """All rows, from the first to the last that isn't empty."""
        rows = [*self.past, *self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows
