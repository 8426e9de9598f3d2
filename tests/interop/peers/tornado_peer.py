"""Tornado."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketHandler,
    websocket_connect,
)

HOST = "127.0.0.1"

Connection = WebSocketHandler | WebSocketClientConnection


def tell(event: str, **more: object) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def take(message: str | bytes) -> None:
    data = message.encode() if isinstance(message, str) else message
    encoded = base64.b64encode(data).decode()
    tell("message", text=isinstance(message, str), data=encoded)


def tell_of_the_end(connection: Connection) -> None:
    code, reason = connection.close_code, connection.close_reason
    tell("closed", code=code or 1006, reason=reason or "")


async def do(connection: Connection, command: dict[str, Any]) -> None:
    match command["do"]:
        case "send":
            data = base64.b64decode(command["data"])
            await connection.write_message(data, binary=not command["text"])
            tell("sent")
        case "ping":
            connection.ping(b"theirs")
        case "close":
            connection.close(command["code"], command["reason"])


def drive(connection: Connection) -> None:
    """Do what comes on stdin; its end ends the process."""
    loop = IOLoop.current()

    def read() -> None:
        for line in sys.stdin:
            loop.add_callback(do, connection, json.loads(line))
        loop.add_callback(over.set)

    tell("open", subprotocol=connection.selected_subprotocol)
    threading.Thread(target=read).start()


class Handler(WebSocketHandler):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((name for name in subprotocols if name in known), None)

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def open(self, *_args: str, **_kwargs: str) -> None:
        drive(self)

    def on_message(self, message: str | bytes) -> None:
        take(message)

    def on_pong(self, data: bytes) -> None:
        tell("pong", data=data.decode())

    def on_close(self) -> None:
        tell_of_the_end(self)


async def connect(port: str) -> None:
    def on_message(message: str | bytes | None) -> None:
        if message is None:
            tell_of_the_end(connection)
        else:
            take(message)

    connection = await websocket_connect(
        f"ws://{HOST}:{port}/",
        subprotocols=known or None,
        compression_options={},
        on_message_callback=on_message,
    )
    # Its hook, which nothing but a subclass could set otherwise.
    connection.on_pong = lambda data: tell("pong", data=data.decode())  # type: ignore[method-assign]
    drive(connection)


async def main() -> None:
    if role == "client":
        await connect(port)
    else:
        sockets = bind_sockets(0, HOST)
        HTTPServer(Application([("/", Handler)])).add_sockets(sockets)
        tell("listening", port=sockets[0].getsockname()[1])
    await over.wait()


role, *known = sys.argv[1:]
if role == "client":
    port, *known = known
over = asyncio.Event()
asyncio.run(main())
