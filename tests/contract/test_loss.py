"""The peer vanishes: by a reset, the end of its stream, or silence; at each byte.

What holds every time (R1, R2): the messages that were complete are delivered, in
order; then a documented exception says what happened, in bounded time; nothing
of the connection is left.

The sweeps run on a scripted stream and MockClock. What depends on the kernel, and
a sample of the rest, runs on real sockets.
"""

# ruff: noqa: PT012 - what raises is the end of a block, which has to be there

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from tests.contract.losses import (
    ANSWER_SIZE,
    ROLES,
    SCRIPTS,
    Role,
    by_role,
    check_loss,
    check_opening,
    cuts,
)
from tests.leaks import living_tasks
from tests.peers.stream_peer import REQUEST, URI, StreamPeer, reset_error, server_peer
from tests.peers.wire import CLOSE, CONT, KEY, TEXT, close_frame, frame
from trio_ws import Connection, accept, connect
from trio_ws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    OpenTimeoutError,
)

WAYS = ("end", "reset", "silence")

by_way = pytest.mark.parametrize("way", WAYS)

KEEPALIVE = 20.0 + 20.0  # the defaults of ping_interval and ping_timeout


def peer_for(role: Role, *, deflate: bool = False) -> StreamPeer:
    make = StreamPeer if role == "client" else server_peer
    return make(deflate=deflate)


def key_of(role: Role) -> bytes | None:
    """Return what the peer masks its frames with, if it is a client."""
    return KEY if role == "server" else None


def opened(role: Role, peer: StreamPeer) -> connect | accept:
    return connect(URI, stream=peer) if role == "client" else accept(peer)


@contextlib.contextmanager
def nothing_left(peer: StreamPeer) -> Iterator[None]:
    tasks = living_tasks()
    yield
    assert living_tasks() == tasks
    assert peer.closed


# -- The opening handshake -------------------------------------------------------


@by_way
async def test_server_vanishes_at_each_byte_of_its_answer(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    for size in range(ANSWER_SIZE):
        peer = StreamPeer(answer_cut=size)
        peer.after_answer(way)
        start = trio.current_time()
        with nothing_left(peer):
            with pytest.raises((InvalidMessage, OSError)) as caught:
                async with connect(URI, stream=peer):
                    raise AssertionError("entered")
        check_opening(caught.value, way)
        assert trio.current_time() - start == (10 if way == "silence" else 0)


@by_way
async def test_client_vanishes_at_each_byte_of_its_request(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    for size in range(len(REQUEST)):
        peer = StreamPeer()
        peer.feed(REQUEST[:size])
        peer.vanish(way)
        start = trio.current_time()
        with nothing_left(peer):
            with pytest.raises((InvalidMessage, OSError)) as caught:
                async with accept(peer):
                    raise AssertionError("entered")
        check_opening(caught.value, way)
        assert trio.current_time() - start == (10 if way == "silence" else 0)
        # Only one that is silent may be there to be answered.
        late = b"HTTP/1.1 408 " if way == "silence" and size else b""
        assert peer.sent[:13] == late


@pytest.mark.parametrize("takes", [0, 1, 100])
async def test_peer_that_does_not_read_the_opening_handshake(
    takes: int, autojump_clock: trio.testing.MockClock
) -> None:
    for role in ROLES:
        peer = peer_for(role)
        peer.takes = takes
        start = trio.current_time()
        with nothing_left(peer):
            with pytest.raises(OpenTimeoutError, match="after 10 s"):
                async with opened(role, peer):
                    raise AssertionError("entered")
        assert trio.current_time() - start == 10


@by_role
async def test_peer_whose_stream_breaks_under_our_opening_handshake(
    role: Role,
) -> None:
    peer = peer_for(role)
    peer.send_error = reset_error()
    with nothing_left(peer):
        with pytest.raises(ConnectionResetError):
            async with opened(role, peer):
                raise AssertionError("entered")


# -- Frames ----------------------------------------------------------------------


@pytest.mark.sweep
@by_way
@pytest.mark.parametrize("name", SCRIPTS)
@by_role
async def test_peer_vanishes_at_each_byte_of_a_frame(
    role: Role, name: str, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    for cut in cuts(role, name):
        peer = peer_for(role, deflate=name.startswith("compressed"))
        messages = []
        start = trio.current_time()
        with nothing_left(peer):
            with pytest.raises(ConnectionClosed) as caught:
                async with opened(role, peer) as ws:
                    peer.feed(cut.data)
                    peer.vanish(way)
                    while True:
                        messages.append(await ws.recv())
        assert messages == cut.messages
        check_loss(caught.value, way, cut.eof)
        assert trio.current_time() - start == (KEEPALIVE if way == "silence" else 0)
        assert ws.close_code == 1006
        with pytest.raises(ConnectionClosedError) as later:
            await ws.send("too late")
        assert later.value is not caught.value
        check_loss(later.value, way, cut.eof)


@by_way
@by_role
async def test_peer_vanishes_right_behind_the_opening_handshake(
    role: Role, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    # Its first frames come in the same read as the handshake.
    for cut in cuts(role, "text"):
        peer = peer_for(role)
        if role == "server":
            peer.feed(cut.data)
            peer.vanish(way)
        else:
            peer.after_handshake = cut.data
            peer.after_answer(way)
        messages = []
        if role == "server" and way == "reset":
            # Our answer can't be written.
            with pytest.raises(ConnectionResetError):
                async with opened(role, peer):
                    raise AssertionError("entered")
            continue
        with nothing_left(peer):
            with pytest.raises(ConnectionClosed) as caught:
                async with opened(role, peer) as ws:
                    async for message in ws:
                        messages.append(message)
        assert messages == cut.messages
        check_loss(caught.value, way, cut.eof)


@by_way
@by_role
async def test_loss_is_raised_by_the_scope_where_the_body_does_not_ask(
    role: Role, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    start = trio.current_time()
    with nothing_left(peer):
        with pytest.raises(ConnectionClosedError) as caught:
            async with opened(role, peer) as ws:
                peer.feed(frame(TEXT, b"hello", key=key_of(role)))
                peer.vanish(way)
                await trio.sleep_forever()
    check_loss(caught.value, way, "stream ended between two messages")
    # loss_grace after the loss
    lost = KEEPALIVE if way == "silence" else 0
    assert trio.current_time() - start == lost + 10
    # Nobody took the message, which is there all the same.
    assert ws.recv_nowait() == "hello"


OUR_CLOSE = b"\x03\xe8"


# -- The closing handshake -------------------------------------------------------


@pytest.mark.parametrize("leave", ["by the block", "by aclose"])
@by_way
@by_role
async def test_peer_vanishes_at_each_byte_of_its_answer_to_our_close_frame(
    role: Role, way: str, leave: str, autojump_clock: trio.testing.MockClock
) -> None:
    answer = close_frame(1000, b"bye", key=key_of(role))
    for size in range(len(answer) + 1):
        peer = peer_for(role)

        def react(peer: StreamPeer = peer, data: bytes = answer[:size]) -> None:
            peer.feed(data)
            peer.vanish(way)

        peer.on_close = react
        start = trio.current_time()
        with nothing_left(peer):
            async with opened(role, peer) as ws:
                await ws.send("last words")
                if leave == "by aclose":
                    await ws.aclose()
                    with pytest.raises(ConnectionClosedOK):
                        await ws.recv()
        whole = size == len(answer)
        assert [(f.opcode, f.data) for f in peer.frames] == [
            (TEXT, b"last words"),
            (CLOSE, OUR_CLOSE),
        ]
        assert ws.close_code == (1000 if whole else 1006)
        assert ws.close_reason == ("bye" if whole else "")
        # It is the server that ends TCP, so it doesn't wait for the client.
        # A client that has both close frames is patient with it for 2 seconds.
        waits = 0
        if way == "silence":
            waits = 10 if not whole else 2 if role == "client" else 0
        assert trio.current_time() - start == waits


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
@by_way
@by_role
async def test_peer_vanishes_behind_its_close_frame(
    role: Role, way: str, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    # Its close frame came, so it was no loss: not even by a reset, under which
    # ours couldn't be written.
    key = key_of(role)
    peer = peer_for(role)
    start = trio.current_time()
    messages = []
    error: BaseException | None = None
    with nothing_left(peer):
        try:
            async with opened(role, peer) as ws:
                peer.feed(frame(TEXT, b"last", key=key))
                peer.feed(close_frame(code, b"bye", key=key))
                peer.vanish(way)
                async for message in ws:
                    messages.append(message)
        except ConnectionClosedError as exc:
            error = exc
    assert messages == ["last"]
    assert (ws.close_code, ws.close_reason) == (code, "bye")
    assert (error is None) == (code < 1002)
    if error is not None:
        name = "internal error" if code == 1011 else "private use"
        frame_text = f"{code} ({name}) bye"
        assert str(error) == f"received {frame_text}; then sent {frame_text}"
        assert error.__cause__ is None
    waits = way == "silence" and role == "client"
    assert trio.current_time() - start == (2 if waits else 0)


@by_way
@by_role
async def test_peer_vanishes_with_our_close_frame_still_unwritten(
    role: Role, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    # What was accepted is lost, and leaving the block says so (R11).
    peer = peer_for(role)
    start = trio.current_time()
    with nothing_left(peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vanish_later, peer, way)
            with pytest.raises(ConnectionClosedError) as caught:
                async with opened(role, peer) as ws:
                    peer.takes = 0
                    await ws.send("never arrives")
    assert str(caught.value) == "sent 1000 (OK); no close frame received"
    causes = {"end": EOFError, "reset": ConnectionResetError, "silence": TimeoutError}
    assert type(caught.value.__cause__) is causes[way]
    assert ws.close_code == 1006
    # A peer that has ended its stream may still read, as long as closing takes.
    took = {"end": 10, "reset": 1, "silence": 10}
    assert trio.current_time() - start == took[way]


async def vanish_later(peer: StreamPeer, way: str) -> None:
    await trio.sleep(1)
    peer.vanish(way)


@by_role
async def test_both_close_and_the_peer_vanishes(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    with nothing_left(peer):
        async with opened(role, peer) as ws:
            peer.feed(close_frame(1001, key=key_of(role)))
            peer.end()
            await ws.aclose(4000, "mine")  # before the peer's has been read
    assert ws.close_code == 1001
    assert [f.data for f in peer.frames] == [b"\x0f\xa0mine"]


@dataclasses.dataclass
class Wait:
    """Something that the user's side waits for."""

    call: Callable[[Connection], Awaitable[object]]
    stalled: bool = False  # the peer doesn't read


async def stream_on(ws: Connection) -> None:
    async for _ in ws.recv_streaming():
        pass


WAITS = {
    "recv": Wait(lambda ws: ws.recv()),
    "iteration": Wait(lambda ws: ws.__anext__()),
    "recv_streaming": Wait(stream_on),
    "ping": Wait(lambda ws: ws.ping()),
    "ping that is stuck": Wait(lambda ws: ws.ping(), stalled=True),
    "send": Wait(lambda ws: ws.send(b"z" * 10), stalled=True),
    "send of fragments": Wait(lambda ws: ws.send(["z" * 10, "z"]), stalled=True),
}


async def fill(ws: Connection) -> list[bytes]:
    """Send until no message is accepted; return what was."""
    accepted = []
    with contextlib.suppress(trio.WouldBlock):
        for i in range(100):
            message = i.to_bytes(1, "big") * 40_000
            ws.send_nowait(message)
            accepted.append(message)
            await trio.testing.wait_all_tasks_blocked()
    assert 2 <= len(accepted) < 10
    return accepted


# -- Whatever waits is woken -----------------------------------------------------


@pytest.mark.parametrize("name", WAITS)
@by_way
@by_role
async def test_loss_wakes_what_waits(
    role: Role, way: str, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    peer = peer_for(role)
    wait = WAITS[name]
    start = trio.current_time()
    with nothing_left(peer):
        # Absorbed by the body that was given it: the scope has nothing to add.
        async with opened(role, peer) as ws:
            if wait.stalled:
                # So that the keepalive is sure to run out before the flusher.
                await trio.sleep(0.5)
                peer.takes = 0
                await fill(ws)
            peer.feed(frame(TEXT, b"begun", fin=False, key=key_of(role)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(vanish_later, peer, way)
                with pytest.raises(ConnectionClosedError) as caught:
                    await wait.call(ws)
            waited = trio.current_time() - start
    assert waited == (KEEPALIVE if way == "silence" else 1 + 0.5 * wait.stalled)
    check_loss(caught.value, way, "stream ended between two fragments of a message")


@by_way
async def test_loss_wakes_all_senders_that_queue(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    peer = StreamPeer()
    errors: list[ConnectionClosedError] = []

    async def send(ws: Connection, message: bytes) -> None:
        try:
            await ws.send(message)
        except ConnectionClosedError as exc:
            errors.append(exc)

    start = trio.current_time()
    with nothing_left(peer):
        with pytest.raises(ConnectionClosedError):
            async with opened("client", peer) as ws:
                await trio.sleep(0.5)
                peer.takes = 0
                await fill(ws)
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(send, ws, b"waits")
                    await vanish_later(peer, way)
                waited = trio.current_time() - start
                await ws.recv()
    assert len({id(error) for error in errors}) == 5
    assert waited == (KEEPALIVE if way == "silence" else 1.5)
    assert peer.sent.count(b"waits") == 0


@by_way
async def test_loss_in_the_middle_of_recv_streaming(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    # What came of the message is delivered before the exception.
    peer = StreamPeer()
    pieces: list[str | bytes] = []
    with nothing_left(peer):
        with pytest.raises(ConnectionClosedError) as caught:
            async with opened("client", peer) as ws:
                data = frame(TEXT, b"one ", fin=False)
                data += frame(CONT, b"two \xe2\x82\xac three", fin=False)
                peer.feed(data[:10])
                async for piece in ws.recv_streaming():
                    if not pieces:
                        peer.feed(data[10:-3])
                        peer.vanish(way)
                    pieces.append(piece)
    assert "".join(map(str, pieces)) == "one two \u20ac th"
    eof = "stream ended after 10 of the 13 bytes of a frame's payload"
    check_loss(caught.value, way, eof)


# -- Reading is paused -----------------------------------------------------------


@pytest.mark.parametrize("way", ["end", "reset"])
@by_role
async def test_loss_while_reading_is_paused_is_seen_when_the_application_reads(
    role: Role, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    # R10: nothing is lost, and the error comes behind the last message.
    key = key_of(role)
    peer = peer_for(role)
    messages = []
    with nothing_left(peer):
        with pytest.raises(ConnectionClosedError) as caught:
            async with opened(role, peer) as ws:
                for i in range(20):
                    peer.feed(frame(TEXT, b"%d" % i, key=key))
                await trio.testing.wait_all_tasks_blocked()
                for i in range(20, 40):
                    peer.feed(frame(TEXT, b"%d" % i, key=key))
                peer._receive_error = reset_error() if way == "reset" else None
                if way == "end":
                    peer.end()
                await trio.sleep(1000)  # many pings, no timeout
                while True:
                    messages.append(await ws.recv())
    assert messages == [str(i) for i in range(40)]
    check_loss(caught.value, way, "stream ended between two messages")


async def test_loss_while_reading_is_paused_is_seen_when_a_write_fails(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = StreamPeer()
    with nothing_left(peer):
        with pytest.raises(ConnectionClosedError) as caught:
            async with opened("client", peer) as ws:
                for i in range(20):
                    peer.feed(frame(TEXT, b"%d" % i))
                await trio.testing.wait_all_tasks_blocked()
                start = trio.current_time()
                peer.reset()
                await trio.sleep_forever()
    # The next ping of the keepalive can't be written; loss_grace runs from there.
    assert trio.current_time() - start == 20 + 10
    check_loss(caught.value, "reset", "")
    assert [ws.recv_nowait() for _ in range(20)] == [str(i) for i in range(20)]
