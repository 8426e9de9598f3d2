"""Answer health checks, and everybody else who isn't a WebSocket client.

process_request sees every request before anything else does. What it returns is
the answer; if it returns None, the WebSocket is opened.
"""

import trio

from trio_ws import Request, Response, ServerConnection, connect, open_server


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def health_check(ws: ServerConnection, request: Request) -> Response | None:
    if request.path == "/healthz":
        return ws.respond(200, "OK\n")
    return None


async def ask(port: int, method: str, path: str) -> str:
    """Do what HAProxy does: ask in HTTP/1.0, without a Host."""
    request = f"{method} {path} HTTP/1.0\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request.encode())
        response = b"".join([chunk async for chunk in stream])
    return response.split(b"\r\n")[0].decode()


async def main() -> None:
    async with open_server(
        echo, 0, host="127.0.0.1", process_request=health_check
    ) as server:
        print(await ask(server.port, "OPTIONS", "/healthz"))
        print(await ask(server.port, "GET", "/healthz"))
        print(await ask(server.port, "GET", "/elsewhere"))
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("Hello!")
            print(await ws.recv())


trio.run(main)
