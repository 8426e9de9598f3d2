"""What an idle connection of a server takes, so that no change doubles it unseen."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import ssl
import sys
from contextlib import AsyncExitStack, ExitStack

import pytest
import trio
import trio.testing

from tests.memory import measures_memory, tracemalloc
from tests.peers.certificates import contexts
from tests.transports.test_tls import by_version
from trio_ws import ServerConnection, connect, open_server

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
        del message


@measures_memory
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


class MallocInfo(ctypes.Structure):
    """What glibc's mallinfo2() returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def allocated() -> int:
    """Return how much is allocated in C, which tracemalloc doesn't see."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="asks glibc 2.33 or newer",
)
@pytest.mark.cpython("PyPy gives the kernel back what it likes")
@by_version
async def test_tls_keeps_little_of_large_messages(
    version: ssl.TLSVersion, mock_clock: trio.testing.MockClock
) -> None:
    # 24.6 KiB an end, in two BIOs: OpenSSL never makes them smaller.
    client, server = contexts(version)
    async with (
        open_server(echo, 0, host="127.0.0.1", ssl=server, compression=None) as served,
        AsyncExitStack() as stack,
    ):
        uri = f"wss://localhost:{served.port}/"
        connections = [
            await stack.enter_async_context(connect(uri, ssl=client, compression=None))
            for _ in range(20)
        ]

        async def exchange(size: int, count: int) -> int:
            for connection in connections:
                for _ in range(count):
                    await connection.send(os.urandom(size))
                    assert len(await connection.recv()) == size
            await trio.testing.wait_all_tasks_blocked()
            return allocated()

        before = await exchange(100, 1)
        for size, count in ((60_000, 1), (2**20, 3)):
            after = await exchange(size, count)
            assert (after - before) / len(connections) < 2 * 27 * 1024
