import logging
import logging.handlers
import queue

import trio

from trio_ws import ServerConnection, connect, open_server

lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
logging.basicConfig(level=logging.INFO, handlers=[logging.handlers.QueueHandler(lines)])
slow = logging.StreamHandler()  # or one of a file, of mail, of the network
writer = logging.handlers.QueueListener(lines, slow)


async def greet(ws: ServerConnection) -> None:
    await ws.send("hello")


async def main() -> None:
    async with open_server(greet, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.recv()


writer.start()  # its thread
try:
    trio.run(main)
finally:
    writer.stop()  # once all is written
