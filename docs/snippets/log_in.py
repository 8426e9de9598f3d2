import trio

from trio_ws import (
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
)

TOKENS = {"Bearer 6455": "alice"}


class UserConnection(ServerConnection):
    user: str


async def log_in(ws: UserConnection, request: Request) -> Response | None:
    user = TOKENS.get(request.headers.get("Authorization", ""))
    if user is None:
        return ws.respond(401, "Who are you?\n")
    ws.user = user
    return None


async def handler(ws: UserConnection) -> None:
    await ws.send(f"hello, {ws.user}")


async def main() -> None:
    async with open_server(
        handler,
        0,
        host="127.0.0.1",
        process_request=log_in,
        create_connection=UserConnection,
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        headers = {"Authorization": "Bearer 6455"}
        async with connect(uri, additional_headers=headers) as ws:
            print(await ws.recv())
        try:
            async with connect(uri):
                pass
        except InvalidStatus as exc:
            print(exc.response.status_code, exc.response.body)


trio.run(main)
