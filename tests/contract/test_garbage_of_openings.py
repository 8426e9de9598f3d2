"""What is left of connections that were never open: nothing, at once."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import trio
import trio.testing

from tests.contract.garbage import (
    QUIET,
    TLS,
    UserError,
    check,
    dial,
    of_client,
    open_near,
    raw_stream,
    serving,
    uri,
)
from tests.handlers import echo
from tests.memory import counts_references
from tests.peers import raw_http
from tests.peers.raw_stream import RawStream
from tests.peers.sockets import tcp_pair, trio_stream
from trio_ws import (
    InvalidHandshake,
    OpenTimeoutError,
    Request,
    Response,
    ServerConnection,
    connect,
    reconnect,
)
from trio_ws.testing import open_pair

pytestmark = [counts_references, pytest.mark.sweep]

# Between two ends that are both ours


def refuse(ws: ServerConnection, request: Request) -> Response:
    return ws.respond(404, "no")


def fail(*args: object) -> Any:
    raise UserError


def redirect(ws: ServerConnection, request: Request) -> Response:
    response = ws.respond(302, "")
    response.headers["Location"] = request.path
    return response


async def hang(*args: object) -> None:
    await trio.sleep_forever()


# Keywords of the server and of the client.
FAILED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "404": ({"process_request": refuse}, {}),
    "redirects": ({"process_request": redirect}, {}),
    "hook_raises": ({"process_request": fail}, {}),
    "last_hook_raises": ({"process_response": fail}, {}),
    "subprotocol_raises": (
        {"subprotocols": ["a"], "select_subprotocol": fail},
        {"subprotocols": ["a"]},
    ),
    "origin": ({"origins": ["https://a.example"]}, {"origin": "https://b.example"}),
    "no_connection": ({"create_connection": fail}, {}),
    "no_clients_connection": ({}, {"create_connection": fail}),
    "open_timeout": ({"process_request": hang}, {}),
}


@TLS
@pytest.mark.parametrize("name", FAILED)
async def test_an_opening_fails(
    name: str, tls: bool, autojump_clock: trio.testing.MockClock
) -> None:
    of_server, of_client = FAILED[name]

    async def scenario() -> None:
        async with serving(echo, tls=tls, **of_server) as server:
            with pytest.raises((InvalidHandshake, OpenTimeoutError, UserError)):
                async with dial(server, tls=tls, **of_client):
                    pass

    await check(scenario)


@pytest.mark.parametrize("tls", [False, True], ids=["tls_to_tcp", "tcp_to_tls"])
async def test_tls_on_one_side_alone(tls: bool) -> None:
    async def scenario() -> None:
        async with serving(echo, tls=tls) as server:
            with pytest.raises((InvalidHandshake, OSError)):
                async with dial(server, tls=not tls):
                    pass

    await check(scenario)


@TLS
async def test_an_opening_is_cancelled(tls: bool) -> None:
    async def scenario() -> None:
        async def cancel(*args: object) -> None:
            scope.cancel()

        async with serving(echo, tls=tls, process_request=cancel) as server:
            with trio.CancelScope() as scope:
                async with dial(server, tls=tls):
                    pass

    await check(scenario)


async def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def scenario() -> None:
        with pytest.raises(ConnectionRefusedError):
            async with connect(f"ws://127.0.0.1:{port}/"):
                pass

    await check(scenario)


def another(exc: Exception) -> Exception:
    return UserError()


@pytest.mark.parametrize("process", [lambda exc: exc, another])
async def test_reconnecting_fails(process: Callable[[Exception], Exception]) -> None:
    async def scenario() -> None:
        options = of_client(tls=False, process_exception=process)
        async with serving(echo, tls=False, process_request=refuse) as server:
            with pytest.raises((InvalidHandshake, UserError)):
                await anext(reconnect(uri(server, tls=False), **options))

    await check(scenario)


@pytest.mark.parametrize(
    ("of_client", "of_server"),
    [
        ({}, {"process_request": refuse}),
        ({"create_connection": fail, "close_timeout": 0.01}, {}),
    ],
    ids=["refused", "error"],
)
async def test_a_pair_does_not_open(of_client: Any, of_server: Any) -> None:
    client_options: Any = {"logger": QUIET, **of_client}
    server_options: Any = {"logger": QUIET, **of_server}

    async def scenario() -> None:
        with pytest.raises((InvalidHandshake, UserError)):
            async with open_pair(client_options, server_options):
                pass

    await check(scenario)


# By the fault of a test's end


WRONG_ANSWERS = {
    "wrong_accept": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
    ),
    "not_http": b"SSH-2.0-x\r\n",
    "half_an_answer": b"HTTP/1.1 101 Switching Protocols\r\nUpgr",
    "half_a_refusal": b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nno",
    "refusal_without_end": b"HTTP/1.1 404 Not Found\r\n\r\n",
    "none": b"",
}


@TLS
@pytest.mark.parametrize(
    ("name", "then"),
    [
        *((name, "silence") for name in WRONG_ANSWERS),
        *product(("half_an_answer", "none"), ("end", "reset")),
    ],
)
async def test_an_answer_is_wrong(
    name: str, then: str, tls: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def live(sock: socket.socket) -> None:
        async with await raw_stream(sock, client=False, tls=tls) as stream:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += await stream.receive_some()
            await stream.send_all(WRONG_ANSWERS[name])
            await finish(stream, then)

    async def scenario() -> None:
        ours, theirs = tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, theirs)
            with pytest.raises((InvalidHandshake, OSError)):
                async with open_near(
                    trio_stream(ours), client=True, tls=tls, open_timeout=10
                ):
                    pass

    await check(scenario)


async def finish(stream: RawStream, then: str) -> None:
    """Do as ``then`` says: end, reset or be silent until the other side ends."""
    if then == "reset":
        stream.reset()
    elif then == "silence":
        try:
            await raw_http.read_to_end(stream)
        except ConnectionResetError:
            pass


WRONG_REQUESTS = {
    "version": raw_http.request(without=b"Sec-WebSocket-Version"),
    "origin": raw_http.request(b"Origin: https://b.example"),
    "two_origins": raw_http.request(b"Origin: null", b"Origin: null"),
    "head": raw_http.request(line=b"HEAD / HTTP/1.1"),
    "not_http": b"SSH-2.0-x\r\n",
    "half_a_request": raw_http.request()[:30],
    "none": b"",
}


@TLS
@pytest.mark.parametrize(
    ("name", "then"),
    [
        *((name, "silence") for name in WRONG_REQUESTS),
        *product(("half_a_request", "none"), ("end", "reset")),
    ],
)
async def test_a_request_is_wrong(
    name: str, then: str, tls: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def live(sock: socket.socket) -> None:
        async with await raw_stream(sock, client=True, tls=tls) as stream:
            await stream.send_all(WRONG_REQUESTS[name])
            await finish(stream, then)

    async def scenario() -> None:
        ours, theirs = tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, theirs)
            with pytest.raises((InvalidHandshake, OSError)):
                async with open_near(
                    trio_stream(ours),
                    client=False,
                    tls=tls,
                    open_timeout=10,
                    origins=["https://a.example"],
                ):
                    pass

    await check(scenario)


@TLS
@pytest.mark.parametrize("name", WRONG_REQUESTS)
async def test_a_request_to_a_server_is_wrong(
    name: str, tls: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def scenario() -> None:
        async with serving(echo, tls=tls, origins=["https://a.example"]) as server:
            sock = socket.create_connection(("127.0.0.1", server.port))
            async with await raw_stream(sock, client=True, tls=tls) as stream:
                await stream.send_all(WRONG_REQUESTS[name])
                await finish(stream, "silence")

    await check(scenario)
