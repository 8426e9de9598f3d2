"""The opening handshake of a server: any cut of the bytes, answers, refusals."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests import logs
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.in_memory import REQUEST, TEXT, MemoryListener, RawPeer, frame
from tests.server.serving import in_memory, logged
from trio_ws import (
    Headers,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    OpenTimeoutError,
    Request,
    Response,
    Server,
    ServerConnection,
    State,
    accept,
    connect,
    open_server,
)
from trio_ws.testing import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_ws.server")
    return caplog


async def converse(server: Server, data: bytes) -> bytes:
    """Send bytes over TCP; return all that comes back."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        if data:
            await stream.send_all(data)
        received = b""
        async for chunk in stream:
            received += chunk
        return received


# Requests that are none


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"400 Bad Request"),
        (b"garbage\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n\r\n", b"400 Bad Request"),
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), b"505 "),
        (REQUEST.replace(b"GET", b"POST"), b"405 "),
        (REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"), b"426 "),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), b"426 "),
        (REQUEST.replace(b"GET /chat", b"GET /" + b"x" * 9000), b"414 "),
        (REQUEST.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 9000 + b"\r\n\r\n"), b"431 "),
        (REQUEST.replace(b"Host", b"X-\x1b[31m"), b"400 Bad Request"),
    ],
)
async def test_requests_that_are_none_get_their_answer(
    log: pytest.LogCaptureFixture, request_: bytes, status: bytes
) -> None:
    async with open_server(echo, 0, host="127.0.0.1") as server:
        answer = await converse(server, request_)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"Connection: close" in answer
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    failures = [line for line in logged(log) if "listening" not in line[1]]
    assert len(failures) == 1
    assert failures[0][0] == "INFO"
    assert failures[0][1].startswith("opening handshake failed: ")
    assert failures[0][1].isprintable()


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST.replace(b"Version: 13", b"Version: \x9b2J"),
        REQUEST.replace(b"Upgrade: websocket", b"Upgrade: \x9b\xff"),
        REQUEST.replace(b"Host: server", b"Host: \x9b\x85"),
        REQUEST.replace(b"Key: ", b"Key: \x85\x9b"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \x9b\r\n\r\n"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \x9b\r\n\r\n"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: \x9b\r\n\r\n"),
        REQUEST.replace(b"/chat", b"/\x9b"),
        REQUEST.replace(b"GET", b"\x9bGET"),
        REQUEST.replace(b"HTTP/1.1", b"HTTP/\x9b.1"),
        REQUEST.replace(b"Upgrade: w", b"Up\x9bgrade: w"),
        b"\x1b]0;title\x07\r\n\r\n",
    ],
)
async def test_nothing_of_a_request_reaches_a_log_unescaped(
    caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        stream = listener.connect()
        await stream.send_all(request_)
        answer = bytes(await stream.receive_some())
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert b"\x9b" not in answer
        assert b"\x1b" not in answer
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    assert logs.messages(caplog)
    for line in logs.messages(caplog):
        assert line.isprintable(), line


async def test_a_request_of_kilobytes_makes_no_line_of_kilobytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    listener = MemoryListener()
    long = b"x" * 8000
    async with open_server(echo, listeners=[listener]):
        for request in (
            REQUEST.replace(b"/chat", b"/" + long),
            REQUEST.replace(b"Host: ", b'Host: "' + long),
            REQUEST.replace(b"\r\n\r\n", b"\r\nX: " + long + b"\r\n\r\n"),
        ):
            stream = listener.connect()
            await stream.send_all(request)
            await stream.receive_some()
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
    assert any("[80" in line for line in logs.messages(caplog))
    assert max(map(len, logs.messages(caplog))) < 400


@pytest.mark.parametrize("said", [b"", b"\r", REQUEST[:50], REQUEST[:-1]])
async def test_a_client_that_says_too_little_is_cut(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture, said: bytes
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], open_timeout=5):
        stream = listener.connect()
        await stream.send_all(said)
        if said:
            assert (await raw_http.read_answer(stream)).status == 408
        else:  # as of browsers, which open some in case of need
            assert await raw_http.read_to_end(stream) == b""
        assert trio.current_time() == 5
    assert logged(log) == [
        (
            "INFO",
            "opening handshake failed: OpenTimeoutError: "
            "connection not open after 5 s (open_timeout): request",
        )
    ]


@pytest.mark.parametrize(
    ("said", "stage", "seconds"),
    [(REQUEST[:-1], "request", 6), (REQUEST, "response", 5)],
)
async def test_a_client_that_takes_no_answer(
    said: bytes,
    stage: str,
    seconds: float,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
) -> None:
    theirs, ours = trio.testing.lockstep_stream_pair()
    nursery.start_soon(theirs.send_all, said)
    with pytest.raises(OpenTimeoutError, match=f": {stage}$"):
        async with accept(ours, open_timeout=5):
            raise AssertionError("entered")
    assert trio.current_time() == seconds


async def test_without_an_open_timeout_it_is_not(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], open_timeout=None):
        peer = RawPeer(client=True)
        peer.stream = listener.connect()
        await trio.sleep(10_000)
        await peer.ask(frame(TEXT, b"x", masked=True))
        await peer.skip_response()
        assert await peer.read() == (0x81, b"x")
        await peer.close()


async def test_a_client_that_goes_before_it_has_asked(
    log: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        await listener.connect().aclose()
        await trio.testing.wait_all_tasks_blocked()
    ((level, message),) = logged(log)
    assert level == "INFO"
    assert message.startswith("opening handshake failed: InvalidMessage: ")


async def test_a_client_that_goes_before_it_is_answered(
    log: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]):
        stream = listener.connect()
        await stream.send_all(REQUEST)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    ((level, message),) = logged(log)
    assert level == "INFO"
    assert message.startswith("opening handshake failed: ConnectionError: ")


async def test_a_connection_that_cannot_be_made_is_logged(
    log: pytest.LogCaptureFixture,
) -> None:
    def create(*_: object) -> ServerConnection:
        raise ValueError("mine")

    manager, client = in_memory(echo, create_connection=create)
    async with manager:
        with pytest.raises(Exception) as caught:
            async with client():
                raise AssertionError("entered")
        assert not isinstance(caught.value, AssertionError)
    assert ("ERROR", "opening handshake failed") in logged(log)
    assert "ValueError: mine" in log.text


# Cuts


async def test_a_request_byte_by_byte(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=True)
    data = REQUEST + frame(TEXT, b"behind it", masked=True)

    async def trickle() -> None:
        for i in range(len(data)):
            await peer.stream.send_all(data[i : i + 1])
            await trio.testing.wait_all_tasks_blocked()

    nursery.start_soon(trickle)
    async with accept(peer.theirs) as ws:
        assert ws.request.path == "/chat"
        assert await ws.recv() == "behind it"
        head = await peer.skip_response()
        # The key and its answer are those of RFC 6455, section 1.3.
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        await peer.close()


async def test_a_stream_that_takes_a_byte_at_a_time(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False, streams=trio.testing.lockstep_stream_pair())

    async def read_slowly() -> None:
        while b"\r\n\r\n" not in peer._buffer:
            peer._buffer += bytes(await peer.stream.receive_some(1))
        await peer.answer()
        await peer.send(TEXT, b"x")
        await peer.read()
        await peer.close()

    nursery.start_soon(read_slowly)
    async with connect("ws://testing/", stream=peer.theirs) as ws:
        assert await ws.recv() == "x"


# Answers to what is refused


async def test_a_refusal_is_answered_and_raised() -> None:
    peer = RawPeer(client=True)
    await peer.stream.send_all(REQUEST.replace(b"Upgrade: websocket\r\n", b""))
    with pytest.raises(InvalidUpgrade):
        async with accept(peer.theirs):
            raise AssertionError("entered")
    assert (await peer.skip_response()).startswith(b"HTTP/1.1 426 Upgrade Required")
    with pytest.raises(trio.ClosedResourceError):
        await peer.theirs.send_all(b"x")


async def test_a_client_that_has_gone_is_not_answered() -> None:
    peer = RawPeer(client=True)
    await peer.stream.send_all(REQUEST[:20])
    await peer.end()
    with pytest.raises(InvalidMessage) as caught:
        async with accept(peer.theirs):
            raise AssertionError("entered")
    assert isinstance(caught.value.__cause__, EOFError)
    assert await peer.stream.receive_some() == b""


async def test_a_server_that_goes_before_it_answers(nursery: trio.Nursery) -> None:
    peer = RawPeer(client=False)
    await peer.stream.send_all(b"HTTP/1.1 101 Switching")
    await peer.end()
    with pytest.raises(InvalidMessage) as caught:
        async with connect("ws://testing/", stream=peer.theirs):
            raise AssertionError("entered")
    assert isinstance(caught.value.__cause__, EOFError)


async def test_a_request_that_is_still_read_as_the_server_closes() -> None:
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]) as server:
        stream = listener.connect()
        await stream.send_all(REQUEST[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose()
        answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


async def test_a_refusal_arrives_though_the_client_goes_on_sending(
    mock_clock: MockClock,
) -> None:
    # Closing with bytes unread is a reset, which can overtake the answer.
    async with open_server(echo, 0, host="127.0.0.1") as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(
                b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(200_000)
            )
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(bytes(1000))
            received = b""
            while chunk := await stream.receive_some():
                received += chunk
        assert received.startswith(b"HTTP/1.1 405 ")


async def test_a_client_that_does_not_take_its_refusal_is_cut(
    autojump_clock: MockClock,
) -> None:
    peer = RawPeer(client=True, streams=trio.testing.lockstep_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, b"garbage\r\n\r\n")
        with pytest.raises((InvalidHandshake, TimeoutError)):
            async with accept(peer.theirs):
                raise AssertionError("entered")
    assert trio.current_time() <= 10


def text_response(status: int, text: str) -> Response:
    body = text.encode()
    return Response(status, "Mine", Headers({"Content-Length": str(len(body))}), body)


# Hooks


@pytest.mark.parametrize("waits", [False, True])
async def test_process_request_answers(
    caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.server")
    seen: list[tuple[State, str]] = []

    def process(ws: ServerConnection, request: Request) -> Response | None:
        seen.append((ws.state, request.path))
        return text_response(418, "teapot") if request.path == "/tea" else None

    async def process_later(ws: ServerConnection, request: Request) -> Response | None:
        await trio.lowlevel.checkpoint()
        return process(ws, request)

    listener = MemoryListener()
    async with open_server(
        echo, listeners=[listener], process_request=process_later if waits else process
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with connect("ws://testing/tea", stream=listener.connect()):
                raise AssertionError("entered")
        assert caught.value.response.status_code == 418
        assert caught.value.response.body == b"teapot"
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert seen == [(State.CONNECTING, "/tea"), (State.CONNECTING, "/")]
    assert "connection rejected: HTTP 418" in logs.messages(caplog)
    assert "> HTTP/1.1 418" in logs.messages(caplog)


async def test_process_response_sees_and_changes_the_response() -> None:
    def process(
        ws: ServerConnection, request: Request, response: Response
    ) -> Response | None:
        response.headers["X-Path"] = request.path
        return text_response(403, "no") if request.path == "/no" else None

    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], process_response=process):
        async with connect("ws://testing/yes", stream=listener.connect()) as ws:
            assert ws.response is not None
            assert ws.response.headers["X-Path"] == "/yes"
        with pytest.raises(InvalidStatus, match="HTTP 403"):
            async with connect("ws://testing/no", stream=listener.connect()):
                raise AssertionError("entered")


def _fails(*_: object) -> Any:
    raise KeyError("mine")


def _without_an_accept(*_: object) -> Response:
    return Response(101, "Switching Protocols", Headers())


def _splitting(*_: object) -> Response:
    return Response(400, "Bad\r\nX: y", Headers())


@pytest.mark.parametrize(
    ("hook", "function", "shown"),
    [
        ("process_request", _fails, "KeyError: 'mine'"),
        ("process_response", _fails, "KeyError: 'mine'"),
        ("select_subprotocol", _fails, "KeyError: 'mine'"),
        ("process_request", lambda *_: "no response", "expected a trio_ws.Response"),
        ("process_request", _without_an_accept, "expected at least 200; got 101"),
        ("process_request", _splitting, "expected no control characters"),
        ("process_response", _splitting, "expected no control characters"),
    ],
)
async def test_a_hook_that_fails_is_a_500(
    caplog: pytest.LogCaptureFixture, hook: str, function: Any, shown: str
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    options: dict[str, Any] = {hook: function}
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], **options):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(
                "ws://testing/", stream=listener.connect(), subprotocols=["a"]
            ):
                raise AssertionError("entered")
    assert caught.value.response.status_code == 500
    assert b"KeyError" not in caught.value.response.body
    assert f"{hook} failed" in logs.messages(caplog)
    assert shown in caplog.text


CALLS: list[Callable[[ServerConnection], Any]] = [
    lambda ws: ws.recv(),
    lambda ws: ws.recv_nowait(),
    lambda ws: anext(ws.recv_streaming()),
    lambda ws: ws.send("x"),
    lambda ws: ws.send(["x"]),
    lambda ws: ws.send_nowait("x"),
    lambda ws: ws.ping(),
    lambda ws: ws.pong(),
    lambda ws: ws.aclose(),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_connection_is_of_no_use_in_a_hook(
    call: Callable[[ServerConnection], Any],
) -> None:
    # A frame before the response, say, would break the stream.
    async def process(ws: ServerConnection, request: Request) -> None:
        assert ws.state is State.CONNECTING
        with pytest.raises(RuntimeError, match="connection isn't open yet"):
            await call(ws)
        assert ws.state is State.CONNECTING

    listener = MemoryListener()
    async with open_server(echo, listeners=[listener], process_request=process):
        async with connect("ws://testing/", stream=listener.connect()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_nothing_is_sent_before_the_response_is(nursery: trio.Nursery) -> None:
    # A hook that registers its connection makes it known to other tasks.
    async def send(known: list[ServerConnection]) -> None:
        while not known or known[0].state is not State.OPEN:
            await trio.lowlevel.checkpoint()
        known[0].send_nowait("x")

    for _ in range(10):  # of two tasks that can run, either may be the first
        known: list[ServerConnection] = []

        def process(
            ws: ServerConnection, request: Request, known: list[Any] = known
        ) -> None:
            known.append(ws)

        peer = RawPeer(client=True)
        await peer.ask()
        nursery.start_soon(send, known)
        async with accept(peer.theirs, process_request=process) as ws:
            assert (await peer.skip_response()).startswith(b"HTTP/1.1 101 ")
            assert await peer.read() == (0x80 | TEXT, b"x")
            assert known == [ws]
            await peer.close()


async def test_select_subprotocol() -> None:
    async with open_pair(
        {"subprotocols": ["a", "b"]},
        {"select_subprotocol": lambda ws, offered: offered[-1]},
    ) as (client, server):
        assert client.subprotocol == server.subprotocol == "b"


async def test_a_server_that_closes_while_a_hook_waits(
    autojump_clock: MockClock,
) -> None:
    async def process(ws: ServerConnection, request: Request) -> None:
        await trio.sleep(3)

    listener = MemoryListener()
    async with open_server(
        echo, listeners=[listener], process_request=process
    ) as server:
        stream = listener.connect()
        await stream.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose()
        assert trio.current_time() == 3
        answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 503 ")


async def _answer_of_slow(process: Any) -> raw_http.Answer:
    listener = MemoryListener()
    async with open_server(
        echo, listeners=[listener], process_request=process, open_timeout=4
    ):
        stream = listener.connect()
        await stream.send_all(REQUEST)
        return await raw_http.read_answer(stream)


async def test_a_hook_that_waits_has_the_time_that_opening_has(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")

    async def process(ws: ServerConnection, request: Request) -> None:
        await trio.sleep_forever()

    answer = await _answer_of_slow(process)
    assert (answer.status, trio.current_time()) == (503, 4)
    assert b"the server took too long" in answer.rest
    assert logs.messages(caplog) == [
        "opening handshake failed: OpenTimeoutError: "
        "connection not open after 4 s (open_timeout): process_request"
    ]


async def test_a_hook_that_cannot_be_cut_is_late(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def process(ws: ServerConnection, request: Request) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(6)

    answer = await _answer_of_slow(process)
    assert (answer.status, trio.current_time()) == (503, 6)


async def test_a_connection_that_cannot_be_made_is_a_500() -> None:
    peer = RawPeer(client=True)
    await peer.ask()
    with pytest.raises(KeyError, match="mine"):
        async with accept(peer.theirs, create_connection=_fails):
            raise AssertionError("entered")
    assert (await peer.skip_response()).startswith(b"HTTP/1.1 500 ")


async def test_a_connection_of_a_wrong_class_is_a_500() -> None:
    peer = RawPeer(client=True)
    await peer.ask()
    expected = "create_connection: expected it to return a ServerConnection; got str"
    wrong: Any = lambda _: "x"  # noqa: E731
    with pytest.raises(TypeError, match=re.escape(expected)):
        async with accept(peer.theirs, create_connection=wrong):
            raise AssertionError("entered")
    assert (await peer.skip_response()).startswith(b"HTTP/1.1 500 ")


async def test_a_closing_server_that_could_not_answer_yet() -> None:
    # Both at once: the request is complete, and the server closes.
    listener = MemoryListener()
    async with open_server(echo, listeners=[listener]) as server:
        stream = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(REQUEST)
        await server.aclose()
        answer = bytes(await stream.receive_some())
        assert re.match(rb"HTTP/1.1 (503|101) ", answer)
        if answer.startswith(b"HTTP/1.1 101"):
            assert b"\x88\x02\x03\xe9" in answer + bytes(await stream.receive_some())
