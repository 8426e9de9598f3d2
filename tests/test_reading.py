"""Who reads: the reader, or a receiver that comes back quickly.

The clock stands still unless a test moves it. So whatever happens is quick, the
reader's naps end when a test says so, and what happens without a nap's end is
seen to need none.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Self, TypeAlias

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.faults.operations import contexts
from tests.faults.peer import trio_stream
from tests.in_memory import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawPeer,
    close_frame,
    frame,
)
from trio_ws import (
    ClientConnection,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    accept,
    connect,
    open_server,
)
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint import writer as _writing
from trio_ws._endpoint.counter import CALLS
from trio_ws._endpoint.reader import (
    _NAP,
    _QUICK,
    OFFERED,
    PAUSED,
    RECEIVER,
    RECEIVER_LAST,
    TASK,
    Reading,
)
from trio_ws._transports.base import READ_SIZE
from trio_ws._transports.sockets import SocketTransport
from trio_ws.extensions import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)
from trio_ws.testing import open_pair

FIN = 0x80


class Wire(trio.abc.Stream):
    """The peer's socket, of which what is written can be held back."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.held: bytes | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.held is None:
            await self._stream.send_all(data)
        else:
            await trio.lowlevel.checkpoint()
            self.held += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Link:
    """A raw server, and a client of ours, over a pair of sockets."""

    def __init__(self, nursery: trio.Nursery, *, tls: bool, tcp: bool) -> None:
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                self.sock, _ = listener.accept()
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        else:
            ours, self.sock = socket.socketpair()
        self.stream = trio_stream(self.sock)
        self._stack = ExitStack()
        self._stack.callback(self.stream.socket.close)
        self._nursery = nursery
        self.closes = True  # when the body ends
        self._ours = trio_stream(ours)
        self._stack.callback(self._ours.socket.close)
        theirs: trio.abc.Stream
        theirs = self._wire = Wire(self.stream)
        self._uri, self._tls = "ws://localhost/", {}
        if tls:
            client, server = contexts()
            theirs = trio.SSLStream(
                theirs, server, server_side=True, https_compatible=True
            )
            self._uri, self._tls = "wss://localhost/", {"ssl": client}
        self.peer = RawPeer(client=False, streams=(self._ours, theirs))

    def free(self) -> None:
        self._stack.close()

    @asynccontextmanager
    async def connected(self, **options: object) -> AsyncIterator[ClientConnection]:
        """Open a connection, which is closed by the peer in the end."""
        self._nursery.start_soon(self.peer.answer)
        async with connect(
            self._uri,
            stream=self._ours,
            **self._tls,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        ) as ws:
            try:
                yield ws
            except BaseException:
                # No deadline would end the closing handshake of a test that failed.
                self.stream.socket.close()
                raise
            if self.closes:
                self._nursery.start_soon(self.close)

    @asynccontextmanager
    async def standing_by(self, **options: object) -> AsyncIterator[ClientConnection]:
        """Open a connection whose receiver is expected back."""
        async with self.connected(**options) as ws:
            await self.hurry(ws)
            yield ws

    async def close(self) -> None:
        """Send a close frame, end the stream, and read the other to its end."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await self.peer.send(CLOSE, b"\x03\xe8")
            self.sock.shutdown(socket.SHUT_WR)
            while await self.peer.read() is not None:
                pass
        await trio.aclose_forcefully(self.peer.stream)

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()

    async def hurry(self, ws: ClientConnection) -> None:
        """Exchange messages until receivers read."""
        for _ in range(3):
            if reading(ws) is OFFERED:
                return
            receiver = await receiving(self._nursery, ws)
            await self.text("quick")
            await wait_all_tasks_blocked()
            assert receiver.got == ["quick"]
        raise AssertionError("the reader doesn't step aside")

    async def encoded(self, data: bytes) -> bytes:
        """Return what goes over the wire for bytes of the peer's."""
        self._wire.held = b""
        await self.peer.put(data)
        encoded, self._wire.held = self._wire.held, None
        return encoded

    async def put_unread(self, data: bytes) -> None:
        """Send bytes, of which nothing has been read when this returns."""
        data = await self.encoded(data)
        assert self.sock.send(data) == len(data)

    async def text(self, *messages: str) -> None:
        for message in messages:
            await self.peer.send(TEXT, message.encode())

    async def reaches(self, receiver: Receiver, message: str) -> None:
        """Send a message, which is the first, and the one, that a task receives."""
        await self.text(message)
        await wait_all_tasks_blocked()
        assert receiver.got == [message]


MakeLink: TypeAlias = "Callable[..., Link]"


@pytest.fixture
async def make_link(
    mock_clock: MockClock, nursery: trio.Nursery
) -> AsyncIterator[MakeLink]:
    with ExitStack() as stack:

        def make(*, tls: bool = False, tcp: bool = False) -> Link:
            link = Link(nursery, tls=tls, tcp=tcp)
            stack.callback(link.free)
            return link

        yield make


@pytest.fixture
def link(make_link: MakeLink) -> Link:
    return make_link()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def either_link(make_link: MakeLink, request: pytest.FixtureRequest) -> Link:
    return make_link(tls=request.param)


def reading(ws: Connection) -> Reading:
    return ws._endpoint.reader.by


async def passed(clock: MockClock, seconds: float) -> None:
    """Let time pass, and what it brings happen."""
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def naps_over(clock: MockClock) -> None:
    """Let the reader go on.

    One nap had begun before the last message was read; in another nobody reads.
    """
    for _ in range(2):
        await passed(clock, _NAP)


class Receiver:
    """A task that receives, and what it got."""

    def __init__(self, ws: Connection) -> None:
        self.ws = ws
        self.scope = trio.CancelScope()
        self.got: list[str | bytes] = []
        self.error: ConnectionClosed | None = None
        self.ended = False

    async def receive(self, count: float) -> None:
        try:
            with self.scope:
                while len(self.got) < count:
                    self.got.append(await self.ws.recv())
        except ConnectionClosed as exc:
            self.error = exc
        finally:
            self.ended = True


async def receiving(
    nursery: trio.Nursery, ws: Connection, count: float = 1
) -> Receiver:
    """Start a receiver of so many messages, and see it wait for the first."""
    receiver = Receiver(ws)
    nursery.start_soon(receiver.receive, count)
    await wait_all_tasks_blocked()
    assert not receiver.ended
    return receiver


async def as_caller(
    nursery: trio.Nursery, ws: ClientConnection, count: float = 1
) -> Receiver:
    receiver = await receiving(nursery, ws, count)
    assert reading(ws) is RECEIVER
    return receiver


async def as_last_caller(
    nursery: trio.Nursery, ws: ClientConnection, clock: MockClock, count: float = 1
) -> Receiver:
    receiver = await as_caller(nursery, ws, count)
    await passed(clock, _NAP)
    assert reading(ws) is RECEIVER_LAST
    return receiver


class ReadersSteps(trio.abc.Instrument):
    """Counts the steps of readers."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == "trio_ws reader"


# Who reads


async def test_the_second_quick_message_makes_the_reader_step_aside(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.connected() as ws:
        # None of these is delivered to somebody who waits for it.
        await link.text("a", "b", "c")
        await wait_all_tasks_blocked()
        assert [await ws.recv() for _ in range(3)] == ["a", "b", "c"]
        assert reading(ws) is TASK
        for expected in (TASK, OFFERED):
            receiver = await receiving(nursery, ws)
            assert reading(ws) is TASK
            await link.reaches(receiver, "x")
            assert reading(ws) is expected
        for _ in range(3):
            receiver = await as_caller(nursery, ws)
            await link.reaches(receiver, "y")
            assert reading(ws) is OFFERED


async def test_slow_traffic_is_the_readers(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.connected() as ws:
        for _ in range(10):
            receiver = await receiving(nursery, ws)
            await passed(mock_clock, 1.25 * _QUICK)
            assert reading(ws) is TASK
            await link.reaches(receiver, "x")
            assert reading(ws) is TASK


async def test_from_quick_to_slow_and_back(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        # Who waits for a nap is the last to read; then it is the reader's turn.
        receiver = await as_last_caller(nursery, ws, mock_clock)
        with ReadersSteps() as steps:
            for _ in range(3):
                await passed(mock_clock, _NAP)
        assert not steps.count
        assert reading(ws) is RECEIVER_LAST
        with ReadersSteps() as its_steps:
            await link.text("x")
            await wait_all_tasks_blocked()
        assert its_steps.count
        assert receiver.got == ["x"]
        assert reading(ws) is TASK
        for _ in range(3):
            receiver = await receiving(nursery, ws)
            await passed(mock_clock, 2 * _QUICK)
            await link.reaches(receiver, "x")
            assert reading(ws) is TASK
        receiver = await receiving(nursery, ws)
        await link.reaches(receiver, "x")
        assert reading(ws) is OFFERED


async def test_who_reads_now_and_then_in_each_nap_goes_on_reading(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws, 20)
        for i in range(20):
            await passed(mock_clock, 0.6 * _NAP)
            assert reading(ws) is RECEIVER
            await link.text(str(i))
            await wait_all_tasks_blocked()
            assert len(receiver.got) == i + 1


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What receivers do until there is something to read: look again, or wait."""
    ways: list[str] = []
    wait_readable = SocketTransport.wait_readable

    async def looking() -> None:
        ways.append("look")
        await trio.lowlevel.checkpoint()

    async def waiting(transport: SocketTransport) -> None:
        ways.append("wait")
        await wait_readable(transport)

    monkeypatch.setattr("trio_ws._endpoint.receiver.checkpoint", looking)
    monkeypatch.setattr(SocketTransport, "wait_readable", waiting)
    return ways


async def test_a_receiver_that_finds_messages_needs_not_wait(
    either_link: Link, ways: list[str], mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        ways.clear()
        for _ in range(100):
            await link.put_unread(frame(TEXT, b"x"))
            assert await ws.recv() == "x"
        assert ways == ["look"] * 100


async def test_a_receiver_that_finds_nothing_looks_less_and_less(
    link: Link, nursery: trio.Nursery, ways: list[str], mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        for _ in range(2):
            ways.clear()
            for _ in range(200):
                await link.reaches(await as_caller(nursery, ws), "x")
            expected: list[str] = []
            for waits in (1, 3, 7, 15, 31, 63, 63, 63):
                expected += ["look"] + ["wait"] * waits
            assert ways == expected[: len(ways)]
            assert ways.count("wait") == 200
            # It looks again at each message as soon as one was there.
            while ways[-1] != "look":
                await link.put_unread(frame(TEXT, b"y"))
                assert await ws.recv() == "y"


async def test_a_look_in_vain_is_no_sign_of_quick_messages(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, ways: list[str]
) -> None:
    async with link.standing_by() as ws:
        ways.clear()
        await as_last_caller(nursery, ws, mock_clock)
        assert ways == ["look", "wait"]


async def test_the_reader_sleeps_while_receivers_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # This is what it is all for.
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws, 100)
        with ReadersSteps() as steps:
            for _ in range(100):
                await link.text("x")
                await wait_all_tasks_blocked()
        assert len(receiver.got) == 100
        assert not steps.count


async def test_the_reader_goes_on_if_nobody_comes(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.text("x")
        await wait_all_tasks_blocked()
        assert not ws._engine.messages
        assert reading(ws) is OFFERED
        await naps_over(mock_clock)
        assert reading(ws) is TASK
        assert ws.recv_nowait() == "x"
        await link.text("y")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "y"


@pytest.mark.parametrize("naps", [0.4, 0.9, 1.4, 1.9])
async def test_a_receiver_that_comes_back_during_the_naps(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, naps: float
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        await link.reaches(receiver, "x")
        await link.text("y")
        await passed(mock_clock, naps * _NAP)
        assert await ws.recv() == "y"
        await link.text("z")
        assert await ws.recv() == "z"


async def test_only_sockets_are_read_by_receivers(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    # A stream of the user's may lose something if its receiver is cancelled.
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer)
    async with connect("ws://testing/", stream=peer.theirs) as ws:
        for _ in range(5):
            receiver = await receiving(nursery, ws)
            await peer.send(TEXT, b"x")
            await wait_all_tasks_blocked()
            assert receiver.got == ["x"]
            assert reading(ws) is TASK
        nursery.start_soon(peer.close)
    # In tests of applications nothing may depend on what is quick.
    ours, theirs = map(trio_stream, socket.socketpair())
    async with open_pair(streams=(ours, theirs)) as (client, server):
        for _ in range(5):
            receiver = await receiving(nursery, client)
            await server.send("x")
            await wait_all_tasks_blocked()
            assert receiver.got == ["x"]
            assert reading(client) is TASK


async def test_the_side_of_a_server(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = map(trio_stream, socket.socketpair())
    peer = RawPeer(client=True, streams=(ours, theirs))
    await peer.ask()
    async with accept(ours) as ws:
        await peer.skip_response()
        got = []
        for _ in range(4):
            await receiving(nursery, ws)
            await peer.send(TEXT, b"x")
            await wait_all_tasks_blocked()
            got.append(reading(ws))
        nursery.start_soon(peer.close)
    assert got == [TASK, OFFERED, OFFERED, OFFERED]
    await theirs.aclose()


# Cancellation


@pytest.mark.parametrize("next_one", ["receiver", "reader"])
@pytest.mark.parametrize("last", [False, True], ids=["caller", "last_caller"])
async def test_a_receiver_that_is_cancelled_loses_nothing(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    last: bool,
    next_one: str,
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for _ in range(3):
            await link.hurry(ws)
            receiver = (
                await as_last_caller(nursery, ws, mock_clock)
                if last
                else await as_caller(nursery, ws)
            )
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
            assert not receiver.got
            assert reading(ws) is (TASK if last else OFFERED)
            await link.text("x", "y")
            if next_one == "receiver":
                assert [await ws.recv(), await ws.recv()] == ["x", "y"]
            else:
                await naps_over(mock_clock)
                assert reading(ws) is TASK
                assert [ws.recv_nowait(), ws.recv_nowait()] == ["x", "y"]


async def test_a_receiver_cancelled_as_a_message_comes(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # Both happen between two turns of the loop, in either order.
    async with link.standing_by() as ws:
        for cancelled_first in (True, False) * 3:
            receiver = await as_caller(nursery, ws)
            if cancelled_first:
                receiver.scope.cancel()
                link.sock.send(frame(TEXT, b"x"))
            else:
                link.sock.send(frame(TEXT, b"x"))
                receiver.scope.deadline = trio.current_time()
            await wait_all_tasks_blocked()
            assert receiver.ended
            if not receiver.got:
                assert await ws.recv() == "x"
            await link.hurry(ws)


async def test_a_receiver_cancelled_at_each_byte_of_a_fragmented_message(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    data = (
        frame(TEXT, b"one \xe2\x82", fin=False)
        + frame(PING, b"?")
        + frame(CONT, b"\xac", fin=False)
        + frame(CONT, b" two")
    )
    async with link.standing_by() as ws:
        for i in range(len(data)):
            receiver = await as_caller(nursery, ws)
            await link.peer.put(data[i : i + 1])
            if i < len(data) - 1:
                await wait_all_tasks_blocked()
                receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
        assert receiver.got == ["one \u20ac two"]
        # The same, and the reader comes in between.
        for i in range(len(data)):
            receiver = await receiving(nursery, ws)
            await link.peer.put(data[i : i + 1])
            if i < len(data) - 1:
                await passed(mock_clock, i % 3 * _NAP)
                receiver.scope.cancel()
            await wait_all_tasks_blocked()
            assert receiver.ended
        assert receiver.got == ["one \u20ac two"]


async def test_receivers_that_are_cancelled_again_and_again(
    link: Link, mock_clock: MockClock
) -> None:
    # Each is a caller, none reads anything; and the reader gets its turn.
    async with link.standing_by() as ws:
        for _ in range(20):
            with trio.move_on_after(_NAP / 5):
                async with trio.open_nursery() as inner:
                    inner.start_soon(ws.recv)
                    await wait_all_tasks_blocked()
                    mock_clock.jump(_NAP / 5)
            if reading(ws) is TASK:
                break
        else:
            raise AssertionError("the reader never goes on")
        await link.text("x")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "x"


async def test_two_tasks_that_take_turns(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        for i in range(5):
            first = await as_caller(nursery, ws)
            first.scope.cancel()
            await wait_all_tasks_blocked()
            second = await as_caller(nursery, ws)
            await link.text(str(i))
            await wait_all_tasks_blocked()
            assert second.got == [str(i)]
            third = await as_caller(nursery, ws)
            await link.text("again")
            await wait_all_tasks_blocked()
            assert third.got == ["again"]


# The end


@pytest.fixture(params=["keeper", "standby", "caller", "last_caller"])
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def receiver_in(
    state: str,
    nursery: trio.Nursery,
    link: Link,
    ws: ClientConnection,
    clock: MockClock,
) -> Receiver:
    """Bring about a state; return what receives in it, or will."""
    await link.hurry(ws)
    if state == "caller":
        return await as_caller(nursery, ws, 100)
    if state == "last_caller":
        return await as_last_caller(nursery, ws, clock, 100)
    if state == "keeper":
        # The next message is the second quick one.
        await naps_over(clock)
        first = await receiving(nursery, ws)
        await link.text("first")
        await wait_all_tasks_blocked()
        assert first.ended
        receiver = await receiving(nursery, ws, 100)
        assert reading(ws) is TASK
        return receiver
    return Receiver(ws)


LOSSES = {
    "reset": (None, "no close frame received or sent", ConnectionResetError),
    "eof": (None, "no close frame received or sent", EOFError),
    "violation": (
        frame(3),
        r"sent 1002 \(protocol error\) unknown opcode 0x3; no close frame received",
        Exception,
    ),
    "close": (
        frame(CLOSE, b"\x03\xf3oh"),
        r"received 1011 \(internal error\) oh; then sent 1011",
        None,
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("messages", [0, 3])
async def test_loss(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    loss: str,
    messages: int,
) -> None:
    link = make_link(tcp=True)
    data, match, cause = LOSSES[loss]
    expected = [str(i) for i in range(messages)]
    async with link.connected(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        link.sock.send(b"".join(frame(TEXT, m.encode()) for m in expected))
        if loss == "reset":
            # What has come and isn't read is lost with a reset.
            await wait_all_tasks_blocked()
            link.reset()
        elif loss == "eof":
            link.sock.shutdown(socket.SHUT_WR)
        else:
            assert data is not None
            link.sock.send(data)
        if state == "standby":
            await receiver.receive(100)
        else:
            await wait_all_tasks_blocked()
        assert receiver.ended
        if not (loss == "reset" and state == "standby"):
            assert receiver.got == expected
        with pytest.raises(ConnectionClosedError, match=match) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, cause or type(None))
        assert str(receiver.error) == str(caught.value)
    assert ws.state is State.CLOSED


@pytest.mark.parametrize("loss", ["reset", "eof", "violation"])
async def test_loss_that_a_body_asleep_is_cut_for(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    loss: str,
) -> None:
    # Found after the naps; from then on it has loss_grace.
    link = make_link(tcp=True)
    ended: list[float] = []

    async def body() -> None:
        with pytest.raises(ConnectionClosedError):  # noqa: PT012 - raised as it is left
            async with link.connected(ping_interval=None, loss_grace=5) as ws:
                await link.hurry(ws)
                cut.set()
                try:
                    await trio.sleep_forever()
                finally:
                    ended.append(trio.current_time())
                    assert ws.close_code == 1006

    cut = trio.Event()
    nursery.start_soon(body)
    await cut.wait()
    if loss == "reset":
        link.reset()
    elif loss == "eof":
        link.sock.shutdown(socket.SHUT_WR)
    else:
        link.sock.send(frame(3))
    await wait_all_tasks_blocked()
    await naps_over(mock_clock)
    found = trio.current_time()
    await passed(mock_clock, 4.9)
    assert not ended
    await passed(mock_clock, 0.1)
    assert ended == [found + 5]


@pytest.mark.parametrize("how", ["aclose", "cancelled", "cut"])
async def test_the_connection_is_closed_under_a_receiver(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    how: str,
) -> None:
    link = either_link
    with trio.CancelScope() as scope:
        async with link.standing_by() as ws:
            receiver = await receiver_in(state, ws.nursery, link, ws, mock_clock)
            if how == "aclose":
                nursery.start_soon(link.close)
                await ws.aclose()
            elif how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
            else:
                with trio.CancelScope() as inner:
                    inner.cancel()
                    await ws.aclose()
            if state == "standby":
                await receiver.receive(1)
    if state != "standby" or how != "cancelled":
        assert receiver.ended
        assert not receiver.got
    if how != "cancelled":
        assert isinstance(receiver.error, ConnectionClosedOK)
    assert ws.state is State.CLOSED


async def test_a_body_that_ends_waits_for_a_task_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(ws.nursery, ws, 2)

        async def send_two() -> None:
            for _ in range(2):
                await wait_all_tasks_blocked()
                assert not receiver.ended
                assert ws.state is State.OPEN
                await link.text("x")
            await wait_all_tasks_blocked()
            await link.close()

        link.closes = False
        nursery.start_soon(send_two)
    assert receiver.got == ["x", "x"]
    assert ws.close_code == 1000


async def test_a_goodbye_that_a_receiver_is_told_of(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws, 10)
        await link.text("a", "b")
        await link.peer.send(CLOSE, b"\x03\xe9bye")
        await wait_all_tasks_blocked()
        assert receiver.got == ["a", "b"]
        assert isinstance(receiver.error, ConnectionClosedOK)
        assert await link.peer.read() == close_frame(1001, "bye")


async def test_a_close_frame_is_answered_though_nobody_receives(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.text("a")
        await link.peer.send(CLOSE, b"\x03\xe9bye")
        await naps_over(mock_clock)
        assert await link.peer.read() == close_frame(1001, "bye")
        assert await ws.recv() == "a"
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


@pytest.mark.parametrize("loss", ["reset", "close"])
async def test_a_write_that_fails_under_a_receiver(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    loss: str,
) -> None:
    link = make_link(tcp=True)
    async with link.connected(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        # Without a turn of the loop: writing is the first to notice.
        if loss == "close":
            link.sock.send(frame(TEXT, b"a") + frame(CLOSE, b"\x03\xe9bye"))
        link.reset()
        for _ in range(3):
            with suppress(ConnectionClosed):
                ws.send_nowait("x")
        assert ws.close_code == (1001 if loss == "close" else 1006)
        if state == "standby":
            await receiver.receive(10)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got == ["a"] * (loss == "close")
        if loss == "reset":
            assert type(receiver.error) is ConnectionClosedError
            assert isinstance(receiver.error.__cause__, ConnectionResetError)
        else:
            assert type(receiver.error) is ConnectionClosedOK


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("ways", ["aclose", "send", "cancel"])
async def test_the_end_in_each_turn_beside_a_receiver(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock, turns: int, ways: str
) -> None:
    # The nap's end, a message and what another task does, all at about once.
    async with link.connected() as ws:
        for i in range(6):
            await link.hurry(ws)
            receiver = await as_caller(nursery, ws, 2)
            if i % 2:
                mock_clock.jump(_NAP)
            link.sock.send(frame(TEXT, b"x"))
            if i % 3:
                mock_clock.jump(_NAP)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if ways == "aclose" and i == 5:
                nursery.start_soon(link.close)
                await ws.aclose()
                await wait_all_tasks_blocked()
                assert isinstance(receiver.error, ConnectionClosedOK)
                break
            if ways == "send":
                ws._endpoint.reader.keep_reading()
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            link.sock.send(frame(TEXT, b"y"))
            got = receiver.got
            while len(got) < 2:
                got.append(await ws.recv())
            assert got == ["x", "y"]


async def test_messages_in_front_of_a_violation_are_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def echo(ws: ClientConnection) -> None:
        with suppress(ConnectionClosedError):
            while True:
                await ws.send(await ws.recv())

    async with link.standing_by() as ws:
        nursery.start_soon(echo, ws)
        await wait_all_tasks_blocked()
        assert reading(ws) is RECEIVER
        await link.peer.put(
            frame(TEXT, b"1"), frame(PING, b"2"), frame(TEXT, b"3"), frame(3)
        )
        got = [await link.peer.read() for _ in range(4)]
        assert [one for one in got[:3] if one != (FIN | PONG, b"2")] == [
            (FIN | TEXT, b"1"),
            (FIN | TEXT, b"3"),
        ]
        assert got[3] == close_frame(1002, "unknown opcode 0x3")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


@pytest.mark.parametrize("unwrapped", [True, False], ids=["close_notify", "cut"])
async def test_tls_ends_under_a_receiver(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    unwrapped: bool,
) -> None:
    link = make_link(tls=True)
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await link.text("a")
        if unwrapped:
            await link.peer.stream.aclose()
        else:
            link.stream.socket.close()
        if state == "standby":
            await receiver.receive(10)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got == ["a"]
        assert type(receiver.error) is ConnectionClosedError


# Pings


async def test_the_keepalive_of_a_receiver_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        for _ in range(3):
            receiver = await receiver_in(state, nursery, link, ws, mock_clock)
            await passed(mock_clock, 10)
            kind, payload = await link.peer.read() or (0, b"")
            assert kind == FIN | PING
            await link.peer.send(PONG, payload)
            await wait_all_tasks_blocked()
            assert not ws._endpoint.pings.waiting
            await passed(mock_clock, 4.9)
            assert ws.state is State.OPEN
            await link.text("x")
            await wait_all_tasks_blocked()
            receiver.scope.cancel()
            if state == "standby":
                receiver.got.append(ws.recv_nowait())
            assert receiver.got == ["x"]
            await wait_all_tasks_blocked()


async def test_a_keepalive_that_is_not_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await passed(mock_clock, 10)
        await passed(mock_clock, 4.9)
        assert ws.state is State.OPEN
        await passed(mock_clock, 0.1)
        if state == "standby":
            await receiver.receive(1)
        assert receiver.ended
        assert str(receiver.error) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )


async def test_messages_are_life(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        await link.hurry(ws)
        receiver = await as_caller(nursery, ws, 30)
        for _ in range(30):  # no pong comes
            await passed(mock_clock, 4)
            await link.text("x")
            await wait_all_tasks_blocked()
        assert len(receiver.got) == 30


@pytest.mark.parametrize("first", ["clock", "message"])
async def test_a_message_that_the_keepalive_reads(
    either_link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    first: str,
) -> None:
    # Its last look, before it gives a connection up, finds a message.
    link = either_link
    async with link.connected(ping_interval=10, ping_timeout=5) as ws:
        for i in range(6):
            receiver = await receiver_in(state, nursery, link, ws, mock_clock)
            mock_clock.jump(10)
            await wait_all_tasks_blocked()
            await link.text(str(i))
            mock_clock.jump(5)
            if state == "standby":
                await receiver.receive(1)
            await wait_all_tasks_blocked()
            assert receiver.got == [str(i)]
            receiver.scope.cancel()
            await wait_all_tasks_blocked()
            ws._endpoint.pings._pending.clear()


async def test_a_message_that_is_read_in_passing_wakes_its_receiver(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    # As above, but without a race.
    link = either_link
    async with link.standing_by() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        await link.put_unread(frame(TEXT, b"x"))
        assert ws._endpoint.reader.read_now()
        if state == "standby":
            await receiver.receive(1)
        await wait_all_tasks_blocked()
        assert receiver.got == ["x"]
        receiver.scope.cancel()


@pytest.mark.parametrize(
    ("end", "code"),
    [(frame(3), 1002), (frame(CLOSE, b"\x03\xe9"), 1001), (b"", None)],
    ids=["violation", "close", "eof"],
)
async def test_an_end_that_is_read_in_passing_is_told_to_its_receiver(
    link: Link,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    end: bytes,
    code: int | None,
) -> None:
    async with link.connected() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        got = len(receiver.got)
        await link.put_unread(frame(TEXT, b"x") + end)
        if not end:
            link.sock.shutdown(socket.SHUT_WR)
        while ws.state is State.OPEN:
            assert ws._endpoint.reader.read_now() is not None
        if state == "standby":
            await receiver.receive(2)
        await wait_all_tasks_blocked()
        assert receiver.ended
        assert receiver.got[got:] == ["x"]
        assert isinstance(receiver.error, ConnectionClosedOK) == (code == 1001)
        if code is not None:
            _, payload = await link.peer.read() or (0, b"")
            assert payload[:2] == code.to_bytes(2, "big")


async def test_a_ping_of_ours_is_answered_though_nobody_receives_any_more(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def answer() -> None:
        _, payload = await link.peer.read() or (0, b"")
        await link.peer.send(PONG, payload)

    async with link.standing_by() as ws:
        for _ in range(3):
            await link.hurry(ws)
            nursery.start_soon(answer)
            await ws.ping()
            # And while it is waited for the reader steps not aside.
            waiting = trio.CancelScope()

            async def ping(scope: trio.CancelScope = waiting) -> None:
                with scope:
                    await ws.ping(b"unanswered")

            nursery.start_soon(ping)
            for _ in range(3):
                await receiving(nursery, ws)
                assert reading(ws) is TASK
                await link.text("x")
                await wait_all_tasks_blocked()
            waiting.cancel()
            await wait_all_tasks_blocked()
            assert (await link.peer.read() or (0, b""))[1] == b"unanswered"


async def test_a_ping_beside_a_receiver_that_reads_one_message(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    latencies = []

    async def ping() -> None:
        latencies.append(await ws.ping())

    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        nursery.start_soon(ping)
        _, payload = await link.peer.read() or (0, b"")
        await link.text("first")
        await wait_all_tasks_blocked()
        assert receiver.ended
        await link.peer.send(PONG, payload)
        await wait_all_tasks_blocked()
        assert len(latencies) == 1


async def test_pings_of_the_peer_are_answered(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        for i in range(20):
            await link.peer.send(PING, b"%d" % i)
            if state == "standby":
                await naps_over(mock_clock)
            assert await link.peer.read() == (FIN | PONG, b"%d" % i)
        assert not receiver.got
        receiver.scope.cancel()


# Writing


async def fill(ws: Connection) -> int:
    """Send until nothing more is accepted; return how many messages were."""
    count = blocked = 0
    while blocked < 3:
        await wait_all_tasks_blocked()
        try:
            ws.send_nowait(bytes(20_000))
            count += 1
            blocked = 0
        except trio.WouldBlock:
            blocked += 1
    return count


async def test_a_sender_that_waits_has_somebody_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, state: str
) -> None:
    # The peer reads nothing before we do.
    link = either_link
    async with link.connected(ping_interval=None, max_queue=None, max_size=None) as ws:
        filled = await fill(ws)
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        receiver_ends = receiver.ended
        nursery.start_soon(ws.send, "waited")
        await wait_all_tasks_blocked()
        receiver.scope.cancel()
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            for _ in range(40):
                await link.peer.send(BINARY, bytes(100_000))
        assert not scope.cancelled_caught
        assert not receiver_ends
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))
        assert await link.peer.read() == (FIN | TEXT, b"waited")
        assert ws.state is State.OPEN


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_the_reader_steps_not_aside_while_a_sender_waits(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # Else the peer, which may read no more before we do, would wait for a nap.
    link = either_link
    async with link.connected(ping_interval=None, max_queue=None) as ws:
        filled = await fill(ws)
        nursery.start_soon(ws.send, "waited")
        for _ in range(3):
            await receiving(nursery, ws)
            assert reading(ws) is TASK
            await link.text("x")
            await wait_all_tasks_blocked()
        for _ in range(filled):
            await link.peer.read()
        assert await link.peer.read() == (FIN | TEXT, b"waited")
        await link.hurry(ws)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_two_ends_that_echo_more_than_fits(
    mock_clock: MockClock, nursery: trio.Nursery, tls: bool
) -> None:
    # Without a nap's end, for the clock stands still.
    ours, theirs = map(trio_stream, socket.socketpair())
    client, server = contexts()
    done = trio.Event()

    async def serve() -> None:
        # Were these finite, the two might rightly wait for each other.
        limits: Any = {"max_queue": None, "max_size": None}
        async with accept(theirs, ssl=server if tls else None, **limits) as ws:
            for _ in range(4):
                await ws.send(await ws.recv())
            for size in SIZES:
                await ws.send(bytes(size))
            for size in SIZES:
                assert len(await ws.recv()) == size
            done.set()

    async with trio.open_nursery() as inner:
        inner.start_soon(serve)
        async with connect(
            "wss://localhost/" if tls else "ws://localhost/",
            stream=ours,
            ssl=client if tls else None,
        ) as ws:
            for _ in range(4):
                await ws.send("quick")
                assert await ws.recv() == "quick"
            nursery.start_soon(_cancel_when_blocked, inner.cancel_scope)
            async for message in ws:
                await ws.send(message)
    assert done.is_set()


SIZES = [*range(10), 300_000, 1, 2, 300_000, 900_000, 5, 70_000] * 2


async def test_a_flusher_that_waits_is_not_hurt_by_a_wake_up(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # To wake a receiver all that wait for the socket are woken.
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws, 10)
        filled = await fill(ws)
        assert reading(ws) is RECEIVER
        for i in range(5):
            await link.put_unread(frame(TEXT, b"%d" % i))
            ws._endpoint.reader.read_now()
            await wait_all_tasks_blocked()
        assert receiver.got == ["0", "1", "2", "3", "4"]
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))


async def test_closing_while_the_flusher_waits_beside_a_receiver(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by(ping_interval=None) as ws:
        receiver = await as_caller(nursery, ws)
        filled = await fill(ws)
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        assert isinstance(receiver.error, ConnectionClosedOK)
        for _ in range(filled):
            assert await link.peer.read() == (FIN | BINARY, bytes(20_000))
        assert await link.peer.read() == close_frame(1000)


# How much is read


async def test_reading_pauses_where_receivers_have_read(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    messages = [i.to_bytes(4, "big") * 5000 for i in range(200)]

    async def flood() -> None:
        for message in messages:
            await link.peer.send(BINARY, message)

    async with link.standing_by(max_queue=4) as ws:
        for _ in range(3):
            nursery.start_soon(flood)
            got = [await ws.recv() for _ in range(20)]
            for _ in range(10):
                await passed(mock_clock, _NAP)
                waiting = len(ws._engine.messages)
                assert waiting <= 4 + READ_SIZE // 20_000 + 1
            assert reading(ws) is PAUSED
            got += [await ws.recv() for _ in range(150)]
            # As slow as it goes: what waits is taken one by one.
            while len(got) < 200:
                await passed(mock_clock, _NAP)
                got.append(await ws.recv())
            assert got == messages
            await naps_over(mock_clock)
            await link.hurry(ws)


async def test_a_look_for_a_message_while_nobody_reads(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for number in range(3):
            with pytest.raises(trio.WouldBlock):
                ws.recv_nowait()
            await link.text(f"{number}", "more")
            await wait_all_tasks_blocked()
            assert reading(ws) is OFFERED
            assert ws.recv_nowait() == f"{number}"
            assert ws.recv_nowait() == "more"
        # Which doesn't keep the reader from going on.
        await naps_over(mock_clock)
        assert reading(ws) is TASK
        await link.text("read by the reader")
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "read by the reader"
        await link.hurry(ws)
        await link.peer.send(CLOSE, b"\x03\xe8")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedOK):
            ws.recv_nowait()


async def test_a_look_for_a_message_in_front_of_a_violation(
    either_link: Link, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        await link.peer.put(frame(TEXT, b"question") + frame(3))
        await wait_all_tasks_blocked()
        assert ws.recv_nowait() == "question"
        await ws.send("answer")
        await wait_all_tasks_blocked()
        assert await link.peer.read() == (FIN | TEXT, b"answer")
        assert await link.peer.read() == (FIN | CLOSE, b"\x03\xeaunknown opcode 0x3")
        with pytest.raises(ConnectionClosedError):
            ws.recv_nowait()


@pytest.mark.parametrize("fin", [True, False], ids=["whole", "fragments"])
async def test_a_large_payload_that_comes_in_pieces(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, fin: bool
) -> None:
    link = either_link
    payload = os.urandom(150_001)
    data = frame(BINARY, payload, fin=fin)
    data += frame(PING, b"between") + (b"" if fin else frame(CONT, b"end"))
    async with link.standing_by() as ws:
        for turn in range(3):
            receiver = await as_caller(nursery, ws)
            position = 0
            for size in (5, 11, 40_001, 80_000, len(data)):
                assert receiver.got == []
                await link.peer.put(data[position : position + size])
                position += size
                await wait_all_tasks_blocked()
                if turn == 1:
                    await passed(mock_clock, _NAP)
                if turn == 2 and position < len(data):
                    # Nothing that has come is lost.
                    receiver.scope.cancel()
                    await wait_all_tasks_blocked()
                    receiver = await receiving(nursery, ws)
            assert receiver.got == [payload + (b"" if fin else b"end")]
            await link.hurry(ws)


async def test_a_loss_in_the_middle_of_a_large_payload(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        data = frame(BINARY, bytes(100_000))
        await link.peer.put(data[: len(data) - 1])
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(link.peer.stream)
        await wait_all_tasks_blocked()
        assert isinstance(receiver.error, ConnectionClosedError)
        assert "99999 of the 100000 bytes" in str(receiver.error.__cause__)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_pieces_of_a_large_payload(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    payload = os.urandom(200_000)
    data = frame(BINARY, payload)
    pieces: list[str | bytes] = []

    async def collect() -> None:
        async for piece in ws.recv_streaming():
            pieces.append(piece)
        pieces.append("end")

    async with link.standing_by() as ws:
        await link.peer.put(data[:50_000])
        await wait_all_tasks_blocked()
        nursery.start_soon(collect)
        for at in range(50_000, len(data), 50_000):
            await link.peer.put(data[at : at + 50_000])
            await wait_all_tasks_blocked()
            assert sum(map(len, pieces)) >= at - 10
        assert pieces.pop() == "end"
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == (
            payload
        )


async def test_reads_that_fill_their_buffer(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    # After these nothing says that there is more, or that there isn't.
    link = either_link
    if isinstance(link.peer.stream, trio.SSLStream):
        buffer = 2**20
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    async with link.standing_by(max_size=None) as ws:
        for size in (1, 2, 3):
            for more in (-1, 0, 1):
                total = size * READ_SIZE + more
                receiver = await as_caller(nursery, ws, 3)
                head = len(frame(BINARY, bytes(total - 14))) - (total - 14)
                data = frame(BINARY, bytes(total - 14))
                assert head in (4, 10)
                data += frame(TEXT, bytes(total - len(data) - 2))
                assert len(data) == total
                await link.peer.put(data)
                await wait_all_tasks_blocked()
                assert len(receiver.got) == 2
                assert reading(ws) is RECEIVER
                await link.text("x")
                await wait_all_tasks_blocked()
                assert receiver.got[2] == "x"


@pytest.mark.parametrize("in_passing", [True, False])
@pytest.mark.parametrize("exactly", [True, False])
async def test_a_full_read_leaves_nobody_waiting_for_what_tls_has(
    make_link: MakeLink,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    state: str,
    exactly: bool,
    in_passing: bool,
) -> None:
    # Of it the socket says nothing.
    link = make_link(tls=True)
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    async with link.connected() as ws:
        receiver = await receiver_in(state, nursery, link, ws, mock_clock)
        if state == "standby":
            receiver = await as_caller(nursery, ws, 100)
        # Of a large record all but its end, then the end and many small ones.
        begin = (READ_SIZE - 1) % 512 + 1 + 30 * 512 + (not exactly)
        total = begin + 110 * 512
        message = frame(TEXT, bytes(total - 10))
        parts = [message[i : i + 512] for i in range(begin, total, 512)]
        large = await link.encoded(message[:begin])
        rest = large[-100:]
        for part in parts:
            rest += await link.encoded(part)
        assert len(rest) < READ_SIZE
        got = len(receiver.got)
        link.sock.send(large[:-100])
        await wait_all_tasks_blocked()
        assert link.sock.send(rest) == len(rest)
        if in_passing:
            count = ws._endpoint.reader.read_now() or 0
            assert count == READ_SIZE
        await wait_all_tasks_blocked()
        assert receiver.got[got:] == ["\0" * (total - 10)]
        receiver.scope.cancel()


async def test_a_receiver_behind_a_full_read_can_be_cancelled(
    link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with link.standing_by() as ws:
        receiver = await as_caller(nursery, ws)
        large = frame(BINARY, bytes(3 * READ_SIZE))
        nursery.start_soon(link.peer.put, frame(TEXT, b"x") + large)
        await wait_all_tasks_blocked()
        assert receiver.got == ["x"]
        assert ws._endpoint.reader.full
        for _ in range(3):
            reads = ws._endpoint.reader.reads
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.recv()
            assert scope.cancelled_caught
            assert ws._endpoint.reader.reads == reads
        assert await ws.recv() == bytes(3 * READ_SIZE)


async def test_a_large_message_lets_others_run(
    either_link: Link,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: MockClock,
) -> None:
    # Each look at the clock takes a second, so each read is followed by a rest.
    now = iter(range(10**6))
    monkeypatch.setattr(_counter, "perf_counter", lambda: next(now))
    link = either_link
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**21)
    turns = 0
    async with link.standing_by() as ws:

        async def others() -> None:
            nonlocal turns
            while not receiver.ended:
                await trio.lowlevel.checkpoint()
                turns += 1

        receiver = await as_caller(nursery, ws)
        nursery.start_soon(others)
        reads, turns = ws._endpoint.reader.reads, 0
        await link.peer.put(frame(BINARY, bytes(10 * READ_SIZE)))
        while not receiver.ended:
            await trio.lowlevel.checkpoint()
        assert ws._endpoint.reader.reads - reads > 2
        assert (
            turns >= ws._endpoint.reader.reads - reads - 1
        )  # tasks of a turn in any order


async def test_a_firehose_lets_others_run(
    either_link: Link,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: MockClock,
) -> None:
    # However fast the machine: the budget's clock stands still.
    monkeypatch.setattr(_counter, "perf_counter", lambda: 1000.0)
    link = either_link
    received = most = since = 0

    async def others() -> None:
        nonlocal most, since
        while received < 5000:
            await trio.lowlevel.checkpoint()
            most, since = max(most, since), 0

    async def firehose() -> None:
        data = frame(TEXT, b"x") * 1000
        for _ in range(5):
            await link.peer.put(data)

    async with link.standing_by() as ws:
        nursery.start_soon(firehose)
        nursery.start_soon(others)
        while received < 5000:
            await ws.recv()
            received += 1
            since += 1
        await wait_all_tasks_blocked()
        assert 0 < most <= 2 * CALLS  # tasks of a turn run in any order
        await link.hurry(ws)


# Piece by piece


async def test_pieces_for_a_receiver_that_reads(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    # Cut in the middle of a character, and of a frame.
    data = frame(TEXT, "one \u20ac two \U0001f600".encode(), fin=False)
    data += frame(CONT, b"", fin=False) + frame(CONT, " three \u00e9".encode())
    async with link.standing_by() as ws:
        for turn in range(3):
            pieces: list[str | bytes] = []

            async def collect(pieces: list[str | bytes] = pieces) -> None:
                async for piece in ws.recv_streaming():
                    pieces.append(piece)
                pieces.append("end")

            nursery.start_soon(collect)
            came = ""
            for i in range(len(data)):
                await link.peer.put(data[i : i + 1])
                await passed(mock_clock, _NAP if turn == 1 else 0)
                assert "".join(map(str, pieces)).startswith(came)
                came = "".join(map(str, pieces))
                if turn != 1 and i < len(data) - 1:
                    assert reading(ws) is RECEIVER
            assert came == "one \u20ac two \U0001f600 three \u00e9end"
            assert len(pieces) > 10
            await link.hurry(ws)


@pytest.mark.parametrize("left", ["break", "cancelled"])
async def test_pieces_that_are_left(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock, left: str
) -> None:
    link = either_link
    async with link.standing_by() as ws:
        for turn in range(3):
            scope = trio.CancelScope()

            async def begin(scope: trio.CancelScope = scope) -> None:
                with scope:
                    async for _ in ws.recv_streaming():
                        if left == "break":
                            break

            nursery.start_soon(begin)
            await wait_all_tasks_blocked()
            await link.peer.send(TEXT, b"one", fin=False)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            await link.peer.send(CONT, b"two", fin=False)
            if turn == 1:
                await naps_over(mock_clock)
            await link.peer.send(CONT, b"three")
            await link.text("next")
            assert await ws.recv() == "next"
            await link.hurry(ws)


async def test_a_violation_in_the_middle_of_pieces(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link
    pieces: list[str | bytes] = []
    async with link.standing_by() as ws:

        async def collect() -> None:
            with pytest.raises(ConnectionClosedError, match="unknown opcode"):  # noqa: PT012 - it iterates
                async for piece in ws.recv_streaming():
                    pieces.append(piece)
            pieces.append("end")

        nursery.start_soon(collect)
        await wait_all_tasks_blocked()
        assert reading(ws) is RECEIVER
        await link.peer.put(frame(TEXT, b"one", fin=False), frame(3))
        await wait_all_tasks_blocked()
        assert pieces == ["one", "end"]


async def test_a_stream_that_nobody_reads_on_pauses_reading(
    either_link: Link, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    link = either_link

    async def send_large() -> None:
        for _ in range(100):
            await link.peer.send(CONT, bytes(10_000), fin=False)
        await link.peer.send(CONT)

    async with link.standing_by() as ws:
        stream = ws.recv_streaming()
        await link.peer.send(BINARY, b"begin", fin=False)
        size = len(await anext(stream))
        nursery.start_soon(send_large)
        for _ in range(5):
            await passed(mock_clock, _NAP)
        assert reading(ws) is PAUSED
        assert ws._engine.decoder.partial_size < 3 * 2**16
        async for piece in stream:
            size += len(piece)
        assert size == 5 + 100 * 10_000


async def test_a_receiver_that_is_cancelled_gets_nothing_whatever_a_write_finds(
    link: Link, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    # What was held back is written as the receiver comes, which fails, and so
    # what the peer said before is read.
    async with link.connected() as ws:
        monkeypatch.setattr(_writing, "perf_counter", lambda: 1000.0)
        ws.send_nowait("1")
        ws.send_nowait("2")
        assert ws._endpoint.writer._outbox.size
        link.sock.send(frame(TEXT, b"x"))
        link.stream.socket.close()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.recv()
        assert scope.cancelled_caught
        assert await ws.recv() == "x"
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


# A bug in parsing


class Fragile(Extension):
    """Breaks on one message."""

    name = "x-fragile"

    def encode(self, frame: Frame) -> Frame:
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.data == b"break":
            raise ZeroDivisionError
        return frame


class FragileFactory(ClientExtensionFactory):
    name = "x-fragile"

    def get_request_params(self) -> list[ExtensionParameter]:
        return []

    def process_response_params(self, params: object, accepted: object) -> Fragile:
        return Fragile()


class PlainFactory(ServerExtensionFactory):
    name = "x-fragile"

    def process_request_params(
        self, params: object, accepted: object
    ) -> tuple[list[ExtensionParameter], Extension]:
        extension = Fragile()
        extension.decode = lambda frame, *, max_size=None: frame  # type: ignore[method-assign]
        return [], extension


@pytest.mark.parametrize("reader", ["keeper", "caller"])
async def test_an_extension_that_breaks_ends_the_connection_whoever_reads(
    reader: str, mock_clock: MockClock
) -> None:
    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    told: list[ConnectionClosedError] = []
    async with open_server(
        echo, 0, host="127.0.0.1", extensions=[PlainFactory()], compression=None
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - raised as it is left
            async with connect(
                uri, extensions=[FragileFactory()], compression=None
            ) as ws:
                for _ in range(3 if reader == "caller" else 0):
                    await ws.send("x")
                    assert await ws.recv() == "x"
                assert reading(ws) is (OFFERED if reader == "caller" else TASK)
                await ws.send("break")
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
                told.append(caught.value)
    assert len(told) == 1
