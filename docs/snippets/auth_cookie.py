# shown:
from http.cookies import CookieError, SimpleCookie

from trio_ws import Request, Response, ServerConnection

SESSIONS = {"k8Jq": "alice"}  # what your website has given out


class UserConnection(ServerConnection):
    user: str


def log_in(ws: UserConnection, request: Request) -> Response | None:
    cookies: SimpleCookie = SimpleCookie()
    try:
        for line in request.headers.get_all("Cookie"):
            cookies.load(line)
    except CookieError:
        return ws.respond(400, "What a cookie!\n")
    session = cookies.get("session")
    user = SESSIONS.get(session.value) if session else None
    if user is None:
        return ws.respond(401, "Log in first.\n")
    ws.user = user
    return None


# end


async def handler(ws: UserConnection) -> None:
    await ws.send(f"hello, {ws.user}")


async def main() -> None:
    async with open_server(
        handler,
        0,
        host="127.0.0.1",
        process_request=log_in,
        create_connection=UserConnection,
        origins=["https://chat.example.com"],
    ) as server:
        for cookie in "theme=dark; session=k8Jq", "session=stolen":
            try:
                async with connect(
                    f"ws://127.0.0.1:{server.port}/",
                    origin="https://chat.example.com",
                    additional_headers={"Cookie": cookie},
                ) as ws:
                    print(await ws.recv())
            except InvalidStatus as exc:
                print(exc.response.status_code)


if __name__ == "__main__":
    import trio

    from trio_ws import InvalidStatus, connect, open_server

    trio.run(main)
