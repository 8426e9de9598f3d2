# shown:
from trio_ws import ServerConnection, broadcast

users: dict[str, ServerConnection] = {}


async def handler(ws: ServerConnection) -> None:
    name = str(await ws.recv())  # or as "Authentication" says
    users[name] = ws
    try:
        async for message in ws:
            to, _, text = str(message).partition(": ")
            if to in users:
                broadcast([users[to]], f"{name} says {text}")
    finally:
        if users.get(name) is ws:  # not one that came later
            del users[name]


# end

if __name__ == "__main__":
    import trio

    from trio_ws import connect, open_server

    async def main() -> None:
        async with open_server(handler, 0, host="127.0.0.1") as server:
            uri = f"ws://127.0.0.1:{server.port}/"
            async with connect(uri) as alice, connect(uri) as bob:
                await alice.send("alice")
                await bob.send("bob")
                await bob.send("bob: ready")
                print(await bob.recv())
                await alice.send("bob: good morning")
                print(await bob.recv())

    trio.run(main)
