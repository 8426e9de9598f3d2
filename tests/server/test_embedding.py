"""accept() behind another HTTP server, which has read the request."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing

import trio_ws
from tests.peers import raw_http
from tests.peers.in_memory import CONT, TEXT, RawPeer, frame
from tests.server.serving import EXAMPLE, raises, records, returns, tls_contexts
from trio_ws import Headers, InvalidHandshake, Limits, Request, accept

HANDSHAKE = [
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", raw_http.KEY.decode()),
    ("Sec-WebSocket-Version", "13"),
]


def request(
    *more: tuple[str, str], path: Any = "/chat", without: str = "", **changes: Any
) -> Request:
    kept = [item for item in HANDSHAKE if item[0] != without]
    return Request(path, Headers([*kept, *more]), **changes)


async def refusal(
    parsed: Request, *, leftover: bytes = b"", **options: Any
) -> tuple[raw_http.Answer, InvalidHandshake]:
    """Give accept() a request that it refuses; return the answer, and the error."""
    client, server = trio.testing.memory_stream_pair()
    with pytest.raises(InvalidHandshake) as caught:
        async with accept(server, request=parsed, leftover=leftover, **options):
            pytest.fail("accepted")
    return await raw_http.read_answer(client), caught.value


MESSAGES = frame(TEXT, b"a", fin=False, masked=True) + frame(CONT, b"b", masked=True)


@pytest.mark.parametrize("size", range(len(MESSAGES) + 1))
async def test_what_was_read_behind_the_request_comes_first(size: int) -> None:
    peer = RawPeer(client=True)
    async with accept(
        peer.theirs, request=request(path="/a?b"), leftover=MESSAGES[:size]
    ) as ws:
        assert ws.request.path == "/a?b"
        assert (await peer.skip_response()).startswith(b"HTTP/1.1 101 ")
        await peer.put(MESSAGES[size:] + frame(TEXT, b"c", masked=True))
        assert [await ws.recv(), await ws.recv()] == ["ab", "c"]
        await ws.send("d")
        assert await peer.read() == (0x80 | TEXT, b"d")
        await peer.close()


async def test_nothing_is_read_before_the_answer() -> None:
    """What comes meanwhile waits in the stream for the engine."""
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(raw_http.request())  # no request any more: frames
    with pytest.raises(trio_ws.ConnectionClosedError, match="1002"):
        async with accept(server, request=request()) as ws:
            await ws.recv()


async def test_hooks_and_options() -> None:
    seen = []

    def hook(ws: trio_ws.ServerConnection, parsed: Request) -> None:
        seen.append((parsed.path, parsed.headers["X"]))

    client, server = trio.testing.memory_stream_pair()
    async with accept(
        server,
        request=request(
            ("X", "1"),
            ("Origin", EXAMPLE),
            ("Sec-WebSocket-Protocol", "a, b"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            path="http://localhost/where",
        ),
        process_request=hook,
        origins=[EXAMPLE],
        subprotocols=["b"],
        close_timeout=0,
    ) as ws:
        answer = await raw_http.read_switch(client)
        assert ws.subprotocol == answer.header("Sec-WebSocket-Protocol") == "b"
        assert answer.header("Sec-WebSocket-Extensions") == "permessage-deflate"
    assert seen == [("/where", "1")]


@pytest.mark.parametrize(
    ("parsed", "status"),
    [
        (request(without="Upgrade"), 426),
        (request(without="Host"), 400),
        (request(without="Sec-WebSocket-Version"), 426),
        (request(method="POST"), 405),
        (request(protocol="HTTP/1.0"), 505),
        (request(("Origin", "https://elsewhere.example")), 403),
        (request(("Content-Length", "1")), 400),
        (request(("Transfer-Encoding", "chunked")), 400),
        (request(path="*"), 400),
        (request(("X", "x" * 9000)), 431),
        (request(path="/" + "x" * 9000), 414),
    ],
)
async def test_what_opens_no_websocket(parsed: Request, status: int) -> None:
    for hook in None, lambda ws, request: None:
        answer, _ = await refusal(
            parsed, leftover=MESSAGES, origins=[EXAMPLE, None], process_request=hook
        )
        assert answer.status == status


async def test_limits_hold_as_they_are_set() -> None:
    assert (await refusal(request(), limits=Limits(headers=4)))[0].status == 431


@pytest.mark.parametrize("size", range(5))
async def test_a_body(size: int) -> None:
    """It may be in the request, behind it, or still to come: bytes are bytes."""
    body = b"body"
    parsed = Request("/", Headers({"Content-Length": "4"}), "POST", body=body[:size])
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(body[size:] + b"more")
    with pytest.raises(InvalidHandshake, match="200"):
        async with accept(
            server,
            request=parsed,
            process_request=lambda ws, request: ws.respond(200, request.body),
        ):
            pytest.fail("accepted")
    assert (await raw_http.read_answer(client)).rest == body


@pytest.mark.parametrize(
    "headers",
    [
        [("Transfer-Encoding", "chunked")],
        [("Content-Length", "x")],
        [("Content-Length", "9" * 19)],
    ],
)
async def test_a_body_whose_length_is_unclear(headers: list[tuple[str, str]]) -> None:
    parsed = request(*headers, body=b"a")
    for hook in None, returns(None):
        answer, _ = await refusal(parsed, process_request=hook)
        assert answer.status == 400


async def test_a_hook_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    answer, _ = await refusal(request(), process_request=raises)
    assert answer.status == 500
    assert len(records(caplog, logging.ERROR)) == 1


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"request": "GET /"}, TypeError, r"request: expected a trio_ws\.Request; got"),
        (
            {"request": Request("/", [("Host", "a")])},  # type: ignore[arg-type]
            TypeError,
            r"request: expected trio_ws\.Headers in it; got \[\('Host', 'a'\)\]",
        ),
        ({"request": Request("/ /", Headers())}, ValueError, "request: path: expected"),
        (
            {"request": request(method="GET /")},
            ValueError,
            "request: method: expected a token; got 'GET /'",
        ),
        ({"request": request(protocol="1.1")}, ValueError, "request: protocol: exp"),
        (
            {"request": request(path=b"/")},
            TypeError,
            "request: expected a str as its path; got b'/'",
        ),
        (
            {"request": request(method=None)},
            TypeError,
            "request: expected a str as its method; got None",
        ),
        (
            {"request": request(body="x")},
            TypeError,
            "request: expected bytes as its body; got 'x'",
        ),
        (
            {"request": request(body=MESSAGES)},
            ValueError,
            f"request: expected at most 0 bytes of body, .*; got {len(MESSAGES)}",
        ),
        (
            {"request": request(("Content-Length", "2"), body=b"abc")},
            ValueError,
            "request: expected at most 2 bytes of body, by its Content-Length; got 3",
        ),
        ({"leftover": b"x"}, ValueError, "leftover: expected a request with it"),
        (
            {"request": request(), "leftover": "x"},
            TypeError,
            "leftover: expected bytes; got 'x'",
        ),
        (
            {"request": request(), "leftover": None},
            TypeError,
            "leftover: expected bytes; got None",
        ),
        (
            {"request": request(), "ssl": tls_contexts("localhost")[0]},
            ValueError,
            "ssl: expected none with a request",
        ),
    ],
)
def test_wrong_arguments(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    stream = trio.testing.memory_stream_pair()[0]
    with pytest.raises(error, match=match):
        accept(stream, **keywords)


async def test_a_client_that_does_not_take_the_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Entering is under open_timeout; the stream is closed."""
    client, server = trio.testing.lockstep_stream_pair()
    with pytest.raises(TimeoutError, match=r"3 s \(open_timeout\): response"):
        async with accept(server, request=request(), open_timeout=3):
            pytest.fail("accepted")
    assert trio.current_time() == 3
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"x")
    await client.aclose()


async def test_cancelled_while_it_opens() -> None:
    client, server = trio.testing.lockstep_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with accept(server, request=request()):
            pytest.fail("accepted")
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"x")
    await client.aclose()


# With h11, over a socket, TLS, and what is stapled together


def as_request(event: h11.Request) -> Request:
    items = [(n.decode(), v.decode("iso-8859-1")) for n, v in event.headers.raw_items()]
    return Request(event.target.decode(), Headers(items), event.method.decode())


def stapled(stream: trio.SocketStream) -> trio.abc.Stream:
    return trio.StapledStream(stream, stream)


@asynccontextmanager
async def by_h11(
    over: Callable[[trio.SocketStream], trio.abc.Stream],
) -> AsyncIterator[tuple[int, list[Any]]]:
    """Serve WebSockets behind h11; give the port, and the addresses that it saw."""
    seen: list[Any] = []

    async def serve(socket_stream: trio.SocketStream) -> None:
        seen.append(socket_stream.socket.getpeername())
        stream = over(socket_stream)
        http = h11.Connection(h11.SERVER)
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        assert isinstance(event, h11.Request)
        async with accept(
            stream, request=as_request(event), leftover=http.trailing_data[0]
        ) as ws:
            seen.append(ws.remote_address)
            async for message in ws:
                await ws.send(message)

    async with trio.open_nursery() as nursery:
        start = functools.partial(trio.serve_tcp, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(start, serve, 0)
        yield listeners[0].socket.getsockname()[1], seen
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["socket", "tls", "stapled"])
async def test_behind_h11(kind: str) -> None:
    server_context, client_context = tls_contexts("localhost")

    def over(stream: trio.SocketStream) -> trio.abc.Stream:
        if kind == "tls":
            return trio.SSLStream(stream, server_context, server_side=True)
        return stapled(stream) if kind == "stapled" else stream

    secure = kind == "tls"
    async with by_h11(over) as (port, seen):
        async with trio_ws.connect(
            f"{'wss' if secure else 'ws'}://localhost:{port}/",
            host="127.0.0.1",
            ssl=client_context if secure else None,
        ) as ws:
            for message in "x", "y" * 100_000, b"z":
                await ws.send(message)
                assert await ws.recv() == message
        assert seen[0] == seen[1] == ws.local_address
