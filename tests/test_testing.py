"""What trio_ws offers to the tests of its users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    NegotiationError,
    ServerConnection,
    State,
)
from trio_ws._endpoint import counter
from trio_ws.testing import full_checkpoints, open_pair


async def test_a_pair_is_connected_both_ways() -> None:
    async with open_pair() as (client, server):
        assert isinstance(client, ClientConnection)
        assert isinstance(server, ServerConnection)
        await client.send("up")
        await server.send(b"down")
        assert await server.recv() == "up"
        assert await client.recv() == b"down"
        assert client.request.path == server.request.path == "/"
    assert client.state is server.state is State.CLOSED
    assert (client.close_code, server.close_code) == (1000, 1000)


async def test_each_side_has_its_options() -> None:
    async with open_pair(
        {"subprotocols": ["a", "b"], "max_size": 10},
        {"subprotocols": ["b"], "additional_headers": {"X-A": "1"}},
    ) as (client, server):
        assert client.subprotocol == server.subprotocol == "b"
        assert client.response is not None
        assert client.response.headers["X-A"] == "1"
        await server.send("x" * 11)
        with pytest.raises(ConnectionClosedError, match="max_size, 10 bytes"):
            await client.recv()


async def test_over_streams_of_the_user() -> None:
    streams = trio.testing.lockstep_stream_pair()
    async with open_pair(streams=streams) as (client, server):
        await client.send("up")
        assert await server.recv() == "up"


async def test_what_the_block_raises_is_raised_bare() -> None:
    with pytest.raises(KeyError) as caught:
        async with open_pair() as (client, server):
            raise KeyError("mine")
    assert caught.value.__context__ is None
    assert client.state is server.state is State.CLOSED
    assert client.close_code == 1011


async def test_a_loss_that_the_block_missed_is_raised() -> None:
    streams = trio.testing.memory_stream_pair()

    async def neither_end_calls_anything_that_tells() -> None:
        async with open_pair(streams=streams) as (client, server):
            streams[0].send_stream.close()
            await client.wait_closed()
            await server.wait_closed()

    with pytest.raises(ConnectionClosedError, match="no close frame"):
        await neither_end_calls_anything_that_tells()


async def test_a_pair_that_cannot_agree() -> None:
    streams = trio.testing.memory_stream_pair()
    with pytest.raises(NegotiationError):
        async with open_pair(server_options={"subprotocols": ["a"]}, streams=streams):
            raise AssertionError("entered")
    for stream in streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_a_side_that_was_open_is_closed_if_the_other_fails(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def fail(_: object) -> ClientConnection:
        raise RuntimeError("no")

    streams = trio.testing.memory_stream_pair()
    with pytest.raises(RuntimeError, match="no"):
        async with open_pair({"create_connection": fail}, streams=streams):
            raise AssertionError("entered")
    for stream in streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_cancelled_while_it_opens() -> None:
    streams = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_pair(streams=streams):
            raise AssertionError("entered")
    assert scope.cancelled_caught
    for stream in streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_cancelled_within(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_pair() as (client, server):
            await client.recv()
    assert scope.cancelled_caught
    # The first to leave, the server, doesn't wait for the answer.
    assert (client.close_code, server.close_code) == (1001, 1006)
    assert trio.current_time() == 5


async def test_the_mock_clock_runs_a_keepalive_in_no_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair({"ping_interval": 3600}, {"ping_interval": 3600}) as (
        client,
        server,
    ):
        await trio.sleep(24 * 3600)
        await client.send("still here")
        assert await server.recv() == "still here"


def everything(
    client: ClientConnection, server: ServerConnection
) -> list[Callable[[], Awaitable[object]]]:
    """Every coroutine of a connection, in an order in which none waits for ever."""
    streaming = client.recv_streaming()

    async def fragments() -> None:
        await client.send(["x", "y"])

    return [
        client.recv,
        lambda: client.recv(decode=False),
        client.receive,
        client.__anext__,
        streaming.__anext__,
        streaming.aclose,
        lambda: client.send("x"),
        lambda: client.send(b"x"),
        fragments,
        client.pong,
        client.ping,
        server.aclose,
        server.wait_closed,
        server.aclose,
        client.wait_closed,
        client.aclose,
    ]


async def test_every_coroutine_is_a_checkpoint_if_told_so() -> None:
    async with open_pair() as (client, server):
        for _ in range(8):
            await server.send("x")
        await trio.testing.wait_all_tasks_blocked()
        with full_checkpoints():
            for call in everything(client, server):
                with trio.testing.assert_checkpoints():
                    await call()


async def test_every_coroutine_is_a_cancellation_point() -> None:
    async with open_pair() as (client, server):
        for _ in range(8):
            await server.send("x")
        await trio.testing.wait_all_tasks_blocked()
        for call in everything(client, server)[:-5]:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        # Nothing was lost by all that, and nothing sent.
        for _ in range(8):
            assert client.recv_nowait() == "x"
        with pytest.raises(trio.WouldBlock):
            server.recv_nowait()
        for call in everything(client, server)[-5:]:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught


async def test_the_switch_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # After a millisecond a call is a schedule point in any case.
    monkeypatch.setattr(counter, "perf_counter", lambda: 1000.0)
    async with open_pair() as (client, _):
        with pytest.raises(KeyError), full_checkpoints():
            raise KeyError
        await client.pong()
        with pytest.raises(AssertionError):
            with trio.testing.assert_checkpoints():
                await client.pong()


STREAM = trio.testing.memory_stream_pair()[0]


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"streams": (STREAM,)}, r"streams: expected a tuple of two .*; got \(Stapled"),
        ({"streams": STREAM}, "streams: expected a tuple of two"),
        ({"streams": (STREAM, None)}, "streams: expected a tuple of two"),
        ({"streams": ()}, r"streams: .*; got \(\)"),
        ({"server_options": {"max_connections": 1}}, "max_connections: accept.. is"),
        ({"server_options": {"max_handshakes": None}}, "max_handshakes: accept.. is"),
        ({"client_options": {"origins": []}}, "unexpected keyword argument 'origins'"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        open_pair(**keywords)


async def test_a_pair_is_entered_once() -> None:
    pair = open_pair()
    async with pair:
        with pytest.raises(RuntimeError, match="entered once"):
            async with pair:
                raise AssertionError("entered")
