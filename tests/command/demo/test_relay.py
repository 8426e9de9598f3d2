from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.command.demo.watched import until
from trio_ws._command.demo.relay import HOST, Relay


@asynccontextmanager
async def relayed() -> AsyncIterator[
    tuple[Relay, trio.SocketStream, trio.SocketStream]
]:
    """A relay, and both ends of what it relays."""
    relay = Relay()
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery, listener:
        port = await nursery.start(relay.run, listener.socket.getsockname()[1])
        async with await trio.open_tcp_stream(HOST, port) as here:
            async with await listener.accept() as there:
                yield relay, here, there
        nursery.cancel_scope.cancel()


async def send_on(stream: trio.SocketStream, times: int) -> None:
    for _ in range(times):
        await stream.send_all(b"a")
        await until(lambda: True)  # what comes of it


async def test_bytes_and_ends() -> None:
    async with relayed() as (_, here, there):
        await here.send_all(b"a")
        assert await there.receive_some() == b"a"
        await here.send_eof()
        assert await there.receive_some() == b""
        await there.send_all(b"b")  # the other way goes on
        assert await here.receive_some() == b"b"
        await there.send_eof()
        assert await here.receive_some() == b""


async def test_last_words_come_before_a_reset(mock_clock: MockClock) -> None:
    """As they would without a relay: from who closes while the other sends."""
    async with relayed() as (_, here, there):
        await there.send_all(b"goodbye")
        await there.aclose()
        await send_on(here, 3)
        assert await here.receive_some() == b"goodbye"
        assert await here.receive_some() == b""
        mock_clock.jump(1)
        with pytest.raises(trio.BrokenResourceError):
            await send_on(here, 100)
