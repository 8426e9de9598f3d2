"""A firehose leaves others their turn: what happens between two steps of a task.

No clock decides: it stands still unless a test moves it. Of two tasks that can run,
either may be first, so between two steps of one there can be two of the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.peers.in_memory import BINARY, PING, PONG, frame
from trio_ws import (
    ClientConnection,
    Connection,
    ConnectionClosed,
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
)
from trio_ws._endpoint import budget as _pace
from trio_ws._endpoint import counter as _counter
from trio_ws._endpoint import goodbye as _goodbye
from trio_ws._endpoint import reader as _reading
from trio_ws._endpoint.counter import CALLS, SECONDS
from trio_ws._endpoint.reader import OFFERED, RECEIVER
from trio_ws._transports.base import READ_SIZE, STEP_SIZE, WRITE_SIZE, Transport
from trio_ws._transports.sockets import SocketTransport
from trio_ws.testing import open_pair


class Turns(trio.abc.Instrument):
    """Counts what others do between two steps of a bystander."""

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.steps = 0
        self.most = 0.0
        self._now = 0.0

    def did(self, much: float = 1) -> None:
        self._now += much
        # Nothing could stop a test that has the loop to itself.
        assert self._now < 1000 * STEP_SIZE

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            self.most = max(self.most, self._now)
            self._now = 0

    async def stand_by(self) -> None:
        self.task = trio.lowlevel.current_task()
        while True:
            await trio.lowlevel.checkpoint()

    async def pass_by(self, steps: int) -> None:
        """Wait until the bystander has had some more turns."""
        end = self.steps + steps
        while self.steps < end:
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def turns(nursery: trio.Nursery) -> AsyncIterator[Turns]:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    nursery.start_soon(turns.stand_by)
    await turns.pass_by(1)
    yield turns
    nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    for module in (_counter, _pace, _reading):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


# Calls that find all that they need

Call = Callable[[Connection], Awaitable[object]]


async def piece_by_piece(ws: Connection) -> None:
    async for _ in ws.recv_streaming():
        pass


async def recv_of_a_closed_one(ws: Connection) -> None:
    with pytest.raises(ConnectionClosed):
        await ws.recv()


async def call_on(turns: Turns, ws: Connection, call: Call) -> None:
    before = turns.steps
    for _ in range(20 * CALLS):
        turns.did()
        await call(ws)
    assert turns.steps - before >= 10
    assert turns.most <= 2 * CALLS


@pytest.mark.parametrize(
    "call",
    [lambda ws: ws.send("x"), lambda ws: ws.send(b"x"), lambda ws: ws.pong()],
    ids=["send", "send bytes", "pong"],
)
async def test_sending(turns: Turns, call: Call) -> None:
    async with open_pair(
        {"write_limit": 2**20}, {"max_queue": None, "max_size": None}
    ) as (client, _):
        await call_on(turns, client, call)


async def test_pinging(turns: Turns) -> None:
    async with open_pair() as (client, _):
        await call_on(turns, client, lambda ws: ws.ping())


async def test_sending_in_fragments(turns: Turns) -> None:
    def fragments() -> Iterator[str]:
        for _ in range(20 * CALLS):
            turns.did()
            yield "sixteen bytes ..."

    async with open_pair(
        {"write_limit": 2**20}, {"max_queue": None, "max_size": None}
    ) as (client, _):
        before = turns.steps
        await client.send(fragments())
        assert turns.steps - before >= 10
        assert turns.most <= 2 * CALLS


@pytest.mark.parametrize(
    "call",
    [Connection.recv, Connection.receive, Connection.__anext__, piece_by_piece],
)
async def test_receiving_what_is_there(turns: Turns, call: Call) -> None:
    async with open_pair({"max_queue": None}) as (client, server):
        for i in range(20 * CALLS):
            await server.send(str(i))
        while len(client._engine.messages) < 20 * CALLS:
            await trio.lowlevel.checkpoint()
        await call_on(turns, client, call)


async def test_calls_in_vain(turns: Turns) -> None:
    async with open_pair() as (client, _):
        await client.aclose()
        await call_on(turns, client, recv_of_a_closed_one)


async def test_sending_where_each_call_has_to_wait(turns: Turns) -> None:
    async with open_pair({"write_limit": 1}, {"max_queue": None}) as (client, _):
        await call_on(turns, client, lambda ws: ws.send("x"))


# Many tasks


async def test_many_tasks_share_a_turn_of_the_loop(
    turns: Turns, now: list[float]
) -> None:
    # Each may go on for a millisecond; fifty in a row would be fifty of them.
    count, seconds = 50, 0.0002

    async def firehose(ws: Connection) -> None:
        while True:
            await ws.pong()
            now[0] += seconds
            turns.did(seconds)

    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for _ in range(count):
            client, _ = await stack.enter_async_context(open_pair())
            nursery.start_soon(firehose, client)
        await turns.pass_by(5)
        turns.most = 0
        await turns.pass_by(50)
        # One call is the least that each can do, and the last may be a long one.
        assert turns.most <= 2 * count * 2 * seconds < count * SECONDS
        nursery.cancel_scope.cancel()


async def test_one_task_alone_shares_with_nobody(now: list[float]) -> None:
    budget = _pace.current_budget()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(budget.yield_)
    assert budget.seconds < SECONDS
    await budget.yield_()
    assert budget.seconds == SECONDS


# Reads that are always full


class Flood:
    """What a peer sends that never stops; in place of what the socket brings."""

    def __init__(self, turns: Turns, start: bytes, rest: bytes) -> None:
        self._turns = turns
        self._start = start
        self._rest = rest * (4 * READ_SIZE // len(rest) + 1)
        self._period = len(rest)
        self._position = 0
        self.sizes: list[int] = []

    def read(self, size: int) -> bytes:
        self._turns.did()
        assert len(self.sizes) < 100_000
        self.sizes.append(size)
        data, self._start = self._start[:size], self._start[size:]
        begin = self._position
        size -= len(data)
        self._position = (begin + size) % self._period
        return data + self._rest[begin : begin + size]


@pytest.fixture
def floods(monkeypatch: pytest.MonkeyPatch) -> dict[object, Flood]:
    floods: dict[object, Flood] = {}
    original = SocketTransport.read

    def read(transport: SocketTransport, size: int = READ_SIZE) -> bytes | None:
        if transport in floods:
            return floods[transport].read(size)
        return original(transport, size)

    monkeypatch.setattr(SocketTransport, "read", read)
    monkeypatch.setattr(SocketTransport, "read_into", Transport.read_into)
    return floods


async def begun(floods: dict[object, Flood], count: int = 1) -> None:
    """Wait until so many have been read from, which something else has to cause."""
    while sum(bool(flood.sizes) for flood in floods.values()) < count:
        await trio.lowlevel.checkpoint()


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def connected() -> AsyncIterator[ClientConnection]:
    """Open a connection over sockets, which is cut in the end."""
    with trio.CancelScope() as scope:
        async with (
            open_server(echo, 0, host="127.0.0.1") as server,
            connect(
                f"ws://127.0.0.1:{server.port}/",
                compression=None,
                max_queue=None,
                max_size=None,
            ) as ws,
        ):
            yield ws
            scope.cancel()


PONGS = frame(PONG, bytes(125))
MESSAGES = frame(BINARY, bytes(20_000))  # three in a read, which are parsed soon


async def test_the_reader(turns: Turns, floods: dict[object, Flood]) -> None:
    async with connected() as ws:
        floods[ws._endpoint.transport] = Flood(turns, b"", PONGS)
        await ws.send("wake up")
        await turns.pass_by(20)
        assert 1 <= turns.most <= 2


async def test_readers_of_many_connections(
    turns: Turns, floods: dict[object, Flood]
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(10):
            ws = await stack.enter_async_context(connected())
            floods[ws._endpoint.transport] = Flood(turns, b"", MESSAGES)
            await ws.send("wake up")
        await turns.pass_by(20)
        assert 10 <= turns.most <= 20


@pytest.mark.parametrize("what", ["pongs", "pings", "messages"])
@pytest.mark.parametrize("count", [1, 10])
async def test_goodbyes_to_peers_that_flood(
    turns: Turns,
    floods: dict[object, Flood],
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    count: int,
) -> None:
    class Slow(Flood):
        def read(self, size: int) -> bytes:
            now[0] += SECONDS / 4
            return super().read(size)

    rest = {"pongs": PONGS, "pings": frame(PING, bytes(125)), "messages": MESSAGES}
    monkeypatch.setattr(_goodbye, "perf_counter", lambda: now[0])
    heard = 0

    def hear(_: bytes) -> None:
        nonlocal heard
        heard += 1

    async def be_flooded() -> None:
        async with connected() as ws:
            floods[ws._endpoint.transport] = Slow(turns, b"", rest[what])
            ws._endpoint.engine.on_pong = hear
            await ws.send("wake up")
            await trio.sleep_forever()

    def reads() -> int:
        return sum(len(flood.sizes) for flood in floods.values())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(be_flooded)
        await begun(floods, count)
        await turns.pass_by(20)
        turns.most = heard = 0
        before = reads()
        nursery.cancel_scope.cancel()
    after = reads()
    # What is thrown away is bounded, and so is how much at a time: for each connection
    # what it hears, then a millisecond for all; and its reader has a step of its own.
    assert after - before <= count * (5 + 2 * 64 + 2)
    assert turns.most <= 2 * (count * (5 + 1) + 5)
    # Not all that is thrown away is parsed.
    assert heard <= count * 7 * (READ_SIZE // len(PONGS) + 1)


@asynccontextmanager
async def standing_by() -> AsyncIterator[ClientConnection]:
    """Open a connection whose receiver is to read in its own task."""
    async with connected() as ws:
        for _ in range(3):  # in no time: trio's clock stands still
            await ws.send("x")
            assert await ws.recv() == "x"
        assert ws._endpoint.reader.by is OFFERED
        yield ws


@pytest.mark.usefixtures("receivers_read_soon")
async def test_a_receiver_that_reads_a_message_without_end(
    turns: Turns,
    floods: dict[object, Flood],
    nursery: trio.Nursery,
    mock_clock: MockClock,
) -> None:
    endless = bytes([0x80 | BINARY, 127]) + (2**40).to_bytes(8, "big")
    async with standing_by() as ws:
        floods[ws._endpoint.transport] = Flood(turns, endless, bytes(1))
        nursery.start_soon(ws.recv)
        await ws.send("wake up")
        await begun(floods)
        await turns.pass_by(5)
        assert ws._endpoint.reader.by is RECEIVER
        assert CALLS <= turns.most <= 2 * CALLS
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("receivers_read_soon")
async def test_a_receiver_that_reads_messages_without_end(
    turns: Turns,
    floods: dict[object, Flood],
    nursery: trio.Nursery,
    mock_clock: MockClock,
) -> None:
    async def receive(ws: ClientConnection) -> None:
        async for _ in ws:
            turns.did()

    async with standing_by() as ws:
        floods[ws._endpoint.transport] = Flood(turns, b"", frame(BINARY, bytes(1000)))
        nursery.start_soon(receive, ws)
        await ws.send("wake up")
        await begun(floods)
        await turns.pass_by(5)
        # Messages, and reads of which each brings sixty.
        assert CALLS <= turns.most <= 2 * CALLS + 6
        nursery.cancel_scope.cancel()


async def test_a_step_that_took_long_makes_the_next_one_shorter(
    turns: Turns, floods: dict[object, Flood], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some frames are a thousand times as much work as others.
    async with connected() as ws:
        floods[ws._endpoint.transport] = Flood(turns, b"", PONGS)
        decoder = ws._endpoint.engine.decoder
        slowness = 10.0  # fair shares that a thousand frames take
        now = 0.0

        def clock() -> float:
            # From one look to the next a step has been taken.
            nonlocal now
            now += slowness * SECONDS * decoder.frame_limit / 1000
            return now

        monkeypatch.setattr(_reading, "perf_counter", clock)
        await ws.send("wake up")
        await begun(floods)
        await turns.pass_by(5)
        assert 90 <= decoder.frame_limit <= 110
        slowness = 1e6
        await turns.pass_by(5)
        assert decoder.frame_limit == 1
        slowness = 0.0
        await turns.pass_by(5)
        assert decoder.frame_limit >= 1000


# Writes that are always taken


class Greedy:
    """A socket whose peer takes all that it is given."""

    def __init__(self, sock: object, turns: Turns) -> None:
        self._sock = sock
        self._turns = turns
        self.taken = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        self._turns.did(len(data))
        self.taken += len(data)
        return len(data)

    def sendmsg(self, buffers: list[bytes]) -> int:
        return sum(map(self.send, buffers))


class GreedyWithoutSendmsg(Greedy):
    """As on Windows, where a call takes all of what it is given."""

    sendmsg: Any = property()

    def __getattr__(self, name: str) -> object:
        if name == "sendmsg":
            raise AttributeError(name)
        return super().__getattr__(name)


@pytest.mark.parametrize("kind", [Greedy, GreedyWithoutSendmsg])
async def test_a_peer_that_takes_all_of_a_large_message(
    turns: Turns, kind: type[Greedy]
) -> None:
    async with connected() as ws:
        transport = ws._endpoint.transport
        assert isinstance(transport, SocketTransport)
        greedy = kind(transport._sock, turns)
        transport._sock = greedy  # type: ignore[assignment]
        await ws.send(bytes(2**26))
        while greedy.taken < 2**26:
            await trio.lowlevel.checkpoint()
        await turns.pass_by(1)
        # send() has done a step, too.
        assert STEP_SIZE <= turns.most <= 3 * STEP_SIZE


async def test_large_messages_count_for_more_than_a_call(turns: Turns) -> None:
    async with connected() as ws:
        transport = ws._endpoint.transport
        assert isinstance(transport, SocketTransport)
        transport._sock = Greedy(transport._sock, Turns())  # type: ignore[assignment]
        await turns.pass_by(1)
        turns.most = 0
        for _ in range(100):
            turns.did()
            await ws.send(bytes(WRITE_SIZE))
        assert 1 <= turns.most <= 2 * 5  # calls that had begun count, too


# The opening handshake


def refuse(ws: ServerConnection, request: Request) -> Response:
    return ws.respond(403, "no\n")


async def test_a_client_that_is_refused_and_floods(
    turns: Turns, floods: dict[object, Flood], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SocketTransport.shutdown

    def shutdown(transport: SocketTransport) -> bool:
        floods[transport] = Flood(turns, b"", bytes(1))
        return original(transport)

    monkeypatch.setattr(SocketTransport, "shutdown", shutdown)
    with trio.CancelScope() as scope:
        async with (
            trio.open_nursery() as nursery,
            open_server(echo, 0, host="127.0.0.1", process_request=refuse) as server,
        ):
            nursery.start_soon(expect_refusal, server.port)
            await begun(floods)
            await turns.pass_by(20)
            assert 1 <= turns.most <= 2
            scope.cancel()


async def expect_refusal(port: int) -> None:
    with pytest.raises(InvalidStatus):
        async with connect(f"ws://127.0.0.1:{port}/"):
            pass


async def test_a_server_whose_response_is_long(
    turns: Turns, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    # As long as its time stands still, a client reads as much of a body as it keeps.
    head = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"
    flood = Flood(turns, head, b"4;" + b"x" * 240 + b"\r\nbody\r\n")
    monkeypatch.setattr(SocketTransport, "read", lambda *_: flood.read(READ_SIZE))
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        await expect_refusal(listener.socket.getsockname()[1])
    assert len(flood.sizes) > 50
    assert turns.most <= 2
