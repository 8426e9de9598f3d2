"""A server on a Unix socket, and a client: for processes of one machine."""

import tempfile
from functools import partial
from pathlib import Path

import trio

from trio_ws import Server, ServerConnection, unix_connect, unix_serve


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "echo"
        async with trio.open_nursery() as nursery:
            # Only this user may connect.
            start = partial(unix_serve, echo, path, mode=0o600)
            server: Server = await nursery.start(start)
            async with unix_connect(path) as ws:
                await ws.send("Hello!")
                print(await ws.recv())
            await server.aclose()
        print("the file is gone:", not path.exists())


trio.run(main)
