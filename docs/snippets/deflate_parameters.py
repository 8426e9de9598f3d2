import trio

from trio_ws import ServerConnection, connect, open_server
from trio_ws.extensions import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)


async def handler(ws: ServerConnection) -> None:
    print(ws.request.headers["Sec-WebSocket-Extensions"])
    await ws.wait_closed()


async def main() -> None:
    for_server = ServerPerMessageDeflateFactory(server_no_context_takeover=True)
    for_client = ClientPerMessageDeflateFactory(client_max_window_bits=10)
    async with open_server(
        handler, 0, host="127.0.0.1", extensions=[for_server]
    ) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, extensions=[for_client]) as ws:
            assert ws.response is not None
            print(ws.response.headers["Sec-WebSocket-Extensions"])


trio.run(main)
