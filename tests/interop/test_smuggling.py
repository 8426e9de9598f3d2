"""A second request hidden behind a malformed one never reaches a handler.

Proxy and server each decide where a request ends. Where they differ, one client's
bytes become another request, which the proxy never saw. So the server answers
one request a connection, and opens no WebSocket for one with a body. A hook that sees
plain HTTP, too, sees no request that the proxy didn't.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

import trio_ws
from tests.interop.peer import HOST, LIMIT, NEVER
from tests.interop.proxy import MORE_PROXIES, NAMES, PROXIES, SEEN, Proxy, required

ASKS = (
    b"Host: example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)

SECOND = b"GET /second HTTP/1.1\r\n" + ASKS + b"\r\n"


def first(*lines: bytes, asks: bytes = ASKS, method: bytes = b"GET") -> bytes:
    more = b"".join(line + b"\r\n" for line in lines)
    return method + b" /first HTTP/1.1\r\n" + asks + more + b"\r\n"


LENGTH = b"Content-Length: %d" % len(SECOND)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)
WRONG_VERSION = ASKS.replace(b"Version: 13", b"Version: 12")

#: The second request stands in the body of the first, for some reader at least.
#: Nobody may take it for a request: it never reaches the server as one.
IN_THE_BODY = {
    "content-length": first(LENGTH) + SECOND,
    "content-length, version 12": first(LENGTH, asks=WRONG_VERSION) + SECOND,
    "content-length, POST": first(LENGTH, method=b"POST") + SECOND,
    "two content-lengths, alike": first(LENGTH, LENGTH) + SECOND,
    "content-length, plus sign": first(LENGTH.replace(b": ", b": +")) + SECOND,
    "chunked": first(CHUNKED) + CHUNKS,
    "chunked, version 12": first(CHUNKED, asks=WRONG_VERSION) + CHUNKS,
    "chunked and content-length 0": first(CHUNKED, b"Content-Length: 0") + CHUNKS,
    "content-length and chunked": first(LENGTH, CHUNKED) + b"0\r\n\r\n" + SECOND,
}

#: The second request may be one that the proxy sees, and passes on as such; then
#: it is marked so. What counts is that none gets past the proxy unseen.
BEHIND = {
    "content-length and chunked": IN_THE_BODY["content-length and chunked"],
    "right": first() + SECOND,
    "version 12": first(asks=WRONG_VERSION) + SECOND,
    "no upgrade": first(asks=b"Host: example.com\r\n") + SECOND,
    "content-length 0": first(b"Content-Length: 0") + SECOND,
    "two content-lengths": first(b"Content-Length: 0", LENGTH) + SECOND,
    "transfer-encoding identity": first(b"Transfer-Encoding: identity") + SECOND,
    "transfer-encoding, tab": first(b"Transfer-Encoding:\tchunked") + CHUNKS,
    "transfer-encoding, space before the colon": (
        first(b"Transfer-Encoding : chunked", LENGTH) + b"0\r\n\r\n" + SECOND
    ),
    "transfer-encoding, folded": (
        first(b"Transfer-Encoding:\r\n chunked", LENGTH) + b"0\r\n\r\n" + SECOND
    ),
    "content-length, space before the colon": (
        first(LENGTH.replace(b":", b" :")) + SECOND
    ),
    "content-length, folded": first(LENGTH.replace(b": ", b":\r\n ")) + SECOND,
    "folded line": first(b"X-Folded: a\r\n b") + SECOND,
    "first line folded": first(asks=b" X: folded\r\n" + ASKS) + SECOND,
    "space before the colon": first(b"X-Space : a") + SECOND,
    "two hosts": first(b"Host: other.example") + SECOND,
    "two hosts, alike": first(b"Host: example.com") + SECOND,
    "no host": first(asks=ASKS.partition(b"\r\n")[2]) + SECOND,
    "bare LF": first(b"X-A: a\nX-B: b") + SECOND,
    "bare LF at the end": first()[:-4] + b"\n\n" + SECOND,
    "bare CR": first(b"X-A: a\rX-B: b") + SECOND,
    "NUL": first(b"X-A: a\0b") + SECOND,
    "header without a name": first(b": a") + SECOND,
    "header without a colon": first(b"X-A") + SECOND,
    "HTTP/1.0": first().replace(b"HTTP/1.1", b"HTTP/1.0") + SECOND,
    "absolute target, another host": (
        first().replace(b" /first", b" http://other.example/first") + SECOND
    ),
}


# Behind it all: the proxies answer this one themselves, and close.
LAST = b"GET /last HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"

# What the server's side says first when its handler has returned.
GOODBYE = b"\x88\x02\x03\xe8"


@asynccontextmanager
async def direct(upstream: int, folder: Path) -> AsyncGenerator[int, None]:
    """No proxy, or one that tunnels whatever comes."""
    yield upstream


WAYS: dict[str, Proxy] = {"direct": direct, **PROXIES, **MORE_PROXIES}


@pytest.fixture(params=["direct", *NAMES])
def way(request: pytest.FixtureRequest) -> Proxy:
    if request.param != "direct":
        required(request.param)
    return WAYS[request.param]


class Handled(NamedTuple):
    """A request whose handler ran, and what the proxy said it saw."""

    path: str
    seen: list[str]


async def outcome(
    way: Proxy, sent: bytes, folder: Path, *, plain: bool
) -> tuple[list[Handled], list[int]]:
    """Send bytes; return the requests handled and the statuses that came back.

    ``plain`` has a hook see each request, and check that the proxy did.
    """
    handled: list[Handled] = []

    async def handler(ws: trio_ws.ServerConnection) -> None:
        request = ws.request
        handled.append(Handled(request.path, request.headers.get_all(SEEN)))

    def see(ws: trio_ws.ServerConnection, request: trio_ws.Request) -> None:
        if way is direct:
            assert request.path == "/first"
        else:
            assert request.headers.get_all(SEEN) == [request.path]

    answer = b""
    with trio.fail_after(LIMIT):
        async with (
            trio_ws.open_server(
                handler,
                0,
                host=HOST,
                close_timeout=NEVER,
                process_request=see if plain else None,
            ) as server,
            way(server.port, folder) as port,
            await trio.open_tcp_stream(HOST, port) as stream,
        ):
            await stream.send_all(sent + LAST)
            with suppress(trio.BrokenResourceError):
                async for data in stream:
                    answer += data
                    if GOODBYE in answer:
                        await stream.send_eof()
    return handled, [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


hooked = pytest.mark.parametrize("plain", [False, True], ids=["", "hook"])


@hooked
@pytest.mark.parametrize("sent", IN_THE_BODY.values(), ids=IN_THE_BODY.keys())
async def test_in_the_body(
    way: Proxy, sent: bytes, tmp_path: Path, plain: bool
) -> None:
    handled, statuses = await outcome(way, sent, tmp_path, plain=plain)
    assert handled == []
    # HAProxy takes Upgrade out of what has a body; a hook could answer that.
    assert statuses[0] in ((400, 405, 501) if plain else (400, 405))
    if way is direct:
        assert len(statuses) == 1
    else:
        # The one behind the body, where the proxy goes on after a refusal.
        assert statuses[1:] in ([], [204])


@hooked
@pytest.mark.parametrize("sent", BEHIND.values(), ids=BEHIND.keys())
async def test_behind(way: Proxy, sent: bytes, tmp_path: Path, plain: bool) -> None:
    handled, statuses = await outcome(way, sent, tmp_path, plain=plain)
    if way is direct:
        assert len(statuses) == 1
        assert [request.path for request in handled] == (
            ["/first"] if statuses == [101] else []
        )
        assert (statuses == [101]) is (sent in WELL_FORMED)
    else:
        assert [request.seen for request in handled] == [
            [request.path] for request in handled
        ]
        assert statuses.count(101) == len(handled) <= 1


WELL_FORMED = [BEHIND["right"], BEHIND["content-length 0"]]
