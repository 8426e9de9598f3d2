"""Handlers of the log that raise: what a client gets, and whether the server lives."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.handlers import echo, stubborn
from tests.peers import raw_http
from tests.peers.in_memory import MemoryListener, RawPeer
from tests.server.serving import serving
from trio_ws import (
    ConnectionClosedError,
    ServerConnection,
    accept,
    connect,
    open_server,
)


class Bug(Exception):
    """What a handler of the log raises."""


class Calls(logging.Handler):
    """Calls a function for each record."""

    def __init__(self, function: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._function = function

    def emit(self, record: logging.LogRecord) -> None:
        self._function(record)


class Log(logging.Logger):
    """A logger with two handlers: one raises, where it is told to; one keeps."""

    def __init__(self, level: int) -> None:
        super().__init__("a log of the user's", level)
        self.raises: Callable[[logging.LogRecord], bool] = lambda record: False
        self.raised: list[Bug] = []
        self.kept: list[logging.LogRecord] = []
        self.addHandler(Calls(self._raise))
        self.addHandler(Calls(self.kept.append))

    def _raise(self, record: logging.LogRecord) -> None:
        if self.raises(record):
            self.raised.append(Bug(record.getMessage()))
            raise self.raised[-1]

    def raise_at(self, number: int) -> None:
        """Raise for the record that is this one of those to come."""
        left = number

        def at(record: logging.LogRecord) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        self.raises = at

    def raise_for(self, text: str) -> None:
        """Raise for each record that has this in it."""
        self.raises = lambda record: text in record.getMessage()

    def causes(self) -> Iterator[BaseException]:
        """Each exception that was logged, and what had led to it."""
        for record in self.kept:
            exc = record.exc_info[1] if record.exc_info else None
            while exc is not None:
                yield exc
                exc = exc.__context__


async def check_lives(listener: MemoryListener) -> None:
    with trio.fail_after(5):
        async with connect("ws://x/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def ask(listener: MemoryListener, request: bytes) -> bytes:
    """Send a request; return all that comes."""
    stream = listener.connect()
    await stream.send_all(request)
    peer = RawPeer(client=True, streams=(stream, stream))
    with trio.move_on_after(5):
        answer = bytes(await stream.receive_some())
        if answer.startswith(b"HTTP/1.1 101 "):
            await peer.close(1000)
        async for data in stream:
            answer += bytes(data)
    return answer


# Once

CHAT = raw_http.request()


def hook(ws: ServerConnection, *_: object) -> None:
    if ws.request.path == "/chat":
        raise RuntimeError("a bug of the hook's")


def create(endpoint: Any) -> ServerConnection:
    if endpoint.request.path == "/chat":
        raise RuntimeError("a bug of the connection's")
    return ServerConnection(endpoint)


@pytest.mark.parametrize(
    ("level", "request_", "status", "options"),
    [
        (logging.DEBUG, CHAT, 101, {}),
        (logging.DEBUG, raw_http.request(without=b"Upgrade"), 426, {}),
        (logging.DEBUG, b"SSH-2.0\r\n\r\n", 400, {}),
        (logging.DEBUG, raw_http.request(b"Origin: x"), 403, {"origins": [None]}),
        (logging.DEBUG, CHAT, 500, {"process_request": hook}),
        (logging.DEBUG, CHAT, 500, {"process_response": hook}),
        (logging.DEBUG, CHAT, 500, {"create_connection": create}),
        (logging.INFO, b"SSH-2.0\r\n\r\n", 400, {}),
        (logging.ERROR, CHAT, 500, {"process_request": hook}),
        (logging.ERROR, CHAT, 500, {"create_connection": create}),
    ],
)
async def test_a_handler_of_the_log_raises_once(
    level: int,
    request_: bytes,
    status: int,
    options: dict[str, Any],
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Log(level)
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], logger=log, **options) as server:
        number, answer = 0, b""
        # Until it raises no more, or not before it is open.
        while len(log.raised) == number and not answer.startswith(b"HTTP/1.1 101 "):
            number += 1
            log.raise_at(number)
            answer = await ask(listener, request_)
            await trio.testing.wait_all_tasks_blocked()
            log.raises = lambda record: False
            assert int(answer.split()[1]) in (status, 500)
            assert not server.connections
            await check_lives(listener)
    assert number > 1
    assert int(answer.split()[1]) == status
    # Each is told to the user: in the log, or where there is nobody else to log it.
    printed = capsys.readouterr().err
    logged = set(log.causes())
    for bug in log.raised:
        assert (bug in logged) != (f"Bug: {bug}\n" in printed)


async def test_accept_raises_it(autojump_clock: MockClock) -> None:
    log = Log(logging.DEBUG)
    log.raise_for("GET /chat")
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(CHAT)
    with pytest.raises(Bug) as caught:
        async with accept(ours, logger=log):
            raise AssertionError("entered")
    assert caught.value is log.raised[0]
    assert (await raw_http.read_answer(theirs)).status == 500


# Always


async def fails(ws: ServerConnection) -> None:
    async for message in ws:
        if message == "fail":
            raise ValueError("mine")
        await ws.send(message)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(
    ("level", "failed"),
    [(logging.DEBUG, "Bug: < GET /chat"), (logging.INFO, "a bug of the hook's")],
)
async def test_a_handler_of_the_log_raises_always(
    level: int,
    failed: str,
    shown: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", shown)
    log = Log(level)
    listener = MemoryListener()
    async with open_server(
        fails, listeners=[listener], logger=log, process_request=hook
    ):
        async with connect("ws://x/", stream=listener.connect()) as good:
            log.raises = lambda record: good.id.hex[:8] not in record.getMessage()
            for request in (CHAT, b"SSH-2.0\r\n\r\n"):
                answer = await ask(listener, request)
                assert int(answer.split()[1]) in (400, 500)
            log.raise_for("connection handler failed")
            async with connect("ws://x/", stream=listener.connect()) as bad:
                await bad.send("fail")
                with pytest.raises(ConnectionClosedError, match="received 1011"):
                    await bad.recv()
            await good.send("x")
            assert await good.recv() == "x"
    printed = capsys.readouterr().err
    assert ("--- Logging error ---" in printed) == shown
    # With what couldn't be logged for it.
    for text in (failed, "ValueError: mine", "Bug: connection handler failed"):
        assert (text in printed) == shown


async def test_a_shortage_cannot_be_logged(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(logging.INFO)
    log.raise_for("accepting no connections for now")
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], logger=log):
        listener.fail(OSError(errno.EMFILE, "too many"))
        await check_lives(listener)
    assert "OSError: [Errno 24] too many" in capsys.readouterr().err


async def test_it_cannot_be_logged_that_closing_failed(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(logging.INFO)
    log.raise_for("closing failed")
    listener = MemoryListener()
    async with open_server(
        stubborn, listeners=[listener], logger=log, close_timeout=2, loss_grace=0
    ) as server:
        peer = RawPeer(client=True, streams=trio.testing.lockstep_stream_pair())
        listener.add(peer.theirs)
        await peer.ask()
        await peer.skip_response()
        async with connect("ws://x/", stream=listener.connect()) as ws:
            for connection in server.connections:
                await connection.send(bytes(100_000))
            await server.aclose(timeout=5)
            assert len([message async for message in ws]) == 1
            assert ws.close_code == 1001
    (bug,) = log.raised
    assert f"Bug: {bug}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("offered", "lines"), [(["a"], 1), (None, 0)])
async def test_no_subprotocol_selected(
    caplog: pytest.LogCaptureFixture, offered: list[str] | None, lines: int
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    async with serving() as listener:
        async with connect("ws://h/", stream=listener.connect(), subprotocols=offered):
            pass
    told = [line for line in caplog.messages if "offered subprotocol" in line]
    assert len(told) == lines
