"""Handlers: how they end, and what is logged of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests import logs
from tests.handlers import echo, stubborn
from tests.peers.in_memory import MemoryListener, RawPeer
from tests.server.serving import in_memory, logged
from trio_ws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    open_server,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

Handler: TypeAlias = "Callable[[ServerConnection], Awaitable[object]]"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_ws.server")
    return caplog


async def test_a_handler_that_returns_closes_the_connection(
    log: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send("x")

    server, client = in_memory(handler)
    async with server, client() as ws:
        assert [message async for message in ws] == ["x"]
        assert ws.close_code == 1000
    assert logged(log) == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        ExceptionGroup("several", [ValueError("mine"), KeyError()]),
        # Of another connection, say one to a server behind this one.
        ConnectionClosedOK(None, None),
        ConnectionClosedError(None, None),
        TimeoutError("mine"),
    ],
)
async def test_what_a_handler_raises_is_logged_and_harms_no_other(
    log: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            if message == "fail":
                raise error
            await ws.send(message)

    server, client = in_memory(handler)
    async with server, client() as good, client() as bad:
        await bad.send("fail")
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await bad.recv()
        await good.send("x")
        assert await good.recv() == "x"
        await trio.testing.wait_all_tasks_blocked()
        assert logged(log) == [("ERROR", "connection handler failed")]
        info = logs.told(log)[0].exc_info
        assert info is not None
        assert info[1] is error
        assert "in handler" in log.text


async def test_a_handler_may_be_no_coroutine_function(
    log: pytest.LogCaptureFixture,
) -> None:
    handler: Any = lambda ws: None  # noqa: E731
    server, client = in_memory(handler)
    async with server, client() as ws:
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await ws.recv()
    assert logged(log) == [("ERROR", "connection handler failed")]


async def test_a_loss_that_a_handler_lets_out_is_its_failure(
    log: pytest.LogCaptureFixture,
) -> None:
    peer = RawPeer(client=True)
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        peer.stream = listener.connect()
        await peer.ask()
        await peer.skip_response()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    assert logged(log) == [("ERROR", "connection handler failed")]
    assert "ConnectionClosedError: no close frame received or sent" in log.text
    assert "in echo" in log.text
    assert "EOFError" in log.text


async def _lose(handler: Handler) -> None:
    """Run a handler with a client that breaks off at once."""
    listener = MemoryListener()
    async with open_server(handler, listeners=[listener], loss_grace=0):
        peer = RawPeer(client=True)
        peer.stream = listener.connect()
        await peer.ask()
        await peer.skip_response()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_loss_that_a_handler_catches_is_not_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.recv()

    await _lose(handler)
    assert logged(log) == []


async def test_a_loss_of_which_no_handler_was_told_is_one_line(
    log: pytest.LogCaptureFixture,
) -> None:
    await _lose(stubborn)
    assert logged(log) == []
    lines = [logs.plain(record) for record in log.records]
    assert lines.count("connection closed: no close frame received or sent") == 1


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_close_in_good_order_is_not_logged(
    log: pytest.LogCaptureFixture, grouped: bool
) -> None:
    async def handler(ws: ServerConnection) -> None:
        if grouped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.recv)
        else:
            await ws.recv()

    server, client = in_memory(handler)
    async with server, client():
        pass
    assert logged(log) == []


async def test_a_group_in_which_a_task_was_cancelled(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    # Cancelled by Server.aclose(), a handler may raise a group of which
    # Cancelled is only a part. What remains of it is its own failure.
    async def fails(ws: ServerConnection) -> None:
        async def cleanup() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(cleanup)

    manager, client = in_memory(fails)
    async with manager as server, client() as ws:
        await server.aclose(timeout=3)
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
    assert logged(log) == [("ERROR", "connection handler failed")]
    assert "KeyError: 'mine'" in log.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_ends_the_server(
    error: type[BaseException],
) -> None:
    async def handler(ws: ServerConnection) -> None:
        raise error

    async def run() -> None:
        server, client = in_memory(handler)
        async with server, client() as ws:
            await ws.wait_closed()
            await trio.sleep_forever()

    with pytest.raises(error):
        await run()


async def test_a_logger_of_the_users(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(
        stubborn, 0, host="127.0.0.1", logger=logging.getLogger("mine")
    ) as server:
        assert server.logger.name == "mine"
        await trio.testing.wait_all_tasks_blocked()
    assert [(record.name, logs.plain(record)) for record in logs.told(caplog)] == [
        ("mine", f"listening on ('127.0.0.1', {_port_of(caplog)})")
    ]


def _port_of(caplog: pytest.LogCaptureFixture) -> str:
    return logs.messages(caplog)[0].rpartition(" ")[2].rstrip(")")
