"""accept(): one connection on a stream of the user's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import trio_ws
from tests.peers import raw_http
from tests.peers.in_memory import TEXT, RawPeer, frame
from tests.server.serving import (
    EXAMPLE,
    async_version,
    raises,
    records,
    response,
    returns,
)
from trio_ws import Request, Response, ServerConnection, accept, connect

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_accept_on_a_stream() -> None:
    peer = RawPeer(client=True)
    await peer.ask(frame(TEXT, b"x", masked=True))
    async with accept(
        peer.theirs, subprotocols=None, additional_headers={"X-A": "1"}
    ) as ws:
        assert await ws.recv() == "x"
        assert ws.request.path == "/chat"
        assert b"X-A: 1" in await peer.skip_response()
        await peer.close()


async def test_accept_on_a_socket() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def client() -> None:
        port = listeners[0].socket.getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/") as ws:
            assert await ws.recv() == "x"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        stream = await listeners[0].accept()
        async with accept(stream) as ws:
            assert ws.local_address[0] == "127.0.0.1"
            await ws.send("x")
    await listeners[0].aclose()


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "match"),
    [
        (("x",), {}, TypeError, r"stream: expected a trio\.abc\.Stream; got 'x'"),
        ((None,), {"ssl": 1}, TypeError, r"ssl: expected an ssl\.SSLContext; got 1"),
        ((None,), {"open_timeout": 0}, ValueError, "open_timeout: expected more"),
    ],
)
def test_accept_with_wrong_arguments(
    arguments: Any, keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    stream = trio.testing.memory_stream_pair()[0]
    with pytest.raises(error, match=match):
        accept(*(argument or stream for argument in arguments), **keywords)


@pytest.mark.parametrize("timeout", [3, None])
async def test_accept_waits_for_the_request_as_long_as_it_may(
    autojump_clock: MockClock, timeout: float | None
) -> None:
    peer = RawPeer(client=True)
    with trio.move_on_after(100) as scope:
        with pytest.raises(TimeoutError, match=r"not open after 3 s \(open_timeout\)"):
            async with accept(peer.theirs, open_timeout=timeout):
                raise AssertionError("entered")
    assert trio.current_time() == (timeout or 100)
    assert scope.cancelled_caught == (timeout is None)
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


async def test_accept_opens_with_hooks() -> None:
    def add(ws: ServerConnection, request: Request, response: Response) -> None:
        response.headers["X-Path"] = request.path

    client, server = trio.testing.memory_stream_pair()

    async def be_server() -> None:
        async with trio_ws.accept(
            server,
            process_response=async_version(add),
            select_subprotocol=lambda ws, offered: offered[1],
            origins=[EXAMPLE],
            server_header="Mine",
        ) as ws:
            assert ws.subprotocol == "b"
            await ws.send("accepted")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_server)
        async with trio_ws.connect(
            "ws://h/p", stream=client, subprotocols=["a", "b"], origin=EXAMPLE
        ) as ws:
            assert ws.response is not None
            assert ws.response.headers["X-Path"] == "/p"
            assert ws.response.headers["Server"] == "Mine"
            assert await ws.recv() == "accepted"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"process_request": lambda ws, request: ws.respond(200, "page")}, 200),
        ({"process_request": async_version(raises)}, 500),
        ({"process_request": returns(response(reason_phrase="a\r\nb"))}, 500),
        ({"process_response": returns(5)}, 500),
        ({"select_subprotocol": raises}, 500),
        ({"origins": [EXAMPLE]}, 403),
    ],
)
async def test_accept_answers_and_raises_where_a_hook_says_no(
    options: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(raw_http.request())
    with pytest.raises(trio_ws.InvalidHandshake):
        async with trio_ws.accept(server, **options):
            pytest.fail("accepted")
    assert (await raw_http.read_answer(client)).status == status
    assert len(records(caplog, logging.ERROR)) == (status == 500)


async def test_accept_answers_and_raises_what_create_connection_raised() -> None:
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(raw_http.request())
    with pytest.raises(RuntimeError, match="a bug of the hook's"):
        async with trio_ws.accept(server, create_connection=raises):
            pytest.fail("accepted")
    assert (await raw_http.read_answer(client)).status == 500
