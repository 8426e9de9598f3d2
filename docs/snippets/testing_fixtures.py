# shown:
from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    Server,
    ServerConnection,
    connect,
    open_server,
)
from trio_ws.testing import MemoryNetwork


async def shout(ws: ServerConnection) -> None:  # what is tested
    async for message in ws:
        await ws.send(str(message).upper())


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    with MemoryNetwork() as network:
        yield network


@pytest.fixture
async def server(network: MemoryNetwork) -> AsyncIterator[Server]:
    async with open_server(shout, 8000) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[ClientConnection]:
    async with connect("ws://localhost:8000/", loss_grace=None) as ws:
        yield ws


async def test_shout(client: ClientConnection) -> None:
    await client.send("hello")
    assert await client.recv() == "HELLO"


async def test_a_silent_server(
    client: ClientConnection, network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    network.freeze()
    with pytest.raises(ConnectionClosedError, match="ping timeout"):
        await client.recv()


# end

if __name__ == "__main__":
    options = ["-qq", "-p", "no:cacheprovider", "-o", "trio_mode=true"]
    raise SystemExit(pytest.main([__file__, *options]))
