"""The transport over memory does as one over a socket does."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_ws._testing.link import MemoryLink, make_ends

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_ws._testing.wire import MemoryTransport

Ends = tuple["MemoryTransport", "MemoryTransport"]


def make(size: int = 10, latency: float = 0) -> tuple[MemoryLink, Ends, list[int]]:
    link = MemoryLink(("c", 1), "s", 2, size, latency)
    closed: list[int] = []
    return link, make_ends(link, lambda: closed.append(1)), closed


def check(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno == number


async def test_bytes_pass_as_far_as_there_is_room() -> None:
    _, (client, server), _ = make(10)
    assert client.write(()) == client.write((b"",)) == 0
    assert server.read() is None
    assert client.write((b"123", b"456", b"789abcdef")) == 10
    assert client.write((b"b",)) == 0
    assert server.read(4) == b"1234"
    assert client.write((b"bcdef",)) == 4
    target = bytearray(20)
    assert server.read_into(memoryview(target)) == 10
    assert target[:10] == b"56789abcde"
    assert server.read_into(memoryview(target)) is None


async def test_waiting() -> None:
    _, (client, server), _ = make(10)
    waits: list[Callable[[], Awaitable[None]]] = [
        client.wait_writable,
        readable(client, b"x", server),
    ]
    for wait in waits:
        with trio.testing.assert_checkpoints():
            await wait()
    client.write((b"x" * 10,))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.wait_writable)
        nursery.start_soon(read_once, client)
        await trio.testing.wait_all_tasks_blocked()
        server.read(1)  # wakes both, one of them for nothing
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        server.write((b"y",))
    # A cancellation loses nothing.
    with trio.move_on_after(0):
        await client.wait_readable()
    server.write((b"z",))
    await client.wait_readable()
    assert client.read() == b"z"


def readable(
    one: MemoryTransport, data: bytes, other: MemoryTransport
) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        other.write((data,))
        await one.wait_readable()
        assert one.read() == data

    return wait


async def read_once(transport: MemoryTransport) -> None:
    await transport.wait_readable()
    assert transport.read() == b"y"


async def wait_woken(transport: MemoryTransport) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await transport.wait_readable()


async def test_waking_and_closing_end_a_wait() -> None:
    _, (client, server), closed = make(1)
    client.write((b"x",))
    for wake in (client.wake, client.discard):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_woken, client)
            await trio.testing.wait_all_tasks_blocked()
            if wake == client.discard:
                nursery.start_soon(client.wait_writable)
                await trio.testing.wait_all_tasks_blocked()
            wake()
    await wait_woken(client)
    await client.wait_writable()
    check(errno.EBADF, client.read)
    check(errno.EBADF, lambda: client.write((b"x",)))
    assert client.shutdown()
    await client.aclose()
    assert closed == [1]
    await server.aclose()
    assert closed == [1, 1]


async def test_an_end_that_is_shut_still_reads() -> None:
    _, (client, server), _ = make()
    client.write((b"bye",))
    assert client.shutdown()
    assert client.shutdown()
    check(errno.EPIPE, lambda: client.write((b"x",)))
    assert server.read() == b"bye"
    assert server.read() == server.read() == b""
    await server.wait_readable()
    server.write((b"bye!",))
    await server.aclose()
    assert client.read() == b"bye!"
    assert client.read() == b""


async def test_writing_to_who_has_closed_is_answered_with_a_reset() -> None:
    _, (client, server), _ = make()
    server.write((b"bye",))
    await server.aclose()
    assert client.write((b"too late",)) == 8
    check(errno.ECONNRESET, lambda: client.write((b"x",)))
    await client.wait_writable()
    assert client.read() == b"bye"
    check(errno.ECONNRESET, client.read)


async def test_closing_with_bytes_unread_resets() -> None:
    _, (client, server), _ = make()
    server.write((b"unread",))
    client.write((b"last",))
    await client.aclose()
    assert server.read() == b"last"
    check(errno.ECONNRESET, server.read)
    check(errno.ECONNRESET, lambda: server.write((b"x",)))


@pytest.mark.parametrize("way", ["reset", "end"])
async def test_a_loss(way: str) -> None:
    link, (client, server), _ = make(1000)
    client.write((b"x" * 6,))
    getattr(link, way)(after=10)
    server.write((b"x" * 9,))
    client.write((b"x" * 6,))  # its fourth is the tenth: what came before didn't count
    server.read()
    assert client.write((b"x" * 6,)) == 6  # nobody knows yet
    assert server.read() == b"x" * 4
    assert client.read() == b"x" * 9
    for end in (client, server):
        if way == "end":
            assert end.read() == b""
            check(errno.EPIPE, partial(end.write, (b"x",)))
        else:
            check(errno.ECONNRESET, end.read)
            check(errno.ECONNRESET, partial(end.write, (b"x",)))
        await end.wait_readable()
        await end.wait_writable()
        end.shutdown()
    # What is said afterwards changes nothing.
    assert way == "reset" or client.read() == b""


async def test_a_loss_wakes_who_waits() -> None:
    link, (client, _), _ = make(1)
    client.write((b"x",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.wait_writable)
        nursery.start_soon(client.wait_readable)
        await trio.testing.wait_all_tasks_blocked()
        link.reset()


async def test_latency(autojump_clock: MockClock) -> None:
    _, (client, server), _ = make(10, 5)
    client.write((b"one",))
    await trio.sleep(1)
    client.write((b"two",))
    client.shutdown()
    assert server.read() is None
    await server.wait_readable()
    assert trio.current_time() == 5
    assert server.read() == b"one"
    await server.wait_readable()
    assert trio.current_time() == 6
    assert server.read() == b"two"
    assert server.read() == b""
    await server.aclose()
    await client.wait_readable()
    assert trio.current_time() == 11
    assert client.read() == b""


async def test_an_arrival_shortens_a_wait(autojump_clock: MockClock) -> None:
    """Somebody waits already when what comes is sent."""
    _, (client, server), _ = make(10, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_readable)
        await trio.testing.wait_all_tasks_blocked()
        client.write((b"x",))
    assert trio.current_time() == 5


async def test_a_reset_that_is_answered_takes_both_ways(
    autojump_clock: MockClock,
) -> None:
    _, (client, server), _ = make(10, 5)
    await server.aclose()
    await trio.sleep(5)
    assert client.read() == b""
    client.write((b"x",))
    await trio.sleep(9)
    assert client.read() == b""
    await trio.sleep(1)
    check(errno.ECONNRESET, client.read)


async def test_a_freeze_holds_all() -> None:
    link, (client, server), _ = make()
    client.write((b"seen",))
    link.freeze()
    client.write((b"later",))
    await client.aclose()
    assert server.read() == b"seen"
    assert server.read() is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_readable)
        await trio.testing.wait_all_tasks_blocked()
        link.thaw()
    assert server.read() == b"later"
    assert server.read() == b""
