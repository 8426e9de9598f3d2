"""Whoever reads: random interleavings against a simple model.

All messages arrive, once and in order, then the end. And nobody who waits for
something that has come is kept waiting until time passes.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.endpoint.link import Link
from tests.peers.in_memory import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from trio_ws import (
    ClientConnection,
    ConnectionClosed,
    ConnectionClosedOK,
    MessageStream,
    State,
)
from trio_ws._endpoint.reader import _NAP, PAUSED, RECEIVER

pytestmark = pytest.mark.usefixtures("each_way")

STEPS = 150

Act: TypeAlias = "Callable[[Walk], None]"


class Walk:
    """A connection, its peer, and what is known of both."""

    def __init__(
        self, link: Link, ws: ClientConnection, nursery: trio.Nursery, seed: int
    ) -> None:
        self.link = link
        self.ws = ws
        self.nursery = nursery
        self.random = random.Random(seed)
        # What the peer sends: bytes to come, how many went, where messages end.
        self.unsent = b""
        self.sent = 0
        self.ends: list[tuple[int, str | bytes]] = []
        self.chunks, self._to_write = trio.open_memory_channel[bytes](1000)
        # What we have received, and who receives.
        self.got: list[str | bytes] = []
        self.scope: trio.CancelScope | None = None
        self.stream: MessageStream | None = None
        self.pieces: list[str | bytes] = []
        self.error: ConnectionClosed | None = None
        # Our pings: where the pong of each ends, once it is under way.
        self.pongs: dict[bytes, int] = {}
        self.pinging: set[bytes] = set()
        self.our_messages: list[bytes] = []
        self.their_messages: list[bytes] = []
        self.answers_close = False

    # -- The peer ------------------------------------------------------------

    async def write(self) -> None:
        async for chunk in self._to_write:
            await self.link.peer.put(chunk)
            self.sent += len(chunk)

    async def read(self) -> None:
        # A stream cut without TLS's own farewell may end in an alert.
        with suppress(trio.BrokenResourceError):
            while (got := await self.link.peer.read()) is not None:
                first, payload = got
                if first & 15 == PING:
                    self.say(frame(PONG, payload))
                    self.pongs[payload] = self.said
                elif first & 15 == BINARY:
                    self.their_messages.append(payload)
                elif first & 15 == CLOSE and self.answers_close:
                    self.say(frame(CLOSE, payload))
                    self.send(10**9)

    @property
    def said(self) -> int:
        """How many bytes the peer has said, sent or not."""
        return self._queued + len(self.unsent)

    _queued = 0

    def say(self, data: bytes) -> None:
        self.unsent += data

    def say_message(self) -> None:
        number = len(self.ends)
        size = self.random.choice([0, 0, 1, 3, 100, 5000, 70_000])
        text = f"{number} \u20ac" + "x" * size
        if self.random.random() < 0.5:
            self.say(frame(TEXT, text.encode()))
            self.ends.append((self.said, text))
            return
        data = text.encode()
        parts = sorted(self.random.randrange(len(data)) for _ in range(3))
        self.say(frame(BINARY, data[: parts[0]], fin=False))
        self.say(frame(CONT, data[parts[0] : parts[1]], fin=False))
        if self.random.random() < 0.3:
            self.say(frame(PING, b"in between"))
        self.say(frame(CONT, data[parts[1] : parts[2]], fin=False))
        self.say(frame(CONT, data[parts[2] :]))
        self.ends.append((self.said, data))

    def say_ping(self) -> None:
        self.say(frame(PING, b"%d" % self.said))

    def send_some(self) -> None:
        count = self.random.choice([1, 3, 1000, 10**6])
        self.send(count)

    def send(self, count: int) -> None:
        chunk, self.unsent = self.unsent[:count], self.unsent[count:]
        self._queued += len(chunk)
        if chunk:
            self.chunks.send_nowait(chunk)

    # -- We ------------------------------------------------------------------

    def receive(self) -> None:
        if self.scope is not None or self.error is not None:
            return
        self.scope = trio.CancelScope()
        count = self.random.choice([1, 2, 10])
        if self.stream is None and self.random.random() < 0.3:
            self.stream = self.ws.recv_streaming()
        self.nursery.start_soon(self._receive, self.scope, count)

    async def _receive(self, scope: trio.CancelScope, count: int) -> None:
        try:
            with scope:
                while self.stream is not None:
                    async for piece in self.stream:
                        self.pieces.append(piece)
                    self._end_stream()
                for _ in range(count):
                    self.got.append(await self.ws.recv())
        except ConnectionClosed as exc:
            self.error = exc
        finally:
            self.scope = None

    def _end_stream(self) -> None:
        self.stream = None
        if isinstance(self.pieces[0], str):
            self.got.append("".join(map(str, self.pieces)))
        else:
            parts = [part for part in self.pieces if isinstance(part, bytes)]
            self.got.append(b"".join(parts))
        self.pieces.clear()

    def cancel(self) -> None:
        if self.scope is not None:
            self.scope.cancel()

    def receive_nowait(self) -> None:
        if self.scope is None and self.stream is None:
            with suppress(trio.WouldBlock):
                self.got.append(self.ws.recv_nowait())

    def send_message(self) -> None:
        message = bytes([len(self.our_messages) % 256]) * self.random.choice([1, 9000])
        try:
            self.ws.send_nowait(message)
        except trio.WouldBlock:
            return
        self.our_messages.append(message)

    def ping(self) -> None:
        payload = b"%d of ours" % self.random.randrange(10**9)
        self.pinging.add(payload)
        self.nursery.start_soon(self._ping, payload)

    async def _ping(self, payload: bytes) -> None:
        with suppress(ConnectionClosed):  # at the walk's end
            await self.ws.ping(payload)
        self.pinging.remove(payload)

    def look(self) -> None:
        """What the keepalive does before it gives up."""
        self.ws._endpoint.reader.read_now()

    # -- What holds ----------------------------------------------------------

    def arrived(self) -> list[str | bytes]:
        return [message for end, message in self.ends if end <= self.sent]

    def check(self) -> None:
        everything = [message for _, message in self.ends]
        assert self.got == everything[: len(self.got)]
        reading = self.ws._endpoint.reader.by
        if self.scope is not None:
            # It waits, so there is nothing for it, and nobody pauses.
            assert len(self.got) == len(self.arrived())
            assert self.ws._endpoint.reader.by is not PAUSED
            assert not self.ws._engine.messages
        if self.ws._endpoint.reader.by is not PAUSED:
            for payload in self.pinging:
                assert self.pongs.get(payload, self.sent + 1) > self.sent
        assert reading is not RECEIVER or self.scope is not None


ACTS: list[tuple[int, Act]] = [
    (20, Walk.say_message),
    (3, Walk.say_ping),
    (40, Walk.send_some),
    (30, Walk.receive),
    (6, Walk.cancel),
    (3, Walk.receive_nowait),
    (6, Walk.send_message),
    (1, Walk.ping),
    (3, Walk.look),
]


async def settle(walk: Walk, clock: MockClock) -> None:
    """Let as much happen as chance will have it."""
    chance = walk.random.random()
    if chance < 0.05:
        clock.jump(walk.random.choice([0.4, 0.6, 1, 2]) * _NAP)
    elif chance < 0.3:
        return
    elif chance < 0.5:
        for _ in range(walk.random.randrange(4)):
            await trio.lowlevel.checkpoint()
        return
    await wait_all_tasks_blocked()
    walk.check()


async def finish(walk: Walk, clock: MockClock) -> None:
    """Receive what is left, then the end."""
    end = walk.random.choice(["close", "eof", "violation", "aclose"])
    walk.answers_close = end == "aclose"
    walk.send(10**9)
    if end == "aclose":
        walk.nursery.start_soon(walk.ws.aclose)
    elif end != "eof":
        walk.say(frame(CLOSE, b"\x03\xe8") if end == "close" else frame(3))
        walk.send(10**9)
    if walk.random.random() < 0.5:
        walk.cancel()
    while walk.error is None:
        if walk.random.random() < 0.5:
            await wait_all_tasks_blocked()
        if end == "eof" and walk._queued == walk.sent:
            walk.link.sock.shutdown(socket.SHUT_WR)
            end = "eof told"
        if walk.random.random() < 0.2:
            clock.jump(_NAP)
        walk.receive()
        await trio.lowlevel.checkpoint()
    everything = [message for _, message in walk.ends]
    if end == "aclose":
        assert walk.got == everything[: len(walk.got)]
    else:
        assert walk.got == everything
    in_order = end in ("close", "aclose")
    assert isinstance(walk.error, ConnectionClosedOK) == in_order
    await wait_all_tasks_blocked()
    if in_order:
        assert walk.their_messages == walk.our_messages


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seed", range(25))
async def test_random_walk(mock_clock: MockClock, tls: bool, seed: int) -> None:
    with trio.CancelScope():
        async with trio.open_nursery() as nursery:
            link = Link(nursery, tls=tls, tcp=False)
            link.closes = False
            # Every third runs the keepalive, whose steps come between.
            interval = 1.5 * _NAP if seed % 3 == 0 else None
            async with link.connected(
                ping_interval=interval, ping_timeout=1000, max_queue=3
            ) as ws:
                await link.hurry(ws)
                walk = Walk(link, ws, nursery, seed)
                nursery.start_soon(walk.write)
                nursery.start_soon(walk.read)
                acts = [act for weight, act in ACTS for _ in range(weight)]
                for _ in range(STEPS):
                    walk.random.choice(acts)(walk)
                    await settle(walk, mock_clock)
                await finish(walk, mock_clock)
                walk.chunks.close()
                nursery.cancel_scope.cancel()
    link.free()
    assert ws.state is State.CLOSED
