"""Connection classes of your own, with arguments of their own, on both sides."""

import functools
from typing import Any

import trio

from trio_ws import ClientConnection, ServerConnection, connect, open_server


class ChatConnection(ServerConnection):
    """A server's connection that knows the room it is in."""

    def __init__(self, *args: Any, room: str) -> None:
        super().__init__(*args)
        self.room = room


class PrefixConnection(ClientConnection):
    """A client's connection that puts a prefix before each line."""

    def __init__(self, *args: Any, prefix: str) -> None:
        super().__init__(*args)
        self.prefix = prefix

    async def send_line(self, line: str) -> None:
        """Send a line with the prefix."""
        await self.send(f"{self.prefix}: {line}")


async def chat(ws: ChatConnection) -> None:
    async for line in ws:
        await ws.send(f"[{ws.room}] {line!s}")


async def main() -> None:
    create_server = functools.partial(ChatConnection, room="lobby")
    create_client = functools.partial(PrefixConnection, prefix="alice")
    async with open_server(
        chat, 0, host="127.0.0.1", create_connection=create_server
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, create_connection=create_client) as ws:
            await ws.send_line("hello")
            print(await ws.recv())


trio.run(main)
