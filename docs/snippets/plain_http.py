# shown:
import json

import trio

from trio_ws import Request, Response, ServerConnection, open_server

ALLOWED = {
    "Access-Control-Allow-Origin": "https://example.com",
    "Access-Control-Allow-Headers": "Content-Type",
}


def answer(ws: ServerConnection, request: Request) -> Response | None:
    if request.method == "OPTIONS":
        return ws.respond(204, "", headers=ALLOWED)
    if (request.method, request.path) == ("POST", "/double"):
        doubled = json.dumps({"doubled": 2 * json.loads(request.body)})
        return ws.respond(
            201, doubled, content_type="application/json", headers=ALLOWED
        )
    return None


# end


async def handler(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def ask(port: int, head: str, body: str = "") -> tuple[str, dict[str, str], str]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"{head}\r\nHost: localhost\r\n\r\n{body}".encode())
        answer = b"".join([chunk async for chunk in stream]).decode()
    top, _, rest = answer.partition("\r\n\r\n")
    status, *lines = top.split("\r\n")
    return status.split()[1], dict(line.split(": ", 1) for line in lines), rest


async def main() -> None:
    async with open_server(
        handler, 0, host="127.0.0.1", process_request=answer
    ) as server:
        post = "POST /double HTTP/1.1\r\nContent-Length: 2"
        status, _, body = await ask(server.port, post, "21")
        print(status, body)
        status, headers, _ = await ask(server.port, "OPTIONS /double HTTP/1.1")
        print(status, headers["Access-Control-Allow-Origin"])
        print((await ask(server.port, "PUT /double HTTP/1.1"))[0])


trio.run(main)
