"""stdout and stderr: where messages and notes go, on a terminal and in a pipe."""

from __future__ import annotations

import abc
import errno
import io
import os
import re
import select
import sys
import unicodedata
from collections.abc import Iterator, Sequence

import trio

from .notes import PROGRAM, printable

Message = str | bytes

_line_ends = re.compile(r"\r\n|\r|\n")


class NoReaderError(Exception):
    """Nobody reads stdout any more."""


class StdoutError(Exception):
    """stdout can't be written, for another reason; the text says which."""


# Windows says that of a pipe that nobody reads.
_NO_READER = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}


def _write_all(raw: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = raw.write(view)
        if written is None:  # whoever started this has made it non-blocking
            select.select([], [raw], [])
        else:
            view = view[written:]


class Sink(abc.ABC):
    """Messages to stdout, by a thread, since it may block; notes to stderr.

    Both are files without a buffer, as of Source, or None if they are closed.
    """

    interactive = False

    def __init__(
        self,
        out: io.RawIOBase | None,
        err: io.RawIOBase | None,
        encoding: str = "utf-8",
    ) -> None:
        self._out, self._err = out, err
        self._encoding = encoding
        self._turn = trio.Lock()  # a prompt isn't written within a message

    async def show(self, messages: Sequence[Message]) -> None:
        """Write messages; raise NoReaderError if nobody reads them, StdoutError.

        **Cancellation**: a part of them may be written.
        """
        await self._write(b"".join(map(self.shown, messages)))

    async def _write(self, data: bytes) -> None:
        if self._out is None:
            await trio.lowlevel.checkpoint()
            raise NoReaderError
        try:
            async with self._turn:
                await trio.to_thread.run_sync(
                    _write_all, self._out, data, abandon_on_cancel=True
                )
        except OSError as exc:
            if exc.errno in _NO_READER:
                raise NoReaderError from None
            raise StdoutError(f"can't write to stdout: {exc.strerror}") from None

    @abc.abstractmethod
    def shown(self, message: Message) -> bytes:
        """Return the bytes of a message for stdout."""

    def note(self, text: str) -> None:
        """Write a line to stderr, if it is there."""
        self._say(self._err, f"{PROGRAM}: {printable(text)}\n")

    def end(self) -> None:  # noqa: B027 - where nothing is asked, there is nothing to do
        """Take note that nothing more is asked of the user."""

    def _say(self, file: io.RawIOBase | None, text: str) -> None:
        if file is not None:
            try:
                _write_all(file, self.encoded(text))
            except OSError:  # there is nowhere to say that nobody reads it
                pass

    def encoded(self, text: str) -> bytes:
        """Return a text as the terminal has it."""
        return text.encode(self._encoding, "backslashreplace")


class Bytes(Sink):
    """The bytes of messages, and nothing else."""

    def shown(self, message: Message) -> bytes:
        """Return them."""
        return message.encode() if isinstance(message, str) else message


class Lines(Sink):
    """A line for each message: text in UTF-8, binary messages in hex.

    A line has no line ends in it: they become spaces.
    """

    def shown(self, message: Message) -> bytes:
        """Return a line."""
        text = message.hex() if isinstance(message, bytes) else message
        return _line_ends.sub(" ", text).encode() + b"\n"


class Printable(Lines):
    """The same on a terminal, which no message is to control."""

    def shown(self, message: Message) -> bytes:
        """Return a line."""
        text = message.hex() if isinstance(message, bytes) else message
        return self.encoded(printable(text) + "\n")


_HEX_SHOWN = 64  # bytes
_PROMPT = "> "

# Save the cursor; go down, which scrolls in the last row, and up again; insert a row.
# After the text: back, and down with the row in which the user types. In the last row,
# where that has scrolled up and down again, going down does nothing.
_INSERT, _BACK = "\x1b7\n\x1b[A\r\x1b[L", "\x1b8\x1b[B"


class Screen(Sink):
    """A terminal on which the user types: what comes is shown above that row.

    The terminal stays as it is found, in its own line mode: there is nothing to
    restore. What the user types is the terminal's, too; so all that is done to show a
    message is to insert rows above it. Without ``ansi`` it comes in the middle of it.
    """

    interactive = True

    def __init__(
        self,
        out: io.RawIOBase | None,
        err: io.RawIOBase | None,
        encoding: str = "utf-8",
        *,
        ansi: bool = True,
    ) -> None:
        super().__init__(out, err, encoding)
        self._ansi = ansi
        self._prompted = False

    def shown(self, message: Message) -> bytes:
        """Return what shows a message above the prompt."""
        return self.encoded(self._above(_described(message)))

    def note(self, text: str) -> None:
        """Write a line: above the prompt, if stderr is a terminal."""
        if self._err is not None and self._err.isatty():
            self._say(self._err, self._above(f"* {printable(text)}"))
        else:
            super().note(text)

    def decoded(self, line: bytes) -> str:
        """Return a line that was typed."""
        return line.decode(self._encoding, "replace")

    async def prompt(self) -> None:
        """Ask for a line, unless that is done already."""
        if not self._prompted:
            self._prompted = True
            await self._write(self.encoded(_PROMPT))

    def entered(self) -> None:
        """Take note that the user has ended the line: the terminal shows a new row."""
        self._prompted = False

    def end(self) -> None:
        """Leave the row of the prompt."""
        if self._prompted:
            self._prompted = False
            self._say(self._out, "\n")

    def _above(self, text: str) -> str:
        if not self._prompted:
            return f"{text}\n"
        if not self._ansi:
            return f"\n{text}\n{_PROMPT}"
        rows = _rows(text, self._columns() - 1)  # the last column may wrap
        return "".join(f"{_INSERT}{row}{_BACK}" for row in rows)

    def _columns(self) -> int:
        try:
            assert self._out is not None
            columns = os.get_terminal_size(self._out.fileno()).columns
        except (OSError, ValueError):  # Windows knows its own three alone
            columns = 0
        return columns or 80


def _described(message: Message) -> str:
    if isinstance(message, str):
        return f"< {printable(message)}"
    size = f"{len(message)} byte" + ("" if len(message) == 1 else "s")
    more = "..." if len(message) > _HEX_SHOWN else ""
    return f"< binary, {size}: {message[:_HEX_SHOWN].hex(' ')}{more}"


def _rows(text: str, width: int) -> Iterator[str]:
    """Cut a text into rows of a terminal."""
    row: list[str] = []
    used = 0
    for char in text:
        columns = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used + columns > width and row:
            yield "".join(row)
            row, used = [], 0
        row.append(char)
        used += columns
    yield "".join(row)
