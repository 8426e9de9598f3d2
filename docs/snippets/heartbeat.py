import trio

from trio_ws import Connection, connect


async def heartbeat(ws: Connection, every: float, within: float) -> None:
    while True:
        with trio.fail_after(within):
            await ws.ping()
        await trio.sleep(every)


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/", ping_interval=None) as ws:
        ws.nursery.start_soon(heartbeat, ws, 20, 10)
        await ws.send("work")
        print(await ws.recv())
        ws.nursery.cancel_scope.cancel()  # or the block waits for the heartbeat
    print("closed with", ws.close_code)


trio.run(main)
