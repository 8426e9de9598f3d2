import trio

from trio_ws import ClientConnection, connect


async def produce(ws: ClientConnection) -> None:
    for number in range(3):
        await ws.send(f"number {number}")
        await trio.sleep(0.01)
    await ws.send("the end")


async def consume(ws: ClientConnection) -> None:
    async for message in ws:
        print("came:", message)
        if message == "the end":
            return


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/") as ws:
        ws.nursery.start_soon(produce, ws)
        await consume(ws)


trio.run(main)
