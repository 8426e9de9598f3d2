"""A handler for each path, by werkzeug's URL maps.

Needs ``pip install "trio_ws[routing]"``.
"""

from functools import partial

import trio
from werkzeug.routing import Map, Rule

from trio_ws import InvalidStatus, ServerConnection, connect, route


async def news(ws: ServerConnection) -> None:
    assert ws.route is not None
    uri = ws.route.url_for(room, name="tea", size=2)
    await ws.send(f"see {uri}")


async def room(ws: ServerConnection, name: str, size: int) -> None:
    await ws.send(f"a table for {size} in the {name} room")


urls = Map(
    [
        Rule("/news/", endpoint=news),
        Rule("/rooms/<name>/<int:size>", endpoint=room),
    ]
)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(route, urls, 0, host="127.0.0.1"))
        for path in "/news", "/rooms/tea/2":  # the first is redirected to /news/
            async with connect(f"ws://localhost:{server.port}{path}") as ws:
                print(await ws.recv())
        try:
            async with connect(f"ws://localhost:{server.port}/rooms/tea/all"):
                pass
        except InvalidStatus as exc:
            print(exc)
        await server.aclose()


trio.run(main)
