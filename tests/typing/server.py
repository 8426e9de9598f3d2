"""What a user writes of servers; ``# E:`` is what mypy and pyright say of a line."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, assert_type

import trio

from trio_ws import (
    ClientConnection,
    Request,
    Response,
    Server,
    ServerConnection,
    accept,
    open_server,
    serve,
    unix_serve,
)


class Mine(ServerConnection):
    def __init__(self, *args: Any, room: str = "") -> None:
        super().__init__(*args)
        self.room = room


class Yours(ServerConnection):
    pass


def make(*args: Any) -> Mine:
    return Mine(*args, room="made")


async def any_handler(ws: ServerConnection) -> None:
    await ws.send("hello")


async def my_handler(ws: Mine) -> None:
    await ws.send(ws.room)


def any_request(ws: ServerConnection, request: Request) -> Response | None:
    return None


async def my_request(ws: Mine, request: Request) -> Response | None:
    return ws.respond(404, ws.room)


def my_response(ws: Mine, request: Request, response: Response) -> None:
    response.headers["X"] = ws.room


def my_choice(ws: Mine, offered: Sequence[str]) -> str | None:
    return ws.room


async def good() -> None:
    room = functools.partial(Mine, room="x")
    await serve(any_handler, 1)
    await serve(any_handler, 1, process_request=any_request, create_connection=None)
    await serve(any_handler, 1, create_connection=Mine)
    await serve(my_handler, 1, create_connection=Mine, host="x")
    await serve(my_handler, 1, create_connection=make, process_request=any_request)
    await serve(
        my_handler,
        1,
        create_connection=room,
        process_request=my_request,
        process_response=my_response,
        select_subprotocol=my_choice,
    )
    adapter = logging.LoggerAdapter(logging.getLogger("x"), {})
    await serve(any_handler, 1, logger=adapter)
    await serve(any_handler, 1, logger=adapter.logger)
    await unix_serve(any_handler, "path")
    await unix_serve(my_handler, "path", create_connection=room)
    async with open_server(any_handler, 1, process_request=any_request) as server:
        assert_type(server, Server)
        assert_type([*server.connections], list[ServerConnection])
    async with open_server(
        my_handler, 1, create_connection=Mine, process_request=my_request
    ) as mine:
        assert_type(mine, Server[Mine])
        for ws in mine.connections:
            assert_type(ws.room, str)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, any_handler, 1)
        nursery.start_soon(functools.partial(serve, any_handler, 1))


async def bad() -> None:
    await serve(my_handler, 1)  # E: arg-type, reportArgumentType
    await unix_serve(my_handler, "path")  # E: arg-type, reportArgumentType
    open_server(my_handler, 1)  # E: arg-type, reportArgumentType
    await serve(any_handler, 1, process_request=my_request)  # E: arg-type, reportArgumentType
    open_server(any_handler, process_response=my_response)  # E: arg-type, reportArgumentType
    await unix_serve(any_handler, "", select_subprotocol=my_choice)  # E: arg-type, reportArgumentType
    await serve(my_handler, 1, create_connection=Yours)  # E: misc, reportArgumentType
    open_server(my_handler, 1, create_connection=ServerConnection)  # E: misc, reportArgumentType
    await unix_serve(my_handler, "", create_connection=Yours)  # E: misc, reportArgumentType
    await serve(any_handler, 1, create_connection=ClientConnection)  # E: misc, reportArgumentType
    await serve(any_handler, 1, logger="x")  # E: call-overload, reportArgumentType
    await serve(any_handler, 1, nonsense=1)  # E: call-overload, reportCallIssue


async def accepting(stream: trio.abc.Stream) -> None:
    async with accept(stream) as ws:
        assert_type(ws, ServerConnection)
    async with accept(stream, process_request=any_request) as ws:
        assert_type(ws, ServerConnection)
    async with accept(stream, create_connection=Mine) as mine:
        assert_type(mine, Mine)
    async with accept(
        stream, create_connection=make, process_request=my_request
    ) as mine:
        assert_type(mine, Mine)
    accept(stream, process_request=my_request)  # E: arg-type, reportArgumentType
    accept(stream, create_connection=ClientConnection)  # E: type-var, reportArgumentType
    accept(stream, create_connection=Yours, process_request=my_request)  # E: misc, reportArgumentType


# Without arguments, it is what they are without create_connection.


def block(stream: trio.abc.Stream) -> accept:
    return accept(stream)


def serving(server: Server) -> open_server:
    return open_server(any_handler, server.port)
