"""Closing in a hurry: what is said, heard and thrown away."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.endpoint.link import MakeSockets
from tests.peers.in_memory import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    RawPeer,
    close_frame,
    connected,
    frame,
)
from trio_ws import ConnectionClosedError, accept
from trio_ws._endpoint import goodbye as _goodbye
from trio_ws._endpoint.reader import PAUSED

if TYPE_CHECKING:
    from trio.testing import MockClock

FIN = 0x80


async def test_a_goodbye_is_said_without_waiting(
    sockets: MakeSockets, mock_clock: MockClock
) -> None:
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    with trio.CancelScope() as scope:
        async with accept(peer.theirs, max_queue=0) as ws:
            await peer.skip_response()
            # Bytes that nobody has read would make closing a reset, which
            # can destroy the goodbye.
            for _ in range(12):  # more than one read, less than a buffer holds
                await peer.send(BINARY, bytes(10_000))
                await trio.testing.wait_all_tasks_blocked()
            assert ws._endpoint.reader.by is PAUSED
            await ws.send("last")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await peer.read() == (FIN | TEXT, b"last")
    assert await peer.read() == close_frame(1001)
    assert await peer.read() is None
    assert both.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # no reset
    assert trio.current_time() == 0


async def test_a_goodbye_to_whom_takes_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    with trio.CancelScope() as scope:
        async with connected(nursery, peer) as ws:
            await ws.send(bytes(200_000))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 0
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


async def test_a_goodbye_is_why_a_connection_ended(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    with trio.CancelScope() as scope:
        async with connected(nursery, peer) as ws:
            scope.cancel()
            await trio.sleep_forever()
    with pytest.raises(ConnectionClosedError) as caught:
        await ws.recv()
    assert isinstance(caught.value.__cause__, ConnectionAbortedError)
    assert str(caught.value.__cause__) == "closed without waiting for the peer"


async def test_a_goodbye_in_which_a_violation_is_found(
    sockets: MakeSockets,
    nursery: trio.Nursery,
) -> None:
    both = sockets()
    with trio.CancelScope() as scope:
        async with connected(nursery, both.peer) as ws:
            await trio.testing.wait_all_tasks_blocked()
            both.sock.send(frame(3))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_code == 1006
    # Which of the two came first is up to the scheduler; there is one goodbye.
    assert await both.peer.read() in (
        close_frame(1001),
        close_frame(1002, "unknown opcode 0x3"),
    )
    assert await both.peer.read() is None


async def test_a_goodbye_to_whom_has_gone(
    sockets: MakeSockets, nursery: trio.Nursery
) -> None:
    both = sockets()
    with trio.CancelScope() as scope:
        async with connected(nursery, both.peer) as ws:
            await trio.testing.wait_all_tasks_blocked()
            both.reset()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_code == 1006


@pytest.mark.parametrize(("seconds", "code"), [(0, 4001), (1, 1006)])
async def test_a_close_frame_is_heard_unless_it_is_far_behind(
    sockets: MakeSockets,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    code: int,
) -> None:
    clock = itertools.count(0, seconds)
    monkeypatch.setattr(_goodbye, "perf_counter", lambda: next(clock))
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    with trio.CancelScope() as scope:
        async with accept(peer.theirs, max_queue=0) as ws:
            await peer.skip_response()
            for _ in range(12):  # more than one read, less than a buffer holds
                await peer.send(BINARY, bytes(10_000))
                await trio.testing.wait_all_tasks_blocked()
            await peer.send(CLOSE, b"\x0f\xa1")
            assert ws._endpoint.reader.by is PAUSED
            scope.cancel()
            await trio.sleep_forever()
    assert ws.close_code == code
    # What isn't heard is thrown away: it would make a reset.
    assert await peer.read() == close_frame(1001)
    assert await peer.read() is None
    assert both.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


async def test_pings_that_are_thrown_away_break_nothing(
    sockets: MakeSockets, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To answer them on a stream that has ended would be an error.
    clock = itertools.count(0)
    monkeypatch.setattr(_goodbye, "perf_counter", lambda: next(clock))
    both = sockets(client=True)
    peer = both.peer
    await peer.ask()
    with trio.CancelScope() as scope:
        async with accept(peer.theirs, max_queue=0) as ws:
            await peer.skip_response()
            for _ in range(12):
                await peer.send(BINARY, bytes(9_000))
                await trio.testing.wait_all_tasks_blocked()
            await peer.put(b"".join(frame(PING, b"?") for _ in range(99)))
            assert ws._endpoint.reader.by is PAUSED
            scope.cancel()
            await trio.sleep_forever()
    with pytest.raises(ConnectionClosedError) as caught:
        await ws.recv()
    assert isinstance(caught.value.__cause__, ConnectionAbortedError)
    assert await peer.read() == close_frame(1001)
    assert await peer.read() is None
