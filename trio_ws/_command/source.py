"""stdin: a thread reads it, the command takes it message by message."""

from __future__ import annotations

import io
from collections.abc import Iterator

import trio

_CHUNK = 64 * 1024


class Source:
    """What is to be sent: the lines of a file, or, if ``binary``, chunks of it.

    ``raw`` is the file without a buffer: the thread that reads goes on by itself when
    the command ends, and a buffer would be locked by it then, on which Python aborts.
    None stands for a file that is closed already.

    A line's end, LF or CRLF, is no part of it. One that was taken and could not be sent
    is the next one again.
    """

    def __init__(self, raw: io.RawIOBase | None, *, binary: bool = False) -> None:
        self._raw = raw
        self._binary = binary
        self._line: list[bytes] = []  # so far
        self._held: bytes | None = None
        self._ready, self._messages = trio.open_memory_channel[bytes](0)
        self._read_all = False
        self.taken = 0
        self.ended = False

    async def run(self) -> None:
        """Read to the end.

        **Cancellation**: a thread may read on, and what it reads is lost.
        """
        async with self._ready:
            while self._raw is not None and (chunk := await self._read(self._raw)):
                for message in [chunk] if self._binary else self._lines(chunk):
                    await self._ready.send(message)
            if self._line:
                await self._ready.send(b"".join(self._line))
            self._read_all = True

    async def _read(self, raw: io.RawIOBase) -> bytes:
        while True:
            try:
                chunk = await trio.to_thread.run_sync(
                    raw.read, _CHUNK, abandon_on_cancel=True
                )
            except OSError:  # a terminal that has gone, a folder
                return b""
            if chunk is not None:
                return chunk
            # Whoever started this has made it non-blocking.
            await trio.lowlevel.wait_readable(raw.fileno())

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*self._line, line]).removesuffix(b"\r")
            self._line.clear()
        if rest:
            self._line.append(rest)

    async def next(self) -> bytes | None:
        """Return what is to be sent next; None at the end.

        **Cancellation**: nothing is lost.
        """
        if self._held is None:
            try:
                self._held = await self._messages.receive()
                self.taken += 1
            except trio.EndOfChannel:
                self.ended = True
        return self._held

    @property
    def held(self) -> bool:
        """Whether there is one that was taken and not sent."""
        return self._held is not None

    @property
    def used_up(self) -> bool:
        """Whether all has been read and taken, and none is held."""
        return self._read_all and not self.held

    def sent(self) -> None:
        """Let go of what next() has returned."""
        self._held = None
