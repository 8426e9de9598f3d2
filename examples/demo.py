"""A server and a client over loopback: what each sees, checked.

Every scene runs a real server and a real client over TCP, prints what the user's
code saw, and compares it with what it should have seen. Exits with 1 if
anything differs.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from trio_ws import (
    ClientConnection,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
    connect,
    open_server,
)

failures = 0


def saw(what: str, seen: object, expected: object) -> None:
    """Print what was seen; remember it if it isn't what was expected."""
    global failures
    if seen == expected:
        print(f"  {what}: {seen}")
    else:
        failures += 1
        print(f"  {what}: {seen!r}, EXPECTED {expected!r}")


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def messages() -> None:
    print("Text, binary, a fragmented message, a ping")
    async with open_server(echo, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("Grüße")
            saw("text", await ws.recv(), "Grüße")
            await ws.send(b"\x00\x01\x02")
            saw("binary", await ws.recv(), b"\x00\x01\x02")
            await ws.send(["in ", "three ", "pieces"])
            saw("fragmented", await ws.recv(), "in three pieces")
            latency = await ws.ping()
            saw("the pong came", 0 < latency < 10, True)
            print(f"  latency: {latency * 1000:.2f} ms")


async def clean_close() -> None:
    print("A clean close by the server")

    async def handler(ws: ServerConnection) -> None:
        await ws.send("the last word")
        await ws.aclose(1001, "restarting")

    async with open_server(handler, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            received = [message async for message in ws]
            saw("iteration ended after", received, ["the last word"])
            try:
                await ws.recv()
            except ConnectionClosedOK as exc:
                expected = (
                    "received 1001 (going away) restarting; "
                    "then sent 1001 (going away) restarting"
                )
                saw("recv() then raises", str(exc), expected)
    saw("close_code", ws.close_code, 1001)


async def reset() -> None:
    print("A reset, while the client's code sleeps")
    async with broken_server(reset_connection) as port:
        try:
            async with connect(f"ws://127.0.0.1:{port}/", loss_grace=0.1):
                await trio.sleep_forever()
        except ConnectionClosedError as exc:
            saw("the scope raises", str(exc), "no close frame received or sent")
            saw("because of", type(exc.__cause__).__name__, "ConnectionResetError")


async def keepalive_timeout() -> None:
    print("A server that has gone silent")
    async with broken_server(stay_silent) as port:
        try:
            async with connect(
                f"ws://127.0.0.1:{port}/", ping_interval=0.2, ping_timeout=0.2
            ) as ws:
                await ws.recv()
        except ConnectionClosedError as exc:
            expected = (
                "sent 1011 (internal error) keepalive ping timeout; "
                "no close frame received"
            )
            saw("recv() raises", str(exc), expected)


async def cancelled_send() -> None:
    print("A send that is cancelled, towards a server that reads late")
    start = trio.Event()
    received: list[int] = []

    async def slow(ws: ServerConnection) -> None:
        await start.wait()
        async for message in ws:
            received.append(len(message))

    async with open_server(slow, 0, host="127.0.0.1", max_size=None) as server:
        # Compressed, these messages would be small enough for any buffer.
        uri = f"ws://127.0.0.1:{server.port}/"
        async with connect(uri, compression=None) as ws:
            accepted, cancelled = await send_until_cancelled(ws)
            start.set()
            await ws.send(b"x")
    saw("one send was cancelled", cancelled, True)
    saw("the server got what was accepted, whole", received, [*accepted, 1])


async def send_until_cancelled(ws: ClientConnection) -> tuple[list[int], bool]:
    """Send 8 MiB messages until one has to wait, and cancel that one."""
    accepted: list[int] = []
    for _ in range(100):
        with trio.move_on_after(0.5) as scope:
            await ws.send(bytes(8 * 2**20))
        if scope.cancelled_caught:
            return accepted, True
        accepted.append(8 * 2**20)
    return accepted, False


# A server that completes the opening handshake and then misbehaves.


@asynccontextmanager
async def broken_server(
    misbehave: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[int]:
    async def handler(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some()
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        await misbehave(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def reset_connection(stream: trio.SocketStream) -> None:
    # With a linger time of 0, closing sends a reset.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def stay_silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def main() -> None:
    for scene in (messages, clean_close, reset, keepalive_timeout, cancelled_send):
        with trio.fail_after(30):
            await scene()
    print(f"{failures} differences" if failures else "All as it should be.")


trio.run(main)
sys.exit(1 if failures else 0)
