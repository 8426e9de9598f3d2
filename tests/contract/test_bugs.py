"""User code that raises where the library calls it, and memory that is short.

The user gets the exception itself, the peer is told 1011 where that can be said,
and the block is left in time.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.contract.bugs import (
    CLOSE,
    PING,
    Bug,
    Buggy,
    ClientFactory,
    Other,
    Role,
    ServerFactory,
    by_role,
    outcome,
    side,
)
from tests.peers.sockets import tcp_pair, trio_stream
from trio_ws import (
    ClientConnection,
    Connection,
    ServerConnection,
    connect,
    open_server,
)
from trio_ws._connection.scope import ConnectionScope
from trio_ws._endpoint.reader import OFFERED
from trio_ws.exceptions import ConnectionClosedError

by_error = pytest.mark.parametrize("kind", [Bug, MemoryError])


async def echo(ws: Connection) -> None:
    await ws.send("x")
    assert await ws.recv() == "x"


async def idle(ws: Connection) -> None:
    await ws.wait_closed()


# Extensions


@by_role
@by_error
async def test_decode_raises(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(decode=lambda frame: frame.data == b"wrong", error=kind())
    told: list[ConnectionClosedError] = []

    async def body(ws: Connection) -> None:
        await echo(ws)
        await ws.send("wrong")
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        told.append(caught.value)

    error, other = await outcome(role, body, extension)
    assert [exc.__cause__ for exc in told] == [extension.error]
    # Where memory is short the user has been told all; a bug is to be seen.
    assert error is (None if kind is MemoryError else extension.error)
    assert other.close_code == 1011
    assert trio.current_time() < 15


@by_role
@by_error
async def test_encode_raises(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(encode=lambda frame: frame.data == b"wrong", error=kind())

    async def body(ws: Connection) -> None:
        for call in (ws.send, ws.send_nowait):
            with pytest.raises(kind):
                await call("wrong")  # type: ignore[misc]
            # Nothing of it was sent, so nothing is torn.
            await echo(ws)

    error, other = await outcome(role, body, extension)
    assert error is None
    assert other.close_code == 1000


async def leave(ws: Connection) -> None:
    await echo(ws)


async def leave_with_an_error(ws: Connection) -> None:
    await echo(ws)
    raise KeyError


async def leave_cancelled(ws: Connection) -> None:
    await echo(ws)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ws.aclose()


async def close(ws: Connection) -> None:
    await echo(ws)
    await ws.aclose()


async def close_suppressed(ws: Connection) -> None:
    await echo(ws)
    try:
        await ws.aclose()
    except Exception as exc:  # noqa: BLE001 - whatever it is
        assert isinstance(exc, (Bug, MemoryError))  # noqa: PT017
    await idle(ws)


async def relay(
    source: trio.abc.Stream, target: trio.abc.Stream, cut: trio.CancelScope
) -> None:
    with cut:
        async for data in source:
            await target.send_all(data)


@by_role
@by_error
@pytest.mark.parametrize(
    "body",
    [leave, leave_with_an_error, leave_cancelled, close, close_suppressed],
    ids=lambda body: body.__name__,
)
async def test_the_close_frame_cannot_be_made(
    role: Role, kind: type[Exception], body: Any, autojump_clock: MockClock
) -> None:
    extension = Buggy(encode=lambda frame: frame.opcode == CLOSE, error=kind())
    error, other = await outcome(role, body, extension)
    assert extension.raised
    if body is leave_with_an_error and isinstance(error, ExceptionGroup):
        assert {type(exc) for exc in error.exceptions} == {KeyError, kind}
    elif body is close_suppressed:
        assert isinstance(error, (kind, ConnectionClosedError, type(None)))
    else:
        assert isinstance(error, (kind, KeyError))
    # Without the extension a close frame can be made.
    assert other.close_code == 1011
    assert trio.current_time() < 1


@by_role
@by_error
async def test_a_cancelled_block_whose_close_frame_cannot_be_made(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(encode=lambda frame: frame.opcode == CLOSE, error=kind())

    async def body(ws: Connection) -> None:
        raise AssertionError("not reached")

    scope = trio.CancelScope()

    async def cancelled(ws: Connection) -> None:
        await echo(ws)
        scope.cancel()
        await trio.sleep_forever()

    async def run() -> None:
        with scope:
            error, other = await outcome(role, cancelled, extension)
            del error, other

    await run()
    assert trio.current_time() < 1
    assert extension.raised


@by_role
@by_error
async def test_the_peers_close_frame_cannot_be_answered(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(decode=lambda frame: frame.opcode == CLOSE, error=kind())

    async def body(ws: Connection) -> None:
        await echo(ws)
        await ws.aclose()

    error, other = await outcome(role, body, extension)
    assert extension.raised == 1
    # It has begun to close in good order, and what follows is for nobody.
    assert error is None or error is extension.error
    assert other.close_code == 1000
    assert trio.current_time() < 15


@by_role
@by_error
async def test_a_bug_after_which_the_extension_makes_no_close_frame(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(
        decode=lambda frame: frame.data == b"wrong",
        encode=lambda frame: frame.opcode == CLOSE,
        error=kind(),
    )

    async def body(ws: Connection) -> None:
        await ws.send("wrong")
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.__cause__ is extension.error

    error, other = await outcome(role, body, extension)
    # Of two bugs, the later one.
    assert error is (None if kind is MemoryError else extension.error)
    assert extension.raised == 2
    assert other.close_code == 1011
    assert trio.current_time() < 1


@by_role
@by_error
async def test_a_keepalive_whose_close_frame_cannot_be_made(
    role: Role, kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(encode=lambda frame: frame.opcode == CLOSE, error=kind())
    ours, near = trio.testing.memory_stream_pair()
    far, theirs = trio.testing.memory_stream_pair()
    other = Other("server" if role == "client" else "client", theirs)
    told: list[ConnectionClosedError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        cuts = trio.CancelScope(), trio.CancelScope()
        nursery.start_soon(relay, near, far, cuts[0])
        nursery.start_soon(relay, far, near, cuts[1])
        try:
            async with side(role, ours, extension) as ws:
                await echo(ws)
                for cut in cuts:
                    cut.cancel()
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
                told.append(caught.value)
        except (Bug, MemoryError) as exc:
            assert exc is extension.error  # noqa: PT017
        assert 40 <= trio.current_time() < 41  # ping_interval and ping_timeout
        nursery.cancel_scope.cancel()
    assert extension.raised == 1
    assert len(told) == 1


@by_role
@by_error
@pytest.mark.parametrize("sockets", [False, True], ids=["stream", "socket"])
async def test_a_ping_of_the_keepalive_cannot_be_made(
    role: Role, kind: type[Exception], sockets: bool
) -> None:
    extension = Buggy(encode=lambda frame: frame.opcode == PING, error=kind())
    told: list[ConnectionClosedError] = []

    async def body(ws: Connection) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        told.append(caught.value)

    streams = None
    if sockets:
        ours, theirs = tcp_pair()
        streams = trio_stream(ours), trio_stream(theirs)
    error, other = await outcome(
        role, body, extension, streams=streams, ping_interval=0.01
    )
    assert error is (None if kind is MemoryError else extension.error)
    assert [exc.__cause__ for exc in told] == [extension.error]
    assert other.close_code == 1011


@by_error
async def test_a_server_that_closes_and_cannot_make_close_frames(
    kind: type[Exception], autojump_clock: MockClock
) -> None:
    extension = Buggy(encode=lambda frame: frame.opcode == CLOSE, error=kind())
    seen: list[int | None] = []

    async def client(port: int, extension: Buggy | None) -> None:
        extensions = [ClientFactory(extension)] if extension else None
        try:
            async with connect(
                f"ws://127.0.0.1:{port}/", extensions=extensions, compression=None
            ) as ws:
                await ws.wait_closed()
        except ConnectionClosedError:
            pass
        seen.append(ws.close_code)

    async with trio.open_nursery() as nursery:
        async with open_server(
            idle,
            0,
            host="127.0.0.1",
            extensions=[ServerFactory(extension)],
            compression=None,
        ) as server:
            for other in None, Buggy(), None:
                nursery.start_soon(client, server.port, other)
            while len(server.connections) < 3:
                await trio.lowlevel.checkpoint()
            await server.aclose()
        assert trio.current_time() < 1
    assert sorted(seen, key=str) == [1001, 1001, 1011]


@by_role
@by_error
@pytest.mark.usefixtures("all_is_quick")
async def test_a_receiver_that_reads_meets_the_bug(
    role: Role, kind: type[Exception]
) -> None:
    extension = Buggy(decode=lambda frame: frame.data == b"wrong", error=kind())
    ours, theirs = map(trio_stream, tcp_pair())
    other = Other("server" if role == "client" else "client", theirs)
    raised: Exception | None = None
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            try:
                async with side(role, ours, extension) as ws:
                    for _ in range(5):
                        await echo(ws)
                    assert ws._reader.by is OFFERED
                    await ws.send("wrong")
                    with pytest.raises(ConnectionClosedError) as caught:
                        await ws.recv()
                    assert caught.value.__cause__ is extension.error
            except Exception as exc:  # noqa: BLE001 - it is looked at
                raised = exc
    assert raised is (None if kind is MemoryError else extension.error)
    assert other.close_code == 1011


class BrokenStream(trio.abc.Stream):
    """A stream of the user's with a bug."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        if self.broken:
            raise Bug
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@by_role
async def test_a_stream_of_the_users_raises(
    role: Role, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = BrokenStream(ours)

    async def body(ws: Connection) -> None:
        await echo(ws)
        stream.broken = True
        await ws.send("x")
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert type(caught.value.__cause__) is Bug

    error, other = await outcome(role, body, streams=(stream, theirs))
    assert type(error) is Bug
    assert other.close_code == 1011


@by_role
async def test_a_block_that_cannot_be_entered(
    role: Role, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ClientConnection if role == "client" else ServerConnection
    enter = ConnectionScope._enter_user_side

    async def fails(self: Any, service: trio.Nursery) -> None:
        if isinstance(self._connection, mine):
            raise Bug
        await enter(self, service)

    monkeypatch.setattr(ConnectionScope, "_enter_user_side", fails)
    error, other = await outcome(role, echo)
    assert isinstance(error, Bug)
    assert other.close_code == 1011
    assert trio.current_time() < 15


# The log


class Raises(logging.Handler):
    def __init__(self, sign: str) -> None:
        super().__init__()
        self._sign = sign

    def emit(self, record: logging.LogRecord) -> None:
        if self._sign in record.getMessage():
            raise Bug


@by_role
@pytest.mark.parametrize("sign", [" < TEXT", " > TEXT", " < CLOSE", " > CLOSE", "clos"])
async def test_a_handler_of_the_log_raises(
    role: Role,
    sign: str,
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("tests.raises")
    handler = Raises(sign)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        error, other = await outcome(role, echo, logger=logger)
    finally:
        logger.removeHandler(handler)
    if sign == "clos":
        # Nobody could be told any more; it ends as if there were no log.
        assert error is None
        assert other.close_code == 1000
        assert "--- Logging error ---" in capsys.readouterr().err
        return
    assert isinstance(error, Bug)
    assert other.close_code in (1000, 1006, 1011)
    if "TEXT" in sign:
        assert other.close_code == 1011
    assert trio.current_time() < 15
