"""What goes wrong while a client opens."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trio.testing

from tests.handlers import echo
from tests.peers.certificates import contexts
from tests.peers.in_memory import TEXT, RawPeer, close_frame, frame
from tests.platforms import needs_linux, needs_unix_sockets
from tests.server.serving import Resolver
from trio_ws import (
    Headers,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    OpenTimeoutError,
    Request,
    Response,
    ServerConnection,
    accept,
    connect,
    open_server,
    reconnect,
    unix_connect,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


# What a server answers, or doesn't


async def test_open_timeout(autojump_clock: MockClock) -> None:
    peer = RawPeer(client=False)
    with pytest.raises(OpenTimeoutError) as caught:
        async with connect("ws://testing/", stream=peer.theirs, open_timeout=7):
            raise AssertionError("entered")
    assert trio.current_time() == 7
    assert str(caught.value) == (
        "connection not open after 7 s (open_timeout): "
        "opening handshake with testing:80"
    )
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, trio.TooSlowError)
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"Not you.\n", "text/plain; charset=utf-8", ["Not you."]),
        (b"a\r\n\x1b[2J\xff", "Text/Plain", ["a\\r\\n\\x1b[2J\ufffd"]),
        (b" \n", "text/plain", []),
        (b"<p>Not you", "text/html", []),
        (b"x" * 301, "text/plain", []),
    ],
)
async def test_what_a_refusal_says(body: bytes, kind: str, said: list[str]) -> None:
    def refuse(ws: ServerConnection, _: Request) -> Response:
        return Response(403, "No", Headers({"Content-Type": kind}), body)

    async with open_server(echo, 0, host="127.0.0.1", process_request=refuse) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{server.port}/"):
                raise AssertionError("entered")
    assert str(caught.value) == "server rejected WebSocket connection: HTTP 403"
    assert caught.value.__notes__[1:] == [f"the answer says: {one}" for one in said]


async def test_ws_where_wss_is_expected() -> None:
    _, context = contexts()
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{server.port}/"):
                raise AssertionError("entered")
    assert "expected TLS (wss://, not ws://)" in caught.value.__notes__[1]


class SilentResolver(Resolver):
    """One that never answers."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        await trio.sleep_forever()


@needs_linux
async def test_what_took_too_long(
    autojump_clock: MockClock,
) -> None:
    async def told(uri: str, **options: Any) -> str:
        with pytest.raises(OpenTimeoutError) as caught:
            async with connect(uri, **options):
                raise AssertionError("entered")
        return str(caught.value).partition("(open_timeout): ")[2]

    SilentResolver().install()
    assert await told("ws://name.example/") == "looking up name.example:80"
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = silent.getsockname()[1]
        for _ in range(3):  # Linux ignores a SYN for which the backlog has no room.
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        at = f"127.0.0.1:{port}"
        assert await told(f"ws://{at}/") == f"connecting to {at}"
        Resolver(*[(socket.AF_INET, silent.getsockname())] * 2).install()
        told_of = await told("ws://name.example/", host="other.example", port=port)
        assert told_of == f"connecting to other.example:{port}"
    context = ssl.create_default_context()
    peers = [RawPeer(client=False) for _ in range(2)]
    assert await told("wss://name.example/", stream=peers[0].theirs, ssl=context) == (
        "TLS handshake with name.example:443"
    )
    assert await told("ws://[::1]/", stream=peers[1].theirs) == (
        "opening handshake with [::1]:80"
    )


@needs_unix_sockets
async def test_what_took_too_long_over_a_unix_socket(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        with pytest.raises(OpenTimeoutError, match=r"with localhost:80 at '.*silent'$"):
            async with unix_connect(path):
                raise AssertionError("entered")


async def test_what_took_too_long_elsewhere(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = f"opening handshake with name.example:80 at 127.0.0.1:{port}"
        with pytest.raises(OpenTimeoutError, match=told):
            async with connect("ws://name.example/", host="127.0.0.1", port=port):
                raise AssertionError("entered")


async def test_an_answer_that_trickles_is_bounded_too(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)

    async def trickle() -> None:
        await peer.stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
        for _ in range(9):
            await trio.sleep(1)
            await peer.stream.send_all(b"x")

    nursery.start_soon(trickle)
    with pytest.raises(OpenTimeoutError):
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert trio.current_time() == 10


async def test_no_open_timeout(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)

    async def answer_late() -> None:
        await trio.sleep(1000)
        await peer.answer()

    nursery.start_soon(answer_late)
    async with connect("ws://testing/", stream=peer.theirs, open_timeout=None) as ws:
        await peer.send(TEXT, b"x")
        assert await ws.recv() == "x"
        nursery.start_soon(peer.close)


async def test_open_timeout_does_not_outlive_the_opening(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer)
    async with connect(
        "ws://testing/", stream=peer.theirs, open_timeout=1, ping_interval=None
    ) as ws:
        await trio.sleep(100)
        await peer.send(TEXT, b"x")
        assert await ws.recv() == "x"
        nursery.start_soon(peer.close)


async def test_cancelled_while_it_opens(autojump_clock: MockClock) -> None:
    peer = RawPeer(client=False)
    with trio.move_on_after(3) as scope:
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope!",
            InvalidStatus,
            "server rejected WebSocket connection: HTTP 404",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", InvalidHandshake, "Connection"),
        (b"SSH-2.0-x\r\n", InvalidMessage, "got 'SSH-2.0-x'"),
        (b"HTTP/1.1 101 Swi", InvalidMessage, ""),
        (b"", InvalidMessage, ""),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\x9b2Jx\r\n\r\n",
            InvalidHandshake,
            r"invalid Sec-WebSocket-Accept header: x\\x9b2Jx",
        ),
    ],
)
async def test_a_server_that_answers_otherwise(
    answer: bytes, error: type[Exception], match: str
) -> None:
    peer = RawPeer(client=False)
    await peer.stream.send_all(answer)
    await peer.end()
    with pytest.raises(error, match=match or None) as caught:
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert str(caught.value).isprintable()
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")
    if isinstance(caught.value, InvalidStatus):
        assert caught.value.response.body == b"nope!"


REFUSALS = [
    b"HTTP/1.1 401 x\r\n\r\nwho",
    b"HTTP/1.1 401 x\r\nContent-Length: 9\r\n\r\nwho",
    b"HTTP/1.1 401 x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nwho",
    b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 401 x\r\n\r\nwho",
]


@pytest.mark.parametrize(
    ("headers", "raw", "body"),
    [
        (b"Transfer-Encoding: chunked", b"5\r\nhellobad", b"hello"),
        (b"Transfer-Encoding: chunked", b"zz\r\n", b""),
        (b"Transfer-Encoding: chunked", b"5;" + b"x" * 500, b""),
        (b"Transfer-Encoding: gzip, chunked", b"5\r\nhello", b""),
        (b"Content-Length: 5, 5", b"hello", b""),
    ],
)
async def test_a_refusal_whose_body_is_malformed(
    headers: bytes, raw: bytes, body: bytes
) -> None:
    peer = RawPeer(client=False)
    await peer.stream.send_all(b"HTTP/1.1 503 x\r\n" + headers + b"\r\n\r\n" + raw)
    with pytest.raises(InvalidStatus, match="HTTP 503") as caught:
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert caught.value.response.body == body


@pytest.mark.parametrize("answer", REFUSALS)
@pytest.mark.parametrize("then", ["nothing", "end", "more"])
async def test_a_refusal_whose_body_has_no_end(
    answer: bytes, then: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    peer = RawPeer(client=False)

    async def refuse() -> None:
        await peer.stream.send_all(answer)
        if then == "end":
            await peer.end()
        while then == "more":
            await trio.sleep(0.4)
            await peer.stream.send_all(b"!")

    nursery.start_soon(refuse)
    start = trio.current_time()
    with pytest.raises(InvalidStatus, match="HTTP 401") as caught:
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert trio.current_time() - start == (0 if then == "end" else 1)
    assert caught.value.response.body == (b"who!!" if then == "more" else b"who")
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", REFUSALS)
async def test_a_refusal_with_a_reset_behind_it(answer: bytes) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(answer)
            await trio.testing.wait_all_tasks_blocked()  # the request stays unread
            stream.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, refuse, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(InvalidStatus, match="HTTP 401") as caught:
            async with connect(f"ws://127.0.0.1:{port}/"):
                raise AssertionError("entered")
        assert caught.value.response.body == b"who"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [
        ("extra_headers", "additional_headers"),
        ("timeout", "open_timeout, close_timeout, or a cancel scope around the call"),
    ],
)
def test_keywords_of_others(keyword: str, hint: str) -> None:
    keywords: dict[str, Any] = {keyword: None}
    with pytest.raises(TypeError, match=f"'{keyword}'; see {hint}$"):
        connect("ws://testing/", **keywords)


async def test_keywords_of_connect_alone() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    others: list[dict[str, Any]] = [
        {"host": "x"},
        {"port": 5},
        {"local_address": "127.0.0.1"},
        {"stream": ours},
    ]
    for keywords in others:
        with pytest.raises(TypeError, match=r"unix_connect\(\) got an unexpected"):
            unix_connect("x", **keywords)
    stream: Any = {"stream": ours}
    with pytest.raises(TypeError, match=r"reconnect\(\) got an unexpected .*'stream'"):
        reconnect("ws://x/", **stream)


@pytest.mark.parametrize("port", [-1, 0, 65536, 65536 + 80])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(ValueError, match=rf"port: expected 1 to 65535; got {port}"):
        connect("ws://127.0.0.1/", port=port)


class FullContext(ssl.SSLContext):
    """One that OpenSSL makes no connection of."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        raise ssl.SSLError("out of something")


async def test_a_stream_that_tls_can_not_be_put_on() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    context = FullContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError, match="out of something"):
        async with connect("wss://testing/", stream=ours, ssl=context):
            raise AssertionError("entered")
    assert await theirs.receive_some() == b""  # closed


async def test_a_stream_that_is_broken() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(OSError, match="stream is broken"):
        async with connect("ws://testing/", stream=ours):
            raise AssertionError("entered")


async def test_a_socket_stream_that_is_closed() -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.aclose()
        for manager in (connect("ws://testing/", stream=stream), accept(stream)):
            with pytest.raises(trio.ClosedResourceError, match="expected one that is"):
                async with manager:
                    raise AssertionError("entered")


# A server that is in a hurry


async def test_an_answer_that_comes_before_the_request_is_heard() -> None:
    # A server that is full answers and goes before it has read anything, so
    # that writing the request fails.
    one, other = trio.socket.socketpair()
    await other.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    other.close()
    with pytest.raises(InvalidStatus, match="503"):
        async with connect("ws://localhost/", stream=trio.SocketStream(one)):
            raise AssertionError("entered")


# What the other end of TCP looks like depends on the time that has passed.
@needs_unix_sockets
async def test_a_server_that_goes_before_the_request() -> None:
    one, other = trio.socket.socketpair()
    other.close()
    with pytest.raises(BrokenPipeError):
        async with connect("ws://localhost/", stream=trio.SocketStream(one)):
            raise AssertionError("entered")


# Cuts


async def test_a_response_byte_by_byte(nursery: trio.Nursery) -> None:
    ours, relay = trio.testing.memory_stream_pair()
    peer = RawPeer(client=False)
    theirs = peer.theirs
    assert isinstance(theirs, trio.abc.HalfCloseableStream)

    async def there() -> None:
        async for data in relay:
            await theirs.send_all(data)
        await theirs.send_eof()

    async def back() -> None:
        while data := await theirs.receive_some(1):
            await relay.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
        await relay.send_eof()

    nursery.start_soon(there)
    nursery.start_soon(back)
    nursery.start_soon(peer.answer, frame(TEXT, b"behind it"))
    async with connect("ws://testing/", stream=ours) as ws:
        assert ws.response is not None
        assert ws.response.status_code == 101
        assert await ws.recv() == "behind it"
        await peer.close()


# What is accepted and still fails on this side


def _fails(endpoint: object) -> NoReturn:
    raise KeyError("mine")


@pytest.mark.parametrize("create", [_fails, lambda endpoint: "x"])
async def test_a_connection_that_cannot_be_made_is_closed_with_1011(
    create: Any, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = RawPeer(client=False)
    frames: list[object] = []

    async def serve() -> None:
        await peer.answer(frame(TEXT, b"x"))
        frames.append(await peer.read())
        await peer.close(1011)
        frames.append(await peer.read())

    nursery.start_soon(serve)
    with pytest.raises((KeyError, TypeError), match=r"mine|create_connection: "):
        async with connect(
            "ws://testing/", stream=peer.theirs, create_connection=create
        ):
            raise AssertionError("entered")
    assert frames == [close_frame(1011), None]
    assert trio.current_time() == 0


async def test_a_server_that_leaves_that_unanswered_is_waited_for_in_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = RawPeer(client=False)
    nursery.start_soon(peer.answer)
    with pytest.raises(KeyError, match="mine"):
        async with connect(
            "ws://testing/",
            stream=peer.theirs,
            create_connection=_fails,
            close_timeout=3,
        ):
            raise AssertionError("entered")
    assert trio.current_time() == 1


async def test_over_sockets_that_is_no_reset() -> None:
    codes: list[int | None] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.send("greeting")
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with open_server(handler, 0, host="127.0.0.1") as server:
        with pytest.raises(KeyError, match="mine"):
            async with connect(
                f"ws://127.0.0.1:{server.port}/", create_connection=_fails
            ):
                raise AssertionError("entered")
    assert codes == [1011]


async def test_a_stream_that_is_closed_before_anything_is_done() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError) as caught:
        async with connect("ws://testing/", stream=stream):
            raise AssertionError("entered")
    assert not hasattr(caught.value, "__notes__")
