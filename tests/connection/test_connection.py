"""What a user does with a connection but receive and send: close, ask for facts."""

from __future__ import annotations

import functools
import logging
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.peers.in_memory import CLOSE, TEXT, RawPeer, close_frame, connected
from trio_ws import (
    ClientConnection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    connect,
)
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock

FIN = 0x80


# Closing


async def test_aclose(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.send(TEXT, b"never received")
        await trio.testing.wait_all_tasks_blocked()
        await ws.send("last")
        nursery.start_soon(ws.aclose, 4000, "so long")
        assert await peer.read() == (FIN | TEXT, b"last")
        assert await peer.read() == close_frame(4000, "so long")
        assert ws.state.name == "CLOSING"
        facts = ws.close_code, ws.close_reason
        assert facts == (None, None)
        for call in (ws.recv, ws.receive, ws.ping, ws.pong):
            with pytest.raises(ConnectionClosedOK):
                await call()
        with pytest.raises(ConnectionClosedOK, match="sent 4000"):
            await ws.send("x")
        assert [message async for message in ws] == []
        await peer.close(4001, b"yourself")
        await peer.stream.aclose()
        await ws.wait_closed()
        assert ws.state is State.CLOSED
        assert (ws.close_code, ws.close_reason) == (4001, "yourself")
        with pytest.raises(ConnectionClosedOK) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "sent 4000 (private use) so long; then received 4001 (private use) yourself"
        )
        await ws.aclose(1001, "does nothing")
        assert (ws.close_code, ws.close_reason) == (4001, "yourself")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((999,), ValueError, "close code: expected 1000 to 1003, .*; got 999"),
        ((1004,), ValueError, "close code"),
        ((1005,), ValueError, "close code"),
        ((1006,), ValueError, "close code"),
        ((1015,), ValueError, "close code"),
        ((2999,), ValueError, "close code"),
        ((5000,), ValueError, "close code"),
        ((-1,), ValueError, "close code"),
        (("1000",), TypeError, "close code: expected int; got str"),
        ((1000.0,), TypeError, "close code: expected int; got float"),
        ((1000, b"x"), TypeError, "close reason: expected str; got bytes"),
        ((1000, None), TypeError, "close reason: expected str; got NoneType"),
        ((1000, "x" * 124), ValueError, "at most 123 bytes of UTF-8; got 124"),
        ((1000, "\u00e9" * 62), ValueError, "at most 123 bytes of UTF-8; got 124"),
        ((1000, "a\r\nb"), ValueError, "expected no CR, LF or NUL"),
        ((1000, "a\0b"), ValueError, "expected no CR, LF or NUL"),
        ((1000, "\ud800"), ValueError, "surrogates"),
    ],
)
async def test_aclose_with_wrong_arguments(
    arguments: Any, error: type[Exception], match: str
) -> None:
    async with open_pair() as (client, server):
        with pytest.raises(error, match=match):
            await client.aclose(*arguments)
        assert client.state is State.OPEN
        await client.send("still usable")
        assert await server.recv() == "still usable"
        await server.send("both ways")
        assert await client.recv() == "both ways"


async def test_aclose_waits_for_the_peer_as_long_as_it_may(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, close_timeout=7) as ws:
        start = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - start == 7
        assert ws.close_code == 1006
        assert ws.close_reason == ""
        # It was the user who closed: no error, whatever the peer did.
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


async def test_several_tasks_close_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        async with trio.open_nursery() as tasks:
            for i in range(3):
                tasks.start_soon(ws.aclose, 4000, str(i))
            received = await peer.read()
            assert received in [close_frame(4000, str(i)) for i in range(3)]
            await peer.close()
        assert await peer.read() is None


async def test_a_cancelled_aclose_closes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await ws.send("last")
        with trio.move_on_after(1) as scope:
            await ws.aclose(4000)
        assert scope.cancelled_caught
        assert ws.state is State.CLOSED
        assert await peer.read() == (FIN | TEXT, b"last")
        assert await peer.read() == close_frame(4000)
        assert await peer.read() is None


async def test_aclose_of_what_was_lost_is_quiet(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        await ws.aclose()
        await ws.aclose()


async def test_aclose_tells_of_what_could_not_be_written(
    autojump_clock: MockClock,
) -> None:
    streams = trio.testing.lockstep_stream_pair()
    peer = RawPeer(client=False, streams=streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with connect("ws://testing/", stream=peer.theirs, close_timeout=3) as ws:
            await ws.send(bytes(100_000))
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.aclose()
            assert isinstance(caught.value.__cause__, TimeoutError)
            assert str(caught.value.__cause__) == "closing took longer than 3 s"
            await ws.aclose()  # it has been told


async def test_a_connection_is_a_resource_of_trio() -> None:
    async with open_pair() as (client, server):
        async with client as same:
            assert same is client
            await client.send("x")
        assert client.state is State.CLOSED
        assert await server.recv() == "x"
        assert (client.close_code, server.close_code) == (1000, 1000)


async def test_code_written_for_channels_runs_on_it() -> None:
    async def consume(channel: trio.abc.ReceiveChannel[str | bytes]) -> None:
        async with channel:
            assert await channel.receive() == "first"
            received.extend([value async for value in channel])
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()

    async def produce(channel: trio.abc.SendChannel[str | bytes]) -> None:
        async with channel:
            for value in ("first", "second", b"third"):
                await channel.send(value)
        with pytest.raises(trio.BrokenResourceError):
            await channel.send("x")

    received: list[str | bytes] = []
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        assert isinstance(client, trio.abc.Channel)
        nursery.start_soon(consume, client)
        nursery.start_soon(produce, server)
    assert received == ["second", b"third"]


# Facts


async def test_facts_of_a_connection(nursery: trio.Nursery) -> None:
    logger = logging.getLogger("mine")
    async with open_pair(
        {"logger": logger, "subprotocols": ["a", "b"]}, {"subprotocols": ["b"]}
    ) as (client, server):
        assert isinstance(client.id, uuid.UUID)
        assert client.id == client.id != server.id
        assert client.logger.logger is logger
        assert server.logger.logger is logging.getLogger("trio_ws.server")
        assert client.subprotocol == server.subprotocol == "b"
        assert client.request.headers["Host"] == "testing"
        assert client.request.headers == server.request.headers
        assert client.response is not None
        assert client.response.status_code == 101
        assert (client.local_address, client.remote_address) == (None, None)
        assert client.state is State.OPEN
        assert client.state.name == "OPEN"
        assert client.latency == 0
        assert (client.close_code, client.close_reason) == (None, None)
        assert repr(client) == f"<ClientConnection {client.id} OPEN None - None>"
    assert repr(server) == f"<ServerConnection {server.id} CLOSED None - None>"
    assert (server.close_code, server.close_reason) == (1000, "")


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ((1000, ""), 1000, ""),
        ((4321, "caf\u00e9"), 4321, "caf\u00e9"),
        (None, 1005, ""),
        ("eof", 1006, ""),
        ("violation", 1006, ""),
    ],
)
async def test_how_it_was_closed_stays_known(
    nursery: trio.Nursery, how: Any, code: int, reason: str
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        if how == "eof":
            await peer.stream.aclose()
        elif how == "violation":
            await peer.send(3)
        elif how is None:
            await peer.send(CLOSE)
            await peer.end()
        else:
            await peer.close(how[0], how[1].encode())
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (code, reason)
    assert (ws.close_code, ws.close_reason) == (code, reason)
    assert ws.state is State.CLOSED


class Mine(ClientConnection):
    def __init__(self, *arguments: Any, extra_argument: int = 0) -> None:
        super().__init__(*arguments)
        self.extra = extra_argument


class Theirs(ServerConnection):
    def __init__(self, *arguments: Any, extra_argument: int = 0) -> None:
        super().__init__(*arguments)
        self.extra = extra_argument


async def test_a_connection_class_of_the_users() -> None:
    async with open_pair(
        {"create_connection": functools.partial(Mine, extra_argument=42)},
        {"create_connection": functools.partial(Theirs, extra_argument=43)},
    ) as (client, server):
        assert isinstance(client, Mine)
        assert isinstance(server, Theirs)
        assert (client.extra, server.extra) == (42, 43)
        await client.send("x")
        assert await server.recv() == "x"
    async with open_pair(
        {"create_connection": Mine}, {"create_connection": Theirs}
    ) as (client, server):
        assert isinstance(client, Mine)
        assert isinstance(server, Theirs)


@pytest.mark.parametrize("create", [Theirs, ServerConnection])
def test_a_connection_class_of_the_other_side(create: Any) -> None:
    with pytest.raises(TypeError, match="expected a subclass of ClientConnection"):
        connect("ws://testing/", create_connection=create)


async def test_a_connection_of_a_wrong_class(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)

    def create(_: object) -> Any:
        return None

    with pytest.raises(TypeError, match="return a ClientConnection; got"):
        async with connected(nursery, peer, create_connection=create):
            raise AssertionError("entered")
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")
