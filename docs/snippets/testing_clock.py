# shown:
import pytest
import trio
from trio.testing import MockClock

from trio_ws import Connection, ConnectionClosedError
from trio_ws.testing import open_pair


async def login(ws: Connection) -> str | None:  # what is tested
    with trio.move_on_after(30):
        return str(await ws.recv())
    await ws.aclose(1008, "no login within 30 s")
    return None


async def test_login_that_never_comes(autojump_clock: MockClock) -> None:
    before = trio.current_time()
    async with open_pair() as (client, server):
        assert await login(server) is None
        with pytest.raises(ConnectionClosedError, match="no login within 30 s"):
            await client.recv()
    assert trio.current_time() - before == 30


# end

if __name__ == "__main__":
    clock = MockClock(autojump_threshold=0)
    trio.run(test_login_that_never_comes, clock, clock=clock)
