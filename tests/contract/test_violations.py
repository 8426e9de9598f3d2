"""Violations of the protocol, over real sockets: what both sides get to see.

Each is done by a raw client to a server and by a raw server to a client. The
raw peer always receives the close frame that the RFC has for it, the user's code
the messages that came before and then ConnectionClosedError.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock

import trio_ws
from tests.memory import measures_memory, tracemalloc
from tests.peers import raw_http
from tests.peers.wire import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    header,
    parse_stream,
)
from trio_ws._protocol.handshake.common import accept_key

Connection = trio_ws.ClientConnection | trio_ws.ServerConnection

MAX_SIZE = 1000


class Case(NamedTuple):
    name: str
    code: int
    # What the peer sends, all with this key, or unmasked.
    build: Callable[[bytes | None], bytes]


def head(
    name: str, opcode: int, length: int = 9, *, code: int = 1002, **changes: Any
) -> Case:
    """Make the case of a header, wrong before any payload comes."""
    return Case(name, code, lambda key: header(opcode, length, key=key, **changes))


def whole(name: str, opcode: int, payload: bytes, *, code: int = 1002) -> Case:
    """Make the case of a frame that is wrong by itself."""
    return Case(name, code, lambda key: frame(opcode, payload, key=key))


def interleaved(first: int, second: int) -> Case:
    def build(key: bytes | None) -> bytes:
        return frame(first, b"a", fin=False, key=key) + header(second, 9, key=key)

    return Case(f"opcode {second} in {first}", 1002, build)


def closing(code: int) -> Case:
    return whole(f"close {code}", CLOSE, code.to_bytes(2, "big"))


def text(name: str, *fragments: bytes) -> Case:
    """Make the case of a text that is no UTF-8, in fragments."""

    def build(key: bytes | None) -> bytes:
        last = len(fragments) - 1
        return b"".join(
            frame(CONT if i else TEXT, fragment, fin=i == last, key=key)
            for i, fragment in enumerate(fragments)
        )

    return Case(name, 1007, build)


def begun(opcode: int, length: int, payload: bytes, key: bytes | None) -> bytes:
    """Make the beginning of a frame."""
    start = frame(BINARY, payload, key=key)
    return header(opcode, length, key=key) + start[-len(payload) :]


CASES = [
    # Section 5.1
    Case("mask", 1002, lambda key: frame(TEXT, b"x", key=None if key else KEY)),
    Case("mask of a ping", 1002, lambda key: frame(PING, key=None if key else KEY)),
    # Section 5.2
    *(head(f"rsv {rsv}", TEXT, rsv=rsv) for rsv in (1, 2, 4, 7)),
    *(head(f"rsv 4 of opcode {op}", op, rsv=4) for op in (BINARY, CLOSE, PING, PONG)),
    *(head(f"opcode {op}", op) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    head("top bit", BINARY, 2**63, extended=8),
    head("all bits", BINARY, 2**64 - 1, extended=8),
    head("length 5 in 2 bytes", BINARY, 5, extended=2),
    head("length 125 in 8 bytes", TEXT, 125, extended=8),
    head("length 999 in 8 bytes", TEXT, 999, extended=8),
    # Section 5.4
    head("stray continuation", CONT),
    head("stray fragment", CONT, fin=False),
    interleaved(TEXT, TEXT),
    interleaved(TEXT, BINARY),
    interleaved(BINARY, TEXT),
    interleaved(BINARY, BINARY),
    # Section 5.5
    *(head(f"fragment of opcode {op}", op, fin=False) for op in (CLOSE, PING, PONG)),
    *(head(f"opcode {op} of 126 bytes", op, 126) for op in (CLOSE, PING, PONG)),
    head("ping of 70000 bytes", PING, 70_000),
    # Sections 5.5.1 and 7.4
    whole("close of 1 byte", CLOSE, b"\x03"),
    *map(closing, (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535)),
    whole("close reason", CLOSE, b"\x03\xe8\xff", code=1007),
    whole("close reason cut", CLOSE, b"\x03\xe8\xe2\x82", code=1007),
    # Section 8.1
    text("utf-8", b"abc\xff"),
    text("overlong", b"\xc0\xaf"),
    text("surrogate", b"\xed\xa0\x80"),
    text("above U+10FFFF", b"\xf4\x90\x80\x80"),
    text("cut at the end", b"abc\xe2\x82"),
    text("wrong at a cut", b"\xe2\x82", b"\x28", b""),
    text("cut at the end of fragments", b"\xe2", b"\x82"),
    text("cut, then empty", b"\xe2\x82", b"", b""),
    Case("utf-8 at once", 1007, lambda key: begun(TEXT, 900, b"a\xff", key)),
    Case("surrogate at once", 1007, lambda key: begun(TEXT, 900, b"\xed\xa0\x80", key)),
    Case(
        "utf-8 at once in a later fragment",
        1007,
        lambda key: (
            frame(TEXT, b"\xf0\x9f", fin=False, key=key)
            + frame(PING, b"between", key=key)
            + begun(CONT, 900, b"\x98\x28", key)
        ),
    ),
    # max_size, known by the header
    head("too big", TEXT, MAX_SIZE + 1, code=1009),
    head("much too big", BINARY, 2**63 - 1, code=1009),
    Case(
        "too big in fragments",
        1009,
        lambda key: (
            frame(BINARY, bytes(MAX_SIZE), fin=False, key=key)
            + frame(CONT, b"", fin=False, key=key)
            + header(CONT, 1, key=key)
        ),
    ),
    Case(
        "too many fragments",
        1009,
        lambda key: (
            frame(BINARY, b"", fin=False, key=key)
            + frame(CONT, b"", fin=False, key=key) * 4096
        ),
    ),
]


# The two sides


class Peer:
    """The raw peer of a connection whose opening handshake is done."""

    def __init__(self, stream: trio.SocketStream, *, client: bool) -> None:
        self.stream = stream
        self.key = KEY if client else None
        self.received = b""  # behind the opening handshake
        self._client = client

    @property
    def before(self) -> bytes:
        """Two messages that are right."""
        return frame(TEXT, "ein Stück".encode(), key=self.key) + frame(
            BINARY, b"\x02", key=self.key
        )

    async def answers(self) -> list[tuple[int, bytes]]:
        """Read to the end, and return the frames."""
        received = self.received + await raw_http.read_to_end(self.stream)
        frames = parse_stream(received, masked=not self._client)
        return [(int(one.opcode), bytes(one.data)) for one in frames]

    async def check_close(self, code: int) -> None:
        """Check that the close frame comes, and nothing but it."""
        frames = await self.answers()
        if frames and frames[0] == (PONG, b"between"):
            del frames[0]
        ((opcode, payload),) = frames
        assert opcode == CLOSE
        assert int.from_bytes(payload[:2], "big") == code
        assert re.fullmatch(r"[ -~]{10,}", payload[2:].decode())


class Sides:
    """Opens connections between the side under test and a raw peer."""

    def __init__(self, *, client: bool) -> None:
        self.client = client  # whether the side under test is
        self.messages: list[str | bytes] = []
        self.errors: list[trio_ws.ConnectionClosedError] = []
        self.body: Callable[[Connection], Awaitable[None]] = self.receive

    async def receive(self, ws: Connection) -> None:
        """Receive as a user's code does, and take note."""
        with pytest.raises(trio_ws.ConnectionClosedError) as caught:
            await self._receive_all(ws)
        self.errors.append(caught.value)
        for call in (ws.recv, lambda: ws.send("x"), ws.ping):
            with pytest.raises(trio_ws.ConnectionClosedError) as again:
                await call()
            assert str(again.value) == str(caught.value)
        assert ws.close_code == 1006

    async def _receive_all(self, ws: Connection) -> None:
        while True:
            self.messages.append(await ws.recv())

    @asynccontextmanager
    async def peer(
        self, first: Callable[[Peer], bytes] | None = None
    ) -> AsyncIterator[Peer]:
        """Open a connection, with what ``first`` makes right behind the handshake."""
        opened = self._raw_server if self.client else self._raw_client
        with trio.fail_after(60):
            async with opened(first) as peer:
                yield peer

    @asynccontextmanager
    async def _raw_client(
        self, first: Callable[[Peer], bytes] | None
    ) -> AsyncIterator[Peer]:
        async with trio_ws.open_server(
            self.body, 0, host="127.0.0.1", max_size=MAX_SIZE
        ) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                peer = Peer(stream, client=True)
                data = first(peer) if first else b""
                await stream.send_all(raw_http.request() + data)
                peer.received = (await raw_http.read_switch(stream)).rest
                yield peer
            await server.aclose(timeout=None)

    @asynccontextmanager
    async def _raw_server(
        self, first: Callable[[Peer], bytes] | None
    ) -> AsyncIterator[Peer]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(self._connect, port)
            async with await listener.accept() as stream:
                peer = Peer(stream, client=False)
                data = first(peer) if first else b""
                await stream.send_all(await read_request(stream) + data)
                yield peer

    async def _connect(self, port: int) -> None:
        async with trio_ws.connect(f"ws://127.0.0.1:{port}/", max_size=MAX_SIZE) as ws:
            await self.body(ws)

    def check(self, code: int, messages: list[str | bytes]) -> None:
        """Check what the user's code has seen."""
        assert self.messages == messages
        (error,) = self.errors
        assert isinstance(error.__cause__, trio_ws.ProtocolError)
        assert error.__cause__.close_code == code
        assert (error.__cause__.__class__ is trio_ws.PayloadTooBig) == (code == 1009)
        assert error.rcvd is None
        assert error.sent is not None
        assert error.sent.code == code
        assert str(error).startswith(f"sent {code} (")
        assert str(error).endswith(f"{error.__cause__}; no close frame received")


async def read_request(stream: trio.SocketStream) -> bytes:
    """Read the request of a client; return the response that opens."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        assert data
        received += data
    return response_to(bytes(received))


def response_to(request: bytes) -> bytes:
    found = re.search(rb"\r\nSec-WebSocket-Key: (\S+)\r\n", request)
    assert found is not None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(found[1].decode()).encode() + b"\r\n\r\n"
    )


MESSAGES: list[str | bytes] = ["ein Stück", b"\x02"]

by_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
both_sides = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


# What is seen


@both_sides
@by_case
async def test_in_one_segment(case: Case, client: bool) -> None:
    sides = Sides(client=client)
    async with sides.peer() as peer:
        await peer.stream.send_all(peer.before + case.build(peer.key))
        await peer.check_close(case.code)
    sides.check(case.code, MESSAGES)


@both_sides
@by_case
async def test_followed_by_more(
    case: Case, client: bool, mock_clock: MockClock
) -> None:
    # The peer may take as long as it likes to send all of it.
    sides = Sides(client=client)
    async with sides.peer() as peer:
        late = frame(TEXT, b"late", key=peer.key)
        await peer.stream.send_all(
            peer.before + case.build(peer.key) + late * (300_000 // len(late))
        )
        await peer.check_close(case.code)
    sides.check(case.code, MESSAGES)


@both_sides
@by_case
async def test_byte_by_byte(case: Case, client: bool) -> None:
    async def send(peer: Peer) -> None:
        data = peer.before + case.build(peer.key)
        step = 1 if len(data) < 500 else 61
        for i in range(0, len(data), step):
            await peer.stream.send_all(data[i : i + step])
            await trio.testing.wait_all_tasks_blocked()

    sides = Sides(client=client)
    async with sides.peer() as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, peer)
            await peer.check_close(case.code)
            nursery.cancel_scope.cancel()
    sides.check(case.code, MESSAGES)


@both_sides
@by_case
async def test_right_behind_the_handshake(case: Case, client: bool) -> None:
    sides = Sides(client=client)
    async with sides.peer(lambda peer: peer.before + case.build(peer.key)) as peer:
        await peer.check_close(case.code)
    sides.check(case.code, MESSAGES)


@both_sides
async def test_messages_before_a_violation_can_be_answered(client: bool) -> None:
    async def echo_all(ws: Connection) -> None:
        while True:
            await ws.send(await ws.recv())

    async def echo(ws: Connection) -> None:
        with pytest.raises(trio_ws.ConnectionClosedError):
            await echo_all(ws)

    sides = Sides(client=client)
    sides.body = echo
    async with sides.peer() as peer:
        await peer.stream.send_all(
            peer.before + frame(PING, b"p", key=peer.key) + frame(3, key=peer.key)
        )
        *answers, last = await peer.answers()
        assert set(answers) == {
            (PONG, b"p"),
            (TEXT, "ein Stück".encode()),
            (BINARY, b"\x02"),
        }
        assert (last[0], last[1][:2]) == (CLOSE, b"\x03\xea")


@both_sides
async def test_a_peer_that_answers_the_close_frame(client: bool) -> None:
    """RFC 6455, section 7.1.7, doesn't ask for it; many do."""
    sides = Sides(client=client)
    async with sides.peer() as peer:
        await peer.stream.send_all(peer.before + frame(3, key=peer.key))
        await peer.check_close(1002)
        await peer.stream.send_all(close_frame(1002, key=peer.key))
        await peer.stream.send_eof()
    sides.check(1002, MESSAGES)


# Never lost, however long the peer takes: the time of who waits for it stands still


def blocking_peer(
    sock: socket.socket, data: bytes, client: bool
) -> list[tuple[int, bytes]]:
    """Be the raw peer in a thread, which runs whenever it likes."""
    with sock:
        sock.settimeout(60)
        received = b""
        if client:
            sock.sendall(raw_http.request())
        while b"\r\n\r\n" not in received:
            received += sock.recv(4096)
        if not client:
            sock.sendall(response_to(received))
        received = received.partition(b"\r\n\r\n")[2]
        sock.sendall(data)
        while chunk := sock.recv(4096):
            received += chunk
    frames = parse_stream(received, masked=not client)
    return [(int(one.opcode), bytes(one.data)) for one in frames]


OFTEN = [
    case for case in CASES if case.name in ("mask", "opcode 3", "utf-8", "too big")
]


@pytest.mark.parametrize("more", [0, 300_000])
@pytest.mark.parametrize("case", OFTEN, ids=[case.name for case in OFTEN])
async def test_no_client_loses_the_close_frame(
    case: Case, more: int, mock_clock: MockClock
) -> None:
    sides = Sides(client=False)
    data = frame(TEXT, b"first", key=KEY) + case.build(KEY) + bytes(more)
    async with trio_ws.open_server(
        sides.receive, 0, host="127.0.0.1", max_size=MAX_SIZE
    ) as server:
        address = ("127.0.0.1", server.port)
        for _ in range(50):
            sock = socket.create_connection(address)
            frames = await trio.to_thread.run_sync(blocking_peer, sock, data, True)
            ((opcode, payload),) = frames
            assert (opcode, payload[:2]) == (CLOSE, case.code.to_bytes(2, "big"))
    assert sides.messages == ["first"] * 50


@pytest.mark.parametrize("more", [0, 300_000])
@pytest.mark.parametrize("case", OFTEN, ids=[case.name for case in OFTEN])
async def test_no_server_loses_the_close_frame(
    case: Case, more: int, mock_clock: MockClock
) -> None:
    sides = Sides(client=True)
    data = frame(TEXT, b"first") + case.build(None) + bytes(more)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"ws://127.0.0.1:{listener.getsockname()[1]}/"

        def serve() -> list[tuple[int, bytes]]:
            return blocking_peer(listener.accept()[0], data, False)

        async def connect() -> None:
            async with trio_ws.connect(uri, max_size=MAX_SIZE) as ws:
                await sides.receive(ws)

        for _ in range(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                ((opcode, payload),) = await trio.to_thread.run_sync(serve)
            assert (opcode, payload[:2]) == (CLOSE, case.code.to_bytes(2, "big"))
    assert sides.messages == ["first"] * 50


# What it costs


async def flood(stream: trio.SocketStream, data: bytes, total: int) -> int:
    """Send ``data`` again and again; return how many bytes went."""
    sent = 0
    while sent < total:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            break
        sent += len(data)
    return sent


@both_sides
@pytest.mark.realtime(seconds=1)
async def test_a_peer_that_sends_on_for_ever_is_gone_soon(client: bool) -> None:
    sides = Sides(client=client)
    async with sides.peer() as peer:
        await peer.stream.send_all(header(BINARY, 2**40, key=peer.key))
        start = trio.current_time()
        await peer.check_close(1009)
        await flood(peer.stream, bytes(1000), 2**40)  # ends: the peer is cut off
        assert trio.current_time() - start > 0.9
    sides.check(1009, [])


@measures_memory
@both_sides
@pytest.mark.parametrize(
    "build",
    [
        lambda key: header(BINARY, 2**40, key=key),
        lambda key: header(3, 2**40, key=key),
        lambda key: begun(TEXT, 900, b"\xff", key),
        lambda key: close_frame(1005, key=key),
    ],
    ids=["too big", "opcode", "utf-8", "close"],
)
async def test_what_comes_behind_a_violation_is_not_kept(
    build: Callable[[bytes | None], bytes], client: bool, mock_clock: MockClock
) -> None:
    # Its time stands still: what comes is read until all of it has come.
    sides = Sides(client=client)
    chunk = bytes(50_000)
    async with sides.peer() as peer:
        await peer.stream.send_all(build(peer.key))
        tracemalloc.start()
        try:
            sent = await flood(peer.stream, chunk, 10_000_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sent >= 1_000_000
    # A read's buffer, and what trio needs.
    assert peak < 500_000


@measures_memory
@both_sides
async def test_a_message_that_grows_too_big_costs_no_more_than_max_size(
    client: bool,
) -> None:
    sides = Sides(client=client)
    async with sides.peer() as peer:
        fragments = frame(BINARY, b"xx", fin=False, key=peer.key)
        fragments += frame(CONT, bytes(100), fin=False, key=peer.key) * 1000
        tracemalloc.start()
        try:
            await peer.stream.send_all(fragments)
            await peer.check_close(1009)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < len(fragments) + 300_000
    sides.check(1009, [])
