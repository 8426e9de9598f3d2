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
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal

import pytest
import trio
import trio.testing

from tests._protocol.wire import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    TEXT,
    close_frame,
    frame,
    header,
)
from tests.faults.peer import (
    REQUEST,
    URI,
    Peer,
    answer_in_thread,
    living_tasks,
    open_descriptors,
    recv_until,
    reset,
    reset_error,
    response_to,
    server_peer,
    tcp_pair,
    trio_stream,
)
from trio_ws import Connection, ServerConnection, accept, connect, open_server
from trio_ws._endpoint.reader import OFFERED
from trio_ws._transports.sockets import SocketTransport
from trio_ws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    OpenTimeoutError,
)

Role = Literal["client", "server"]
ROLES: tuple[Role, ...] = ("client", "server")
WAYS = ("end", "reset", "silence")

by_role = pytest.mark.parametrize("role", ROLES)
by_way = pytest.mark.parametrize("way", WAYS)

KEEPALIVE = 20.0 + 20.0  # the defaults of ping_interval and ping_timeout
SILENCE = "sent 1011 (internal error) keepalive ping timeout; no close frame received"
NO_CLOSE_FRAME = "no close frame received or sent"


def peer_for(role: Role, *, deflate: bool = False) -> Peer:
    return Peer(deflate=deflate) if role == "client" else server_peer(deflate=deflate)


def key_of(role: Role) -> bytes | None:
    """Return what the peer masks its frames with, if it is a client."""
    return KEY if role == "server" else None


def opened(role: Role, peer: Peer) -> connect | accept:
    return connect(URI, stream=peer) if role == "client" else accept(peer)


@contextlib.contextmanager
def nothing_left(peer: Peer) -> Iterator[None]:
    tasks = living_tasks()
    yield
    assert living_tasks() == tasks
    assert peer.closed


# -- What the peer was about to send -------------------------------------------


@dataclasses.dataclass
class Step:
    """A frame of the peer's, and the message that it completes."""

    opcode: int
    payload: bytes
    fin: bool = True
    completes: str | bytes | None = None
    rsv: int = 0


SCRIPTS = {
    "text": [Step(TEXT, b"hello", completes="hello")],
    "empty": [Step(BINARY, b"", completes=b"")],
    "16-bit": [Step(BINARY, b"x" * 200, completes=b"x" * 200)],
    "64-bit": [Step(BINARY, b"y" * 70_000, completes=b"y" * 70_000)],
    "fragments": [
        Step(TEXT, b"one \xe2\x82", fin=False),
        Step(CONT, b"\xac", fin=False),
        Step(PING, b"alive?"),
        Step(CONT, b"", fin=False),
        Step(CONT, b" two", completes="one \u20ac two"),
    ],
    "ping": [Step(PING, b"are you there?")],
    "close": [Step(CLOSE, b"\x03\xe8bye")],
    # RFC 7692, section 7.2.3: "Hello", and once more from the context.
    "compressed": [
        Step(TEXT, bytes.fromhex("f248cdc9c90700"), completes="Hello", rsv=4),
        Step(TEXT, bytes.fromhex("f200110000"), completes="Hello", rsv=4),
    ],
    "compressed fragments": [
        Step(TEXT, bytes.fromhex("f248cd"), fin=False, rsv=4),
        Step(PING, b"alive?"),
        Step(CONT, bytes.fromhex("c9c90700"), completes="Hello"),
    ],
}

BEFORE = [
    Step(TEXT, b"first", completes="first"),
    Step(BINARY, b"second", completes=b"second"),
]

NAMES = {PING: "PING", CLOSE: "CLOSE"}


@dataclasses.dataclass
class Cut:
    """The bytes that come before the peer vanishes, and what is to be expected."""

    data: bytes
    messages: list[str | bytes]
    eof: str  # what the EOFError says


def where(step: Step, key: bytes | None, offset: int, in_message: bool) -> str:
    head = len(header(step.opcode, len(step.payload), key=key))
    size = len(step.payload)
    if offset == 0:
        where = "two fragments of a message" if in_message else "two messages"
        return f"stream ended between {where}"
    if offset == 1:
        return "stream ended after 1 of the 2 bytes, at least, of a frame's header"
    if step.opcode in NAMES:
        whole = f"{head + size} bytes of a {NAMES[step.opcode]} frame"
        return f"stream ended after {offset} of the {whole}"
    if offset < head:
        return f"stream ended after {offset} of the {head} bytes of a frame's header"
    return (
        f"stream ended after {offset - head} of the {size} bytes of a frame's payload"
    )


def offsets(size: int) -> list[int]:
    """Each byte of a frame; of a large one those at both ends, and a few between."""
    if size < 1000:
        return list(range(size))
    return [*range(20), 125, 4096, 65_535, 65_536, size - 2, size - 1]


def cuts(role: Role, name: str) -> list[Cut]:
    key = key_of(role)
    data = b""
    messages: list[str | bytes] = []
    in_message = False
    found = []
    steps = BEFORE + SCRIPTS[name]
    for step in steps:
        encoded = frame(step.opcode, step.payload, fin=step.fin, rsv=step.rsv, key=key)
        for offset in offsets(len(encoded)):
            eof = where(step, key, offset, in_message)
            found.append(Cut(data + encoded[:offset], messages.copy(), eof))
        data += encoded
        if step.completes is not None:
            messages.append(step.completes)
        if step.opcode < CLOSE:
            in_message = not step.fin
    if steps[-1].opcode != CLOSE:
        found.append(Cut(data, messages, "stream ended between two messages"))
    return found


def check_loss(error: BaseException | None, way: str, eof: str) -> None:
    """Check what a loss says, and why."""
    assert type(error) is ConnectionClosedError
    if way == "silence":
        assert str(error) == SILENCE
        assert type(error.__cause__) is TimeoutError
        assert "20 s" in str(error.__cause__)
        return
    assert str(error) == NO_CLOSE_FRAME
    assert (error.rcvd, error.sent) == (None, None)
    if way == "end":
        assert type(error.__cause__) is EOFError
        assert str(error.__cause__) == eof
    else:
        assert type(error.__cause__) is ConnectionResetError


# -- The opening handshake -------------------------------------------------------


def check_opening(error: BaseException, way: str) -> None:
    if way == "end":
        assert type(error) is InvalidMessage
        assert type(error.__cause__) is EOFError
    elif way == "reset":
        assert type(error) is ConnectionResetError
    else:
        assert type(error) is OpenTimeoutError


ANSWER_SIZE = len(response_to(REQUEST))


@by_way
async def test_server_vanishes_at_each_byte_of_its_answer(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    for size in range(ANSWER_SIZE):
        peer = Peer(answer_cut=size)
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
        peer = Peer()
        peer.feed(REQUEST[:size])
        peer.vanish(way)
        start = trio.current_time()
        with nothing_left(peer):
            with pytest.raises((InvalidMessage, OSError)) as caught:
                async with accept(peer):
                    raise AssertionError("entered")
        check_opening(caught.value, way)
        assert trio.current_time() - start == (10 if way == "silence" else 0)
        assert not peer.sent  # there is nobody to answer


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


# -- The closing handshake -------------------------------------------------------

OUR_CLOSE = b"\x03\xe8"
ANSWER = close_frame(1000, b"bye")


@pytest.mark.parametrize("leave", ["by the block", "by aclose"])
@by_way
@by_role
async def test_peer_vanishes_at_each_byte_of_its_answer_to_our_close_frame(
    role: Role, way: str, leave: str, autojump_clock: trio.testing.MockClock
) -> None:
    answer = close_frame(1000, b"bye", key=key_of(role))
    for size in range(len(answer) + 1):
        peer = peer_for(role)

        def react(peer: Peer = peer, data: bytes = answer[:size]) -> None:
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
        waits = way == "silence" and not (whole and role == "server")
        assert trio.current_time() - start == (10 if waits else 0)


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
    assert trio.current_time() - start == (10 if waits else 0)


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


async def vanish_later(peer: Peer, way: str) -> None:
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


# -- Whatever waits is woken -----------------------------------------------------


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
    peer = Peer()
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
    peer = Peer()
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
    peer = Peer()
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


# -- Real sockets ----------------------------------------------------------------


def opened_on(
    role: Role, ours: socket.socket, theirs: socket.socket
) -> connect | accept:
    stream = trio_stream(ours)
    if role == "server":
        theirs.sendall(REQUEST)
        return accept(stream)
    answer_in_thread(theirs)
    return connect(URI, stream=stream)


async def hurry(ws: Connection, role: Role, theirs: socket.socket) -> None:
    """Send messages quickly, until receivers read."""
    while ws._endpoint.reader.by is not OFFERED:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.recv)
            await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(frame(TEXT, b"quick", key=key_of(role)))


@pytest.mark.parametrize("quick", [False, True], ids=["", "receivers-read"])
@pytest.mark.parametrize("name", ["text", "16-bit", "fragments", "ping", "close"])
@pytest.mark.parametrize("way", ["end", "reset"])
@by_role
async def test_socket_vanishes_at_each_byte_of_a_frame(
    role: Role, way: str, name: str, quick: bool
) -> None:
    # What is in the middle of a large frame differs in nothing but the number.
    sample = [cut for cut in cuts(role, name) if len(cut.data) < 60]
    tasks, descriptors = living_tasks(), open_descriptors()
    for cut in sample:
        ours, theirs = tcp_pair()
        messages = []
        with pytest.raises(ConnectionClosed) as caught:
            async with opened_on(role, ours, theirs) as ws:
                if quick:
                    await hurry(ws, role, theirs)
                theirs.sendall(cut.data)
                # Whether a reset destroys what came before it is the kernel's
                # affair: we read first.
                for _ in cut.messages:
                    messages.append(await ws.recv())
                if way == "reset":
                    reset(theirs)
                else:
                    theirs.shutdown(socket.SHUT_WR)
                await ws.recv()
        theirs.close()
        assert messages == cut.messages
        check_loss(caught.value, way, cut.eof)
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


async def in_thread(call: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(call)


@pytest.mark.parametrize("way", ["end", "reset"])
async def test_socket_vanishes_in_the_opening_handshake(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The client's side. Each 10th byte: each one is above, on memory streams.
    tasks, descriptors = living_tasks(), open_descriptors()
    for size in range(0, ANSWER_SIZE, 10):
        listener = socket.create_server(("127.0.0.1", 0))

        def answer(listener: socket.socket = listener, size: int = size) -> None:
            theirs, _ = listener.accept()
            answer = response_to(recv_until(theirs, b"\r\n\r\n"))
            theirs.sendall(answer[:size])
            if way == "reset":
                reset(theirs)
            theirs.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, answer)
            with pytest.raises((InvalidMessage, ConnectionResetError)) as caught:
                async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/"):
                    raise AssertionError("entered")
        listener.close()
        check_opening(caught.value, way)
    assert living_tasks() == tasks
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("way", ["end", "reset"])
async def test_server_outlives_clients_that_vanish_in_the_opening_handshake(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    handled = 0

    async def handler(ws: ServerConnection) -> None:
        nonlocal handled
        handled += 1
        async for message in ws:
            await ws.send(message)

    sizes = range(0, len(REQUEST), 10)
    async with open_server(handler, 0, host="127.0.0.1") as server:
        await trio.testing.wait_all_tasks_blocked()  # it listens
        tasks, descriptors = living_tasks(), open_descriptors()
        for size in sizes:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(REQUEST[:size])
            if way == "reset":
                await trio.testing.wait_all_tasks_blocked()
                reset(client)
            client.close()
        while caplog.text.count("opening handshake failed") < len(sizes):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert living_tasks() == tasks
        assert open_descriptors() == descriptors
        assert {record.levelname for record in caplog.records} == {"INFO"}
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("still there?")
            assert await ws.recv() == "still there?"
    assert handled == 1


@pytest.mark.parametrize("role", ROLES)
async def test_reset_under_a_send_loses_nothing_that_came(role: Role) -> None:
    # The write side fails first, with the peer's last words still unread. One
    # segment: a reset destroys what the peer's kernel has not sent yet.
    key = key_of(role)
    ours, theirs = tcp_pair()
    with pytest.raises(ConnectionClosedError) as caught:
        async with opened_on(role, ours, theirs) as ws:
            messages = [bytes([i]) * 100 for i in range(100)]
            theirs.sendall(b"".join(frame(BINARY, m, key=key) for m in messages))
            reset(theirs)
            for _ in range(2):  # nothing has been read: there was no checkpoint
                with contextlib.suppress(ConnectionClosedError):
                    ws.send_nowait("anybody there?")
            received = [await ws.recv() for _ in range(100)]
            await ws.recv()
    assert received == messages
    check_loss(caught.value, "reset", "")


@by_role
@pytest.mark.parametrize("code", [1000, 1011])
async def test_close_frame_that_lies_unread_when_a_send_fails(
    role: Role, code: int
) -> None:
    # It says more than the failure to write does.
    key = key_of(role)
    ours, theirs = tcp_pair()
    closed: type[ConnectionClosed]
    closed = ConnectionClosedOK if code == 1000 else ConnectionClosedError
    with pytest.raises(closed) as caught:
        async with opened_on(role, ours, theirs) as ws:
            theirs.sendall(frame(TEXT, b"goodbye", key=key))
            theirs.sendall(close_frame(code, b"bye", key=key))
            reset(theirs)
            with contextlib.suppress(ConnectionClosed):
                ws.send_nowait("you as well")
                ws.send_nowait("and thanks")
            assert await ws.recv() == "goodbye"
            await ws.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code
    assert ws.close_code == code


async def test_send_fails_while_reading_is_paused() -> None:
    # Many messages, more than max_queue, are unread: all are still delivered.
    ours, theirs = tcp_pair()
    with pytest.raises(ConnectionClosedError):
        async with opened_on("client", ours, theirs) as ws:
            for i in range(20):
                theirs.sendall(frame(TEXT, b"%d" % i))
            while len(ws._engine.messages) < 20:
                await trio.lowlevel.checkpoint()
            theirs.sendall(frame(TEXT, b"20"))
            await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(b"".join(frame(TEXT, b"%d" % i) for i in range(21, 200)))
            reset(theirs)
            for _ in range(2):
                with contextlib.suppress(ConnectionClosedError):
                    ws.send_nowait("anybody there?")
            received = [await ws.recv() for _ in range(200)]
            await ws.recv()
    assert received == [str(i) for i in range(200)]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_peer_that_has_stopped_reading_and_floods_holds_nobody() -> None:
    # On a Unix socket writes fail with EPIPE as soon as the peer has shut down
    # its reading side, while it can go on sending: what is read after that
    # failure must have an end.
    ours, theirs = socket.socketpair()
    payload = frame(BINARY, b"f" * 60_000)
    fed = 0

    class Flood(socket.socket):
        """Our socket, to which the peer sends whenever something is read."""

        def recv(self, size: int, flags: int = 0) -> bytes:
            nonlocal fed
            assert fed < 100_000_000, "reads without end"
            with contextlib.suppress(BlockingIOError):
                while True:
                    fed += theirs.send(payload[fed % len(payload) :])
            return super().recv(size, flags)

    answer_in_thread(theirs)
    with pytest.raises(ConnectionClosedError):
        async with connect(URI, stream=trio_stream(ours)) as ws:
            transport = ws._endpoint.transport
            assert isinstance(transport, SocketTransport)
            transport._sock = Flood(fileno=transport._sock.detach())
            theirs.setblocking(False)
            theirs.shutdown(socket.SHUT_RD)
            with contextlib.suppress(ConnectionClosedError):
                ws.send_nowait("anybody there?")
            while True:
                await ws.recv()
    theirs.close()


@pytest.mark.parametrize("way", ["end", "reset"])
@by_role
async def test_loss_wakes_senders_that_wait_for_a_socket(role: Role, way: str) -> None:
    ours, theirs = tcp_pair()
    errors = []

    async def send(ws: Connection) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.send(b"waits")
        errors.append(caught.value)

    async with opened_on(role, ours, theirs) as ws:
        with contextlib.suppress(trio.WouldBlock):
            while True:
                ws.send_nowait(bytes(1_000_000))  # more than write_limit
                await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send, ws)
            await trio.testing.wait_all_tasks_blocked()
            if way == "end":
                theirs.shutdown(socket.SHUT_WR)
            else:
                reset(theirs)
        theirs.close()
        with pytest.raises(ConnectionClosedError):  # the body is told as well
            await ws.send(b"too late")
    assert len(errors) == 3
    for error in errors:
        check_loss(error, way, "stream ended between two messages")
