"""Messages received piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.peers.in_memory import BINARY, CONT, TEXT, RawPeer, connected, frame
from trio_ws import ConcurrencyError, ConnectionClosedError
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_pieces_come_as_they_are_received(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming()
        assert aiter(stream) is stream
        await peer.stream.send_all(b"\x81\x06caf\xc3")
        assert await anext(stream) == "caf"  # the character is incomplete
        await peer.stream.send_all(b"\xa9s")
        assert await anext(stream) == "\u00e9s"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"
        await peer.close()


@pytest.mark.parametrize(
    ("opcode", "decode", "expected"),
    [
        (TEXT, None, "caf\u00e9"),
        (TEXT, False, b"caf\xc3\xa9"),
        (BINARY, None, b"caf\xc3\xa9"),
        (BINARY, True, "caf\u00e9"),
    ],
)
async def test_pieces_are_of_one_type(
    nursery: trio.Nursery, opcode: int, decode: bool | None, expected: str | bytes
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming(decode)
        pieces: list[Any] = []

        async def collect() -> None:
            async for piece in stream:
                pieces.append(piece)
            await peer.close()

        ws.nursery.start_soon(collect)
        data = frame(opcode, b"ca", fin=False) + frame(CONT, b"f\xc3\xa9")
        for i in range(len(data)):
            await trio.testing.wait_all_tasks_blocked()
            await peer.stream.send_all(data[i : i + 1])
        await ws.wait_closed()
        assert type(expected)().join(pieces) == expected
        assert len(pieces) > 2


async def test_an_empty_message_is_one_empty_piece() -> None:
    async with open_pair() as (client, server):
        for message in ("", b""):
            await server.send(message)
            assert [piece async for piece in client.recv_streaming()] == [message]


async def test_a_message_that_was_left_early_is_skipped(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        # In the middle of a frame, between two, and with the rest there already.
        for rest in (b"xyz", b"", None):
            if rest is None:
                await peer.stream.send_all(b"\x01\x01a")
            else:
                await peer.stream.send_all(b"\x01" + bytes([1 + len(rest)]) + b"a")
            async for piece in ws.recv_streaming():
                assert piece == "a"
                break
            if rest is None:
                await peer.send(CONT, b"rest")
                await peer.send(TEXT, b"next")
                await trio.testing.wait_all_tasks_blocked()
            else:
                await peer.stream.send_all(
                    rest + frame(CONT, b"z") + frame(TEXT, b"next")
                )
            assert await ws.recv() == "next"
        await peer.close()


async def test_a_stream_that_was_closed_is_over() -> None:
    async with open_pair() as (client, server):
        await server.send("x")
        await server.send("y")
        stream = client.recv_streaming()
        await stream.aclose()  # before it began: nothing is skipped
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await client.recv() == "x"
        assert await client.recv() == "y"


async def test_a_stream_that_another_call_has_overtaken(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming()
        await peer.send(TEXT, b"a", fin=False)
        assert await anext(stream) == "a"
        await peer.send(CONT, b"b")
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"
        with pytest.raises(ConcurrencyError, match="another call"):
            await anext(stream)
        await stream.aclose()
        await peer.send(TEXT, b"last")
        assert await ws.recv() == "last"
        await peer.close()


async def test_another_task_may_not_read_on_in_a_message(
    nursery: trio.Nursery,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming()
        await peer.send(TEXT, b"a", fin=False)
        assert await anext(stream) == "a"

        async def other() -> None:
            with pytest.raises(ConcurrencyError, match="in the middle of a message"):
                await ws.recv()
            with pytest.raises(ConcurrencyError, match="in the middle of a message"):
                ws.recv_nowait()

        async with trio.open_nursery() as tasks:
            tasks.start_soon(other)
        await peer.send(CONT, b"b")
        assert await anext(stream) == "b"
        await peer.close()


async def test_a_stream_cancelled_before_its_first_piece_skips_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as (client, server):
        stream = client.recv_streaming()
        with trio.move_on_after(1):
            await anext(stream)
        await stream.aclose()
        await server.send("x")
        assert await client.recv() == "x"


async def test_a_stream_whose_message_is_complete_is_left(
    nursery: trio.Nursery,
) -> None:
    # The end of the message came, and nothing of what follows.
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.send(TEXT, b"a", fin=False)
        stream = ws.recv_streaming()
        assert await anext(stream) == "a"
        await peer.send(CONT, b"b")
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        with pytest.raises(trio.WouldBlock):
            ws.recv_nowait()
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"
        await peer.close()


async def test_a_cancelled_stream_goes_on(autojump_clock: MockClock) -> None:
    streams = trio.testing.memory_stream_pair()
    async with open_pair(streams=streams) as (client, server):
        go_on = trio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()
            yield "b"

        server.nursery.start_soon(server.send, fragments())
        stream = client.recv_streaming()
        assert await anext(stream) == "a"
        for _ in range(2):
            with trio.move_on_after(1) as scope:
                await anext(stream)
            assert scope.cancelled_caught
        go_on.set()
        assert [piece async for piece in stream] == ["b"]


async def test_a_stream_is_told_of_the_end(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming()
        await peer.send(TEXT, b"a", fin=False)
        assert await anext(stream) == "a"
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosedError):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_large_message_is_not_kept_whole(nursery: trio.Nursery) -> None:
    # Whoever reads it piecemeal stops: what waits stays bounded, whatever
    # max_size allows.
    peer = RawPeer(client=False)
    async with connected(nursery, peer, max_size=None) as ws:
        stream = ws.recv_streaming()
        await peer.stream.send_all(b"\x82\x7f" + (2**22).to_bytes(8, "big") + b"x")
        size = len(await anext(stream))
        await peer.stream.send_all(bytes(2**22 - 1))
        await trio.testing.wait_all_tasks_blocked()
        async for piece in stream:
            assert len(piece) <= 2**18
            size += len(piece)
            await trio.testing.wait_all_tasks_blocked()
        assert size == 2**22
        await peer.close()


async def test_a_task_that_has_ended_holds_no_message(
    nursery: trio.Nursery,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        stream = ws.recv_streaming()
        await peer.send(TEXT, b"a", fin=False)

        async def begins() -> None:
            assert await anext(stream) == "a"

        async with trio.open_nursery() as tasks:
            tasks.start_soon(begins)
        await peer.send(CONT, b"b")
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"
        await peer.close()
