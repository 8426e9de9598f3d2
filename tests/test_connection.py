"""What a user does with a connection: receive, send, close, ask for facts."""

from __future__ import annotations

import functools
import logging
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.in_memory import BINARY, CLOSE, CONT, PING, TEXT, RawPeer, close_frame, frame
from trio_ws import (
    ClientConnection,
    ConcurrencyError,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    State,
    accept,
    connect,
)
from trio_ws._endpoint import counter as _counter
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock

FIN = 0x80


def connected(nursery: trio.Nursery, peer: RawPeer, **options: Any) -> connect:
    nursery.start_soon(peer.answer)
    return connect("ws://testing/", stream=peer.theirs, **options)


# Receiving


@pytest.mark.parametrize(
    ("opcode", "payload", "decode", "expected"),
    [
        (TEXT, b"caf\xc3\xa9", None, "caf\u00e9"),
        (TEXT, b"caf\xc3\xa9", True, "caf\u00e9"),
        (TEXT, b"caf\xc3\xa9", False, b"caf\xc3\xa9"),
        (BINARY, b"caf\xc3\xa9", None, b"caf\xc3\xa9"),
        (BINARY, b"caf\xc3\xa9", True, "caf\u00e9"),
        (BINARY, b"caf\xc3\xa9", False, b"caf\xc3\xa9"),
        (TEXT, b"", None, ""),
        (BINARY, b"", None, b""),
    ],
)
async def test_recv(
    nursery: trio.Nursery,
    opcode: int,
    payload: bytes,
    decode: Any,
    expected: str | bytes,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        for _ in range(2):
            await peer.send(opcode, payload)
        await peer.send(opcode, payload[:4], fin=False)
        await peer.send(CONT, payload[4:])
        assert await ws.recv(decode) == expected
        assert ws.recv_nowait(decode) == expected
        assert await ws.recv(decode=decode) == expected
        with pytest.raises(trio.WouldBlock):
            ws.recv_nowait()
        await peer.close()


async def test_what_cannot_be_decoded_is_not_lost() -> None:
    async with open_pair() as (client, server):
        await server.send(b"\xff")
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                await client.recv(decode=True)
        with pytest.raises(UnicodeDecodeError):
            client.recv_nowait(decode=True)
        assert await client.recv() == b"\xff"


async def test_one_task_receives() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.recv)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await client.recv()
            with pytest.raises(trio.BusyResourceError, match="already receiving"):
                client.recv_nowait()
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await anext(client.recv_streaming())
            with pytest.raises(ConcurrencyError, match="already receiving"):
                await anext(client)
        # The task that receives never notices.
        await server.send("x")


async def test_a_cancelled_recv_loses_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, server):
        with trio.move_on_after(1):
            await client.recv()
        # The deadline and the message in the same turn of the loop.
        for i in range(50):
            server.nursery.start_soon(_send_at, server, trio.current_time() + 1, str(i))
            received = None
            with trio.move_on_after(1):
                received = await client.recv()
            await trio.testing.wait_all_tasks_blocked()
            assert (received or client.recv_nowait()) == str(i)


async def _send_at(ws: Connection, when: float, message: str) -> None:
    await trio.sleep_until(when)
    await ws.send(message)


async def test_a_deadline_that_is_over_returns_no_message() -> None:
    async with open_pair() as (client, server):
        await server.send("x")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await client.recv()
        assert scope.cancelled_caught
        assert client.recv_nowait() == "x"


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_close_in_good_order_comes_after_the_messages(
    nursery: trio.Nursery, code: int | None
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.send(TEXT, b"1")
        await peer.send(TEXT, b"2")
        await peer.send(CLOSE, b"" if code is None else code.to_bytes(2, "big"))
        await peer.end()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedOK):
            await ws.send("too late")
        assert [message async for message in ws] == ["1", "2"]
        assert [message async for message in ws] == []
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == (code or 1005)
        with pytest.raises(ConnectionClosedOK):
            ws.recv_nowait()


async def test_a_loss_comes_after_the_messages(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await peer.stream.send_all(
            frame(TEXT, b"1") + frame(TEXT, b"2") + b"\x81\x05he"
        )
        await peer.stream.aclose()
        assert await ws.recv() == "1"
        assert await anext(ws) == "2"
        with pytest.raises(ConnectionClosedError) as caught:
            await anext(ws)
        assert str(caught.value) == "no close frame received or sent"
        assert isinstance(caught.value.__cause__, EOFError)
        assert "2 of the 5 bytes" in str(caught.value.__cause__)
        # A fresh exception each time: tracebacks don't grow.
        with pytest.raises(ConnectionClosedError) as again:
            await ws.recv()
        assert again.value is not caught.value
        for call in (ws.send, ws.ping, ws.pong):
            with pytest.raises(ConnectionClosedError):
                await call(b"x")
        with pytest.raises(ConnectionClosedError):
            ws.send_nowait("x")
        with pytest.raises(ConnectionClosedError):
            ws.recv_nowait()
        with pytest.raises(ConnectionClosedError):
            await anext(ws.recv_streaming())


async def test_what_came_with_the_handshake_is_received() -> None:
    peer = RawPeer(client=True)
    await peer.ask(frame(TEXT, b"early", masked=True))
    async with accept(peer.theirs) as ws:
        assert await ws.recv() == "early"
        await peer.skip_response()
        await peer.close()


async def test_a_violation_that_came_with_the_handshake(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer, frame(TEXT, b"early"), frame(3))
    async with connect("ws://testing/", stream=peer.theirs) as ws:
        assert await ws.recv() == "early"
        with pytest.raises(ConnectionClosedError, match="unknown opcode 0x3"):
            await ws.recv()


# Receiving piece by piece


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


# Sending


@pytest.mark.parametrize(
    ("message", "text", "opcode", "payload"),
    [
        ("caf\u00e9", None, TEXT, b"caf\xc3\xa9"),
        ("caf\u00e9", True, TEXT, b"caf\xc3\xa9"),
        ("caf\u00e9", False, BINARY, b"caf\xc3\xa9"),
        (b"caf\xc3\xa9", None, BINARY, b"caf\xc3\xa9"),
        (b"caf\xc3\xa9", False, BINARY, b"caf\xc3\xa9"),
        (b"caf\xc3\xa9", True, TEXT, b"caf\xc3\xa9"),
        (bytearray(b"x"), None, BINARY, b"x"),
        (memoryview(b"abcd")[::2], None, BINARY, b"ac"),
        (memoryview(b"abcd").cast("H"), True, TEXT, b"abcd"),
        ("", None, TEXT, b""),
        (b"", None, BINARY, b""),
        ("x" * 70000, None, TEXT, b"x" * 70000),
    ],
)
async def test_send(
    nursery: trio.Nursery,
    message: str | bytes,
    text: bool | None,
    opcode: int,
    payload: bytes,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await ws.send(message, text=text)
        assert await peer.read() == (FIN | opcode, payload)
        ws.send_nowait(message, text=text)
        assert await peer.read() == (FIN | opcode, payload)
        await peer.close()


async def _later(*fragments: Any) -> AsyncIterator[Any]:
    for fragment in fragments:
        await trio.lowlevel.checkpoint()
        yield fragment


def _now(*fragments: Any) -> Iterator[Any]:
    yield from fragments


@pytest.mark.parametrize("make", [_later, _now, lambda *fragments: fragments])
async def test_fragments(nursery: trio.Nursery, make: Any) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        await ws.send(make("a", "", "b"))
        assert await peer.read() == (TEXT, b"a")
        assert await peer.read() == (CONT, b"")
        assert await peer.read() == (CONT, b"b")
        assert await peer.read() == (FIN | CONT, b"")
        await ws.send(make(b"a", bytearray(b"b"), memoryview(b"c")))
        assert await peer.read() == (BINARY, b"a")
        assert await peer.read() == (CONT, b"b")
        assert await peer.read() == (CONT, b"c")
        assert await peer.read() == (FIN | CONT, b"")
        await ws.send(make("a"), text=False)
        assert await peer.read() == (BINARY, b"a")
        assert await peer.read() == (FIN | CONT, b"")
        await ws.send(make(b"a"), text=True)
        assert await peer.read() == (TEXT, b"a")
        assert await peer.read() == (FIN | CONT, b"")
        await ws.send(make())  # nothing is no message
        await ws.send("next")
        assert await peer.read() == (FIN | TEXT, b"next")
        await peer.close()


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (None, "message: expected str, bytes, .*; got NoneType"),
        (5, "message: expected str, bytes, .*; got int"),
        ({"a": "b"}, "message: expected str, bytes, .*; got dict"),
        ([5], "expected str, .*; got int"),
        ([None], "expected str, .*; got NoneType"),
        ([["a"]], "expected str, .*; got list"),
    ],
)
async def test_what_is_no_message(message: Any, match: str) -> None:
    async with open_pair() as (client, server):
        with pytest.raises(TypeError, match=match):
            await client.send(message)
        with pytest.raises(TypeError, match="message: expected str, bytes, bytearray"):
            client.send_nowait(message)
        await client.send("still usable")
        assert await server.recv() == "still usable"


@pytest.mark.parametrize(
    ("message", "text"), [(b"\xff", True), ("\ud800", None), ([b"\xff"], True)]
)
async def test_text_that_is_none(message: Any, text: bool | None) -> None:
    async with open_pair() as (client, server):
        with pytest.raises(UnicodeError):
            await client.send(message, text=text)
        await client.send("still usable")
        assert await server.recv() == "still usable"


async def test_the_payload_is_copied() -> None:
    async with open_pair() as (client, server):
        buffer = bytearray(b"before" * 10000)
        await client.send(buffer)
        buffer[:] = bytes(len(buffer))
        assert await server.recv() == b"before" * 10000


@pytest.mark.parametrize(
    ("fragments", "error"),
    [
        (lambda: _later("a", 5), TypeError),
        (lambda: _later("a", b"b"), TypeError),
        (lambda: ["a", b"b"], TypeError),
        (lambda: (1 // (2 - i) and "a" for i in range(1, 3)), ZeroDivisionError),
    ],
)
async def test_an_iterable_that_fails_half_way_closes_the_connection(
    nursery: trio.Nursery, fragments: Any, error: type[Exception]
) -> None:
    # The peer can't be told to forget the beginning.
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        with pytest.raises(error):
            await ws.send(fragments())
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.send("x")
        assert isinstance(caught.value.__cause__, error)
        assert await peer.read() == (TEXT, b"a")
        assert await peer.read() == close_frame(1011, "message was not completed")
        assert await peer.read() is None


class Once(AsyncIterator[str]):
    """An iterator that is no generator: to close it is its owner's affair."""

    def __init__(self) -> None:
        self._left = ["a"]

    async def __anext__(self) -> str:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def test_an_iterator_that_is_no_generator() -> None:
    async with open_pair() as (client, server):
        await client.send(Once())
        assert await server.recv() == "a"


async def test_an_iterable_that_is_cancelled(autojump_clock: MockClock) -> None:
    async def slow(*fragments: str) -> AsyncIterator[str]:
        try:
            for fragment in fragments:
                yield fragment
            await trio.sleep_forever()
        finally:
            finished.append(fragments)

    finished: list[tuple[str, ...]] = []
    async with open_pair() as (client, server):
        with trio.move_on_after(1):
            await client.send(slow())
        assert finished == [()]
        await client.send("nothing was sent")
        assert await server.recv() == "nothing was sent"
        with trio.move_on_after(1) as scope:
            await client.send(slow("a", "b"))
        assert scope.cancelled_caught
        assert finished == [(), ("a", "b")]
        with pytest.raises(ConnectionClosedError, match="1011"):
            await client.send("x")
        with pytest.raises(ConnectionClosedError, match="message was not completed"):
            await server.recv()


@pytest.mark.parametrize("protected", [False, True])
async def test_an_iterable_is_interrupted_as_who_sends_it(protected: bool) -> None:
    found: list[bool] = []

    async def fragments() -> AsyncIterator[str]:
        found.append(trio.lowlevel.currently_ki_protected())
        yield "x"

    async def send() -> None:
        await client.send(fragments())

    async with open_pair() as (client, server):
        await (trio.lowlevel.enable_ki_protection(send) if protected else send)()
        assert await server.recv() == "x"
    assert found == [protected]


async def test_a_sender_cancelled_as_the_turn_passes_takes_nobodys_turn(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It runs again when the turn it waited for is over and another has begun.
    monkeypatch.setattr(_counter, "perf_counter", lambda: 1000.0)
    scope = trio.CancelScope()
    begun, go_on = trio.Event(), trio.Event()

    async def cancelled() -> None:
        with scope:
            await client.send("never sent")

    async def first() -> AsyncIterator[str]:
        yield "first"
        nursery.start_soon(cancelled)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()

    async def second() -> AsyncIterator[str]:
        yield "sec"
        begun.set()
        await go_on.wait()
        yield "ond"

    async def send_both() -> None:
        await client.send(first())
        await client.send(second())

    async with open_pair() as (client, server):
        nursery.start_soon(send_both)
        await begun.wait()
        assert scope.cancelled_caught
        nursery.start_soon(client.send, "third")
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert [await server.recv() for _ in range(3)] == ["first", "second", "third"]


async def test_control_frames_go_between_fragments_and_messages_do_not(
    nursery: trio.Nursery,
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer) as ws:
        go_on = trio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()
            yield "b"

        ws.nursery.start_soon(ws.send, fragments())
        await trio.testing.wait_all_tasks_blocked()
        for message in ("1", "2", "3"):
            ws.nursery.start_soon(ws.send, message)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock, match="another task is sending"):
            ws.send_nowait("x")
        await ws.pong(b"unasked")
        await peer.send(PING, b"ping")
        assert await peer.read() == (TEXT, b"a")
        assert await peer.read() == (FIN | 10, b"unasked")
        assert await peer.read() == (FIN | 10, b"ping")
        go_on.set()
        assert await peer.read() == (CONT, b"b")
        assert await peer.read() == (FIN | CONT, b"")
        for payload in (b"1", b"2", b"3"):
            assert await peer.read() == (FIN | TEXT, payload)
        ws.send_nowait("x")
        await peer.close()


async def test_send_waits_at_the_write_limit(autojump_clock: MockClock) -> None:
    streams = trio.testing.lockstep_stream_pair()
    peer = RawPeer(client=False, streams=streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with connect(
            "ws://testing/", stream=peer.theirs, write_limit=10, ping_interval=None
        ) as ws:
            ws.send_nowait(bytes(70_000))  # more than a transport takes at once
            with pytest.raises(trio.WouldBlock, match="write_limit"):
                ws.send_nowait(b"x")
            for i in range(2):
                with trio.move_on_after(1) as scope:
                    await ws.send(b"cancelled %d" % i)
                assert scope.cancelled_caught
            with trio.move_on_after(1) as scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(ws.send, b"first in line, cancelled")
                    await trio.testing.wait_all_tasks_blocked()
                    ws.nursery.start_soon(ws.send, b"second")
            assert scope.cancelled_caught
            assert await peer.read() == (FIN | BINARY, bytes(70_000))
            assert await peer.read() == (FIN | BINARY, b"second")
            await ws.send(b"third")
            assert await peer.read() == (FIN | BINARY, b"third")
            nursery.start_soon(peer.read)
            nursery.start_soon(peer.close)


@pytest.mark.parametrize("fragmented", [False, True])
async def test_the_end_wakes_those_who_wait_to_send(
    autojump_clock: MockClock, fragmented: bool
) -> None:
    streams = trio.testing.lockstep_stream_pair()
    peer = RawPeer(client=False, streams=streams)
    told = 0

    async def send() -> None:
        nonlocal told
        with pytest.raises(ConnectionClosedOK):
            await ws.send(["a"] if fragmented else "a")
        told += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with connect(
            "ws://testing/", stream=peer.theirs, write_limit=1, close_timeout=1
        ) as ws:
            ws.send_nowait(bytes(70_000))
            async with trio.open_nursery() as tasks:
                tasks.start_soon(send)
                tasks.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
                await peer.close()
            assert told == 2
            with pytest.raises(ConnectionClosedOK):
                ws.send_nowait("x")


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
        assert client.logger is logger
        assert server.logger is logging.getLogger("trio_ws.server")
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


@pytest.mark.parametrize("create", [Theirs, lambda _: None, ServerConnection])
async def test_a_connection_of_a_wrong_class(
    create: Any, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    with pytest.raises(TypeError, match="return a ClientConnection; got"):
        async with connected(nursery, peer, create_connection=create):
            raise AssertionError("entered")
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


# Debug logs


async def test_debug_logs_show_each_frame(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    async with open_pair({"ping_interval": None}, {"ping_interval": None}) as (
        client,
        server,
    ):
        await client.send("text")
        await client.send([b"\x00\xff", b""])
        await client.send("x" * 1000)
        for _ in range(3):
            await server.recv()
        await server.aclose(1001, "bye")
    for ws, logger, sign, end in (
        (client, "trio_ws.client", ">", "closed by the peer: 1001 (going away) bye"),
        (server, "trio_ws.server", "<", "closed by this side: 1001 (going away) bye"),
    ):
        back = "<" if sign == ">" else ">"
        lines = [
            record.getMessage().removeprefix(ws.id.hex[:8] + " ")
            for record in caplog.records
            if record.name == logger and ws.id.hex[:8] in record.getMessage()
        ]
        frames = [line for line in lines if line[0] in "<>"]
        assert frames[:5] == [
            f"{sign} TEXT 'text' [4 bytes]",
            f"{sign} BINARY 00 ff [2 bytes, continued]",
            f"{sign} CONT '' [0 bytes, continued]",
            f"{sign} CONT '' [0 bytes]",
            f"{sign} TEXT '{'x' * 60}'... [1000 bytes]",
        ]
        close = "CLOSE 1001 (going away) bye [5 bytes]"
        assert sorted(frames[5:]) == sorted([f"{back} {close}", f"{sign} {close}"])
        assert end in lines


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"", "lost: EOFError: stream ended between two messages"),
        (frame(3, masked=True), "lost: ProtocolError: unknown opcode 0x3"),
    ],
)
async def test_debug_logs_say_how_it_was_lost(
    caplog: pytest.LogCaptureFixture, sent: bytes, shown: str
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    peer = RawPeer(client=True)
    await peer.ask(sent)
    await peer.end()
    async with accept(peer.theirs) as ws:
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
    assert f"{ws.id.hex[:8]} {shown}" in caplog.messages


NASTY = "\x1b[31m\r\nforged line\x07\u009b2J\u202e"


async def test_nothing_a_peer_sends_reaches_a_log_unescaped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    peer = RawPeer(client=True)
    await peer.ask(
        frame(TEXT, NASTY.encode(), masked=True),
        frame(BINARY, NASTY.encode(), masked=True),
        frame(PING, NASTY.encode(), masked=True),
        frame(CLOSE, b"\x0f\xa0" + NASTY.encode(), masked=True),
    )
    async with accept(peer.theirs) as ws:
        assert await ws.recv() == NASTY
        await ws.recv()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value).isprintable()
        assert repr(caught.value).isprintable()
        assert ws.close_reason == NASTY
    assert len(caplog.messages) > 8
    for line in caplog.messages:
        assert line.isprintable(), line


async def test_no_debug_logs_where_nobody_reads_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with open_pair() as (client, _):
        await client.send("x")
        await client.ping()
    assert caplog.records == []


# Limits


async def test_a_queue_that_is_full_pauses_reading(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())
    async with connected(nursery, peer, max_queue=4) as ws:
        await trio.testing.wait_all_tasks_blocked()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for i in range(100):
                await peer.send(TEXT, b"%d" % i)
                sent += 1
            nursery.start_soon(peer.read)
            await peer.close()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert 5 <= sent <= 7
        assert [message async for message in ws] == [str(i) for i in range(100)]


async def test_closing_wakes_a_reader_that_paused(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    async with connected(nursery, peer, max_queue=0, close_timeout=math.inf) as ws:
        for _ in range(10):
            await peer.send(TEXT, b"x")
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await peer.read()
        await peer.close()
        await peer.stream.aclose()
        await ws.wait_closed()
        assert ws.close_code == 1000


async def test_a_character_may_be_cut_between_bytes_sent_as_text() -> None:
    async with open_pair() as (client, server):
        await client.send([b"gr\xc3", b"\xbc", b"n"], text=True)
        assert await server.recv() == "grün"
        with pytest.raises(UnicodeDecodeError):
            await client.send([b"gr\xc3"], text=True)
        with pytest.raises(ConnectionClosedError, match="sent 1011"):
            await client.send("more")
        with pytest.raises(ConnectionClosedError, match="received 1011"):
            await server.recv()


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
