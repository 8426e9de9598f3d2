import trio

from trio_ws import ConnectionClosed, ServerConnection, connect, open_server


async def handler(ws: ServerConnection) -> None:
    await ws.send(f"rain in {ws.request.path}")
    try:
        await ws.recv()
    except ConnectionClosed as exc:
        if exc.rcvd is not None:
            print(exc.rcvd.code, exc.rcvd.reason)


async def main() -> None:
    async with open_server(
        handler, 0, host="127.0.0.1", subprotocols=["news"]
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/paris"
        async with connect(uri, subprotocols=["news"], max_size=1000) as ws:
            print(ws.subprotocol)
            print(await ws.recv())
            await ws.aclose(4000, "the end")


trio.run(main)
