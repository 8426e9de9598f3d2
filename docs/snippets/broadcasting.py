import trio

from trio_ws import ServerConnection, broadcast, connect, open_server


async def handler(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def main() -> None:
    async with open_server(handler, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri) as alice, connect(uri) as bob:
            await alice.ping()
            await bob.ping()
            left_out = broadcast(server.connections, "hello")
            print("left out:", left_out)
            print("alice got", await alice.recv())
            print("bob got", await bob.recv())


trio.run(main)
