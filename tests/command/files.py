"""Files without a buffer, as the command has them, and their other ends."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import trio


def opened(descriptor: int, mode: str) -> io.RawIOBase:
    return cast(io.RawIOBase, open(descriptor, mode, buffering=0))


@contextmanager
def pipe() -> Iterator[tuple[io.RawIOBase, io.RawIOBase]]:
    """A pipe's end to read from and its end to write to."""
    receiver, sender = os.pipe()
    with opened(receiver, "rb") as reading, opened(sender, "wb") as writing:
        yield reading, writing


async def until(file: io.RawIOBase, wanted: Callable[[bytes], bool]) -> bytes:
    """Read until what has come is as wanted, or the end has."""
    data = b""
    while not wanted(data):
        chunk = await trio.to_thread.run_sync(file.read, 65536, abandon_on_cancel=True)
        if not chunk:
            break
        data += chunk
    return data


async def line_from(file: io.RawIOBase) -> bytes:
    return await until(file, lambda data: data.endswith(b"\n"))


class Memory(io.RawIOBase):
    """A file to write to that keeps all, a terminal if it says so."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.data = b""
        self._terminal = terminal

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        raise OSError("no descriptor")

    def write(self, data: object) -> int:
        self.data += bytes(cast(bytes, data))
        return len(cast(bytes, data))

    @property
    def text(self) -> str:
        return self.data.decode()


class Full(Memory):
    """A file that can't be written, for the reason given."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, data: object) -> int:
        raise OSError(self._number, os.strerror(self._number))
