from __future__ import annotations

import io
import os

import pytest
import trio

from tests.command.files import pipe
from tests.platforms import needs_posix
from trio_ws._command.source import Source


async def all_of(source: Source) -> list[bytes]:
    messages = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        while (message := await source.next()) is not None:
            messages.append(message)
            source.sent()
    return messages


def raw(data: bytes) -> io.RawIOBase:
    """A file that gives three bytes at a time."""
    chunks = [data[i : i + 3] for i in range(0, len(data), 3)]

    class Chunks(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return chunks.pop(0) if chunks else b""

    return Chunks()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"one line\r\nanother\r\n", [b"one line", b"another"]),
        (b"1\n2\n3\n\xff", [b"1", b"2", b"3", b"\xff"]),
        (b"a\rb\n", [b"a\rb"]),
    ],
)
async def test_lines(data: bytes, lines: list[bytes]) -> None:
    source = Source(raw(data))
    assert await all_of(source) == lines
    assert source.taken == len(lines)
    assert source.ended


async def test_chunks() -> None:
    assert await all_of(Source(raw(b"1\n2\n3"), binary=True)) == [b"1\n2", b"\n3"]


async def test_closed_from_the_beginning() -> None:
    assert await all_of(Source(None)) == []


async def test_what_cannot_be_read_is_at_its_end() -> None:
    class Gone(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError("gone")

    assert await all_of(Source(Gone())) == []


async def test_what_was_not_sent_comes_again() -> None:
    source = Source(raw(b"a\nb\n"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        before = source.held
        assert await source.next() == b"a"
        assert (before, source.held) == (False, True)
        assert await source.next() == b"a"
        source.sent()
        assert await source.next() == b"b"


async def test_ends_while_a_thread_reads() -> None:
    """And what the thread reads then holds nobody up."""
    with pipe() as (reading, writing), trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            source = Source(reading)
            nursery.start_soon(source.run)
            writing.write(b"a\n")
            assert await source.next() == b"a"
            nursery.cancel_scope.cancel()
        writing.write(b"end of the thread\n")


@needs_posix
async def test_a_file_that_does_not_block() -> None:
    with pipe() as (reading, writing), trio.fail_after(60):
        os.set_blocking(reading.fileno(), False)
        async with trio.open_nursery() as nursery:
            source = Source(reading)
            nursery.start_soon(source.run)
            await trio.testing.wait_all_tasks_blocked()
            writing.write(b"a\n")
            assert await source.next() == b"a"
            source.sent()
            writing.close()
            assert await source.next() is None
