"""How a connection fails, and what of it is left."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.endpoint.link import MakeSockets
from tests.peers.in_memory import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    connected,
    frame,
)
from tests.platforms import needs_resets
from trio_ws import ConnectionClosedError, ConnectionClosedOK, accept
from trio_ws._client.options import ClientOptions
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint.ending import Ending
from trio_ws._endpoint.identity import Identity
from trio_ws._protocol.engine import Engine

if TYPE_CHECKING:
    from trio.testing import MockClock

FIN = 0x80


# Failures


@needs_resets
async def test_a_reset_while_reading(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        nursery.start_soon(trio.lowlevel.checkpoint)
        both.reset()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == "no close frame received or sent"
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_reset_while_writing(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        both.reset()
        ws.send_nowait("x")  # the first to notice
        with pytest.raises(ConnectionClosedError) as caught:
            ws.send_nowait("x")
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_the_error_of_a_write_keeps_nothing_of_what_was_sent(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        both.reset()
        ws.send_nowait(bytes(1000))
        with pytest.raises(ConnectionClosedError) as caught:
            ws.send_nowait("x")
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectionResetError)
        # A frame that it had passed through would hold the message.
        assert cause.__traceback__ is None
        assert cause.__context__ is None


async def test_a_close_frame_is_found_though_writing_fails(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    # What the peer said before it went says more than that it has gone.
    both = sockets(unix=True)
    async with connected(nursery, both.peer) as ws:
        await trio.testing.wait_all_tasks_blocked()
        both.sock.send(frame(TEXT, b"last") + frame(CLOSE, b"\x03\xe8bye"))
        assert isinstance(both.peer.stream, trio.SocketStream)
        both.peer.stream.socket.close()
        ws.send_nowait("x")  # the first to notice
        assert ws.recv_nowait() == "last"
        with pytest.raises(ConnectionClosedOK, match=r"received 1000 \(OK\) bye"):
            await ws.recv()


async def test_a_violation_is_answered_and_the_messages_before_it_are_too(
    sockets: MakeSockets,
    nursery: trio.Nursery,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_counter, "perf_counter", lambda: now[0])
    peer = sockets().peer
    async with connected(nursery, peer) as ws:

        async def echo() -> None:
            await ws.send(await ws.recv())

        ws.nursery.start_soon(echo)
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(
            frame(TEXT, b"1") + frame(PING, b"2") + frame(3) + frame(TEXT, b"no")
        )
        got = [await peer.read() for _ in range(3)]
        assert set(got[:2]) == {(FIN | TEXT, b"1"), (FIN | PONG, b"2")}
        assert got[2] == close_frame(1002, "unknown opcode 0x3")
        assert await peer.read() is None
        await peer.end()
        with pytest.raises(ConnectionClosedError, match="unknown opcode"):
            await ws.send("x")


async def test_close_frames_that_cross_tear_nothing(nursery: trio.Nursery) -> None:
    # A peer that closes in good order reads no more: what waits then is dropped, but
    # never a part of a frame, nor the close frame behind it; and it is no error.
    for turns in range(8):
        peer = RawPeer(client=True)
        await peer.ask()
        async with accept(peer.theirs, ping_interval=None) as ws:
            await peer.skip_response()
            for i in range(5):
                await ws.send(b"%d" % i * 30_000)
            await peer.close()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if ws.close_code is None:
                await ws.aclose()
        messages = [(FIN | BINARY, b"%d" % i * 30_000) for i in range(5)]
        came = []
        while (frame := await peer.read()) is not None:
            came.append(frame)
        assert came == [*messages[: len(came) - 1], close_frame(1000)]


async def test_a_peer_that_has_ended_its_stream_still_reads(
    sockets: MakeSockets, mock_clock: MockClock
) -> None:
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    async with accept(peer.theirs, write_limit=2**24) as ws:
        await peer.skip_response()
        sizes = [1_000_000] * 8  # more than the system's buffers hold
        for size in sizes:
            await ws.send(bytes(size))
        ws.nursery.start_soon(ws.aclose)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        await trio.testing.wait_all_tasks_blocked()
        for size in sizes:
            received = await peer.read()
            assert received is not None
            assert len(received[1]) == size
        assert await peer.read() == close_frame(1000)
        assert await peer.read() is None


async def test_how_tcp_ends_after_both_close_frames_is_of_no_interest(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    async with connected(nursery, both.peer) as ws:
        await trio.testing.wait_all_tasks_blocked()
        await both.peer.send(CLOSE, b"\x03\xe8")
        assert await both.peer.read() == close_frame(1000)
        both.reset()
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
        await ws.wait_closed()
        assert ws.close_code == 1000


# What is left in the end


class TakesNoClose(trio.abc.Stream):
    """A stream on which data goes out and a close frame alone never does."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data).startswith(bytes([FIN | CLOSE])):
            await trio.sleep_forever()
        await trio.sleep(1)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_close_frame_that_no_stream_takes_is_no_lost_data(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(client=True, streams=(TakesNoClose(ours), theirs))
    nursery.start_soon(peer.ask)
    async with accept(peer.theirs, close_timeout=5) as ws:
        await peer.skip_response()
        await ws.send("x")
    assert ws.close_code == 1006
    assert await peer.read() == (FIN | TEXT, b"x")


class OurError(Exception):
    """One that can't be copied."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def test_a_cause_is_kept_without_its_traceback() -> None:
    for error, copied in (
        (KeyError("x"), KeyError),
        (OurError("a", "b"), RuntimeError),
    ):
        engine = Engine(client=True, max_size=None)
        ending = Ending(
            engine, ClientOptions(), Identity(logging.getLogger(), None, None)
        )
        try:
            raise error
        except Exception as exc:  # noqa: BLE001 - kept
            engine.cause = exc
        ending.leave()
        assert type(engine.cause) is copied
        assert engine.cause.__traceback__ is None
    assert str(engine.cause) == "OurError: a b"
