# shown:
import pytest
import trio
from trio.testing import MockClock

from trio_ws import ConnectionClosedError, ServerConnection, connect, open_server
from trio_ws.testing import MemoryNetwork


async def idle(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def test_a_peer_that_is_silent(autojump_clock: MockClock) -> None:
    with MemoryNetwork() as network:
        async with open_server(idle, 80):
            async with connect("ws://a.example/") as ws:
                network.freeze("a.example")
                with pytest.raises(ConnectionClosedError, match="ping timeout"):
                    await ws.recv()
                assert trio.current_time() == 40  # ping_interval and ping_timeout
            with pytest.raises(TimeoutError):  # open_timeout
                async with connect("ws://a.example/"):
                    raise AssertionError("connected")
            network.thaw()
            async with connect("ws://a.example/"):
                pass


# end

if __name__ == "__main__":
    clock = MockClock(autojump_threshold=0)
    trio.run(test_a_peer_that_is_silent, clock, clock=clock)
