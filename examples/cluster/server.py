"""One process of a cluster, with rooms at ws://localhost:8765/ROOM?name=NAME.

A client first says which ID it had last, or 0. Then whatever it says goes to all of the
room, as "ID NAME: TEXT", and "/here" tells who they are.
"""

import json
import logging
import os
import signal
import sys
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

import trio

from trio_ws import ServerConnection, open_server

from .redis_link import FAILED, parse_id
from .rooms import Rooms, open_rooms


async def chat(rooms: Rooms, ws: ServerConnection) -> None:
    assert ws.request is not None
    uri = urlsplit(ws.request.path)
    name = parse_qs(uri.query).get("name", ["guest"])[0]
    try:
        since = parse_id(str(await ws.recv()))
    except ValueError:
        return await ws.aclose(1008, "expected the last ID, or 0, first")
    async with rooms.join(ws, unquote(uri.path[1:]), name, since) as room:
        async for line in ws:
            if line == "/here":
                await ws.send("here " + json.dumps(sorted(await rooms.here(room))))
            else:
                await room.send(f"{name}: {line!s}")


async def main(redis: str, port: int) -> None:
    logging.basicConfig(format=f"{os.getpid()} %(message)s", level=logging.WARNING)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as stops:
        async with open_rooms(redis) as rooms:
            handler = partial(chat, rooms)
            async with open_server(handler, port, reuse_port=True, max_size=10_000):
                print("serving", os.getpid(), flush=True)
                await anext(stops)


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], int(sys.argv[2]))
    except* FAILED:
        sys.exit(f"no Redis answers at {sys.argv[1]}: is it running there?")
