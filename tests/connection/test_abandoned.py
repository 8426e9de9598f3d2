"""A block whose task ends in it: nobody will ever leave it.

trio notices such a task since 0.31, gives up its nurseries and says so; before, it
makes no promise, and these tests aren't collected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.blocks import (
    ALL,
    CORRUPTED,
    check_text,
    drop_garbage,
    dropped_generators,
    subject,
)
from tests.peers.sockets import answer_in_thread, tcp_pair, trio_stream
from tests.peers.stream_peer import URI
from tests.peers.wire import CLOSE, parse_stream
from trio_ws import ConnectionClosedError, State, connect


@pytest.mark.parametrize("kind", ALL)
async def test_a_generator_outlives_the_task_that_has_begun_it(
    kind: str, nursery: trio.Nursery
) -> None:
    one = await subject(kind, nursery)

    async def begins() -> None:
        await anext(generator)

    generator = one.generator()
    with pytest.RaisesGroup(CORRUPTED):
        async with trio.open_nursery() as inner:
            inner.start_soon(begins, name="begins")
    with pytest.raises(RuntimeError) as caught:
        await generator.aclose()
    check_text(caught.value, "begins", "<test")
    assert [ws.state for ws in one.ends] == [State.CLOSED] * len(one.ends)
    # Over a stream of the user's nobody is left who could send it.
    if kind == "attempt":
        assert await one.told() == 1001


# The same as the main task ends


def codes_after(
    main: Callable[[connect], Awaitable[None]], **options: Any
) -> list[int]:
    """Run ``main`` with a connection to come; return the codes that its peer got."""
    ours, theirs = tcp_pair()
    answer_in_thread(theirs)
    with pytest.raises(RuntimeError, match="Nursery stack corrupted"):
        trio.run(main, connect(URI, stream=trio_stream(ours), **options))
    data = b""
    with theirs:
        while chunk := theirs.recv(65536):
            data += chunk
    frames = parse_stream(data, masked=True)
    return [
        int.from_bytes(frame.data[:2], "big")
        for frame in frames
        if frame.opcode == CLOSE
    ]


def test_the_main_task_drops_a_generator(caplog: pytest.LogCaptureFixture) -> None:
    async def main(block: connect) -> None:
        async def generator() -> AsyncIterator[None]:
            async with block:
                yield

        async for _ in generator():
            break
        drop_garbage()

    with dropped_generators(caplog) as raised:
        assert codes_after(main) == [1001]
    assert [type(error) for error in raised] == [RuntimeError]


def test_the_main_task_leaves_a_generator_to_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(block: connect) -> None:
        async def generator() -> AsyncIterator[None]:
            async with block:
                yield

        kept.append(generator())
        await anext(kept[0])

    kept: list[AsyncIterator[None]] = []
    assert codes_after(main) == [1001]
    (record,) = caplog.records
    assert record.exc_info
    check_text(record.exc_info[1] or AssertionError(), "", "<init>")


@pytest.mark.parametrize("ping_interval", [None, 20])
def test_the_main_task_never_leaves_a_block(ping_interval: float | None) -> None:
    async def main(block: connect) -> None:
        await block.__aenter__()

    assert codes_after(main, ping_interval=ping_interval) == [1001]


def test_a_task_never_leaves_a_block() -> None:
    # Its peer learns of it at once, and not when a run ends that may last.
    async def main(block: connect) -> None:
        async def enters() -> None:
            connections.append(await block.__aenter__())

        with pytest.RaisesGroup(CORRUPTED):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enters)
        await connections[0].wait_closed()
        with pytest.raises(ConnectionClosedError):
            await connections[0].recv()
        # As codes_after() expects of the others.
        raise RuntimeError("Nursery stack corrupted")

    connections: list[Any] = []
    assert codes_after(main) == [1001]


def test_a_block_is_cancelled_like_any_other() -> None:
    # Where the task isn't gone the reader goes on: the peer's messages still come.
    async def main(block: connect) -> None:
        with trio.CancelScope() as scope:
            async with block as ws:
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    assert ws.state is State.OPEN
                    await ws.send("still here")
                await trio.sleep_forever()
        raise RuntimeError("Nursery stack corrupted")  # as above

    assert codes_after(main) == [1001]
