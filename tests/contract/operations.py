"""What can be awaited on a connection, as a table for the cancellation sweep.

A row says how to set the connection up, what to call, what happens meanwhile so
that the call ends by itself, and what must hold afterwards besides what holds
for all: see ``run_operation``.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import nullcontext

import pytest
import trio
import trio.testing

from tests.contract.moments import Moments
from tests.peers.certificates import contexts
from tests.peers.strict_peer import StrictPeer
from trio_ws import (
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    MessageStream,
    State,
    accept,
    connect,
)
from trio_ws._endpoint.options import OptionsDict
from trio_ws._endpoint.reader import OFFERED
from trio_ws.testing import full_checkpoints

LARGE = "large" * 20_000  # more than any buffer of ours takes in one piece


def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return a TCP connection of 127.0.0.1, with small buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(near)),
        trio.SocketStream(trio.socket.from_stdlib_socket(far)),
    )


def make_ends(
    transport: str,
    *,
    client: bool,
    options: OptionsDict | None = None,
    deflate: bool = False,
) -> tuple[connect | accept, StrictPeer]:
    """Return our end, not yet open, and the peer; ``client`` says which we play.

    ``transport`` is memory (takes everything), lockstep (takes what is read),
    tcp or tls. With ``deflate`` the two agree on compression.
    """
    ours: trio.abc.Stream
    theirs: trio.abc.Stream
    if transport == "memory":
        ours, theirs = trio.testing.memory_stream_pair()
    elif transport == "lockstep":
        ours, theirs = trio.testing.lockstep_stream_pair()
    else:
        ours, theirs = tcp_pair()
    options = options or {}
    if transport != "tls":
        us = (
            connect("ws://localhost/", stream=ours, **options)
            if client
            else accept(ours, **options)
        )
        return us, StrictPeer(theirs, client=not client, deflate=deflate)
    for_client, for_server = contexts()
    wrapped = trio.SSLStream(
        theirs,
        for_server if client else for_client,
        server_hostname=None if client else "localhost",
        server_side=client,
        https_compatible=True,
    )
    if client:
        us = connect("wss://localhost/", stream=ours, ssl=for_client, **options)
    else:
        us = accept(ours, ssl=for_server, **options)
    return us, StrictPeer(wrapped, client=not client, deflate=deflate)


@dataclasses.dataclass
class Case:
    """A connection in a run of the sweep, and what is known of its messages."""

    ws: Connection
    peer: StrictPeer
    nursery: trio.Nursery  # of the case's helpers: not ours, never cancelled
    received: list[str | bytes] = dataclasses.field(default_factory=list)
    accepted: list[str | bytes] = dataclasses.field(default_factory=list)
    discarded: list[str | bytes] = dataclasses.field(default_factory=list)
    stream: MessageStream | None = None
    pieces: list[str | bytes] = dataclasses.field(default_factory=list)
    finished: bool = False  # the call returned
    quick: bool = False  # receivers read

    async def recv(self) -> None:
        self.received.append(await self.ws.recv())

    async def send(self, message: str | bytes) -> None:
        await self.ws.send(message)
        self.accepted.append(message)

    async def arrived(self) -> None:
        """Wait until all that the peer has sent is here."""
        if self.quick:
            # It is in the socket, where the call shall find it.
            await trio.testing.wait_all_tasks_blocked()
        else:
            # Its pong comes behind that.
            await self.ws.ping()

    async def hurry(self) -> None:
        """Exchange messages quickly, until receivers read."""
        self.quick = True
        while self.ws._endpoint.reader.by is not OFFERED:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.recv)
                await trio.testing.wait_all_tasks_blocked()
                await self.peer.send("quick")


Step = Callable[[Case], Awaitable[None]]
Check = Callable[[Case], None]


async def _nothing(_: Case) -> None:
    pass


def _holds(_: Case) -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """An operation in a situation.

    ``after`` runs once the operation has ended, whichever way; ``check`` then
    looks at what it came to. ``ends`` tells that the connection may be closed
    by the operation; ``cut`` that the peer may see a stream cut inside a frame;
    ``deflate`` that it is a connection with compression.
    """

    name: str
    covers: tuple[str, ...]
    call: Step
    prepare: Step = _nothing
    meanwhile: Step = _nothing
    after: Step = _nothing
    check: Check = _holds
    options: OptionsDict = dataclasses.field(default_factory=OptionsDict)
    ends: bool = False
    cut: bool = False
    deflate: bool = False
    transports: tuple[str, ...] = ("memory", "tcp")


async def run_operation(
    row: Row,
    transport: str,
    moments: Moments,
    *,
    client: bool,
    full: bool,
    quick: bool = False,
) -> None:
    """Run a row with a cancellation at a moment; check what holds for all rows.

    ``quick`` lets receivers read before it begins, for a nap of the reader's at
    least; that needs sockets.
    """
    options: OptionsDict = {"ping_interval": None}
    options.update(row.options)
    us, peer = make_ends(transport, client=client, options=options, deflate=row.deflate)
    with full_checkpoints() if full else nullcontext():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_live, peer)
            async with us as ws:
                case = Case(ws, peer, nursery)
                if quick:
                    await case.hurry()
                await row.prepare(case)
                await _cancel_at(row, case, moments)
                await row.after(case)
                peer.release()
                if ws.state is State.OPEN:
                    await _is_usable(case)
                else:
                    assert row.ends, "the connection is closed"
                    await _is_closed(case)
                assert not ws._endpoint.pings._pending
            await peer.ended.wait()
        assert peer.faults == []
        assert row.cut or not peer.cut, "a frame is torn"
        assert row.cut or peer.close is not None
        if peer.close is None or peer.close.code == 1011:
            # What waits is dropped by a failure.
            assert peer.messages == case.accepted[: len(peer.messages)]
        else:
            assert peer.messages == case.accepted
        row.check(case)


async def _live(peer: StrictPeer) -> None:
    await peer.open()
    await peer.run()


async def _cancel_at(row: Row, case: Case, moments: Moments) -> None:
    done = trio.Event()

    async def meanwhile() -> None:
        await row.meanwhile(case)
        done.set()

    case.nursery.start_soon(meanwhile)
    with trio.CancelScope() as scope:
        with moments.watch(scope.cancel):
            await row.call(case)
            case.finished = True
    await done.wait()


async def _is_usable(case: Case) -> None:
    """Exchange a message each way; nothing was lost, doubled or reordered."""
    # With compression it refers to the first, so that a lost context shows.
    first = "".join(part for part in case.peer.sent[:1] if isinstance(part, str))
    last = f"the last to us {first}"
    await case.peer.send(last)
    while last not in case.received:
        with trio.fail_after(60):
            await case.recv()
    for message in case.discarded:
        case.peer.sent.remove(message)
    assert case.received == case.peer.sent
    with trio.fail_after(60):
        await case.send("the last to the peer")
        await case.peer.wait_message("the last to the peer")
        assert case.peer.messages == case.accepted


async def _is_closed(case: Case) -> None:
    with pytest.raises(ConnectionClosed):
        await recv_for_ever(case)
    assert case.received == case.peer.sent[: len(case.received)]
    for call in (
        case.ws.send("late"),
        case.ws.send(["la", "te"]),
        case.ws.ping(),
        case.ws.pong(),
    ):
        with pytest.raises(ConnectionClosed):
            await call
    await case.ws.wait_closed()
    await case.ws.aclose()


def sends(*parts: str | bytes, fin: bool = True) -> Step:
    """Let the peer send messages, or fragments, once the call waits."""

    async def meanwhile(case: Case) -> None:
        for part in parts:
            await trio.testing.wait_all_tasks_blocked()
            await case.peer.send(part, fin=fin or part is parts[-1])

    return meanwhile


def has_sent(*parts: str | bytes, fin: bool = True) -> Step:
    """Let the peer send messages, or fragments of one, and wait for them."""

    async def prepare(case: Case) -> None:
        for part in parts:
            await case.peer.send(part, fin=fin)
        await case.arrived()

    return prepare


async def recv(case: Case) -> None:
    await case.recv()


async def receive(case: Case) -> None:
    case.received.append(await case.ws.receive())


async def iterate(case: Case) -> None:
    async for message in case.ws:
        case.received.append(message)
        if message == "end":
            break


async def recv_for_ever(case: Case) -> None:
    while True:
        await case.recv()


async def recv_all(case: Case) -> None:
    while "end" not in case.received:
        await case.recv()


async def stream(case: Case) -> None:
    if case.stream is None:
        case.stream = case.ws.recv_streaming()
    async for piece in case.stream:
        case.pieces.append(piece)
    case.received.append("".join(map(str, case.pieces)))


async def resume_stream(case: Case) -> None:
    """Go on with an iteration that was cancelled."""
    if not case.finished:
        await stream(case)


async def leave_stream(case: Case) -> None:
    """Leave the iteration that was cancelled: what has begun is discarded."""
    if not case.finished and case.pieces:
        case.discarded.append("one two three")


async def stream_and_close(case: Case) -> None:
    case.stream = case.ws.recv_streaming()
    case.pieces.append(await anext(case.stream))
    await case.stream.aclose()


async def close_stream(case: Case) -> None:
    assert case.stream is not None
    await case.stream.aclose()


async def begin_stream(case: Case) -> None:
    await has_sent("one ", fin=False)(case)
    case.stream = case.ws.recv_streaming()
    case.pieces.append(await anext(case.stream))
    case.discarded.append("one two three")


THREE = ("one ", "two ", "three")
ANEXT = "MessageStream.__anext__"


RECEIVING = [
    Row(
        name="recv-waiting",
        covers=("Connection.recv",),
        call=recv,
        meanwhile=sends("first", "second"),
    ),
    Row(
        name="recv-there",
        covers=("Connection.recv",),
        prepare=has_sent("first", b"second"),
        call=recv,
    ),
    Row(
        name="recv-fragmented",
        covers=("Connection.recv",),
        prepare=has_sent("be", fin=False),
        call=recv,
        meanwhile=sends("gi", "n", fin=False),
    ),
    Row(
        # Reading pauses and goes on as they are taken.
        name="recv-paused",
        covers=("Connection.recv",),
        options={"max_queue": 1},
        prepare=sends("1", "2", "3", "4", "5"),
        meanwhile=sends("end"),
        call=recv_all,
    ),
    Row(
        name="recv-large",
        covers=("Connection.recv",),
        call=recv,
        meanwhile=sends(LARGE),
    ),
    Row(
        name="receive",
        covers=("Connection.receive",),
        call=receive,
        meanwhile=sends("first"),
    ),
    Row(
        name="iteration",
        covers=("Connection.__anext__",),
        prepare=has_sent("first"),
        call=iterate,
        meanwhile=sends("second", "end"),
    ),
    Row(
        name="streaming-resumed",
        covers=(ANEXT,),
        call=stream,
        meanwhile=sends(*THREE, fin=False),
        after=resume_stream,
    ),
    Row(
        name="streaming-left",
        covers=(ANEXT,),
        call=stream,
        meanwhile=sends(*THREE, fin=False),
        after=leave_stream,
    ),
    Row(
        name="streaming-there",
        covers=(ANEXT,),
        prepare=has_sent("one two three"),
        call=stream,
        after=leave_stream,
    ),
    Row(
        name="streaming-aclose",
        covers=("MessageStream.aclose",),
        prepare=begin_stream,
        call=close_stream,
        meanwhile=sends("two ", "three", fin=False),
    ),
]


def send(message: str | bytes) -> Step:
    async def call(case: Case) -> None:
        await case.send(message)

    return call


async def send_twice(case: Case) -> None:
    await case.send("first")
    await case.send(b"second")


async def send_iterable(case: Case) -> None:
    await case.ws.send(THREE)
    case.accepted.append("".join(THREE))


async def send_async_iterable(case: Case) -> None:
    async def fragments() -> AsyncIterator[str]:
        for part in THREE:
            yield part
            await trio.lowlevel.checkpoint()

    await case.ws.send(fragments())
    case.accepted.append("".join(THREE))


async def fill(case: Case) -> None:
    """Send until nothing more is accepted: the peer reads nothing."""
    case.peer.hold()
    blocked = 0
    while blocked < 3:
        # What the kernel moves meanwhile makes room again.
        await trio.testing.wait_all_tasks_blocked()
        try:
            message = bytes(8192)
            case.ws.send_nowait(message)
            case.accepted.append(message)
            blocked = 0
        except trio.WouldBlock:
            blocked += 1


async def fill_and_queue(case: Case) -> None:
    """Let another sender wait in front of the call."""
    await fill(case)
    case.ws.nursery.start_soon(case.send, "in front")
    await trio.testing.wait_all_tasks_blocked()


async def let_read(case: Case) -> None:
    """Read again, some time after the call has begun to wait."""
    await trio.testing.wait_all_tasks_blocked()
    case.peer.release()


def closed_inside_a_message(case: Case) -> None:
    """Check that a message is cut short by a close frame, or not begun at all."""
    assert case.peer.close is not None
    assert case.peer.in_message == (case.peer.close.code == 1011)


def closed_if_begun(case: Case) -> None:
    """Check the same where the failure may drop the beginning, which waited."""
    assert case.peer.close is not None
    assert case.peer.close.code == 1011 or not case.peer.in_message
    assert case.finished == (case.peer.close.code == 1000) or case.accepted


SENDING = [
    Row(
        name="send",
        covers=("Connection.send",),
        call=send_twice,
    ),
    Row(
        name="send-large",
        covers=("Connection.send",),
        call=send(LARGE),
        options={"write_limit": 1000},
    ),
    Row(
        name="send-for-room",
        covers=("Connection.send",),
        prepare=fill,
        call=send_twice,
        meanwhile=let_read,
        options={"write_limit": 4096},
        transports=("lockstep", "tcp"),
    ),
    Row(
        name="send-behind-another",
        covers=("Connection.send",),
        prepare=fill_and_queue,
        call=send_twice,
        meanwhile=let_read,
        options={"write_limit": 4096},
        transports=("lockstep", "tcp"),
    ),
    Row(
        name="send-iterable",
        covers=("Connection.send",),
        call=send_iterable,
        check=closed_inside_a_message,
        ends=True,
    ),
    Row(
        name="send-async-iterable",
        covers=("Connection.send",),
        call=send_async_iterable,
        check=closed_inside_a_message,
        ends=True,
    ),
    Row(
        name="send-iterable-for-room",
        covers=("Connection.send",),
        prepare=fill,
        call=send_async_iterable,
        meanwhile=let_read,
        options={"write_limit": 4096},
        check=closed_if_begun,
        ends=True,
        transports=("lockstep",),
    ),
    Row(
        name="send-iterable-behind-another",
        covers=("Connection.send",),
        prepare=fill_and_queue,
        call=send_iterable,
        meanwhile=let_read,
        options={"write_limit": 4096},
        check=closed_if_begun,
        ends=True,
        transports=("lockstep",),
    ),
]


async def ping(case: Case) -> None:
    await case.ws.ping(b"data")


async def ping_again(case: Case) -> None:
    """Ping with the same data: the one that was cancelled isn't remembered."""
    case.peer.answers = True
    await case.ws.ping(b"data")


async def answer_late(case: Case) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await case.peer.send_pong(b"data")


async def hear_nothing(case: Case) -> None:
    case.peer.answers = False


async def pong(case: Case) -> None:
    await case.ws.pong(b"data")


def at_most_one_pong(case: Case) -> None:
    assert case.peer.pongs == ([b"data"] if case.finished else [])


CONTROL = [
    Row(name="ping", covers=("Connection.ping",), call=ping, after=ping_again),
    Row(
        name="ping-answered-late",
        covers=("Connection.ping",),
        prepare=hear_nothing,
        call=ping,
        meanwhile=answer_late,
        after=ping_again,
        transports=("memory",),
    ),
    Row(
        name="pong",
        covers=("Connection.pong",),
        call=pong,
        check=at_most_one_pong,
    ),
]


async def aclose(case: Case) -> None:
    await case.ws.aclose(3000, "enough")


async def aclose_by_block(case: Case) -> None:
    async with case.ws:
        await trio.lowlevel.checkpoint()


async def aclose_in_vain(case: Case) -> None:
    with pytest.raises(ConnectionClosedError):
        await aclose(case)


async def told_once(case: Case) -> None:
    """Check that what couldn't be written is told, even if not by the first call."""
    await no_longer_open(case)
    if not case.finished:
        await aclose_in_vain(case)


async def no_longer_open(case: Case) -> None:
    """Check that the connection is closed the moment the call has ended."""
    assert case.ws.state is State.CLOSED
    with pytest.raises(ConnectionClosedOK):
        await case.ws.recv()


def close_frame(code: int, cancelled: int | None = None) -> Check:
    def check(case: Case) -> None:
        assert case.peer.close is not None
        # A call that is cancelled may have been done with what decides on the code.
        codes = {code} if case.finished else {code, cancelled or code}
        assert case.peer.close.code in codes

    return check


async def send_and_hold(case: Case) -> None:
    case.peer.hold()
    await case.send("on its way")


async def peer_closes(case: Case) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await case.peer.send_close()


async def wait_closed(case: Case) -> None:
    await case.ws.wait_closed()


async def wait_until_ended(case: Case) -> None:
    """Wait for the end that comes in any case."""
    with trio.fail_after(60):
        await case.ws.wait_closed()


def _aclose(name: str, **more: object) -> Row:
    return dataclasses.replace(
        Row(
            name=f"aclose-{name}",
            covers=("Connection.aclose",),
            call=aclose,
            after=no_longer_open,
            check=close_frame(3000),
            ends=True,
        ),
        **more,  # type: ignore[arg-type]
    )


CLOSING = [
    _aclose("answered"),
    _aclose("with-messages-there", prepare=has_sent("never", "taken")),
    _aclose("silence", prepare=hear_nothing, transports=("memory",)),
    _aclose(
        "unread-but-buffered",
        prepare=send_and_hold,
        meanwhile=let_read,
        transports=("memory", "tcp"),
    ),
    _aclose(
        # Nothing can be said to it; what it reads in the end is what it was
        # sent, up to a cut.
        "unread",
        prepare=fill,
        call=aclose_in_vain,
        after=told_once,
        check=_holds,
        cut=True,
        options={"write_limit": 4096},
        transports=("lockstep",),
    ),
    _aclose("crossing", meanwhile=peer_closes, check=_holds),
    _aclose(
        "by-block",
        covers=("Connection.__aenter__", "Connection.__aexit__"),
        call=aclose_by_block,
        # As leaving the connection's own block says it (R11).
        check=close_frame(1000, cancelled=1001),
    ),
    Row(
        name="wait_closed",
        covers=("Connection.wait_closed",),
        call=wait_closed,
        meanwhile=peer_closes,
        after=wait_until_ended,
        check=close_frame(1000),
        ends=True,
    ),
]


async def send_again(case: Case) -> None:
    """Send what refers to what came before, so that a lost context shows."""
    if case.ws.state is State.OPEN:
        await case.send(LARGE + "again")


async def send_large_iterable(case: Case) -> None:
    await case.ws.send([LARGE, "and ", LARGE])
    case.accepted.append(LARGE + "and " + LARGE)


def _compressed() -> Iterator[Row]:
    by_name = {row.name: row for row in [*RECEIVING, *SENDING]}
    for name in (
        "recv-waiting",
        "recv-there",
        "recv-fragmented",
        "recv-large",
        "streaming-resumed",
        "streaming-left",
        "streaming-aclose",
    ):
        row = dataclasses.replace(by_name[name], deflate=True, transports=("memory",))
        yield dataclasses.replace(row, name=f"{name}-compressed")
    yield Row(
        name="send-compressed",
        covers=("Connection.send",),
        prepare=send("before" * 100),
        call=send(LARGE),
        after=send_again,
        deflate=True,
        transports=("memory", "lockstep"),
    )
    yield Row(
        name="send-iterable-compressed",
        covers=("Connection.send",),
        call=send_large_iterable,
        after=send_again,
        check=closed_inside_a_message,
        ends=True,
        deflate=True,
        transports=("memory",),
    )


ROWS: Iterable[Row] = [*RECEIVING, *SENDING, *CONTROL, *CLOSING, *_compressed()]
