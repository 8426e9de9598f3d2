"""Follow market data over the failures of a feed: reconnect, subscribe again, watch.

A feed that sends a heartbeat is never silent for long. Pings don't tell that it works,
since the library answers them; only its messages do. So a connection over which nothing
came for SILENCE seconds is given up, without waiting for an answer to the close frame.

The server is here, too, and so is its network, in memory, where the minutes of this
story take no time: trio's MockClock jumps over them. On another network ``follow()`` is
the same. To run it: python market_data.py
"""

import json

import trio
from trio.testing import MockClock

from trio_ws import ClientConnection, ServerConnection, open_server, reconnect
from trio_ws.testing import MemoryNetwork

SILENCE = 15  # three times what the feed lets pass between two messages
HEARTBEAT = 5


class Client:
    """What to follow, and the newest price of each."""

    def __init__(self, uri: str, symbols: set[str]) -> None:
        self.uri = uri
        self.symbols = symbols
        self.prices: dict[str, float] = {}

    async def follow(self) -> None:
        """Keep the prices up to date, until cancelled."""
        async for attempt in reconnect(self.uri):
            async with attempt as ws:  # a loss in here ends the block, quietly
                # The server has forgotten what the last connection had subscribed to.
                await ws.send(json.dumps({"subscribe": sorted(self.symbols)}))
                await self._read(ws)
            # Until there is a new one, each price is as old as the connection.
            self.prices.clear()
            print("disconnected:", ws.close_code)

    async def _read(self, ws: ClientConnection) -> None:
        while True:
            with trio.move_on_after(SILENCE) as watchdog:
                update = json.loads(await ws.recv())
            if watchdog.cancelled_caught:
                print(f"nothing for {SILENCE} s")
                await trio.aclose_forcefully(ws)
                return
            if "price" in update:
                self.prices[update["symbol"]] = update["price"]
                print(update["symbol"], update["price"])


class Feed:
    """A server whose connections end as those of real ones do, each in another way."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.visits = 0

    async def handle(self, ws: ServerConnection) -> None:
        """Send what is asked for, and fail."""
        self.visits += 1
        visit = self.visits
        symbols = json.loads(await ws.recv())["subscribe"]
        for symbol in symbols:
            price = {"symbol": symbol, "price": 100 + visit}
            await ws.send(json.dumps(price))
        if visit == 1:  # a crash: no close frame
            await trio.sleep(1)
            self.network.reset()
        elif visit == 2:  # it hangs, and its library goes on answering pings
            await trio.sleep_forever()
        elif visit == 3:  # it has moved
            await ws.aclose(1012, "restart")
        else:
            while True:
                await trio.sleep(HEARTBEAT)
                await ws.send('{"heartbeat": true}')


async def main() -> None:
    with MemoryNetwork() as network:
        async with open_server(Feed(network).handle, 80):
            client = Client("ws://feed.example/", {"MILK", "TEA"})
            with trio.move_on_after(600):
                await client.follow()
            print("at the end:", sorted(client.prices.items()))


trio.run(main, clock=MockClock(autojump_threshold=0))
