"""What one read brought and nobody has room for: it waits as it came, in order.

64 KiB can decompress to 62 messages of 1 MiB.
"""

from __future__ import annotations

import functools
import gc
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.memory import measures_memory, tracemalloc
from tests.peers.stream_peer import StreamPeer, reset_error, server_peer
from tests.peers.wire import BINARY, CLOSE, KEY, PING, PONG, TEXT, close_frame, frame
from trio_ws import Connection, accept, connect
from trio_ws.exceptions import ConnectionClosed, ConnectionClosedError

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

Role = Literal["client", "server"]
by_role = pytest.mark.parametrize("role", ["client", "server"])
by_letter = pytest.mark.parametrize("letter", ["", "\U0001f600"], ids=["bytes", "wide"])

MAX_SIZE = 2**20
COUNT = 62
ONE_READ = 2**16 + 512


def key_of(role: Role) -> bytes | None:
    return KEY if role == "server" else None


@functools.cache
def compressed(letter: str) -> tuple[bytes, ...]:
    payloads = []
    for message in expected(letter):
        data = message.encode() if isinstance(message, str) else message
        deflater = zlib.compressobj(9, wbits=-12)
        payload = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        payloads.append(payload.removesuffix(b"\0\0\xff\xff"))
    return tuple(payloads)


@functools.cache
def expected(letter: str) -> tuple[str | bytes, ...]:
    """Return the messages, each of them 1 MiB and another one."""
    if not letter:
        return tuple(bytes([i]) * MAX_SIZE for i in range(COUNT))
    fill = MAX_SIZE - len(letter.encode()) - 2
    return tuple(f"{i:02}" + "x" * fill + letter for i in range(COUNT))


def burst(role: Role, letter: str, count: int = COUNT) -> bytes:
    """Make one read of many large messages."""
    opcode = TEXT if letter else BINARY
    data = b"".join(
        frame(opcode, payload, rsv=4, key=key_of(role))
        for payload in compressed(letter)[:count]
    )
    assert len(data) <= ONE_READ + 8000
    return data


class Pair:
    """A connection that compresses, and the scripted peer at its other end."""

    def __init__(self, role: Role, **options: Any) -> None:
        self.role = role
        self.peer: StreamPeer
        self.scope: connect | accept
        if role == "client":
            self.peer = StreamPeer(deflate=True)
            self.scope = connect("ws://testing/chat", stream=self.peer, **options)
        else:
            self.peer = server_peer(deflate=True)
            self.scope = accept(self.peer, **options)

    def answer_close(self) -> None:
        def answer() -> None:
            self.peer.feed(close_frame(1000, key=key_of(self.role)))
            self.peer.end()

        self.peer.on_close = answer


async def settled() -> None:
    """Let the reader have all the turns that it wants."""
    await trio.testing.wait_all_tasks_blocked()


def waiting(ws: Connection) -> int:
    return ws._engine.queued


@measures_memory
@by_role
@by_letter
async def test_memory_of_one_read(
    role: Role, letter: str, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    pair.answer_close()
    data = burst(role, letter)
    messages = expected(letter)
    async with pair.scope as ws:
        gc.collect()
        tracemalloc.start()
        try:
            pair.peer.feed(data)
            await settled()
            gc.collect()
            memory, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 0 < waiting(ws) <= 2 * MAX_SIZE
        # The peer, here, has a buffer of its own.
        assert memory <= 2 * MAX_SIZE + 2 * ONE_READ + 2**16
        for message in messages:
            assert await ws.recv() == message
            assert waiting(ws) <= 2 * MAX_SIZE
        with pytest.raises(trio.WouldBlock):
            ws.recv_nowait()


LIMITS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no max_size": {"max_size": None},
    "no max_queue": {"max_queue": None},
    "max_queue=0": {"max_queue": 0},
}
by_limits = pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)


async def take(ws: Connection, how: str) -> str | bytes:
    if how == "recv":
        return await ws.recv()
    if how == "streaming":
        pieces: list[Any] = [piece async for piece in ws.recv_streaming()]
        return pieces[0][:0].join(pieces)  # type: ignore[no-any-return]
    return ws.recv_nowait()


@by_role
@by_letter
@by_limits
@pytest.mark.parametrize("how", ["recv", "streaming", "nowait"])
async def test_all_arrive_in_order(
    role: Role,
    letter: str,
    limits: dict[str, Any],
    how: str,
    autojump_clock: MockClock,
) -> None:
    pair = Pair(role, **limits)
    pair.answer_close()
    count = 20
    async with pair.scope as ws:
        pair.peer.feed(burst(role, letter, count))
        await settled()
        # recv_nowait() needs no turn of the loop between two messages.
        received = [await take(ws, how) for _ in range(count)]
        assert received == list(expected(letter)[:count])


@by_role
@by_limits
async def test_no_limit_is_passed_by_more_than_a_message(
    role: Role, limits: dict[str, Any], autojump_clock: MockClock
) -> None:
    pair = Pair(role, **limits)
    pair.answer_close()
    async with pair.scope as ws:
        pair.peer.feed(burst(role, ""))
        await settled()
        most = ws._engine.max_waiting
        assert most < 2**25
        assert waiting(ws) <= most + MAX_SIZE


ENDS = ["close", "end", "reset", "violation"]


def end(pair: Pair, how: str) -> None:
    key = key_of(pair.role)
    if how == "close":
        pair.peer.feed(close_frame(1000, b"bye", key=key))
        if pair.role == "client":
            pair.peer.end()
    elif how == "end":
        pair.peer.end()
    elif how == "reset":
        pair.peer.reset()
    else:
        pair.peer.feed(frame(3, b"", key=key))
        pair.peer.end()


@by_role
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("taken_by", ["recv", "streaming"])
async def test_an_end_behind_it_is_seen_in_the_end(
    role: Role, how: str, taken_by: str, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    count = 20
    received = []
    with pytest.raises(ConnectionClosed) as caught:
        async with pair.scope as ws:
            pair.peer.feed(burst(role, "", count))
            end(pair, how)
            await settled()
            assert ws.close_code is None
            while True:
                received.append(await take(ws, taken_by))
    assert received == list(expected("")[:count])
    error = caught.value
    if how == "close":
        assert error.rcvd is not None
        assert (error.rcvd.code, error.rcvd.reason) == (1000, "bye")
    elif how == "violation":
        assert error.sent is not None
        assert error.sent.code == 1002
    else:
        assert isinstance(error, ConnectionClosedError)
        kind = EOFError if how == "end" else ConnectionResetError
        assert type(error.__cause__) is kind


@by_role
@pytest.mark.parametrize("count", [3, 20])
async def test_leaving_finds_the_close_frame_behind_it(
    role: Role, count: int, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    async with pair.scope as ws:
        pair.peer.feed(burst(role, "", count))
        end(pair, "close")
        await settled()
        assert waiting(ws)
    assert ws.close_code == 1000
    assert ws.close_reason == "bye"
    assert [each.opcode for each in pair.peer.frames] == [CLOSE]
    assert trio.current_time() < 1


@by_role
async def test_aclose_finds_the_close_frame_behind_it(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    async with pair.scope as ws:
        pair.peer.feed(burst(role, ""))
        end(pair, "close")
        await settled()
        await ws.aclose()
        assert ws.close_code == 1000
    assert trio.current_time() < 1


@by_role
async def test_a_cancelled_block_with_a_backlog_is_left_at_once(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    with trio.move_on_after(0.5):
        async with pair.scope as ws:
            pair.peer.feed(burst(role, ""))
            await ws.wait_closed()
    assert [each.opcode for each in pair.peer.frames] == [CLOSE]
    assert trio.current_time() == 0.5
    assert pair.peer.closed


@by_role
async def test_a_ping_behind_it_is_answered_once_it_is_reached(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    pair.answer_close()
    async with pair.scope as ws:
        pair.peer.feed(burst(role, "", 10) + frame(PING, b"p", key=key_of(role)))
        await settled()
        assert pair.peer.frames == []
        for _ in range(10):
            await ws.recv()
        await settled()
        assert [(each.opcode, each.data) for each in pair.peer.frames] == [(PONG, b"p")]


@by_role
async def test_it_may_come_with_the_handshake(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role)
    pair.answer_close()
    data = burst(role, "", 20)
    if role == "client":
        pair.peer.after_handshake = data
    else:
        pair.peer.feed(data)
    async with pair.scope as ws:
        await settled()
        assert waiting(ws) <= 2 * MAX_SIZE
        assert [await ws.recv() for _ in range(20)] == list(expected("")[:20])


@by_role
async def test_a_reset_says_more_than_what_nobody_takes(
    role: Role, autojump_clock: MockClock
) -> None:
    # Leaving with a backlog whose peer is gone is no error.
    pair = Pair(role)
    async with pair.scope as ws:
        pair.peer.feed(burst(role, ""))
        pair.peer.send_error = reset_error()
        pair.peer.end()
        await settled()
    assert ws.close_code == 1006
    assert trio.current_time() < 11


# What came before a loss (R2)


async def take_all(ws: Connection, how: str) -> list[Any]:
    """Receive until the connection is closed."""
    found: list[Any] = []
    with pytest.raises(ConnectionClosedError):
        while True:
            if how == "recv":
                found.append(await ws.recv(decode=False))
            elif how == "recv_nowait":
                found.append(ws.recv_nowait(decode=False))
            else:
                pieces: list[Any] = [piece async for piece in ws.recv_streaming()]
                found.append(b"".join(pieces))
    return found


@by_role
@pytest.mark.parametrize("how", ["recv", "recv_nowait", "recv_streaming"])
@pytest.mark.parametrize("loss", ["reset", "keepalive", "stalled"])
async def test_nothing_of_it_is_lost_with_the_connection(
    role: Role, how: str, loss: str, autojump_clock: MockClock
) -> None:
    pair = Pair(role, loss_grace=None, max_size=20_000)
    sent = [b"%06d" % i + bytes(50) for i in range(900)]
    control = frame(PING, b"", key=key_of(role))
    data = b"".join(frame(BINARY, one, key=key_of(role)) + control for one in sent)
    assert len(data) < ONE_READ
    with suppress(ConnectionClosedError):
        async with pair.scope as ws:
            if loss == "stalled":
                pair.peer.takes = 0
            pair.peer.feed(data)
            await settled()
            assert len(ws._engine.messages) < len(sent)
            if loss == "reset":
                pair.peer.send_error = reset_error()
            if loss != "keepalive":
                with pytest.raises(ConnectionClosedError):
                    while True:
                        await ws.send(bytes(10_000))
            else:
                ws._endpoint.fail(1011, "keepalive ping timeout", TimeoutError())
            await trio.sleep(100)
            assert ws.close_code == 1006
            found = await take_all(ws, how)
    assert found == sent


@by_role
async def test_what_is_left_of_it_after_our_own_close_is_for_nobody(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role, max_size=20_000)
    data = frame(BINARY, bytes(50), key=key_of(role)) * 900
    async with pair.scope as ws:
        pair.peer.feed(data)
        await settled()
        await ws.aclose()
        assert await ws_is_empty(ws)


async def ws_is_empty(ws: Connection) -> bool:
    with pytest.raises(ConnectionClosed):
        ws.recv_nowait()
    with pytest.raises(ConnectionClosed):
        await ws.recv()
    return True


@by_role
@pytest.mark.parametrize("how", ["recv", "recv_nowait", "recv_streaming"])
@pytest.mark.parametrize("amid", [False, True])
async def test_receiving_while_another_task_closes_hides_no_close_frame(
    role: Role, how: str, amid: bool, autojump_clock: MockClock
) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "begun"
        await trio.sleep(1)
        yield "done"

    async def receive(ws: Connection) -> None:
        with suppress(ConnectionClosed, trio.WouldBlock):
            await take(ws, how.removeprefix("recv_"))

    data = frame(BINARY, bytes(50), key=key_of(role)) * 100
    for _ in range(8):  # tasks of a turn run in any order
        pair = Pair(role, close_timeout=1000)
        start = trio.current_time()
        async with pair.scope as ws, trio.open_nursery() as nursery:
            if amid:
                nursery.start_soon(sends, ws, pieces())
            pair.peer.feed(data)
            end(pair, "close")
            await settled()
            assert ws._engine.backlog
            nursery.start_soon(ws.aclose)
            nursery.start_soon(receive, ws)
        assert ws.close_code == 1000
        assert pair.peer.frames[-1].opcode == CLOSE
        # A server waits no longer than for its own iterable.
        assert trio.current_time() - start < 5


async def sends(ws: Connection, message: AsyncIterator[str]) -> None:
    with suppress(ConnectionClosed):
        await ws.send(message)


@by_role
async def test_the_close_frame_behind_it_says_why_it_was_lost(
    role: Role, autojump_clock: MockClock
) -> None:
    pair = Pair(role, loss_grace=None)
    key = key_of(role)
    with suppress(ConnectionClosedError):
        async with pair.scope as ws:
            pair.peer.feed(burst(role, "", 20) + close_frame(1008, b"why", key=key))
            await settled()
            pair.peer.send_error = reset_error()
            with pytest.raises(ConnectionClosedError):
                while True:
                    await ws.send(bytes(10_000))
            assert ws.close_code == 1006
            assert await take_all(ws, "recv") == list(expected("")[:20])
            assert (ws.close_code, ws.close_reason) == (1008, "why")
