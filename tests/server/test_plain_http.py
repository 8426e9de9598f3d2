"""Plain HTTP on a server's port: any method and version, with a body, by a hook."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests import logs
from tests.handlers import echo
from tests.peers import raw_http
from tests.peers.in_memory import TEXT, MemoryListener, frame
from tests.server.serving import serving
from trio_ws import Request, Response, ServerConnection, open_server

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def health_check(ws: ServerConnection, request: Request) -> Response | None:
    if request.path == "/healthz":
        return ws.respond(200, "OK\n")
    return None


def show(ws: ServerConnection, request: Request) -> Response:
    """Answer with what came, and count the answers."""
    return ws.respond(200, repr((request.method, request.protocol, request.body)))


def plain(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return raw_http.request(line=line, headers=headers) + body


async def ask(
    listener: MemoryListener, *pieces: bytes, head: bool = False
) -> raw_http.Answer:
    stream = listener.connect()
    for piece in pieces:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()
    return await raw_http.read_answer(stream, head=head)


CHECKS = {
    "option httpchk": plain(b"OPTIONS /healthz HTTP/1.0"),
    "option httpchk uri": plain(b"GET /healthz HTTP/1.0"),
    "without host": plain(b"GET /healthz HTTP/1.1"),
    "http-check send": plain(b"GET /healthz HTTP/1.1", b"Host: app"),
    "monitoring": plain(
        b"GET /healthz HTTP/1.0", b"User-Agent: check_http/v2.3", b"Connection: close"
    ),
    "put": plain(
        b"PUT /healthz HTTP/1.1", b"Host: a", b"Content-Length: 3", body=b"abc"
    ),
    "odd": plain(b"BREW /healthz HTTP/1.7", b"Host: a"),
    "websocket": raw_http.request(line=b"GET /healthz HTTP/1.1"),
    "websocket with a body": raw_http.request(
        b"Content-Length: 2", line=b"GET /healthz HTTP/1.1"
    )
    + b"\x81\x80",
}


@pytest.mark.parametrize("data", CHECKS.values(), ids=CHECKS)
async def test_a_health_check_of_three_lines(data: bytes) -> None:
    async with serving(process_request=health_check) as listener:
        answer = await ask(listener, data)
        assert (answer.status, answer.rest) == (200, b"OK\n")
        assert answer.header("Connection") == "close"
        by_byte = [data[i : i + 1] for i in range(len(data))]
        assert (await ask(listener, *by_byte)).status == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_head_has_the_headers_of_get(version: bytes) -> None:
    line = b" /healthz HTTP/" + version
    async with serving(process_request=health_check) as listener:
        get = await ask(listener, plain(b"GET" + line))
        head = await ask(listener, plain(b"HEAD" + line), head=True)
    assert dict(head.headers).keys() == dict(get.headers).keys()
    assert head.header("Content-Length") == "3"


async def test_the_length_that_a_hook_gives_head() -> None:
    def length(ws: ServerConnection, request: Request) -> Response:
        return ws.respond(200, b"", headers={"Content-Length": "1000"})

    async with serving(process_request=length) as listener:
        head = await ask(listener, plain(b"HEAD / HTTP/1.1"), head=True)
        get = await ask(listener, plain(b"GET / HTTP/1.1"))
    assert head.header("Content-Length") == "1000"
    assert get.header("Content-Length") == "0"


@pytest.mark.parametrize(("status", "length"), [(200, None), (403, "3")])
async def test_connect_opens_no_tunnel(status: int, length: str | None) -> None:
    async with serving(
        process_request=lambda ws, request: ws.respond(status, request.path)
    ) as listener:
        answer = await ask(listener, plain(b"CONNECT a:1 HTTP/1.1"))
    assert (answer.status, answer.header("Content-Length")) == (status, length)
    assert answer.rest == (b"a:1" if length else b"")


async def test_json() -> None:
    def double(ws: ServerConnection, request: Request) -> Response:
        number = json.loads(request.body)["number"]
        text = json.dumps({"number": number * 2})
        return ws.respond(201, text, content_type="application/json")

    async with serving(process_request=double) as listener:
        answer = await ask(
            listener,
            plain(
                b"POST / HTTP/1.1",
                b"Host: a",
                b"Content-Length: 13",
                body=b'{"number": 4}',
            ),
        )
    assert (answer.status, answer.rest) == (201, b'{"number": 8}')
    assert answer.header("Content-Type") == "application/json"


async def test_cors_preflight() -> None:
    def allow(ws: ServerConnection, request: Request) -> Response | None:
        if request.method == "OPTIONS":
            allowed = {"Access-Control-Allow-Origin": request.headers["Origin"]}
            return ws.respond(204, "", headers=allowed)
        return None

    async with serving(process_request=allow) as listener:
        answer = await ask(
            listener,
            plain(
                b"OPTIONS / HTTP/1.1",
                b"Host: a",
                b"Origin: https://example.com",
                b"Access-Control-Request-Method: POST",
            ),
        )
    assert answer.status == 204
    assert answer.header("Access-Control-Allow-Origin") == "https://example.com"
    assert answer.header("Content-Length") is None


@pytest.mark.parametrize(
    ("body", "keywords", "content_type", "sent"),
    [
        ("ü", {}, "text/plain; charset=utf-8", b"\xc3\xbc"),
        (b"\xff", {}, "application/octet-stream", b"\xff"),
        ("ü", {"content_type": "text/html"}, "text/html; charset=utf-8", b"\xc3\xbc"),
        ("", {"content_type": "text/css; charset=x"}, "text/css; charset=x", b""),
        ("{}", {"content_type": "application/json"}, "application/json", b"{}"),
        (b"<p>", {"content_type": "text/html"}, "text/html", b"<p>"),
        ("a", {"headers": {"content-type": "a/b"}}, "a/b", b"a"),
        ("a", {"headers": [("Content-Type", "a/b")]}, "a/b", b"a"),
    ],
)
async def test_what_respond_makes(
    body: str | bytes, keywords: dict[str, Any], content_type: str, sent: bytes
) -> None:
    async with serving(
        process_request=lambda ws, request: ws.respond(200, body, **keywords)
    ) as listener:
        answer = await ask(listener, plain(b"GET / HTTP/1.1"))
    assert (answer.header("Content-Type"), answer.rest) == (content_type, sent)
    assert answer.header("Content-Length") == str(len(sent))


@pytest.mark.parametrize(
    ("kind", "text", "arguments", "keywords"),
    [
        (TypeError, "body: expected str or bytes; got 1", [1], {}),
        (TypeError, "body: expected str or bytes; got None", [None], {}),
        (ValueError, "header X: ", [""], {"headers": {"X": "a\nb"}}),
        (
            TypeError,
            "headers: expected a mapping or pairs of str; got 3",
            [""],
            {"headers": 3},
        ),
        (TypeError, "headers: expected .* got False", [""], {"headers": False}),
        (ValueError, "Content-Type", [""], {"content_type": "a\r\nb"}),
        (
            TypeError,
            "content_type: expected a str; got b'a'",
            [""],
            {"content_type": b"a"},
        ),
    ],
)
async def test_what_respond_refuses(
    kind: type[Exception], text: str, arguments: list[Any], keywords: dict[str, Any]
) -> None:
    def answer(ws: ServerConnection, request: Request) -> Response:
        with pytest.raises(kind, match=text):
            ws.respond(200, *arguments, **keywords)
        return ws.respond(200, "refused")

    async with serving(process_request=answer) as listener:
        assert (await ask(listener, plain(b"GET / HTTP/1.1"))).rest == b"refused"


# What no hook answers


REFUSED = [
    (plain(b"POST / HTTP/1.1", b"Host: a"), 405),
    (plain(b"OPTIONS * HTTP/1.1", b"Host: a"), 405),
    (plain(b"GET / HTTP/1.0", b"Host: a"), 505),
    (plain(b"GET / HTTP/1.1"), 400),
    (plain(b"GET / HTTP/1.1", b"Host: a"), 426),
    (raw_http.request(without=b"Host"), 400),
    (raw_http.request(b"Content-Length: 2") + frame(TEXT, masked=True)[:2], 400),
]


@pytest.mark.parametrize("hook", [None, health_check])
@pytest.mark.parametrize(("data", "status"), REFUSED)
async def test_what_no_hook_answers_is_refused(
    data: bytes, status: int, hook: Callable[..., Any] | None
) -> None:
    statuses = []

    def note(ws: ServerConnection, request: Request, response: Response) -> None:
        statuses.append(response.status_code)

    async with serving(process_request=hook, process_response=note) as listener:
        assert (await ask(listener, data)).status == status
        assert (await ask(listener, data + data)).status == status
    if hook is not None:
        assert statuses == [status] * 2


# Bodies


async def test_bytes_of_a_body_are_no_frames_and_no_request() -> None:
    """Of a request for a WebSocket with a body, nothing is taken for anything else."""
    seen = []

    def note(ws: ServerConnection, request: Request) -> None:
        seen.append((request.path, request.body))

    async def never(ws: ServerConnection) -> None:
        raise AssertionError("it was accepted")

    inner = raw_http.request(line=b"GET /inner HTTP/1.1")
    length = b"Content-Length: %d" % len(inner)
    data = raw_http.request(length) + inner
    async with serving(never, process_request=note) as listener:
        assert (await ask(listener, data + inner)).status == 400
        by_byte = [data[i : i + 1] for i in range(len(data))]
        assert (await ask(listener, *by_byte)).status == 400
    assert seen == [("/chat", inner)] * 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"Content-Length: 65537"], 413),
        ([b"Content-Length: 65537", b"Expect: 100-continue"], 413),
        ([b"Content-Length: 1", b"Content-Length: 1"], 400),
        ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked"], 501),
        ([b"Transfer-Encoding: chunked", b"Expect: 100-continue"], 501),
    ],
)
@pytest.mark.parametrize("more", [b"", b"x" * 70_000])
async def test_a_body_that_is_refused_by_its_head(
    headers: list[bytes], status: int, more: bytes
) -> None:
    async with serving(process_request=show) as listener:
        data = plain(b"POST / HTTP/1.1", b"Host: a", *headers)
        assert (await ask(listener, data + more)).status == status


async def send_after_continue(stream: trio.abc.Stream, head: bytes) -> bytes:
    await stream.send_all(head)
    came = await stream.receive_some()
    await stream.send_all(b"{}")
    return bytes(came) + await raw_http.read_to_end(stream)


async def test_expect_100_continue() -> None:
    head = plain(
        b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 2", b"Expect: 100-continue"
    )
    async with serving(process_request=show) as listener:
        came = await send_after_continue(listener.connect(), head)
        assert came.startswith(CONTINUE)
        assert raw_http.parse(came.removeprefix(CONTINUE)).status == 200
        # Nobody is told to go on who does so anyway.
        answer = await ask(listener, head + b"{", b"}")
        assert answer.rest == b"('POST', 'HTTP/1.1', b'{}')"


async def test_nobody_is_told_to_go_on_without_a_hook() -> None:
    head = plain(
        b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 2", b"Expect: 100-continue"
    )
    async with serving() as listener:
        assert (await ask(listener, head)).status == 405


@pytest.mark.parametrize("sent", [b"", b"a"], ids=len)
async def test_a_body_that_does_not_come(
    sent: bytes,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    data = plain(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 2", body=sent)
    async with serving(process_request=show, open_timeout=5) as listener:
        stream = listener.connect()
        await stream.send_all(data)
        assert (await raw_http.read_answer(stream)).status == 408
        assert trio.current_time() == 5
    (record,) = logs.told(caplog)
    assert logs.plain(record) == (
        "opening handshake failed: OpenTimeoutError: "
        "connection not open after 5 s (open_timeout): request body"
    )


async def test_a_body_that_trickles(autojump_clock: trio.testing.MockClock) -> None:
    head = plain(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 100")
    async with serving(process_request=show) as listener:
        stream = listener.connect()
        await stream.send_all(head)

        async def trickle() -> None:
            while True:
                await stream.send_all(b"x")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert b"408" in await stream.receive_some()
            assert trio.current_time() == 10
            nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_within_the_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    data = plain(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 2", body=b"a")
    async with serving(process_request=show) as listener:
        stream = listener.connect()
        await stream.send_all(data)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_eof()
        assert await raw_http.read_to_end(stream) == b""
    (record,) = logs.told(caplog)
    assert f"connection closed after {len(data)} bytes" in logs.plain(record)


Stop = Callable[[trio_ws.Server, trio.Nursery], Awaitable[None]]


async def aclose(server: trio_ws.Server, nursery: trio.Nursery) -> None:
    await server.aclose()


async def cancel(server: trio_ws.Server, nursery: trio.Nursery) -> None:
    nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()


@pytest.mark.parametrize(
    ("stop", "answer"), [(aclose, b"HTTP/1.1 503 "), (cancel, b"")]
)
async def test_a_server_that_stops_within_the_body(
    stop: Stop, answer: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    listener = MemoryListener()
    stream = None
    async with trio.open_nursery() as nursery:
        async with trio_ws.open_server(
            _never, listeners=[listener], process_request=show
        ) as server:
            stream = listener.connect()
            await stream.send_all(plain(b"POST / HTTP/1.1", b"Content-Length: 2"))
            await trio.testing.wait_all_tasks_blocked()
            await stop(server, nursery)
    assert stream is not None
    came = await raw_http.read_to_end(stream)
    assert came[: len(answer)] == answer
    assert bool(came) is bool(answer)


async def _never(ws: ServerConnection) -> None:
    raise AssertionError("it was accepted")


async def test_the_log_tells_method_and_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(process_request=health_check) as listener:
        await ask(listener, plain(b"OPTIONS /healthz HTTP/1.0"))
    lines = [logs.plain(record) for record in logs.told(caplog)]
    assert "< OPTIONS /healthz HTTP/1.0" in lines
    assert "HTTP response sent: 200" in lines


async def test_an_answer_that_is_taken_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    page = bytes(300_000)
    listener = MemoryListener()
    async with open_server(
        echo,
        listeners=[listener],
        process_request=lambda ws, request: ws.respond(200, page),
        open_timeout=5,
    ) as server:
        stream, theirs = trio.testing.lockstep_stream_pair()
        listener.add(theirs)
        await stream.send_all(plain(b"GET / HTTP/1.1", b"Host: a"))
        received = b""
        while part := await stream.receive_some(50_000):
            received += part
            await trio.sleep(1)
        assert received.endswith(b"\r\n\r\n" + page)
        assert trio.current_time() > 15
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().answered == 1
        assert server.statistics().refused == {}


@pytest.mark.parametrize("taken", [0, 100_000])
@pytest.mark.parametrize("goes", [False, True])
async def test_an_answer_that_is_not_taken(
    taken: int,
    goes: bool,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with open_server(
        echo,
        listeners=[listener],
        process_request=lambda ws, request: ws.respond(200, bytes(300_000)),
        open_timeout=5,
    ) as server:
        stream, theirs = trio.testing.lockstep_stream_pair()
        listener.add(theirs)
        await stream.send_all(plain(b"GET / HTTP/1.1", b"Host: a"))
        while taken > 0:
            taken -= len(await stream.receive_some(taken))
        if goes:
            await stream.aclose()
        await trio.sleep(5)
        await trio.testing.wait_all_tasks_blocked()
        counts = server.statistics()
        assert (counts.answered, counts.handshakes) == (0, 0)
        assert list(counts.refused.values()) == [1]
        (record,) = logs.told(caplog)
        (reason,) = counts.refused
        assert f"opening handshake failed: {reason}: " in record.getMessage()
        assert (reason == "OpenTimeoutError") is not goes
        if not goes:
            assert record.getMessage().endswith("after 5 s (open_timeout): response")
        await stream.aclose()
