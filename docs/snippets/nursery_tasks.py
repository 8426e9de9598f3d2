import trio

from trio_ws import ClientConnection, connect


async def ask(ws: ClientConnection) -> None:
    for question in ("one", "two"):
        await ws.send(question)
        await trio.sleep(0.01)


async def main() -> None:
    async with connect("ws://127.0.0.1:8765/") as ws:
        ws.nursery.start_soon(ask, ws)
        print(await ws.recv())
        print(await ws.recv())
    print("closed with", ws.close_code)


trio.run(main)
