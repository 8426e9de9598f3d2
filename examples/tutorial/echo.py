"""Step 1: an echo."""

import trio

from trio_ws import ServerConnection, serve


async def chat(ws: ServerConnection) -> None:
    async for line in ws:
        await ws.send(line)


async def main() -> None:
    await serve(chat, 8000, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
