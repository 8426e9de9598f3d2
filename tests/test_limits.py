"""Limits: what is taken of a peer, moved at the call and named by the error."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.in_memory import CONT, TEXT, MemoryListener, RawPeer, frame
from tests.protocol.handshake.handshakes import by_byte
from tests.protocol.handshake.parsing import every_way, outcome, request
from trio_ws import Limits
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser


def test_defaults() -> None:
    assert dataclasses.asdict(Limits()) == {
        "header_line": 8192,
        "headers": 100,
        "head": 32768,
        "request_body": 65536,
        "response_body": 65536,
        "redirects": 10,
        "short_fragments": 4096,
    }


FIELDS = [field.name for field in dataclasses.fields(Limits)]


@pytest.mark.parametrize("name", FIELDS)
def test_values(name: str) -> None:
    least = 1 if name in ("header_line", "headers", "head") else 0
    for right in (least, 2, 2**31 - 1):
        assert getattr(Limits(**{name: right}), name) == right
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(TypeError, match=f"limits: expected an int as {name}; got"):
            Limits(**{name: wrong})  # type: ignore[arg-type]
    for number in (-1, least - 1, 2**31):
        with pytest.raises(ValueError, match=f"{least} to 2147483647 as {name}; got"):
            Limits(**{name: number})


def test_limits_are_values() -> None:
    limits = Limits(headers=5)
    assert limits == Limits(headers=5) != Limits()
    assert pickle.loads(pickle.dumps(limits)) == limits
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.headers = 6  # type: ignore[misc]


async def handler(ws: trio_ws.ServerConnection) -> None:
    await ws.wait_closed()


CALLS: list[Callable[..., Any]] = [
    functools.partial(trio_ws.connect, "ws://localhost/"),
    functools.partial(trio_ws.reconnect, "ws://localhost/"),
    functools.partial(trio_ws.open_server, handler, 0),
    lambda **keywords: trio_ws.accept(trio.testing.memory_stream_pair()[0], **keywords),
]


@pytest.mark.parametrize("call", CALLS)
def test_each_call_checks_them(call: Callable[..., Any]) -> None:
    call(limits=Limits(headers=5))
    for wrong in (None, 5, {"headers": 5}, Limits):
        with pytest.raises(TypeError, match=r"limits: expected a trio_ws\.Limits; got"):
            call(limits=wrong)


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(trio_ws.serve, handler, 0),
        functools.partial(trio_ws.unix_serve, handler, "socket"),
    ],
)
async def test_each_call_that_serves_checks_them(
    call: Callable[..., Awaitable[None]],
) -> None:
    with pytest.raises(TypeError, match=r"limits: expected a trio_ws\.Limits"):
        await call(limits=5)


def test_unix_connect_checks_them() -> None:
    with pytest.raises(TypeError, match=r"limits: expected a trio_ws\.Limits"):
        trio_ws.unix_connect("socket", limits=5)  # type: ignore[arg-type]


# Heads


def parsers(limits: Limits) -> list[tuple[Any, str]]:
    return [
        (functools.partial(RequestParser, limits), "GET / HTTP/1.1"),
        (functools.partial(ResponseParser, limits), "HTTP/1.1 101 x"),
    ]


@pytest.mark.parametrize(
    ("changes", "within", "beyond", "text"),
    [
        (
            {"header_line": 20},
            ["X: " + "x" * 17] * 3,
            ["X: " + "x" * 18],
            "expected at most 20 bytes a header line; "
            "got more (limits=Limits(header_line=...))",
        ),
        (
            {"header_line": 10_000},
            ["X: " + "x" * 9997],
            ["X: " + "x" * 9998],
            "expected at most 10000 bytes a header line; "
            "got more (limits=Limits(header_line=...))",
        ),
        (
            {"headers": 2},
            ["X:", "Y:"],
            ["X:", "Y:", "Z:"],
            "expected at most 2 headers; got more (limits=Limits(headers=...))",
        ),
        (
            {"headers": 101},
            ["X:"] * 101,
            ["X:"] * 102,
            "expected at most 101 headers; got more (limits=Limits(headers=...))",
        ),
        (
            {"headers": 1},
            ["X:"],
            ["X:", "Y:"],
            "expected at most 1 headers; got more (limits=Limits(headers=...))",
        ),
        (
            {"head": 8},
            ["X:", "Y:"],
            ["X:", "Y:", "Z:"],
            "expected at most 8 bytes of headers; got more (limits=Limits(head=...))",
        ),
        (
            {"head": 40_000},
            ["X: " + "x" * 7995] * 5,
            ["X: " + "x" * 7995] * 5 + ["X:"],
            "expected at most 40000 bytes of headers; "
            "got more (limits=Limits(head=...))",
        ),
    ],
)
def test_heads(
    changes: dict[str, int], within: list[str], beyond: list[str], text: str
) -> None:
    for parser, line in parsers(Limits(**changes)):
        message, _ = every_way(parser, request(line, *within))
        assert len(list(message.headers.raw_items())) == len(within)
        assert every_way(parser, request(line, *beyond))[1] == text


@pytest.mark.parametrize("which", [0, 1])
def test_first_lines(which: int) -> None:
    for size, right in ((14, True), (13, False)):
        parser, line = parsers(Limits(header_line=size))[which]
        result = every_way(parser, request(line))
        if right:
            assert not isinstance(result[0], type)
        else:
            kind = ("request", "status")[which]
            assert result[1] == (
                f"expected at most 13 bytes of {kind} line; "
                "got more (limits=Limits(header_line=...))"
            )


def test_bodies_of_responses() -> None:
    head = request("HTTP/1.1 403 No", "Content-Length: 9")
    for most, body in ((0, b""), (1, b"a"), (8, b"abcdefgh"), (9, b"abcdefghi")):
        parser: Any = functools.partial(ResponseParser, Limits(response_body=most))
        # What is behind it depends on how it came, and is for nobody.
        for pieces in [head + b"abcdefghi"], by_byte(head + b"abcdefghi"):
            assert outcome(parser, pieces)[0].body == body


# Connections


async def test_the_head_of_a_request() -> None:
    listener = MemoryListener()
    async with trio_ws.open_server(
        handler, listeners=[listener], limits=Limits(headers=5)
    ):
        stream = listener.connect()
        await stream.send_all(raw_http.request(b"X: y"))
        answer = await raw_http.read_answer(stream)
        assert answer.status == 431
        assert b"at most 5 headers; got more (limits=Limits(headers" in answer.rest
        stream = listener.connect()
        await stream.send_all(raw_http.request())
        assert (await raw_http.read_switch(stream)).status == 101
        await stream.aclose()


@pytest.mark.parametrize(("most", "status"), [(3, 413), (4, 200), (2**20, 200)])
async def test_the_body_of_a_request(most: int, status: int) -> None:
    listener = MemoryListener()
    async with trio_ws.open_server(
        handler,
        listeners=[listener],
        process_request=lambda ws, request: ws.respond(200, request.body),
        limits=Limits(request_body=most),
    ):
        stream = listener.connect()
        await stream.send_all(request("POST / HTTP/1.1", "Content-Length: 4") + b"four")
        answer = await raw_http.read_answer(stream)
    assert answer.status == status
    if status == 413:
        assert b"at most 3 bytes of request body; got 4 (limits=" in answer.rest
    else:
        assert answer.rest == b"four"


async def test_a_response() -> None:
    listener = MemoryListener()
    async with trio_ws.open_server(
        handler,
        listeners=[listener],
        process_request=lambda ws, request: ws.respond(403, "a long story"),
    ):
        uri = "ws://testing/"
        with pytest.raises(trio_ws.InvalidStatus) as refused:
            async with trio_ws.connect(
                uri, stream=listener.connect(), limits=Limits(response_body=6)
            ):
                pass
        assert refused.value.response.body == b"a long"
        with pytest.raises(trio_ws.TooManyHeaders, match="at most 2 headers"):
            async with trio_ws.connect(
                uri, stream=listener.connect(), limits=Limits(headers=2)
            ):
                pass


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("most", [1, 3])
async def test_short_fragments(client: bool, most: int) -> None:
    """Of each message so many; those of 16 bytes don't count."""
    peer = RawPeer(client=not client)
    limits = Limits(short_fragments=most)

    def piece(opcode: int, payload: bytes, *, fin: bool) -> bytes:
        return frame(opcode, payload, fin=fin, masked=not client)

    start = piece(TEXT, b"a", fin=False)
    start += piece(CONT, b"b", fin=False) * (most - 1)
    whole = start + piece(CONT, b"x" * 16, fin=True)
    expected = "a" + "b" * (most - 1) + "x" * 16
    async with trio.open_nursery() as nursery:
        opener: Any
        if client:
            nursery.start_soon(peer.answer)
            opener = trio_ws.connect("ws://h/", stream=peer.theirs, limits=limits)
        else:
            nursery.start_soon(peer.ask)
            opener = trio_ws.accept(peer.theirs, limits=limits)
        async with opener as ws:
            await peer.put(whole * 2)
            assert [await ws.recv(), await ws.recv()] == [expected] * 2
            await peer.put(start + piece(CONT, b"c", fin=False))
            with pytest.raises(trio_ws.ConnectionClosedError) as caught:
                await ws.recv()
        nursery.cancel_scope.cancel()
    assert (
        f"sent 1009 (message too big) message with more than {most} fragments of less "
        "than 16 bytes (limits=Limits(short_fragments=...))" in str(caught.value)
    )


async def test_a_proxy() -> None:
    """The limits hold for its answer, too."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nA: a\r\nB: b\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            functools.partial(trio.serve_tcp, host="127.0.0.1"), serve, 0
        )
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(trio_ws.ProxyError, match="proxy: expected at most 1 head"):
            async with trio_ws.connect(
                "ws://server.test/",
                proxy=f"http://127.0.0.1:{port}",
                limits=Limits(headers=1),
            ):
                pass
        nursery.cancel_scope.cancel()


async def test_both_ends_with_the_largest() -> None:
    limits = Limits(**dict.fromkeys(FIELDS, 2**31 - 1))
    listener = MemoryListener()
    async with trio_ws.open_server(echo, listeners=[listener], limits=limits):
        async with trio_ws.connect(
            "ws://h/", stream=listener.connect(), limits=limits
        ) as ws:
            await ws.send(["a", "b"])
            assert await ws.recv() == "ab"
