"""Step 2: rooms."""

from collections import defaultdict

import trio

from trio_ws import ConnectionClosedError, ServerConnection, broadcast, serve

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def chat(ws: ServerConnection) -> None:
    room = rooms[ws.request.path]
    room.add(ws)
    try:
        async for line in ws:
            broadcast(room, line)
    except ConnectionClosedError:
        pass  # lost: the others go on
    finally:
        room.remove(ws)
        if not room:
            del rooms[ws.request.path]


async def main() -> None:
    await serve(chat, 8000, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
