# shown:
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_ws import Connection, ConnectionClosedError
from trio_ws.testing import open_pair


async def collect(ws: Connection) -> list[str | bytes]:  # what is tested
    messages = []
    try:
        async for message in ws:
            messages.append(message)
    except ConnectionClosedError:
        messages.append("(incomplete)")
    return messages


async def test_what_came_before_a_loss_is_kept() -> None:
    streams = memory_stream_pair()
    async with open_pair(streams=streams) as (client, server):
        await server.send("one")
        await wait_all_tasks_blocked()  # until it has been written
        await streams[1].aclose()  # the server is gone, without a close frame
        assert await collect(client) == ["one", "(incomplete)"]
        with pytest.raises(ConnectionClosedError):
            await server.recv()


# end

if __name__ == "__main__":
    trio.run(test_what_came_before_a_loss_is_kept)
