import trio
from trio.testing import MockClock

from trio_ws import ConnectionClosedError
from trio_ws.testing import open_pair


async def main() -> None:
    try:
        async with open_pair({"ping_interval": None}) as (_client, server):
            for number in range(100):
                await server.send(f"message {number}")
            await trio.sleep(60)  # the client receives nothing all the time
    except ConnectionClosedError as exc:
        print(exc)


trio.run(main, clock=MockClock(autojump_threshold=0))
