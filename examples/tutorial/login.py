"""Step 3: the first message says who it is."""

from collections import defaultdict

import trio

from trio_ws import ConnectionClosedError, ServerConnection, broadcast, serve

# Yours come from a database, and can't be guessed.
TOKENS: dict[str | bytes, str] = {"token of alice": "alice", "token of bob": "bob"}

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def log_in(ws: ServerConnection) -> str | None:
    with trio.move_on_after(10):
        user = TOKENS.get(await ws.recv())
        if user is not None:
            return user
    await ws.aclose(4401, "log in first")
    return None


async def talk(ws: ServerConnection, user: str) -> None:
    room = rooms[ws.request.path]
    room.add(ws)
    broadcast(room, f"{user} comes in")
    try:
        async for line in ws:
            broadcast(room, f"{user}: {line!s}")
    finally:
        room.remove(ws)
        broadcast(room, f"{user} has left")
        if not room:
            del rooms[ws.request.path]


async def chat(ws: ServerConnection) -> None:
    try:
        user = await log_in(ws)
        if user is not None:
            await talk(ws, user)
    except ConnectionClosedError:
        pass  # lost: the others go on


async def main() -> None:
    await serve(chat, 8000, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
