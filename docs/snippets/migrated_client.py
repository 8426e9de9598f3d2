import trio

from trio_ws import reconnect


async def main() -> None:
    async for attempt in reconnect("ws://127.0.0.1:8765/"):
        async with attempt as ws:
            await ws.send("Hello!")
            with trio.fail_after(5):
                print(await ws.recv())
            latency = await ws.ping()
            print("a pong within a second:", latency < 1)
            await ws.aclose(4001, "done")
            print(ws.close_code, ws.close_reason)
            break


trio.run(main)
