import trio

from trio_ws import ServerConnection, connect, open_server


async def handler(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(f"got {message!s}")
    await trio.sleep(0.1)  # something to finish
    print("the handler has finished")


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            print(await ws.recv())
            await server.aclose(reason="update", timeout=5)
            print("closed with", ws.close_code, ws.close_reason)


trio.run(main)
