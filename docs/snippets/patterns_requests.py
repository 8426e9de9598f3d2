# shown:
import itertools
import json
from typing import Any

import trio

from trio_ws import ClientConnection, connect


class Caller:
    """Sends requests, and gives each caller the answer to its own."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[Any]] = {}

    async def call(self, method: str, *params: Any) -> Any:
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[Any](1)
        self._waiting[number] = sender
        try:
            await self.ws.send(json.dumps([number, method, params]))
            return await receiver.receive()
        finally:
            self._waiting.pop(number, None)  # a late answer is nobody's

    async def run(self) -> None:
        """Read answers, in a task of its own, until the connection ends."""
        try:
            async for message in self.ws:
                number, result = json.loads(message)
                if number in self._waiting:
                    self._waiting.pop(number).send_nowait(result)
        finally:
            for sender in self._waiting.values():
                sender.close()  # call() raises trio.EndOfChannel


async def main(uri: str) -> None:
    async with connect(uri) as ws:
        caller = Caller(ws)
        ws.nursery.start_soon(caller.run)
        sums: dict[str, int] = {}

        async def add(one: int, two: int) -> None:
            sums[f"{one} + {two}"] = await caller.call("add", one, two)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, 1, 2)
            nursery.start_soon(add, 30, 40)
        print(sorted(sums.items()))
        with trio.move_on_after(0.1) as scope:
            await caller.call("sleep")
        print("gave up:", scope.cancelled_caught)
        await ws.aclose()


# end

if __name__ == "__main__":
    from trio_ws import ServerConnection, open_server

    async def server(ws: ServerConnection) -> None:
        async for message in ws:
            number, method, params = json.loads(message)
            if method == "add":
                await ws.send(json.dumps([number, sum(params)]))

    async def both() -> None:
        async with open_server(server, 0, host="127.0.0.1") as listening:
            await main(f"ws://127.0.0.1:{listening.port}/")

    trio.run(both)
