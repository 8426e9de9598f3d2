"""The hooks of the opening handshake: what they may answer, and how they fail."""

from __future__ import annotations

import functools
import http
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_ws
from tests import logs
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.in_memory import MemoryListener
from tests.server.serving import (
    ask,
    async_version,
    raises,
    records,
    response,
    returns,
    serving,
)
from trio_ws import (
    ConnectionClosedError,
    Headers,
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    State,
    connect,
)
from trio_ws.extensions import ServerExtensionFactory

HTML = b"<!doctype html><title>hello</title><p>Gr\xc3\xbc\xc3\x9fe\n"

Hook = Callable[..., Any]


def plain(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


both = pytest.mark.parametrize(
    "kind", [lambda hook: hook, async_version], ids=["sync", "async"]
)


def pages(connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/healthz":
        return connection.respond(200, "OK\n")
    if request.path == "/":
        headers = Headers({"Content-Type": "text/html; charset=utf-8"})
        headers["Content-Length"] = str(len(HTML))
        return Response(200, "OK", headers, HTML)
    return None


# What a hook may answer


@both
async def test_a_health_check_and_a_page_on_the_port_of_the_websockets(
    kind: Callable[[Hook], Hook],
) -> None:
    def get(url: str) -> tuple[int, str | None, bytes]:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()

    def get_status(url: str) -> int:
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(url)
        caught.value.close()
        return caught.value.code

    async with trio_ws.open_server(
        echo, 0, host="127.0.0.1", process_request=kind(pages)
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with trio_ws.connect(f"ws://127.0.0.1:{server.port}/healthy") as ws:
            health = await trio.to_thread.run_sync(get, url + "/healthz")
            assert health == (200, "text/plain; charset=utf-8", b"OK\n")
            page = await trio.to_thread.run_sync(get, url + "/")
            assert page == (200, "text/html; charset=utf-8", HTML)
            # No page: what isn't for the hook is for WebSockets.
            assert await trio.to_thread.run_sync(get_status, url + "/healthy") == 426
            await ws.send("still here")
            assert await ws.recv() == "still here"


@pytest.mark.parametrize(
    ("status", "body", "length"),
    [
        (200, b"", ["0"]),
        (200, b"OK\n", ["3"]),
        (503, b"much longer than before", ["23"]),
        (204, b"never", []),
        (304, b"", []),
    ],
)
async def test_a_body_that_is_changed_has_its_length(
    status: int, body: bytes, length: list[str]
) -> None:
    def hook(ws: ServerConnection, request: Request) -> Response:
        response = ws.respond(status, "OK\n")
        response.body = body
        return response

    async with serving(process_request=hook) as listener:
        code, _, headers, sent = await ask(listener)
    assert code == status
    assert [value for name, value in headers if name == "Content-Length"] == length
    assert sent == (body if length else b"")


@both
@pytest.mark.parametrize(
    "response",
    [
        Response(200, "OK", Headers()),
        Response(204, "", Headers({"X": "y"})),
        Response(302, "Found", Headers({"Location": "https://example.com/"})),
        Response(
            401, "Who is it?", Headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        ),
        Response(418, "I'm a teapot", Headers({"X": "\xe9"}), bytes(range(256)) * 40),
        Response(599, "Own", Headers(), b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=lambda response: str(response.status_code),
)
async def test_any_response_of_process_request_is_sent_with_a_date(
    kind: Callable[[Hook], Hook],
    response: Response,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hook = kind(lambda ws, request: response)
    async with serving(process_request=hook, server_header=None) as listener:
        answer = await ask(listener)
    assert answer.headers.pop()[0] == "Date"
    assert answer == (
        response.status_code,
        response.reason_phrase,
        list(response.headers.raw_items()),
        response.body,
    )
    (record,) = records(caplog, logging.INFO)
    status = response.status_code
    sent = f"HTTP response sent: {status}"  # as to health checks, which aren't rejected
    assert logs.plain(record) == (
        sent if status < 400 else f"connection rejected: HTTP {status}"
    )


async def test_a_client_gets_the_whole_response() -> None:
    def page(ws: ServerConnection, request: Request) -> Response:
        return Response(503, "Later", Headers({"Retry-After": "9"}), HTML)

    async with serving(process_request=page) as listener:
        with pytest.raises(trio_ws.InvalidStatus) as caught:
            async with trio_ws.connect("ws://h/", stream=listener.connect()):
                pytest.fail("the client took a page for a WebSocket")
    response = caught.value.response
    assert (response.status_code, response.reason_phrase) == (503, "Later")
    assert (response.headers["Retry-After"], response.body) == ("9", HTML)


async def test_a_large_body_has_the_time_that_opening_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    body = bytes(300_000)
    client, stream = trio.testing.lockstep_stream_pair()

    async def be_client() -> None:
        await client.send_all(plain("/"))
        received = bytearray()
        while data := await client.receive_some(30_000):
            received += data
            await trio.sleep(0.5)
        assert raw_http.parse(bytes(received)).rest == body

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_client)
        with pytest.raises(trio_ws.InvalidHandshake, match="HTTP 200"):
            async with trio_ws.accept(
                stream,
                process_request=lambda *_: Response(200, "OK", Headers(), body),
            ):
                pytest.fail("a page opened a WebSocket")


@pytest.mark.parametrize(
    "change",
    [
        {"headers": [b"Host: localhost"]},
        {"without": b"Sec-WebSocket-Key"},
        {"without": b"Sec-WebSocket-Version"},
        {"without": b"Origin"},
    ],
    ids=str,
)
async def test_process_request_comes_before_what_makes_it_a_websocket_is_checked(
    change: dict[str, Any],
) -> None:
    async with serving(
        process_request=lambda ws, request: ws.respond(200, request.path),
        origins=["https://example.com"],
        subprotocols=["chat"],
    ) as listener:
        answer = await ask(listener, **change)
        assert (answer.status, answer.rest) == (200, b"/chat")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_hooks_see_no_request_that_is_none(data: bytes, status: int) -> None:
    called = []
    async with serving(
        process_request=lambda *args: called.append(args),
        process_response=lambda *args: called.append(args),
    ) as listener:
        stream = listener.connect()
        await stream.send_all(data)
        assert (await raw_http.read_answer(stream)).status == status
    assert called == []


async def test_a_request_behind_one_that_a_hook_answered_is_not_read() -> None:
    paths = []

    def answer(ws: ServerConnection, request: Request) -> Response:
        paths.append(request.path)
        return ws.respond(200, "one answer")

    async with serving(process_request=answer) as listener:
        stream = listener.connect()
        await stream.send_all(plain("/first") + plain("/second"))
        assert (await raw_http.read_answer(stream)).rest == b"one answer"
    assert paths == ["/first"]


@both
async def test_process_response_can_add_to_the_response_that_opens(
    kind: Callable[[Hook], Hook],
) -> None:
    seen = []

    def add(ws: ServerConnection, request: Request, response: Response) -> None:
        seen.append((request.path, response.status_code, ws.subprotocol))
        response.headers["Set-Cookie"] = "seen=1"

    async with serving(process_response=kind(add), subprotocols=["chat"]) as listener:
        async with trio_ws.connect(
            "ws://h/path?query", stream=listener.connect(), subprotocols=["chat"]
        ) as ws:
            assert ws.response is not None
            assert ws.response.headers["Set-Cookie"] == "seen=1"
            await ws.send("open")
            assert await ws.recv() == "open"
    assert seen == [("/path?query", 101, None)]


@both
async def test_process_response_can_replace_the_response_that_opens(
    kind: Callable[[Hook], Hook],
) -> None:
    def refuse(ws: ServerConnection, request: Request, response: Response) -> Response:
        return ws.respond(403, f"not {request.path}")

    async def handler(ws: ServerConnection) -> None:
        pytest.fail("handler of a connection that was refused")

    async with serving(handler, process_response=kind(refuse)) as listener:
        answer = await ask(listener)
    assert (answer.status, answer.rest) == (403, b"not /chat")
    assert answer.header("Sec-WebSocket-Accept") is None


@both
async def test_process_response_sees_what_is_refused(
    kind: Callable[[Hook], Hook], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def page(ws: ServerConnection, request: Request, response: Response) -> Response:
        assert response.status_code == 426
        return Response(426, "Use a client", response.headers.copy(), response.body)

    async with serving(process_response=kind(page)) as listener:
        answer = await ask(listener, without=b"Upgrade")
    assert (answer.status, answer.phrase) == (426, "Use a client")
    assert answer.header("Upgrade") == "websocket"
    (record,) = records(caplog, logging.INFO)
    assert logs.plain(record) == (
        "opening handshake failed: InvalidUpgrade: missing Upgrade header"
    )


async def test_process_response_sees_what_process_request_answered() -> None:
    def sign(ws: ServerConnection, request: Request, response: Response) -> None:
        response.headers["X-Signed"] = str(response.status_code)

    async with serving(process_request=pages, process_response=sign) as listener:
        answer = await ask(listener, line=b"GET /healthz HTTP/1.1")
    assert (answer.status, answer.header("X-Signed")) == (200, "200")


# respond()


async def test_respond_makes_a_plain_text_that_can_be_changed() -> None:
    def answer(ws: ServerConnection, request: Request) -> Response:
        response = ws.respond(429, "Zu viel für mich\n")
        response.headers["Retry-After"] = "60"
        return response

    async with serving(process_request=answer, server_header=None) as listener:
        told = await ask(listener)
        dates = [header for header in told.headers if header[0] == "Date"]
        assert len(dates) == 1
        told.headers.remove(dates[0])
        assert told == (
            429,
            "Too Many Requests",
            [
                ("Connection", "close"),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", "18"),
                ("Retry-After", "60"),
            ],
            "Zu viel für mich\n".encode(),
        )


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (-1, ValueError, "status: expected 200 to 999; got -1"),
        (101, ValueError, "got 101"),
        (199, ValueError, "got 199"),
        (1000, ValueError, "got 1000"),
        ("200", TypeError, "status: expected an int; got '200'"),
        (True, TypeError, "status: expected an int; got True"),
        (None, TypeError, "got None"),
    ],
)
async def test_respond_refuses_what_is_no_status(
    status: Any, error: type[Exception], text: str
) -> None:
    caught: list[Exception] = []

    def answer(ws: ServerConnection, request: Request) -> None:
        with pytest.raises(error, match=text) as info:
            ws.respond(status, "")
        caught.append(info.value)

    async with serving(process_request=answer) as listener:
        assert (await ask(listener, without=b"Upgrade")).status == 426
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, "OK"), (http.HTTPStatus.GONE, "Gone"), (299, ""), (520, ""), (999, "")],
)
async def test_respond_takes_a_status_that_http_does_not_know(
    status: int, phrase: str
) -> None:
    def answer(ws: ServerConnection, request: Request) -> Response:
        return ws.respond(status, "x")

    async with serving(process_request=answer) as listener:
        told = await ask(listener)
        assert (told.status, told.phrase, told.rest) == (status, phrase, b"x")
        with pytest.raises(InvalidStatus) as caught:
            async with connect("ws://testing/", stream=listener.connect()):
                raise AssertionError("unreachable")
        assert caught.value.response.status_code == status


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("close", "close"),
        ("Keep-Alive", "close"),
        ("Upgrade", "close, Upgrade"),
        ("keep-alive, Upgrade ,,close", "close, Upgrade"),
    ],
)
async def test_a_hook_does_not_say_how_long_the_connection_lasts(
    given: str, sent: str
) -> None:
    def respond(ws: ServerConnection, request: Request) -> Response:
        return ws.respond(200, "x", headers={"Connection": given})

    async def change(ws: ServerConnection, request: Request, made: Response) -> None:
        made.headers["Connection"] = given

    options: list[dict[str, Any]] = [
        {"process_request": respond},
        {
            "process_request": lambda *_: response(
                headers=Headers({"Connection": given})
            )
        },
        {
            "process_response": change,
            "process_request": lambda ws, _: ws.respond(200, ""),
        },
    ]
    for keywords in options:
        async with serving(**keywords) as listener:
            answer = await ask(listener)
        assert (answer.status, answer.header("Connection")) == (200, sent)


@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_a_hook_says_of_no_coding(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside Content-Length, or a body that isn't coded, two readers would differ."""

    def hook(ws: ServerConnection, *_: object) -> Response:
        return ws.respond(200, "x", headers={"Transfer-Encoding": "chunked"})

    options: dict[str, Any] = {name: hook}
    async with serving(**options) as listener:
        answer = await ask(listener)
    assert (answer.status, answer.header("Transfer-Encoding")) == (500, None)
    assert "header Transfer-Encoding: expected none" in caplog.text


# Subprotocols


@pytest.mark.parametrize(
    ("select", "selected"),
    [
        (lambda ws, offered: offered[-1], "superchat"),
        (lambda ws, offered: None, None),
        (lambda ws, offered: "chat" if ws.request.path == "/v1" else None, "chat"),
    ],
)
async def test_select_subprotocol(select: Hook, selected: str | None) -> None:
    told: list[str | None] = []

    async def handler(ws: ServerConnection) -> None:
        told.append(ws.subprotocol)

    async with serving(handler, select_subprotocol=select) as listener:
        async with trio_ws.connect(
            "ws://h/v1",
            stream=listener.connect(),
            subprotocols=["chat", "superchat"],
        ) as ws:
            assert ws.subprotocol == selected
            assert ws.response is not None
            assert ws.response.headers.get("Sec-WebSocket-Protocol") == selected
            await ws.wait_closed()
    assert told == [selected]


async def test_select_subprotocol_gets_what_is_offered_in_order() -> None:
    got = []

    def select(ws: ServerConnection, offered: Sequence[str]) -> None:
        got.append(list(offered))

    async with serving(select_subprotocol=select) as listener:
        for extra in ([], [b"b, a"], [b"c", b"b,a"]):
            stream = listener.connect()
            lines = [b"Sec-WebSocket-Protocol: " + one for one in extra]
            await stream.send_all(raw_http.request(*lines))
            await raw_http.read_switch(stream)
            await stream.aclose()
    assert got == [[], ["b", "a"], ["c", "b", "a"]]


async def test_select_subprotocol_can_refuse(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def select(ws: ServerConnection, offered: Sequence[str]) -> str:
        raise trio_ws.NegotiationError("expected chat.v2")

    async with serving(select_subprotocol=select) as listener:
        answer = await ask(listener)
    assert (answer.status, b"expected chat.v2" in answer.rest) == (400, True)
    (record,) = records(caplog, logging.INFO)
    assert "NegotiationError: expected chat.v2" in logs.plain(record)
    assert records(caplog, logging.ERROR) == []


def raises_lookup(*args: object) -> None:
    raise KeyError("session")


def raises_like_the_library(*args: object) -> None:
    raise OSError("the database is away")


async def raises_group(*args: object) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(async_version(raises))
        nursery.start_soon(async_version(raises_lookup))


def sets_header(*args: object) -> Response:
    return Response(200, "OK", Headers({"X": "a\r\nInjected: yes"}))


FAILING = {
    "raises": raises,
    "raises lookup": raises_lookup,
    "raises OSError": raises_like_the_library,
    "async raises": async_version(raises),
    "async group": raises_group,
    "str": returns("OK"),
    "True": returns(True),
    "pair": returns((200, "OK")),
    "async pair": async_version(returns((200, "OK"))),
    "CRLF in header": sets_header,
    "CRLF in phrase": returns(response(reason_phrase="OK\r\nInjected: yes")),
    "CR in phrase": returns(response(reason_phrase="OK\rInjected: yes")),
    "NUL in phrase": returns(response(reason_phrase="O\0K")),
    "no Latin-1 phrase": returns(response(reason_phrase="\u2713")),
    "phrase None": returns(response(reason_phrase=None)),
    "status 99": returns(response(status_code=99)),
    "status 1000": returns(response(status_code=1000)),
    "status str": returns(response(status_code="200 OK\r\nInjected: yes")),
    "status None": returns(response(status_code=None)),
    "interim status": returns(response(status_code=100)),
    "headers dict": returns(response(headers={"X": "y\r\nInjected: yes"})),
    "headers None": returns(response(headers=None)),
    "body str": returns(response(body="text")),
    "body None": returns(response(body=None)),
    "async body str": async_version(returns(response(body="text"))),
}


async def check_failure(caplog: pytest.LogCaptureFixture, **hooks: Any) -> None:
    """Check that a client gets a 500, the log the traceback, others nothing."""
    (name,) = hooks
    failing = True

    def sometimes(*args: Any) -> Any:
        return hooks[name](*args) if failing else None

    async with serving(**{name: sometimes}) as listener:
        failing = False
        async with trio_ws.connect("ws://h/", stream=listener.connect()) as ws:
            failing = True
            caplog.clear()
            answer = await ask(listener, b"Sec-WebSocket-Protocol: chat")
            assert answer.status == 500
            assert answer.header("Connection") == "close"
            assert answer.header("Injected") is None
            # What went wrong is for the log alone.
            assert b"log" in answer.rest
            assert b"bug" not in answer.rest
            (error,) = records(caplog, logging.ERROR)
            assert logs.plain(error) == f"{name} failed"
            assert error.exc_info is not None
            assert error.exc_info[2] is not None
            failing = False
            await ws.send("unharmed")
            assert await ws.recv() == "unharmed"
            async with trio_ws.connect("ws://h/", stream=listener.connect()) as other:
                await other.send("served")
                assert await other.recv() == "served"
    assert len(records(caplog, logging.ERROR)) == 1


# Hooks that fail


@pytest.mark.parametrize("hook", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_a_hook_that_fails_is_a_500(
    name: str, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    await check_failure(caplog, **{name: hook})


@pytest.mark.parametrize(
    "hook",
    [
        raises,
        raises_lookup,
        returns("other"),
        returns(""),
        returns(["chat"]),
        returns("chat\r\nInjected: yes"),
    ],
)
async def test_a_select_subprotocol_that_fails_is_a_500(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    await check_failure(caplog, select_subprotocol=hook)


@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_no_hook_can_open_what_was_not_checked(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A 101 to a request that asks for none would make a WebSocket of anything."""

    def switch(*args: object) -> Response:
        return Response(101, "Switching Protocols", Headers({"Upgrade": "websocket"}))

    options: dict[str, Any] = {name: switch}
    async with serving(**options) as listener:
        assert (await ask(listener, without=b"Upgrade")).status == 500
    assert len(records(caplog, logging.ERROR)) == 1


@pytest.mark.parametrize("name", ["process_request", "process_response"])
@pytest.mark.parametrize(
    "use",
    [
        lambda ws: ws.send("early"),
        lambda ws: ws.recv(),
        lambda ws: ws.ping(),
        lambda ws: ws.aclose(),
    ],
    ids=["send", "recv", "ping", "aclose"],
)
async def test_no_frame_goes_before_the_response(
    name: str, use: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    async def hook(ws: ServerConnection, *args: object) -> None:
        await use(ws)

    await check_failure(caplog, **{name: hook})


async def test_what_process_response_does_before_it_fails_is_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(ws: ServerConnection, request: Request, response: Response) -> None:
        response.headers["Set-Cookie"] = "session=1"
        raise RuntimeError

    async with serving(process_response=fail) as listener:
        answer = await ask(listener)
    assert (answer.status, answer.header("Set-Cookie")) == (500, None)
    assert len(records(caplog, logging.ERROR)) == 1


# Hooks that wait


async def test_a_hook_that_waits_is_cut_at_open_timeout(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ended = []

    async def forever(*args: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    for name in ("process_request", "process_response"):
        options: dict[str, Any] = {name: forever, "open_timeout": 3}
        async with serving(**options) as listener:
            start = trio.current_time()
            stream = listener.connect()
            await stream.send_all(raw_http.request())
            assert (await raw_http.read_answer(stream)).status == 503
            assert trio.current_time() == start + 3
            assert ended.pop() == start + 3
    messages = [logs.plain(record) for record in records(caplog, logging.INFO)]
    expected = (
        "opening handshake failed: OpenTimeoutError: "
        "connection not open after 3 s (open_timeout): "
    )
    assert messages == [expected + "process_request", expected + "process_response"]
    assert records(caplog, logging.ERROR) == []


@pytest.mark.parametrize("status", [101, 403])
async def test_what_hooks_let_wait_for_the_end_sees_that_of_one_never_open(
    status: int, autojump_clock: MockClock
) -> None:
    ended: list[object] = []

    async def wait_for(ws: ServerConnection) -> None:
        await ws.wait_closed()
        ended.append((ws.state, ws.close_code, ws.statistics().age))
        with pytest.raises(ConnectionClosedError):
            await ws.recv()

    async def hook(
        ws: ServerConnection, request: Request, response: Response
    ) -> Response | None:
        nursery.start_soon(wait_for, ws)
        await wait_all_tasks_blocked()
        assert ended == []
        if status == 101:  # which comes too late
            await trio.sleep(100)
        return ws.respond(status, "")

    async with trio.open_nursery() as nursery:
        async with serving(echo, process_response=hook) as listener:
            answer = await ask(listener)
            assert answer.status == (503 if status == 101 else 403)
            await trio.sleep(2)
            assert ended == [(State.CLOSED, 1006, 0)]


async def test_a_hook_that_waits_keeps_no_other_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(ws: ServerConnection, request: Request) -> None:
        if request.path == "/slow":
            await trio.sleep(5)

    async def open_slow(listener: MemoryListener) -> None:
        start = trio.current_time()
        async with trio_ws.connect("ws://h/slow", stream=listener.connect()):
            assert trio.current_time() == start + 5

    async with serving(process_request=slow) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_slow, listener)
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            async with trio_ws.connect("ws://h/", stream=listener.connect()) as ws:
                await ws.send("quick")
                assert await ws.recv() == "quick"
                assert trio.current_time() == start


@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_closing_the_server_waits_for_hooks_as_for_handlers(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def wait(*args: object) -> None:
        await trio.sleep(4)

    listener = MemoryListener()
    options: dict[str, Any] = {name: wait}
    async with trio_ws.open_server(echo, listeners=[listener], **options) as server:
        stream = listener.connect()
        await stream.send_all(raw_http.request())
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose(timeout=5)
        assert trio.current_time() == 4
        # The hook let it in, the server doesn't any more.
        assert (await raw_http.read_answer(stream)).status == 503


@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_closing_the_server_cuts_a_hook_that_waits_too_long(
    name: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    async def forever(*args: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    listener = MemoryListener()
    options: dict[str, Any] = {name: forever, "open_timeout": None}
    async with trio_ws.open_server(echo, listeners=[listener], **options) as server:
        stream = listener.connect()
        await stream.send_all(raw_http.request())
        await trio.testing.wait_all_tasks_blocked()
        await server.aclose(timeout=5)
        assert (trio.current_time(), ended) == (5, [5])
        assert await raw_http.read_to_end(stream) == b""
    assert records(caplog, logging.ERROR) == []


# What hooks and handlers share


async def test_a_hook_can_leave_a_note_for_the_handler() -> None:
    seen: list[tuple[ServerConnection, str]] = []

    def process_request(ws: ServerConnection, request: Request) -> None:
        assert ws.state is trio_ws.State.CONNECTING
        assert ws.request is request
        assert ws.response is None
        seen.append((ws, "process_request"))
        ws.user = "ada"  # type: ignore[attr-defined]

    def select(ws: ServerConnection, offered: Sequence[str]) -> None:
        seen.append((ws, "select_subprotocol"))

    def process_response(
        ws: ServerConnection, request: Request, response: Response
    ) -> None:
        seen.append((ws, "process_response"))
        ws.user += " lovelace"  # type: ignore[attr-defined]

    async def handler(ws: ServerConnection) -> None:
        seen.append((ws, "handler"))
        await ws.send(ws.user)  # type: ignore[attr-defined]

    async with serving(
        handler,
        process_request=process_request,
        select_subprotocol=select,
        process_response=process_response,
    ) as listener:
        async with trio_ws.connect("ws://h/", stream=listener.connect()) as ws:
            assert await ws.recv() == "ada lovelace"
    assert [name for _, name in seen] == [
        "process_request",
        "select_subprotocol",
        "process_response",
        "handler",
    ]
    assert len({id(ws) for ws, _ in seen}) == 1


class Named(ServerConnection):
    def __init__(self, *args: Any, prefix: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefix = prefix


async def test_hooks_get_what_create_connection_makes() -> None:
    def process_request(ws: ServerConnection, request: Request) -> None:
        assert isinstance(ws, Named)
        ws.prefix += request.path

    async def handler(ws: ServerConnection) -> None:
        assert isinstance(ws, Named)
        await ws.send(ws.prefix)

    async with serving(
        handler,
        process_request=process_request,
        create_connection=functools.partial(Named, prefix="at "),
    ) as listener:
        for path in ("/one", "/two"):
            async with trio_ws.connect(
                f"ws://h{path}", stream=listener.connect()
            ) as ws:
                assert await ws.recv() == f"at {path}"


@pytest.mark.parametrize(
    "create", [raises, returns(None), returns(trio_ws.ClientConnection), lambda: None]
)
async def test_a_create_connection_that_fails_is_a_500(
    create: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(create_connection=create) as listener:
        assert (await ask(listener)).status == 500
        assert (await ask(listener)).status == 500
    errors = records(caplog, logging.ERROR)
    assert len(errors) == 2
    assert all(error.exc_info for error in errors)


class Broken(ServerExtensionFactory):
    """One with a bug."""

    name = "x-broken"

    def process_request_params(self, *_: Any) -> Any:
        raise LookupError("a bug of the extension's")


async def test_a_bug_of_an_extension_isnt_a_hooks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(
        extensions=[Broken()], select_subprotocol=lambda *_: None
    ) as listener:
        asked = b"Sec-WebSocket-Extensions: x-broken"
        assert (await ask(listener, asked)).status == 500
    [error] = records(caplog, logging.ERROR)
    assert logs.plain(error) == "opening handshake failed"


async def test_what_a_hook_raises_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(process_request=raises) as listener:
        assert (await ask(listener)).status == 500
    assert logs.messages(caplog) == ["process_request failed"]


async def test_accept_raises_what_a_hook_has_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(ws: ServerConnection, _: Request) -> Response:
        return ws.respond(401, "no")

    for hook, status, cause in (
        (refuse, 401, type(None)),
        (raises, 500, RuntimeError),
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(raw_http.request())
        with pytest.raises(trio_ws.InvalidStatus) as caught:
            async with trio_ws.accept(ours, process_request=hook):
                raise AssertionError("entered")
        assert caught.value.response.status_code == status
        assert type(caught.value.__cause__) is cause
        assert (await raw_http.read_answer(theirs)).status == status
