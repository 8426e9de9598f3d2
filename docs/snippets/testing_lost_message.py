# shown:
from trio_ws import (
    Connection,
    ConnectionClosedError,
    ServerConnection,
    connect,
    open_server,
)
from trio_ws.testing import MemoryNetwork


async def collect(ws: Connection) -> list[str | bytes]:  # what is tested
    messages = []
    try:
        async for message in ws:
            messages.append(message)
    except ConnectionClosedError:
        messages.append("(incomplete)")
    return messages


async def test_a_loss_in_the_middle_of_a_message() -> None:
    async def push(ws: ServerConnection) -> None:
        await ws.send("one")
        network.link(ws).reset(after=500)  # bytes
        await ws.send("two" * 1000)
        await ws.wait_closed()

    with MemoryNetwork() as network:
        async with open_server(push, 80, compression=None):
            async with connect("ws://feed.example/") as ws:
                assert await collect(ws) == ["one", "(incomplete)"]


# end

if __name__ == "__main__":
    import trio

    trio.run(test_a_loss_in_the_middle_of_a_message)
