"""Memory, or the system, is short where a connection needs it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.contract.bugs import Role, by_role, outcome, side
from tests.handlers import echo
from tests.leaks import living_tasks
from tests.peers.sockets import tcp_pair, trio_stream
from tests.shortage import fails_at
from trio_ws import (
    ClientConnection,
    Connection,
    ServerConnection,
    codec,
    connect,
    open_server,
)
from trio_ws._connection.scope import ConnectionScope
from trio_ws._endpoint.endpoint import Endpoint
from trio_ws._endpoint.writer import Writer
from trio_ws._protocol.frames.outbox import Outbox
from trio_ws._transports.sockets import SocketTransport
from trio_ws.exceptions import ConnectionClosed, ConnectionClosedError

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there


def fails_for(ws: Connection, call: Any, number: int, error: BaseException) -> Any:
    """Fail as fails_at() does, for the parts of one connection alone."""
    failing = fails_at(call, number, error)
    parts = ws._endpoint.writer, ws._engine.outbox, ws._endpoint.transport

    def wrapper(part: Any, *args: Any) -> Any:
        return (failing if part in parts else call)(part, *args)

    return wrapper


STEPS = {
    "nursery": (trio, "open_nursery", 1),
    "second nursery": (trio, "open_nursery", 2),
    "cancel scope": (trio, "CancelScope", 1),
    "start": (Endpoint, "start", 1),
    "changed": (Endpoint, "changed", 1),
    "writer": (Writer, "start", 1),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("kind", [ClientConnection, ServerConnection])
async def test_a_block_that_cannot_be_entered(
    kind: type[Connection],
    step: tuple[Any, str, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    enter = ConnectionScope.__aenter__
    error = MemoryError()

    async def entering(scope: ConnectionScope) -> None:
        with pytest.MonkeyPatch.context() as patch:
            owner, name, number = step
            patch.setattr(owner, name, fails_at(getattr(owner, name), number, error))
            await enter(scope)

    async with open_server(echo, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await trio.testing.wait_all_tasks_blocked()
        before = living_tasks()
        with monkeypatch.context() as patch:
            failing = True

            async def once(scope: ConnectionScope) -> None:
                nonlocal failing
                if failing and isinstance(scope._connection, kind):
                    failing = False
                    await entering(scope)
                else:
                    await enter(scope)

            patch.setattr(ConnectionScope, "__aenter__", once)
            if kind is ClientConnection:
                with pytest.raises(MemoryError) as caught:
                    async with connect(uri):
                        raise AssertionError("entered")
                assert caught.value is error
            else:
                with pytest.raises(ConnectionClosedError):
                    async with connect(uri) as ws:
                        await ws.recv()
        with trio.fail_after(10):
            while server.connections:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
        if kind is ServerConnection:
            [record] = caplog.records
            assert record.exc_info is not None
            assert record.exc_info[1] is error
        assert living_tasks() == before
        async with connect(uri) as ws:
            await ws.send("goes on")
            assert await ws.recv() == "goes on"


@by_role
@pytest.mark.parametrize("kind", [MemoryError, ZeroDivisionError])
async def test_the_flusher_raises(
    role: Role,
    kind: type[Exception],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = kind()

    async def body(ws: Connection) -> None:
        await ws.send("x")
        assert await ws.recv() == "x"
        await trio.testing.wait_all_tasks_blocked()
        writer = ws._endpoint.writer
        flush_all = Writer._flush_all

        async def failing(each: Writer) -> None:
            if each is writer:
                monkeypatch.setattr(Writer, "_flush_all", flush_all)
                raise error
            await flush_all(each)

        monkeypatch.setattr(Writer, "_flush_all", failing)
        await ws.send(bytes(200_000))
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                await ws.recv()
        assert caught.value.__cause__ is error

    raised, other = await outcome(role, body)
    assert raised is (None if kind is MemoryError else error)
    assert other.done.is_set()
    assert trio.current_time() < 15


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EBADF])
@pytest.mark.parametrize("hurried", [False, True], ids=["reader", "receiver"])
@by_role
async def test_waiting_for_a_socket_fails(
    role: Role, number: int, hurried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = map(trio_stream, tcp_pair())
    other_role: Role = "server" if role == "client" else "client"
    error = OSError(number, "no way")
    wait_readable = SocketTransport.wait_readable

    async def echoing() -> None:
        with pytest.raises(ConnectionClosedError):
            async with side(other_role, theirs) as ws:
                async for message in ws:
                    await ws.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echoing)
        with trio.fail_after(10):
            async with side(role, ours) as ws:
                for _ in range(3 if hurried else 1):
                    await ws.send("x")
                    assert await ws.recv() == "x"
                transport = ws._endpoint.transport

                async def failing(each: SocketTransport) -> None:
                    if each is transport:
                        raise error
                    await wait_readable(each)

                monkeypatch.setattr(SocketTransport, "wait_readable", failing)
                with pytest.raises(ConnectionClosedError) as caught:
                    if not hurried:  # wake the reader, which waits already
                        await ws.send("x")
                        assert await ws.recv() == "x"
                    await ws.recv()
                assert caught.value.__cause__ is error
                assert ws.close_code == 1006


@pytest.mark.parametrize("how", ["send", "aclose", "leave"])
@by_role
async def test_a_descriptor_is_closed_behind_our_back(role: Role, how: str) -> None:
    ours, theirs = map(trio_stream, tcp_pair())
    other_role: Role = "server" if role == "client" else "client"

    async def idle() -> None:
        with suppress(ConnectionClosed):
            async with side(other_role, theirs) as ws:
                await ws.recv()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle)
            with pytest.raises(ConnectionClosedError) as caught:
                async with side(role, ours) as ws:
                    os.close(ws._endpoint.transport._sock.fileno())  # type: ignore[attr-defined]
                    if how == "send":
                        with suppress(ConnectionClosedError):
                            await ws.send("x")
                        await ws.recv()
                    elif how == "aclose":
                        await ws.send("x")
                        await ws.aclose()
                    else:
                        await ws.send("x")
            nursery.cancel_scope.cancel()
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EBADF


# Sending


SENDING = {
    "start the flusher": (Writer, "_start_flusher"),
    "write": (SocketTransport, "write"),
}
if codec() == "python":  # the methods of a compiled class can't be replaced
    SENDING |= {
        "push": (Outbox, "push"),
        "next buffers": (Outbox, "next_buffers"),
        "consume": (Outbox, "consume"),
    }


@pytest.mark.parametrize("size", [100, 20_000, 3_000_000])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("step", SENDING.values(), ids=SENDING)
@by_role
async def test_a_send_that_fails_sends_nothing_whole(
    role: Role,
    step: tuple[Any, str],
    number: int,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each message that was accepted arrives, in order, up to where it ends; none whose
    # send() raised does; nobody waits for ever.
    owner, name = step
    ours, theirs = map(trio_stream, tcp_pair())
    other_role: Role = "server" if role == "client" else "client"
    accepted: list[int] = []
    refused: list[int] = []
    arrived: list[int] = []

    async def receive() -> None:
        async with side(other_role, theirs, loss_grace=None) as ws:
            with suppress(ConnectionClosed):
                while True:
                    arrived.append((await ws.recv(decode=False))[0])

    error = MemoryError()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with suppress(ConnectionClosedError):
                async with side(role, ours, compression="deflate") as ws:
                    failing = fails_for(ws, getattr(owner, name), number, error)
                    monkeypatch.setattr(owner, name, failing)
                    for i in range(8):
                        try:
                            await ws.send(bytes([i]) * size)
                        except MemoryError:
                            refused.append(i)
                        except ConnectionClosedError:
                            break
                        else:
                            accepted.append(i)
                    monkeypatch.undo()
                    await ws.aclose()
    if len(arrived) < len(accepted):
        assert ws.close_code == 1006 or ws._engine.lost_data
    assert arrived == accepted[: len(arrived)]
    assert not set(arrived) & set(refused)
