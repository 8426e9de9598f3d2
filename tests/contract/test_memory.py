"""What an idle connection of a server takes, so that no change doubles it unseen."""

from __future__ import annotations

import gc
import socket
import sys
import tracemalloc
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from trio_ws import ServerConnection, open_server

COUNT = 100

# In bytes, as Python's allocators count them: 13,800 plain and 14,100 with compression,
# on CPython 3.11. Resident are some percent more. 3.14 takes about 300 more: a word for
# each coroutine, and for each nested function of trio's one for annotations (PEP 649).
LIMIT = 14 * 1024 + (400 if sys.version_info >= (3, 14) else 0)

# Where coverage traces, every coroutine that waits has a frame object besides.
TRACED = 3_000

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate; "
    b"client_max_window_bits\r\nUser-Agent: a client of some name/1.0\r\n\r\n"
)


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_an_idle_connection_takes_little_memory(
    compression: str | None, mock_clock: trio.testing.MockClock
) -> None:
    # Not even a ping is sent while the clock stands still.
    async with open_server(
        echo, 0, host="127.0.0.1", compression=compression
    ) as server:
        with ExitStack() as stack:

            async def add(count: int) -> None:
                expected = len(server.connections) + count
                for _ in range(count):
                    client = socket.create_connection(("127.0.0.1", server.port))
                    stack.enter_context(client).sendall(REQUEST)
                while len(server.connections) < expected:
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()

            await add(COUNT)  # what is made once is there now
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            before, _ = tracemalloc.get_traced_memory()
            await add(COUNT)
            after, _ = tracemalloc.get_traced_memory()
            limit = LIMIT if sys.gettrace() is None else LIMIT + TRACED
            assert (after - before) / COUNT < limit
