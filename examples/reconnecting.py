"""A client that gets over the absence of its server.

What a client has missed isn't sent again by itself. Here it says, on each new
connection, how much it has, and the server begins there.
"""

import itertools

import trio

from trio_ws import ServerConnection, open_server, reconnect, serve

headlines = ["rain", "more rain"]
published = trio.Event()


async def news(ws: ServerConnection) -> None:
    have = int(await ws.recv())
    for headline in headlines[have:]:
        await ws.send(headline)
    published.set()
    await ws.wait_closed()


async def come_and_go(task_status: trio.TaskStatus[int]) -> None:
    """Serve; be away for a while; serve again on the same port."""
    async with open_server(news, 0, host="127.0.0.1") as server:
        task_status.started(server.port)
        await published.wait()
    await trio.sleep(0.3)  # attempts to connect are refused
    headlines.append("sunshine")
    await serve(news, server.port, host="127.0.0.1")


async def follow(uri: str) -> None:
    read = 0
    # Without reconnect_delays they are random and grow, so that the clients of a
    # server do not all come back at the same moment.
    async for attempt in reconnect(uri, reconnect_delays=lambda: itertools.repeat(0.1)):
        async with attempt as ws:
            await ws.send(str(read))
            async for headline in ws:
                print(headline)
                read += 1
                if headline == "sunshine":
                    return  # otherwise the loop would connect again
        print("closed with", ws.close_code)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(come_and_go)
        await follow(f"ws://127.0.0.1:{port}/")
        nursery.cancel_scope.cancel()


trio.run(main)
