import trio

from trio_ws import ServerConnection, open_server, reconnect

visits = 0


async def handler(ws: ServerConnection) -> None:
    global visits
    visits += 1
    if visits == 3:
        await ws.send("the end")
    else:
        await ws.send(f"news {visits}")
        await ws.aclose(1012, "restart")


async def follow(uri: str) -> None:
    async for attempt in reconnect(uri, reconnect_delays=lambda: iter([0, 0])):
        async with attempt as ws:
            async for message in ws:
                print(message)
                if message == "the end":
                    return
        print("closed with", ws.close_code)


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        await follow(f"ws://127.0.0.1:{server.port}/")


trio.run(main)
