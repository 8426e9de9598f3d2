"""How far a program is: one line that changes on a terminal, lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self, TextIO

QUIET = 10.0  # seconds between two lines where each stays


class Progress:
    """Counts up to ``total``, on stderr: what a program finds is for stdout.

    Used as a context manager, it leaves a terminal's line empty behind it.
    """

    def __init__(self, total: float, unit: str, stream: TextIO | None = None) -> None:
        self.total = total
        self._unit = unit
        self._stream = stream or sys.stderr
        self._began = self._said = time.monotonic()
        self.done = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def at(self, done: float, what: str) -> None:
        """Say that so much is done, and what is being done now."""
        self.done = done
        now = time.monotonic()
        line = f"[{now - self._began:3.0f} s] {done:.0f} of {self.total:.0f} "
        line += f"{self._unit}: {what}"
        if self._stream.isatty():
            self._clear()
            width = shutil.get_terminal_size().columns - 1
            print(line[:width], end="", file=self._stream, flush=True)
        elif now - self._said >= QUIET:
            self._said = now
            print(line, file=self._stream, flush=True)

    def step(self, what: str) -> None:
        """Say that one more is done."""
        self.at(self.done + 1, what)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._stream.isatty():
            print("\r\x1b[K", end="", file=self._stream, flush=True)
