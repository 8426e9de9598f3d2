# shown:
from trio_ws import Request, ServerConnection

TOKENS = {"6455": "alice"}


class UserConnection(ServerConnection):
    user: str | None


def look(ws: UserConnection, request: Request) -> None:
    ws.user = TOKENS.get(request.headers.get("Authorization", ""))


async def handler(ws: UserConnection) -> None:
    if ws.user is None:
        await ws.aclose(4401, "log in first")
        return
    await ws.send(f"hello, {ws.user}")


# end


async def main() -> None:
    async with open_server(
        handler,
        0,
        host="127.0.0.1",
        process_request=look,
        create_connection=UserConnection,
    ) as server:
        try:
            async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                await ws.recv()
        except ConnectionClosedError:
            print(ws.close_code, ws.close_reason)


if __name__ == "__main__":
    import trio

    from trio_ws import ConnectionClosedError, connect, open_server

    trio.run(main)
