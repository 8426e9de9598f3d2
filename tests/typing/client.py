"""What a user writes of clients; ``# E:`` is what mypy and pyright say of a line."""

from __future__ import annotations

import functools
from typing import Any, assert_type

import trio

from trio_ws import (
    Attempt,
    ClientConnection,
    Headers,
    ServerConnection,
    TLSInfo,
    backoff,
    connect,
    process_exception,
    reconnect,
    unix_connect,
)

URI = "ws://localhost/"


class Mine(ClientConnection):
    def __init__(self, *args: Any, name: str = "") -> None:
        super().__init__(*args)
        self.name = name


def make(*args: Any) -> Mine:
    return Mine(*args, name="made")


async def connections(mine: Mine) -> None:
    async with connect(URI) as ws:
        assert_type(ws, ClientConnection)
        ws.name  # E: attr-defined, reportAttributeAccessIssue
    async with connect(URI, create_connection=None) as ws:
        assert_type(ws, ClientConnection)
    async with connect(URI, create_connection=Mine, max_size=None) as my:
        assert_type(my, Mine)
        assert_type(my.name, str)
    async with connect(URI, create_connection=make) as my:
        assert_type(my, Mine)
    create = functools.partial(Mine, name="x")
    async with connect(URI, create_connection=create) as my:
        assert_type(my, Mine)
    async with unix_connect("path") as ws:
        assert_type(ws, ClientConnection)
    async with unix_connect("path", create_connection=Mine) as my:
        assert_type(my, Mine)
    connect(URI, create_connection=ServerConnection)  # E: type-var, reportArgumentType
    unix_connect("", create_connection=int)  # E: type-var, reportArgumentType
    connect(URI, create_connection=3)  # E: arg-type, reportArgumentType
    connect(URI, nonsense=1)  # E: call-arg, reportCallIssue
    connect(lambda: URI)  # E: arg-type, reportArgumentType


async def attempts() -> None:
    async for attempt in reconnect(URI):
        assert_type(attempt, Attempt[ClientConnection])
        async with attempt as ws:
            assert_type(ws, ClientConnection)
    async for my_attempt in reconnect(URI, create_connection=Mine):
        async with my_attempt as my:
            assert_type(my, Mine)
    reconnect(URI, create_connection=ServerConnection)  # E: type-var, reportArgumentType


# What is asked for each time


def uri() -> str:
    return URI


async def later() -> str:
    return URI


def headers() -> Headers | None:
    return None


async def pairs() -> list[tuple[str, str]]:
    return [("X", "1")]


async def token() -> dict[str, str]:
    return {"X": "1"}


def number() -> int:
    return 1


async def number_later() -> int:
    return 1


reconnect(uri)
reconnect(later, additional_headers=headers)
reconnect(lambda: URI, additional_headers=pairs)
reconnect(URI, additional_headers=token, reconnect_delays=lambda: [1, 2])
reconnect(URI, additional_headers={"X": "1"})
reconnect(URI, reconnect_delays=functools.partial(backoff, longest=300))
reconnect(number)  # E: arg-type, reportArgumentType
reconnect(number_later)  # E: arg-type, reportArgumentType
reconnect(URI, additional_headers=number)  # E: arg-type, reportArgumentType
reconnect(URI, additional_headers=3)  # E: arg-type, reportArgumentType


def decide(exc: Exception) -> Exception | None:
    return None if isinstance(exc, KeyError) else process_exception(exc)


reconnect(URI, process_exception=decide)


# Without arguments, it is what they are without create_connection.


def block() -> connect:
    return connect(URI)


def loop() -> reconnect:
    return reconnect(URI)


async def enter(attempt: Attempt) -> None:
    async with block() as ws:
        assert_type(ws, ClientConnection)
    async with attempt as ws:
        assert_type(ws, ClientConnection)


def facts(ws: ClientConnection) -> None:
    assert_type(ws.ssl_object, TLSInfo | None)
    assert_type(ws.socket, trio.socket.SocketType | None)
    ws.ssl_object.cipher()  # E: union-attr, reportOptionalMemberAccess
    if ws.ssl_object is not None:
        assert_type(ws.ssl_object.getpeercert(binary_form=True), bytes | None)
        ws.ssl_object.write(b"")  # E: attr-defined, reportAttributeAccessIssue
