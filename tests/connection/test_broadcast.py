"""trio_ws.broadcast(): to many at once, waiting for none."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.memory import measures_memory, tracemalloc
from tests.peers.in_memory import BINARY, REQUEST, TEXT, RawPeer, close_frame
from tests.protocol.extensions.compressed import noise
from tests.protocol.extensions.samples import ClientXor, ServerXor
from trio_ws import (
    ClientConnection,
    Connection,
    ConnectionClosedError,
    ServerConnection,
    State,
    accept,
    broadcast,
    connect,
    open_server,
)
from trio_ws._protocol.extensions import deflate as _deflate
from trio_ws._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from trio_ws.testing import open_pair

LIMIT = 4096


class SlowStream(trio.abc.Stream):
    """The server's end of a connection whose client reads only when it is let."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.reading = trio.Event()
        self.reading.set()

    def hold(self) -> None:
        self.reading = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.reading.wait()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.reading.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class SlowPair:
    """Both ends of a connection, the client's in the hand of the test."""

    def __init__(self) -> None:
        client, server = trio.testing.memory_stream_pair()
        self.streams = client, SlowStream(server)

    def hold(self) -> None:
        self.streams[1].hold()

    def release(self) -> None:
        self.streams[1].reading.set()


@asynccontextmanager
async def pairs(
    count: int, client_options: Any = None, server_options: Any = None
) -> AsyncIterator[
    tuple[list[ClientConnection], list[ServerConnection], list[SlowPair]]
]:
    """Open so many connections; their clients read into their queues."""
    ways = [SlowPair() for _ in range(count)]
    options: Any = {"max_queue": None, **(client_options or {})}
    clients: list[ClientConnection] = []
    servers: list[ServerConnection] = []
    async with AsyncExitStack() as stack:
        for way in ways:
            client, server = await stack.enter_async_context(
                open_pair(options, server_options, way.streams)
            )
            clients.append(client)
            servers.append(server)
        yield clients, servers, ways
        for way in ways:
            way.release()


def received(connection: Connection) -> list[str | bytes]:
    """Take all that is there."""
    found = []
    while True:
        try:
            found.append(connection.recv_nowait())
        except trio.WouldBlock:
            return found


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- What arrives --------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "text", "arrives"),
    [
        ("h\u20ac", None, "h\u20ac"),
        (b"\xff", None, b"\xff"),
        (bytearray(b"ab"), None, b"ab"),
        (memoryview(b"ab"), None, b"ab"),
        ("", None, ""),
        (b"bytes", True, "bytes"),
        ("h\u20ac", False, "h\u20ac".encode()),
        ("a" * 1000, None, "a" * 1000),
    ],
)
async def test_what_is_sent_is_what_arrives(
    message: Any, text: bool | None, arrives: str | bytes
) -> None:
    async with pairs(3) as (clients, servers, _):
        assert broadcast(servers, message, text=text) == []
        await settle()
        assert [received(client) for client in clients] == [[arrives]] * 3


async def test_clients_broadcast_too() -> None:
    # One that is connected to several servers.
    async with pairs(3) as (clients, servers, _):
        for _ in range(2):
            assert broadcast(clients, "a" * 1000) == []
        await settle()
        assert [received(server) for server in servers] == [["a" * 1000] * 2] * 3


async def test_from_a_server_to_its_connections() -> None:
    seen: list[str | bytes] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async def client(ready: trio.Event, port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/") as ws:
            await ws.ping()
            ready.set()
            seen.append(await ws.recv())

    async with open_server(handler, 0, host="127.0.0.1") as server:
        async with trio.open_nursery() as nursery:
            ready = [trio.Event() for _ in range(5)]
            for event in ready:
                nursery.start_soon(client, event, server.port)
            for event in ready:
                await event.wait()
            assert broadcast(server.connections, "news" * 100) == []
    assert seen == ["news" * 100] * 5


async def test_an_iterator_of_connections_and_none_at_all() -> None:
    async with pairs(2) as (clients, servers, _):
        assert broadcast(iter(servers), "a") == []
        assert broadcast([], "a") == []
        await settle()
        assert [received(client) for client in clients] == [["a"]] * 2


async def test_the_payload_is_that_of_the_call() -> None:
    async with pairs(2) as (clients, servers, ways):
        for way in ways:
            way.hold()
        data = bytearray(b"before")
        broadcast(servers, data)
        data[:] = b"after!"
        for way in ways:
            way.release()
        await settle()
        assert [received(client) for client in clients] == [[b"before"]] * 2


# -- Not open, slow, in the middle ---------------------------------------------


async def test_those_that_are_not_open_are_passed_over() -> None:
    async with pairs(4) as (clients, servers, _):
        await servers[0].aclose()
        await clients[1].aclose()
        servers[2]._endpoint.fail(1011, "", None)
        assert servers[2].state is not State.OPEN
        assert broadcast(servers, "a") == []
        await settle()
        assert received(clients[3]) == ["a"]
        with pytest.raises(ConnectionClosedError):
            clients[2].recv_nowait()
        await clients[2].aclose()
        await servers[2].aclose()


async def fill(way: SlowPair, connection: Connection) -> int:
    """Let a connection get slow; return how many messages wait."""
    way.hold()
    count = 0
    while broadcast([connection], noise(1000)) == []:
        count += 1
        await settle()
    return count


async def test_slow_ones_are_left_out() -> None:
    async with pairs(3, None, {"write_limit": LIMIT}) as (clients, servers, ways):
        waiting = await fill(ways[1], servers[1])
        assert waiting > 1
        before = trio.current_time()
        assert broadcast(servers, "a") == [servers[1]]
        assert broadcast(servers, "b", slow="skip") == [servers[1]]
        assert trio.current_time() - before < 1
        await settle()
        assert received(clients[0]) == received(clients[2]) == ["a", "b"]
        # Once it reads again, it gets what was sent to it and what comes now.
        ways[1].release()
        await settle()
        assert broadcast(servers, "c") == []
        await settle()
        assert received(clients[1]) == [noise(1000)] * waiting + ["c"]
        assert all(server.state is State.OPEN for server in servers)


async def test_slow_ones_are_closed() -> None:
    async with pairs(3, None, {"write_limit": LIMIT}) as (clients, servers, ways):
        await fill(ways[1], servers[1])
        assert broadcast(servers, "a", slow="close") == [servers[1]]
        assert servers[1].state is not State.OPEN
        with pytest.raises(ConnectionClosedError) as caught:
            await servers[1].recv()
        assert "sent 1008 (policy violation) reads too slowly" in str(caught.value)
        # Told once.
        assert broadcast(servers, "b", slow="close") == []
        await settle()
        assert received(clients[0]) == received(clients[2]) == ["a", "b"]
        ways[1].release()
        with pytest.raises(ConnectionClosedError) as caught:
            await _recv_for_ever(clients[1])
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
            1008,
            "reads too slowly",
        )


async def _recv_for_ever(ws: Connection) -> None:
    while True:
        await ws.recv()


@pytest.mark.parametrize("slow", ["skip", "close"])
async def test_one_in_the_middle_of_a_fragmented_message(slow: Any) -> None:
    async with pairs(2) as (clients, servers, _):
        go_on = trio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "one, "
            await go_on.wait()
            yield "two"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_or_lose, servers[0], fragments())
            await settle()
            assert broadcast(servers, "a", slow=slow) == [servers[0]]
            go_on.set()
        assert broadcast(servers, "b") == []
        await settle()
        assert received(clients[1]) == ["a", "b"]
        if slow == "skip":
            assert received(clients[0]) == ["one, two", "b"]
        else:
            with pytest.raises(ConnectionClosedError, match="received 1008"):
                clients[0].recv_nowait()


async def _send_or_lose(ws: Connection, fragments: AsyncIterator[str]) -> None:
    try:
        await ws.send(fragments)
    except ConnectionClosedError:
        pass


async def test_senders_that_wait_are_not_overtaken() -> None:
    async with pairs(1, None, {"write_limit": LIMIT}) as (clients, servers, ways):
        ways[0].hold()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(servers[0].send, noise(1000, number))
                await settle()
            assert broadcast(servers, "a") == [servers[0]]
            ways[0].release()
        assert broadcast(servers, "b") == []
        await settle()
        sent = [noise(1000, number) for number in range(8)]
        assert received(clients[0]) == [*sent, "b"]


async def test_one_that_turns_out_to_be_broken_harms_no_other() -> None:
    async with open_server(_stay, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(REQUEST)
            assert b" 101 " in await stream.receive_some()
            connections = server.connections
            while len(connections) < 2:
                await trio.testing.wait_all_tasks_blocked(0.001)
                connections = server.connections
            # A reset, which nobody has seen when the first byte is written.
            stream.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            stream.socket.close()
            assert broadcast(connections, "a") == []
            states = sorted(one.state.name for one in connections)
            assert states != ["OPEN", "OPEN"]
            assert await ws.recv() == "a"


async def _stay(ws: ServerConnection) -> None:
    with suppress(ConnectionClosedError):
        await ws.recv()


# -- Built once, compressed once -----------------------------------------------


class Compressions:
    def __init__(self) -> None:
        self.count = 0

    def compressobj(self, *args: Any, **keywords: Any) -> Any:
        original = zlib.compressobj(*args, **keywords)
        outer = self

        class Counted:
            def compress(self, data: bytes) -> bytes:
                outer.count += 1
                return original.compress(data)

            def flush(self, mode: int) -> bytes:
                return original.flush(mode)

        return Counted()

    def __getattr__(self, name: str) -> Any:
        return getattr(zlib, name)


@pytest.fixture
def compressions(monkeypatch: pytest.MonkeyPatch) -> Compressions:
    found = Compressions()
    monkeypatch.setattr(_deflate, "zlib", found)
    monkeypatch.setattr(_deflate, "_fast", None)
    return found


async def test_compressed_once_for_all(compressions: Compressions) -> None:
    async with pairs(10) as (clients, servers, _):
        for number in range(3):
            broadcast(servers, noise(500, number))
            assert compressions.count == number + 1
        await settle()
        expected = [noise(500, number) for number in range(3)]
        assert [received(client) for client in clients] == [expected] * 10


async def test_a_frame_is_built_once() -> None:
    async with pairs(3) as (_, servers, ways):
        for way in ways:
            way.hold()
        broadcast(servers, "first")  # under way
        broadcast(servers, "a" * 1000)
        frames = [server._engine.outbox.next_buffers(2**16)[-1] for server in servers]
        assert frames[0] is frames[1] is frames[2]


async def test_any_mixture(compressions: Compressions) -> None:
    """Windows, without compression, other extensions, clients, with own messages."""

    def compression(**keywords: Any) -> tuple[Any, Any]:
        return (
            {"extensions": [ClientPerMessageDeflateFactory()]},
            {"extensions": [ServerPerMessageDeflateFactory(**keywords)]},
        )

    kinds: list[tuple[Any, Any]] = [
        ({}, {}),
        ({}, {}),
        compression(server_max_window_bits=9),
        compression(server_max_window_bits=9),
        compression(server_max_window_bits=15),
        compression(server_max_window_bits=8),
        compression(server_no_context_takeover=True),
        ({"compression": None}, {}),
        ({"extensions": [ClientXor()]}, {"extensions": [ServerXor()]}),
    ]
    options: Any
    async with AsyncExitStack() as stack:
        ends: list[tuple[Connection, Connection]] = []
        for client_options, server_options in kinds:
            options = {"max_queue": None, **client_options}
            manager = open_pair(options, server_options)
            client, server = await stack.enter_async_context(manager)
            ends.append((server, client))
        manager = open_pair(None, {"max_queue": None})
        client, server = await stack.enter_async_context(manager)
        ends.append((client, server))  # here a client broadcasts
        sides = [side for side, _ in ends]
        own = [noise(900, 100 + number) for number in range(len(ends))]
        shared = noise(900)
        for _ in range(3):
            for side, data in zip(sides, own, strict=True):
                await side.send(data)
            before = compressions.count
            assert broadcast(sides, shared) == []
            # 12, 9 and 15 bits, once each; those with contexts of their own are
            # the client and the one with two extensions.
            assert compressions.count - before == 3 + 2
            assert broadcast(sides, "small") == []
            for side, data in zip(sides, own, strict=True):
                await side.send([data[:300], data[300:], shared])
        await settle()
        for (_, peer), data in zip(ends, own, strict=True):
            assert received(peer) == [data, shared, "small", data + shared] * 3


async def test_the_frame_on_the_wire() -> None:
    peer = RawPeer(client=True)
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            async with accept(peer.theirs) as ws:
                broadcast([ws], "a" * 1000)
                broadcast([ws], b"b")

        nursery.start_soon(talk)
        await peer.ask()
        await peer.skip_response()
        assert await peer.read() == (0x80 | TEXT, b"a" * 1000)
        assert await peer.read() == (0x80 | BINARY, b"b")
        assert await peer.read() == close_frame(1000)
        await peer.close()


# -- Many ----------------------------------------------------------------------


async def test_stuck_clients_slow_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """20 of 40 read nothing; the others get each message in its turn."""
    async with pairs(40, None, {"write_limit": LIMIT}) as (clients, servers, ways):
        for way in ways[::2]:
            way.hold()
        began = trio.current_time()
        for number in range(50):
            left_out = broadcast(servers, noise(1000, number))
            assert set(left_out) <= set(servers[::2])
            await settle()
            for client in clients[1::2]:
                assert received(client) == [noise(1000, number)]
        assert set(left_out) == set(servers[::2])
        assert trio.current_time() == began


@measures_memory
async def test_memory_is_bounded_by_the_stuck_ones(
    mock_clock: trio.testing.MockClock,
) -> None:
    count, stuck = 100, 20
    limit = 2**16
    messages = [noise(30_000, number) for number in range(12)]
    async with pairs(
        count, {"compression": None}, {"write_limit": limit, "ping_interval": None}
    ) as (clients, servers, ways):
        for way in ways[:stuck]:
            way.hold()
        healthy = clients[stuck:]
        await settle()
        tracemalloc.start()
        try:
            for message in messages:
                broadcast(servers, message)
                await settle()
                for client in healthy:
                    assert received(client) == [message]
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # What waits for each, and what its stream has taken over, and one more.
        each = 2 * limit + 2 * 30_000
        assert left < stuck * each + 2**20
        assert peak < stuck * each + 2**20 + count * 3 * 30_000
        for server in servers[:stuck]:
            assert server._engine.outbox.size < limit + 31_000


async def test_all_at_once_over_sockets(mock_clock: trio.testing.MockClock) -> None:
    """200 clients, 20 of which never read, and no pause for the slow."""
    count, stuck = 200, 20
    message = noise(20_000)
    rounds = 30
    got = 0
    done = trio.Event()

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async def client(number: int) -> None:
        nonlocal got
        async with connect(
            f"ws://127.0.0.1:{server.port}/", compression=None, max_queue=2
        ) as ws:
            if number < stuck:
                await done.wait()
                return
            for _ in range(rounds):
                assert await ws.recv() == message
                got += 1

    async with open_server(handler, 0, host="127.0.0.1", compression=None) as server:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(client, number)
            while len(server.connections) < count:
                await trio.testing.wait_all_tasks_blocked(0.001)
            for _ in range(rounds):
                left_out = broadcast(server.connections, message)
                assert len(left_out) <= stuck
                await trio.testing.wait_all_tasks_blocked(0.001)
            while got < (count - stuck) * rounds:
                await trio.testing.wait_all_tasks_blocked(0.001)
            done.set()


# -- Wrong input ---------------------------------------------------------------


@pytest.mark.parametrize("message", [None, 3, ["a"], {"a": 1}, iter("ab"), object()])
async def test_what_is_no_message(message: Any) -> None:
    async with pairs(1) as (clients, servers, _):
        with pytest.raises(TypeError, match="message: expected"):
            broadcast(servers, message)
        # Also where there is nobody to send to.
        with pytest.raises(TypeError, match="message: expected"):
            broadcast([], message)
        await settle()
        assert received(clients[0]) == []


async def test_bytes_that_are_not_text() -> None:
    async with pairs(1) as (clients, servers, _):
        with pytest.raises(UnicodeDecodeError):
            broadcast(servers, b"\xff", text=True)
        await settle()
        assert received(clients[0]) == []


@pytest.mark.parametrize("slow", ["drop", "", None, True])
async def test_wrong_values_of_slow(slow: Any) -> None:
    async with pairs(1) as (clients, servers, _):
        with pytest.raises(ValueError, match="slow: expected"):
            broadcast(servers, "a", slow=slow)
        await settle()
        assert received(clients[0]) == []


async def test_what_is_no_connection() -> None:
    with pytest.raises(TypeError, match="expected connections; got 1"):
        broadcast([1], "x")  # type: ignore[list-item]
