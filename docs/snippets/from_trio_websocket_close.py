from functools import partial

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketRequest,
    open_websocket_url,
    serve_websocket,
)


async def handler(request: WebSocketRequest) -> None:
    ws = await request.accept(subprotocol="news")
    await ws.send_message(f"rain in {request.path}")
    try:
        await ws.get_message()
    except ConnectionClosed as exc:
        if exc.reason is not None:
            print(exc.reason.code, exc.reason.reason)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serve)
        uri = f"ws://127.0.0.1:{server.port}/paris"
        async with open_websocket_url(
            uri, subprotocols=["news"], max_message_size=1000
        ) as ws:
            print(ws.subprotocol)
            print(await ws.get_message())
            await ws.aclose(4000, "the end")
        nursery.cancel_scope.cancel()


trio.run(main)
