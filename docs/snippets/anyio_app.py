import anyio

from trio_ws import ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            async with anyio.create_task_group() as group:
                group.start_soon(ws.send, "hello")
                print(await ws.recv())
            with anyio.move_on_after(0.1) as scope:
                await ws.recv()
            print("timed out:", scope.cancelled_caught)
            await ws.send("still here")
            print(await ws.recv())


anyio.run(main, backend="trio")
