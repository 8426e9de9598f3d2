"""A chat: rooms, a login, a page, limits, and an end in good order."""

from collections import defaultdict

import trio

from trio_ws import (
    ConnectionClosedError,
    Limits,
    Request,
    Response,
    Server,
    ServerConnection,
    broadcast,
    serve,
)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chat</title>
<form><input autofocus autocomplete="off" placeholder="your token"></form>
<ul></ul>
<script>
  const input = document.querySelector("input");
  const show = text => {
    const item = document.createElement("li");
    item.textContent = text;  // not innerHTML: others wrote it
    document.querySelector("ul").append(item);
  };
  const room = location.hash.slice(1) || "tea";
  const ws = new WebSocket(`ws://${location.host}/rooms/${room}`);
  ws.onmessage = event => show(event.data);
  ws.onclose = event => show(`closed: ${event.code} ${event.reason}`);
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    ws.send(input.value);  // the token is the first
    input.value = input.placeholder = "";
  };
</script>
"""

# A page of another site could open a WebSocket, too, in the name of its visitor.
# None is a client that is no browser.
ORIGINS = ["http://localhost:8000", "http://127.0.0.1:8000", None]

# Yours come from a database, and can't be guessed.
TOKENS: dict[str | bytes, str] = {"token of alice": "alice", "token of bob": "bob"}

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


def page(ws: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith("/rooms/"):
        return None  # opens the WebSocket
    if request.path == "/":
        return ws.respond(200, PAGE, content_type="text/html; charset=utf-8")
    return ws.respond(404, "Not found.\n")


async def log_in(ws: ServerConnection) -> str | None:
    with trio.move_on_after(10):
        user = TOKENS.get(await ws.recv())
        if user is not None:
            return user
    await ws.aclose(4401, "log in first")
    return None


def say(room: set[ServerConnection], line: str) -> None:
    broadcast(room, line, slow="close")


async def talk(ws: ServerConnection, user: str) -> None:
    room = rooms[ws.request.path]
    room.add(ws)
    say(room, f"{user} comes in")
    try:
        async for line in ws:
            if isinstance(line, bytes):
                await ws.aclose(1003, "text only")
                return
            say(room, f"{user}: {line}")
            await trio.sleep(0.1)  # ten lines a second, of each
    finally:
        room.remove(ws)
        say(room, f"{user} has left")
        if not room:
            del rooms[ws.request.path]


async def chat(ws: ServerConnection) -> None:
    try:
        user = await log_in(ws)
        if user is not None:
            await talk(ws, user)
    except ConnectionClosedError:
        pass  # lost: the others go on


async def serve_chat(
    port: int,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    await serve(
        chat,
        port,
        host="127.0.0.1",
        process_request=page,
        origins=ORIGINS,
        max_size=2000,
        max_queue=4,
        max_connections=10_000,
        max_connections_per_ip=100,
        limits=Limits(request_body=0),
        task_status=task_status,
    )


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve_chat, 8000)
        await server.aclose_on_signal(reason="be back soon", timeout=5)


if __name__ == "__main__":
    trio.run(main)
