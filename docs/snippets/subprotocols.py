import trio

from trio_ws import ServerConnection, connect, open_server


async def handler(ws: ServerConnection) -> None:
    await ws.send(f"we speak {ws.subprotocol}")


async def main() -> None:
    async with open_server(
        handler, 0, host="127.0.0.1", subprotocols=["v2.chat", "v1.chat"]
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, subprotocols=["v1.chat", "v0.chat"]) as ws:
            print(await ws.recv())


trio.run(main)
