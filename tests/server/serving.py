"""Servers in memory and on the network, and what is said to them."""

from __future__ import annotations

import logging
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeGuard

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

import trio_ws
from tests import logs
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.in_memory import MemoryListener
from trio_ws import Headers, Response, ServerConnection, connect, open_server

if TYPE_CHECKING:
    from collections.abc import Awaitable


Handler: TypeAlias = "Callable[[ServerConnection], Awaitable[object]]"


def in_memory(
    handler: Handler, **options: Any
) -> tuple[open_server, Callable[..., connect]]:
    """A server, and what connects to it, without a network."""
    listener = MemoryListener()

    def client(**keywords: Any) -> connect:
        return connect("ws://testing/", stream=listener.connect(), **keywords)

    return open_server(handler, listeners=[listener], **options), client


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, logs.plain(record)) for record in logs.told(caplog)]


def listens(sock: object) -> TypeGuard[socket.socket]:
    """Whether it is a listening socket, of what is waited for."""
    return isinstance(sock, socket.socket) and bool(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


Hook = Callable[..., Any]


@asynccontextmanager
async def serving(
    handler: Callable[[Any], Any] = echo, **options: Any
) -> AsyncIterator[MemoryListener]:
    listener = MemoryListener()
    async with trio_ws.open_server(handler, listeners=[listener], **options):
        yield listener


async def ask(
    listener: MemoryListener, *extra: bytes, **changes: Any
) -> raw_http.Answer:
    """Send a request, and read the answer of a server that then closes."""
    stream = listener.connect()
    await stream.send_all(raw_http.request(*extra, **changes))
    return await raw_http.read_answer(stream)


def async_version(hook: Hook) -> Hook:
    async def wrapper(*args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return hook(*args)

    return wrapper


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [
        record
        for record in logs.told(caplog)
        if record.name.startswith("trio_ws.server") and record.levelno == level
    ]


EXAMPLE = "https://example.com"


def raises(*args: object) -> NoReturn:
    raise RuntimeError("a bug of the hook's")


def returns(value: object) -> Hook:
    def hook(*args: object) -> object:
        return value

    return hook


def response(**changes: Any) -> Response:
    fields: dict[str, Any] = {
        "status_code": 200,
        "reason_phrase": "OK",
        "headers": Headers(),
        "body": b"",
    }
    return Response(**(fields | changes))


async def check_echo(ws: trio_ws.ClientConnection) -> None:
    await ws.send("round")
    assert await ws.recv() == "round"


async def unix_connected(path: str | pathlib.Path) -> None:
    async with trio_ws.unix_connect(path) as ws:
        await check_echo(ws)


def tls_contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def is_socket(path: pathlib.Path) -> bool:
    return path.is_socket()


def content(path: pathlib.Path) -> str:
    return path.read_text()


class Resolver(trio.abc.HostnameResolver):
    """Makes of every name the addresses it is given."""

    def __init__(self, *addresses: tuple[int, tuple[Any, ...]]) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [
            (family, socket.SOCK_STREAM, 0, "", address)
            for family, address in self.addresses
        ]

    async def getnameinfo(self, *args: Any) -> Any:
        raise AssertionError("not asked for")

    def install(self) -> None:
        """Be the resolver of this run of trio."""
        trio.socket.set_custom_hostname_resolver(self)
