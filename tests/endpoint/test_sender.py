"""Senders: messages, fragments, whose turn it is, what they wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.peers.in_memory import (
    BINARY,
    CONT,
    PING,
    TEXT,
    RawPeer,
    close_frame,
    connected,
)
from trio_ws import ConnectionClosedError, ConnectionClosedOK, connect
from trio_ws._endpoint import counter as _counter
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock

FIN = 0x80


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
