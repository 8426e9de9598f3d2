"""A chat room for browsers: its page and its WebSocket share one port.

Open http://localhost:8765/ in two windows. Whoever reads too slowly is sent away,
rather than that all others wait. It listens on all interfaces, until Ctrl+C; ORIGINS
says from which pages browsers may come.
"""

import itertools

import trio

from trio_ws import (
    ConnectionClosedError,
    Request,
    Response,
    ServerConnection,
    broadcast,
    open_server,
)

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<form><input name="line" autofocus autocomplete="off"></form>
<ul></ul>
<script>
  const show = text => {
    const item = document.createElement("li");
    item.textContent = text;  // not innerHTML: others wrote it
    document.querySelector("ul").append(item);
  };
  const ws = new WebSocket(`ws://${location.host}/chat`);
  ws.onmessage = event => show(event.data);
  ws.onclose = event => show(`closed: ${event.code} ${event.reason}`);
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    ws.send(event.target.line.value);
    event.target.reset();
  };
</script>
"""

# A page of another site could open a WebSocket, too, in the name of its visitor.
# None is a client that is no browser.
ORIGINS = ["http://localhost:8765", "http://127.0.0.1:8765", None]

room: dict[ServerConnection, str] = {}
numbers = itertools.count(1)


def page(ws: ServerConnection, request: Request) -> Response | None:
    if request.path == "/chat":
        return None  # opens the WebSocket
    if request.path == "/":
        return ws.respond(200, PAGE, content_type="text/html; charset=utf-8")
    return ws.respond(404, "Not found.\n")


def say(text: str) -> None:
    broadcast(room, text, slow="close")


async def chat(ws: ServerConnection) -> None:
    name = room[ws] = f"guest {next(numbers)}"
    say(f"{name} comes in")
    try:
        async for line in ws:
            say(f"{name}: {line!s}")
    except ConnectionClosedError:
        pass  # lost: the others go on
    finally:
        del room[ws]
        say(f"{name} has left")


async def main() -> None:
    async with open_server(
        chat, 8765, process_request=page, origins=ORIGINS, max_size=1000
    ) as server:
        await server.aclose_on_signal()


trio.run(main)
