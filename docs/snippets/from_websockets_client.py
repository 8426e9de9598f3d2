import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main() -> None:
    async for ws in connect("ws://127.0.0.1:8765/"):
        try:
            await ws.send("Hello!")
            print(await asyncio.wait_for(ws.recv(), 5))
            latency = await (await ws.ping())
            print("a pong within a second:", latency < 1)
            await ws.close(4001, "done")
            print(ws.close_code, ws.close_reason)
            break
        except ConnectionClosed:
            continue


asyncio.run(main())
