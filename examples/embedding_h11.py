"""A page and a WebSocket on one port of a server of one's own: h11 on trio.

h11 reads each request. One for the WebSocket goes to accept(), with the stream and what
h11 has read behind the request; the rest is answered here.
"""

import contextlib
import functools

import h11
import trio

from trio_ws import (
    ConnectionClosedError,
    Headers,
    InvalidHandshake,
    Request,
    ServerConnection,
    accept,
    connect,
)

PAGE = b"<!doctype html><title>Hello</title><p>The WebSocket is at /chat.\n"


async def chat(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def as_request(event: h11.Request) -> Request:
    headers = [
        (name.decode("ascii"), value.decode("iso-8859-1"))
        for name, value in event.headers.raw_items()
    ]
    return Request(
        event.target.decode("ascii"),
        Headers(headers),
        event.method.decode("ascii"),
        f"HTTP/{event.http_version.decode('ascii')}",
    )


async def read_request(
    http: h11.Connection, stream: trio.abc.ReceiveStream
) -> h11.Request | None:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some()))
    return event if isinstance(event, h11.Request) else None


def answer(http: h11.Connection, method: bytes) -> bytes:
    status, reason, page = 200, "OK", PAGE
    if method not in (b"GET", b"HEAD"):
        status, reason, page = 405, "Method Not Allowed", b""
    headers = [
        ("Allow", "GET, HEAD"),
        ("Content-Length", str(len(page))),
        ("Connection", "close"),
    ]
    events = (
        h11.Response(status_code=status, headers=headers, reason=reason),
        h11.Data(data=b"" if method == b"HEAD" else page),
        h11.EndOfMessage(),
    )
    return b"".join(http.send(event) or b"" for event in events)


async def serve(stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    async with stream:
        try:
            with trio.fail_after(10):
                event = await read_request(http, stream)
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.TooSlowError):
            return  # a server for the public would say 400 or 408
        if event is None:
            return
        if event.target == b"/chat":
            leftover, _ = http.trailing_data
            try:
                async with accept(
                    stream, request=as_request(event), leftover=leftover
                ) as ws:
                    await chat(ws)
            except InvalidHandshake as exc:
                print("refused:", exc)
            except (ConnectionClosedError, OSError) as exc:
                print("lost:", exc)
            return
        with contextlib.suppress(trio.BrokenResourceError):  # the client has gone
            await stream.send_all(answer(http, event.method))


async def get(port: int, path: str) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await stream.send_all(request.encode())
        answer = b"".join([chunk async for chunk in stream])
    return answer.partition(b"\r\n")[0].decode()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        start = functools.partial(trio.serve_tcp, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(start, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        print(await get(port, "/"))
        print(await get(port, "/chat"))
        async with connect(f"ws://127.0.0.1:{port}/chat") as ws:
            await ws.send("Hello!")
            print(await ws.recv())
        nursery.cancel_scope.cancel()


trio.run(main)
