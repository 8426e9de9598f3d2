# shown:
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from trio_ws import ClientConnection, ServerConnection, connect, open_server
from trio_ws.testing import MemoryNetwork


async def greet(ws: ServerConnection) -> None:  # what is tested
    await trio.sleep(3600)
    await ws.send("good morning")


@asynccontextmanager
async def open_client() -> AsyncIterator[ClientConnection]:
    with MemoryNetwork():
        async with open_server(greet, 8000):
            async with connect("ws://localhost:8000/") as ws:
                yield ws


def test_greet() -> None:
    async def main() -> None:
        async with open_client() as ws:
            assert await ws.recv() == "good morning"
            assert trio.current_time() == 3600

    trio.run(main, clock=MockClock(autojump_threshold=0))


# end

if __name__ == "__main__":
    test_greet()
