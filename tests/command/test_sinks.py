from __future__ import annotations

import errno
import os

import pytest
import trio

from tests.command.files import Full, Memory, pipe
from tests.command.terminal import Terminal
from tests.platforms import needs_posix
from trio_ws._command.sinks import (
    Bytes,
    Lines,
    NoReaderError,
    Printable,
    Screen,
    StdoutError,
)


async def test_lines_and_notes() -> None:
    out, err = Memory(), Memory()
    sink = Lines(out, err)
    await sink.show(["a", "b\r\nc\nd\re", "", "\x1b[31mé", b"\x00\xff"])
    sink.note("what\nhappens")
    assert out.text == "a\nb c d e\n\n\x1b[31mé\n00ff\n"
    assert err.text == "trio-ws: what\\nhappens\n"


async def test_bytes() -> None:
    out = Memory()
    await Bytes(out, None).show([b"\x00\n", "é", b""])
    assert out.data == b"\x00\n\xc3\xa9"


async def test_lines_on_a_terminal_do_not_control_it() -> None:
    out = Memory()
    await Printable(out, None).show(["\x1b[31mred\n\x07", b"\x1b", "\u202e", "\x9b1m"])
    assert out.text == "\\x1b[31mred\\n\\x07\n1b\n\\u202e\n\\x9b1m\n"


async def test_what_the_terminal_lacks_is_escaped() -> None:
    out = Memory()
    await Printable(out, None, "ascii").show(["é€"])
    assert out.text == "\\xe9\\u20ac\n"


async def test_stdout_is_closed() -> None:
    with pytest.raises(NoReaderError):
        await Lines(None, None).show(["a"])
    with pytest.raises(NoReaderError):
        await Lines(Full(errno.EPIPE), None).show(["a"])


async def test_stdout_is_full() -> None:
    with pytest.raises(StdoutError, match="can't write to stdout: No space left"):
        await Lines(Full(errno.ENOSPC), None).show(["a"])


def test_notes_that_nobody_reads() -> None:
    Lines(None, None).note("a")
    Lines(None, Full(errno.EPIPE)).note("a")


@needs_posix
async def test_a_pipe_that_does_not_block() -> None:
    """All is written, though not in one go."""
    with pipe() as (reading, writing), trio.fail_after(60):
        os.set_blocking(writing.fileno(), False)
        message = b"x" * 2**20
        read = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Bytes(writing, None).show, [message])
            while len(read) < len(message):
                read += await trio.to_thread.run_sync(reading.read, 65536)
        assert read == message


# On a terminal


class TerminalFile(Memory):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal=True)
        self.terminal = terminal

    def write(self, data: object) -> int:
        size = super().write(data)
        self.terminal.feed(self.text)
        self.data = b""
        return size


def screen(rows: int = 24, *, ansi: bool = True) -> tuple[Screen, Terminal]:
    terminal = Terminal(rows)
    file = TerminalFile(terminal)
    return Screen(file, file, ansi=ansi), terminal


@pytest.mark.parametrize("rows", [24, 5, 2])
async def test_messages_stand_above_what_is_typed(rows: int) -> None:
    sink, terminal = screen(rows)
    sink.note("connected")
    await sink.prompt()
    await sink.prompt()  # is there already
    terminal.feed("half a li")
    await sink.show(["one", "two", b"\x01\xff", b"\x01"])
    sink.note("note\x1b[A")
    terminal.feed("ne\n")
    sink.entered()
    await sink.prompt()
    await sink.show(["three"])
    sink.end()
    sink.end()  # once is enough
    assert [row.rstrip() for row in terminal.text] == [
        "* connected",
        "< one",
        "< two",
        "< binary, 2 bytes: 01 ff",
        "< binary, 1 byte: 01",
        "* note\\x1b[A",
        "> half a line",
        "< three",
        ">",
    ]


async def test_long_messages_are_cut_into_rows() -> None:
    sink, terminal = screen(6)
    await sink.prompt()
    await sink.show(["x" * 200, "\u4e2d" * 50, b"\xab" * 65])
    rows = terminal.text[:-1]
    assert rows[:3] == ["< " + "x" * 77, "x" * 79, "x" * 44]
    assert rows[3:5] == ["< " + "\u4e2d" * 38, "\u4e2d" * 12]
    assert "".join(rows[5:]) == "< binary, 65 bytes: " + "ab " * 63 + "ab..."
    assert terminal.text[-1].rstrip() == ">"


async def test_without_a_prompt_there_is_nothing_to_keep() -> None:
    out, err = Memory(terminal=True), Memory()
    sink = Screen(out, err)
    await sink.show(["a"])
    sink.note("to a file")
    sink.end()
    assert out.text == "< a\n"
    assert err.text == "trio-ws: to a file\n"


async def test_a_terminal_that_knows_no_sequences() -> None:
    out = Memory(terminal=True)
    sink = Screen(out, None, ansi=False)
    await sink.prompt()
    await sink.show(["a"])
    assert out.text == "> \n< a\n> "


def test_typed() -> None:
    assert Screen(None, None, "utf-8").decoded(b"\xc3\xa9\xff") == "é\ufffd"
