# shown:
import secrets
from urllib.parse import parse_qs, urlsplit

import trio

from trio_ws import Request, Response, ServerConnection

tickets: dict[str, tuple[str, float]] = {}


def new_ticket(user: str) -> str:
    """Return what the page gets from your website, over HTTPS."""
    now = trio.current_time()
    for old in [one for one, (_, expires) in tickets.items() if expires < now]:
        del tickets[old]
    ticket = secrets.token_urlsafe()
    tickets[ticket] = user, now + 30
    return ticket


class UserConnection(ServerConnection):
    user: str


def log_in(ws: UserConnection, request: Request) -> Response | None:
    (ticket, *_) = parse_qs(urlsplit(request.path).query).get("ticket", [""])
    user, expires = tickets.pop(ticket, ("", 0))  # each is good for once
    if not user or trio.current_time() > expires:
        return ws.respond(401, "Ask for a new ticket.\n")
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
    ) as server:
        ticket = new_ticket("alice")
        for _ in range(2):
            try:
                uri = f"ws://127.0.0.1:{server.port}/?ticket={ticket}"
                async with connect(uri) as ws:
                    print(await ws.recv())
            except InvalidStatus as exc:
                print(exc.response.status_code, exc.response.body)


if __name__ == "__main__":
    from trio_ws import InvalidStatus, connect, open_server

    trio.run(main)
