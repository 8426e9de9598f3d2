import trio

from trio_ws import ServerConnection, connect, open_server


async def handler(ws: ServerConnection) -> None:
    await ws.wait_closed()
    print(f"{ws.request.path}: {ws.close_code}")


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}"

        async with connect(f"{uri}/ended"):
            pass

        try:
            async with connect(f"{uri}/failed"):
                raise LookupError("an error of the application")
        except LookupError:
            pass

        with trio.CancelScope() as scope:
            async with connect(f"{uri}/cancelled"):
                scope.cancel()
                await trio.sleep_forever()

        async with connect(f"{uri}/chosen") as ws:
            await ws.aclose(4001, "token expired")


trio.run(main)
