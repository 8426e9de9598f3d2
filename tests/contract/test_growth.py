"""Cost grows with what comes: what is there already is neither copied nor counted.

Nothing here depends on time: the clocks stand still. A step that copies
all that has come before is known by what it allocates; what one message takes among
few and among many, by the number of calls that Python makes.
"""

from __future__ import annotations

import functools
import socket
import sys
import zlib
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import FrameType

import pytest
import trio
import trio.testing

from tests.memory import measures_memory, tracemalloc
from tests.peers import wire
from tests.peers.certificates import contexts
from tests.peers.in_memory import BINARY, CONT, REQUEST, TEXT, frame
from trio_ws._endpoint import counter, reader, writer
from trio_ws._endpoint.pings import Pings
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.extensions.deflate import PerMessageDeflate
from trio_ws._protocol.frames.memory import PIECE_SIZE, keep_memory
from trio_ws._protocol.frames.outbox import Outbox
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._transports.base import Transport
from trio_ws._transports.sockets import SocketTransport
from trio_ws._transports.streams import StreamTransport
from trio_ws._transports.tls import TLSTransport
from trio_ws.testing import open_pair

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (counter, reader, writer):
        monkeypatch.setattr(module, "perf_counter", lambda: 1000.0)


# Of thousands of steps; what runs the tests has a thread that may allocate, too.
FEW = 4


def copies(steps: Iterable[Callable[[], object]], size: int) -> int:
    """Run steps; return how many of them allocate ``size`` bytes or more."""
    count = 0
    tracemalloc.start()
    try:
        for step in steps:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            step()
            count += tracemalloc.get_traced_memory()[1] - before >= size
    finally:
        tracemalloc.stop()
    return count


def in_pieces(
    receive: Callable[[bytes], object], data: bytes, size: int, count: int
) -> list[Callable[[], object]]:
    """Return steps: the last ``count`` pieces of ``data``, and before all the rest."""
    rest = len(data) - size * count
    assert rest > 0
    pieces = [data[:rest]]
    pieces += [data[i : i + size] for i in range(rest, len(data), size)]
    return [functools.partial(receive, piece) for piece in pieces]


def compressed(data: bytes) -> bytes:
    context = zlib.compressobj(0, wbits=-15)
    return (context.compress(data) + context.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.fixture(autouse=True)
def memory_is_kept() -> None:
    # The first large message of each size allocates a larger block, once.
    for bits in range(32):
        keep_memory(bits)


FRAGMENTS = b"".join(
    [frame(BINARY, bytes(100), fin=False, masked=True)]
    + [frame(CONT, bytes(100), fin=False, masked=True)] * 10_000
)
COMPRESSED = compressed(bytes(MIB))  # to no less, since nothing counts but its size


@measures_memory
@pytest.mark.parametrize(
    ("data", "size"),
    [
        (frame(BINARY, bytes(MIB), masked=True), 1),
        (frame(TEXT, b"x" * MIB, masked=True), 1),
        (frame(TEXT, "é".encode() * (MIB // 2), masked=True), 1),
        (FRAGMENTS, 1),
        (FRAGMENTS, 106),
        (wire.frame(BINARY, COMPRESSED, rsv=4, key=wire.KEY), 1),
    ],
    ids=["binary", "text", "not ASCII", "fragments by byte", "fragments", "compressed"],
)
def test_a_message_in_small_pieces(data: bytes, size: int) -> None:
    engine = Engine(client=False, max_size=None)
    engine.extend(
        [
            PerMessageDeflate(
                remote_no_context_takeover=False,
                local_no_context_takeover=False,
                remote_max_window_bits=15,
                local_max_window_bits=15,
            )
        ]
    )
    # The piece that is large, the one that completes the message, and now and
    # then a buffer that grows.
    steps = in_pieces(engine.receive, data, size, 2000)
    assert copies(steps, 64 * KIB) <= FEW
    assert engine.violation is None
    assert engine.messages or engine.decoder.partial_size > 900_000


@measures_memory
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("begun", [0, 1])
def test_a_large_message_is_received_where_it_stays(masked: bool, begun: int) -> None:
    engine = Engine(client=not masked, max_size=None)
    data = frame(BINARY, bytes(8 * MIB), masked=masked)
    head = len(data) - 8 * MIB + begun
    steps = [
        lambda piece=data[i : i + 32 * KIB]: wire.put(engine, engine.receive, piece)
        for i in range(head, len(data), 32 * KIB)
    ]
    engine.receive(data[:head])
    # All of it was made room for by the header.
    assert copies(steps, 4 * MIB) == 0
    assert [len(message) for message in engine.messages] == [8 * MIB]


@measures_memory
def test_a_large_message_is_masked_piece_by_piece() -> None:
    engine = Engine(client=True, max_size=None)
    payload = bytes(8 * MIB)

    def push() -> None:
        engine.outbox.push(engine.data_frame(BINARY, payload, True))

    def write() -> None:
        engine.outbox.consume(sum(map(len, engine.outbox.next_buffers(64 * KIB))))

    assert copies([push, *[write] * (8 * MIB // PIECE_SIZE - 1)], MIB) == 0
    assert 0 < engine.outbox.size < 2 * PIECE_SIZE


@measures_memory
def test_a_message_taken_piece_by_piece() -> None:
    engine = Engine(client=True, max_size=None)
    taken = 0

    def step() -> None:
        nonlocal taken
        engine.receive(frame(CONT, "é".encode() * 50, fin=False))
        taken += len(engine.decoder.take_partial())

    engine.receive(frame(TEXT, b"", fin=False))
    assert copies([step] * 20_000, 64 * KIB) <= FEW
    assert taken == 1_000_000


HEADERS = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 3000) for i in range(10))


@measures_memory
@pytest.mark.parametrize(
    ("parser", "data"),
    [
        (RequestParser, REQUEST[:-2] + HEADERS),
        (ResponseParser, b"HTTP/1.1 400 Bad Request\r\n" + HEADERS),
        (
            ResponseParser,
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 60000\r\n\r\n"
            + bytes(30_000),
        ),
    ],
    ids=["request", "response", "body"],
)
def test_a_handshake_byte_by_byte(
    parser: type[RequestParser | ResponseParser], data: bytes
) -> None:
    assert copies(in_pieces(parser().receive, data, 1, 2000), 16 * KIB) <= FEW


@measures_memory
def test_a_large_message_on_a_stream() -> None:
    async def main() -> None:
        stream, _ = trio.testing.memory_stream_pair()
        check_writes(StreamTransport(stream))

    trio.run(main)


@measures_memory
def test_a_large_message_on_tls() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        client, server = contexts()
        with ours, theirs:
            transport = TLSTransport(
                SocketTransport(ours),
                client,
                server_side=False,
                server_hostname="localhost",
            )
            peer = TLSTransport(SocketTransport(theirs), server, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.do_handshake)
                nursery.start_soon(peer.do_handshake)
            check_writes(transport)

    trio.run(main)


def check_writes(transport: Transport) -> None:
    """Check what a write copies of a frame under way, with a ping behind it."""
    outbox = Outbox()
    outbox.push((wire.header(BINARY, 16 * MIB), bytes(16 * MIB)))
    outbox.consume(1000)
    outbox.push_control(frame(9))
    counts: list[int] = []

    def write() -> None:
        counts.append(transport.write(outbox.next_buffers(64 * KIB)))

    assert copies([write], MIB) == 0
    assert counts[0] >= 16 * KIB


@measures_memory
def test_many_pings_whose_pongs_come_one_by_one() -> None:
    async def main() -> None:
        pings = Pings(None)
        waiting = [pings.add(None)[0] for _ in range(10_000)]
        steps = [functools.partial(pings.acknowledge, ping) for ping in waiting]
        assert copies(steps, 16 * KIB) <= FEW
        assert not pings.waiting

    trio.run(main)


def test_many_pings_that_wait_for_the_socket() -> None:
    outbox = Outbox()
    for _ in range(20_000):
        outbox.push_control(frame(9, bytes(10)))
    assert 0 < sum(map(len, outbox.next_buffers(KIB))) <= KIB


# PyPy compiles calls away, or crashes where they are to be told.
counts_calls = pytest.mark.cpython("it counts calls with sys.setprofile")


def calls_per_message(connections: int, messages: int, size: int = 32) -> float:
    """Return how many calls of Python a message takes, there and back."""
    count = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    async def echo(ws: trio.abc.Channel[str | bytes]) -> None:
        for _ in range(messages):
            await ws.send(await ws.receive())

    async def ask(ws: trio.abc.Channel[str | bytes]) -> None:
        for _ in range(messages):
            await ws.send(message)
            assert await ws.receive() == message

    async def main() -> None:
        nonlocal count
        async with AsyncExitStack() as stack:
            pairs = [
                await stack.enter_async_context(
                    open_pair(
                        {"compression": None, "max_size": None},
                        {"compression": None, "max_size": None},
                    )
                )
                for _ in range(connections)
            ]
            sys.setprofile(profile)
            try:
                async with trio.open_nursery() as nursery:
                    for client, server in pairs:
                        nursery.start_soon(ask, client)
                        nursery.start_soon(echo, server)
            finally:
                sys.setprofile(None)

    message = bytes(size)
    trio.run(main, clock=trio.testing.MockClock())
    return count / (connections * messages)


@counts_calls
def test_a_message_costs_the_same_on_few_connections_and_on_many() -> None:
    few, many = calls_per_message(10, 20), calls_per_message(100, 20)
    assert 0.8 < many / few < 1.1


@counts_calls
def test_a_message_costs_the_same_after_few_and_after_many() -> None:
    early, late = calls_per_message(1, 50), calls_per_message(1, 500)
    assert 0.8 < late / early < 1.1


@counts_calls
def test_a_large_message_costs_no_more_than_its_size() -> None:
    small, large = (calls_per_message(1, 2, n * MIB) / n for n in (1, 4))
    assert 0.8 < large / small < 1.1
