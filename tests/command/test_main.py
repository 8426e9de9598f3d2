"""The command as a process: in pipes, and on a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.command.terminal import Terminal
from tests.handlers import echo
from tests.platforms import needs_posix
from trio_ws import ServerConnection, connect, open_server

if sys.platform != "win32":
    import pty
    import termios

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
COMMAND = [sys.executable, "-W", "error", "-m", "trio_ws"]


# In pipes


async def ended(
    *arguments: str, stdin: bytes | int = subprocess.DEVNULL
) -> tuple[int, str, str]:
    """Run the command to its end; return its exit code, stdout and stderr."""
    with trio.fail_after(60):
        result = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            env=ENVIRONMENT,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    out, err = (
        data.decode().replace(os.linesep, "\n")
        for data in (result.stdout, result.stderr)
    )
    return result.returncode, out, err


@pytest.mark.realtime(seconds=1)
async def test_echo_hi() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        assert await ended("connect", uri, stdin=b"hi\n") == (0, "hi\n", "")
        # As it is.
        data = bytes(range(256))
        with trio.fail_after(60):
            result = await trio.run_process(
                [*COMMAND, "connect", "-1", "--binary", uri],
                stdin=data,
                env=ENVIRONMENT,
                capture_stdout=True,
            )
        assert result.stdout == data


async def test_wrong_usage() -> None:
    code, out, err = await ended("connect", "http://user:secret@a/")
    assert (code, out) == (2, "")
    assert err.startswith("trio-ws: http://")
    assert err.count("\n") == 1
    assert "secret" not in err


async def test_nothing_imports_it() -> None:
    code = "import sys, trio_ws; print([m for m in sys.modules if '_command' in m])"
    with trio.fail_after(60):
        result = await trio.run_process(
            [sys.executable, "-c", code], env=ENVIRONMENT, capture_stdout=True
        )
    assert result.stdout.split() == [b"[]"]


async def test_help() -> None:
    code, out, err = await ended("--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: trio-ws")


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve(number: signal.Signals) -> None:
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [*COMMAND, "serve", "0"], env=ENVIRONMENT, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            text = b""
            while not text.endswith(b"/\n"):
                text += await process.stderr.receive_some()
            uri = text.decode().removeprefix("trio-ws: listening at ").strip()
            async with connect(uri) as ws:
                await ws.send("here")
                assert await ws.recv() == "here"
                process.send_signal(number)
                assert [message async for message in ws] == []
                assert ws.close_code == 1001
            assert await process.wait() == 0
        finally:
            process.kill()
            await process.wait()
            if process.stderr is not None:
                await process.stderr.aclose()


@needs_posix
async def test_interrupted_in_a_pipe() -> None:
    codes: list[int | None] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.send("a")
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with open_server(handler, 0, host="127.0.0.1") as server:
        with trio.fail_after(60):
            process = await trio.lowlevel.open_process(
                [*COMMAND, "connect", f"ws://127.0.0.1:{server.port}/"],
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            async with process.stdin, process.stdout, process.stderr:
                try:
                    assert await process.stdout.receive_some() == b"a\n"
                    process.send_signal(signal.SIGINT)
                    assert await process.wait() == 130
                    text = b"".join([chunk async for chunk in process.stderr])
                    assert text == b"trio-ws: interrupted\n"
                finally:
                    process.kill()
                    await process.wait()
    assert codes == [1001]


@needs_posix
async def test_closed_files() -> None:
    """As a shell's <&- >&- leaves them."""

    async def handler(ws: ServerConnection) -> None:
        await ws.send("a")
        await ws.wait_closed()

    async with open_server(handler, 0, host="127.0.0.1") as server:
        command = [*COMMAND, "connect", f"ws://127.0.0.1:{server.port}/"]
        with trio.fail_after(60):
            result = await trio.run_process(
                ["sh", "-c", '"$@" <&- >&-', "sh", *command],
                env=ENVIRONMENT,
                check=False,
                capture_stderr=True,
            )
    assert (result.returncode, result.stderr) == (0, b"")


# On a terminal

# A new session's first terminal controls it: Ctrl-C is a signal then.
ON_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from trio_ws._command.main import main
sys.exit(main())
"""


class Pty:
    """The user at a terminal, and the command on it."""

    def __init__(self, keys: trio.abc.Stream, process: trio.Process) -> None:
        self.process = process
        self.terminal = Terminal(rows=6, columns=200)
        self._keys = keys
        self._came = ""

    async def type(self, text: str) -> None:
        await self._keys.send_all(text.encode())

    async def until(self, pattern: str) -> None:
        """Wait until the screen has a row that matches."""
        while not any(re.search(pattern, row) for row in self.terminal.text):
            try:
                chunk = await self._keys.receive_some()
            except trio.BrokenResourceError:  # Linux says EIO: nobody has it open
                chunk = b""
            assert chunk, f"no {pattern!r} in {self.terminal.text}"
            self.terminal.feed(chunk.decode())


@asynccontextmanager
async def on_terminal(*arguments: str) -> AsyncIterator[Pty]:
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with trio.fail_after(60):
            async with trio.lowlevel.FdStream(master) as keys:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-W", "error", "-c", ON_TERMINAL, *arguments],
                    env=ENVIRONMENT,
                    stdin=slave,
                    stdout=slave,
                    stderr=slave,
                    start_new_session=True,
                )
                try:
                    yield Pty(keys, process)
                finally:
                    process.kill()
                    await process.wait()
                assert termios.tcgetattr(slave) == before
                assert os.get_blocking(slave)
    finally:
        os.close(slave)


EMPTY_PROMPT = "^> *$"


@needs_posix
async def test_on_a_terminal() -> None:
    typed: list[str | bytes] = []

    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            typed.append(message)
            if message == "bad":
                await ws.send("\x1b[2J\x07\r\n")
                await ws.send(b"\x00\xff")
            await ws.send(message)

    async with open_server(handler, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with on_terminal("connect", uri) as user:
            await user.until("^> ")
            await user.type("bad\n")
            await user.until("^< bad")
            await user.until(EMPTY_PROMPT)
            await user.type("/ping\n")
            await user.until("^[*] pong after [0-9.]+ ms")
            # What is typed before it the terminal shows before it.
            await user.until(EMPTY_PROMPT)
            await user.type("half")
            await user.until("^> half")
            (ws,) = server.connections
            await ws.send("meanwhile")
            await user.until("^< meanwhile")
            await user.type(" a line\n")
            await user.until("^< half a line")
            await user.type("\x04")
            await user.until("^[*] closed")
            assert await user.process.wait() == 0
    assert typed == ["bad", "half a line"]
    first, *rows = [row.rstrip() for row in user.terminal.text]
    assert first.startswith("* connected; Ctrl-D closes")
    assert [re.sub("[0-9.]+ ms", "1 ms", row) for row in rows] == [
        "> bad",
        "< \\x1b[2J\\x07\\r\\n",
        "< binary, 2 bytes: 00 ff",
        "< bad",
        "> /ping",
        "* pong after 1 ms",
        "< meanwhile",
        "> half a line",
        "< half a line",
        ">",
        "* closed: 1000 (OK)",
    ]


@needs_posix
async def test_interrupted_on_a_terminal() -> None:
    codes: list[int | None] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with open_server(handler, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with on_terminal("connect", uri) as user:
            await user.until("^> ")
            await user.type("\x03")
            await user.until("^[*] interrupted")
            assert await user.process.wait() == 130
    assert codes == [1001]


@needs_posix
async def test_serve_on_a_terminal() -> None:
    async with on_terminal("serve", "0") as user:
        await user.until("^trio-ws: listening at ws://127.0.0.1:[0-9]+/")
        await user.type("\x03")
        await user.until("trio-ws: closing")
        assert await user.process.wait() == 0


@needs_posix
async def test_bytes_are_not_for_a_terminal() -> None:
    async with on_terminal("connect", "--binary", "ws://a/") as user:
        await user.until("isn't for a terminal")
        assert await user.process.wait() == 2
