# shown:
from trio_ws import ServerConnection


def client_address(ws: ServerConnection) -> str:
    # The last one is what our own proxy saw; those before it anyone can write.
    return ws.request.headers.get_all("X-Forwarded-For")[-1].split(",")[-1].strip()


# end

if __name__ == "__main__":
    import trio

    from trio_ws.testing import open_pair

    async def main() -> None:
        headers = {"X-Forwarded-For": "192.0.2.1, 203.0.113.7"}
        async with open_pair({"additional_headers": headers}) as (_, server):
            print(client_address(server))

    trio.run(main)
