# shown:
import trio
from trio.testing import MockClock

from trio_ws import ServerConnection, open_server, reconnect
from trio_ws.testing import MemoryNetwork


async def follow(url: str, prices: list[str | bytes]) -> None:  # what is tested
    async for attempt in reconnect(url):
        async with attempt as ws:
            async for price in ws:
                prices.append(price)


async def push(ws: ServerConnection) -> None:
    await ws.send("42")
    await ws.wait_closed()


async def test_it_comes_back(autojump_clock: MockClock) -> None:
    prices: list[str | bytes] = []
    with MemoryNetwork() as network:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, "ws://feed.example/", prices)
            await trio.sleep(600)  # nobody listens
            assert prices == []
            async with open_server(push, 80):
                await trio.sleep(600)
                network.reset()
                await trio.sleep(600)
                assert prices == ["42", "42"]
            nursery.cancel_scope.cancel()


# end

if __name__ == "__main__":
    clock = MockClock(autojump_threshold=0)
    trio.run(test_it_comes_back, clock, clock=clock)
