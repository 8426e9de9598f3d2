import trio

from trio_ws import Request, Response, ServerConnection, connect, open_server


async def moved(ws: ServerConnection, request: Request) -> Response | None:
    if request.path != "/chat":
        return None
    response = ws.respond(308, "Moved.\n")
    response.headers["Location"] = "/v2/chat"
    return response


async def handler(ws: ServerConnection) -> None:
    await ws.send(f"welcome to {ws.request.path}")


async def main() -> None:
    async with open_server(
        handler, 0, host="127.0.0.1", process_request=moved
    ) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/chat") as ws:
            print(await ws.recv())


trio.run(main)
