"""What is asked for before each attempt: the URI and the headers."""

# ruff: noqa: PT012 - what raises is the end of a loop, which has to be there

from __future__ import annotations

import functools
import logging
import ssl
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.network import URI, Network, delays, no_delays, served
from trio_ws import (
    Headers,
    InvalidURI,
    OpenTimeoutError,
    Request,
    Response,
    ServerConnection,
    open_server,
    process_exception,
    reconnect,
)

ASKED = ("ws://server/1?sign=s3cret1", "ws://other:81/2?sign=s3cret2")


class Source:
    """Says one thing after the other, or raises it."""

    def __init__(self, *script: Any) -> None:
        self.script = [*script]
        self.asked = 0

    def now(self) -> Any:
        self.asked += 1
        assert not trio.lowlevel.currently_ki_protected()
        outcome = self.script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def later(self) -> Any:
        await trio.sleep(1)
        assert not trio.lowlevel.currently_ki_protected()
        return self.now()


FORMS: list[Callable[[Source], Callable[[], Any]]] = [
    lambda source: source.now,
    lambda source: source.later,
    lambda source: functools.partial(source.later),
    lambda source: lambda: source.later(),
]


@pytest.mark.parametrize("form", FORMS, ids=["now", "async", "partial", "lambda"])
async def test_each_attempt_has_its_own(
    form: Callable[[Source], Callable[[], Any]],
    network: Network,
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[str, str, str | None]] = []

    def see(_: ServerConnection, request: Request) -> None:
        headers = request.headers
        seen.append((request.path, headers["Host"], headers.get("Authorization")))

    network.script = [None, ConnectionRefusedError()]
    uris = Source(ASKED[0], ASKED[1], ASKED[1])
    headers = Source({"Authorization": "1"}, [("Authorization", "2")], None)
    async with served(network, process_request=see):
        async for attempt in reconnect(
            form(uris), additional_headers=form(headers), reconnect_delays=no_delays
        ):
            async with attempt as ws:
                await ws.recv()
                if len(seen) == 2:
                    break
    assert seen == [
        ("/1?sign=s3cret1", "server", "1"),
        ("/2?sign=s3cret2", "other:81", None),
    ]
    assert uris.asked == headers.asked == 3


async def test_one_is_asked_and_the_other_is_given(network: Network) -> None:
    async with served(network):
        async for attempt in reconnect(lambda: URI, additional_headers={"X": "1"}):
            async with attempt as ws:
                assert ws.request.headers["X"] == "1"
                break
        async for attempt in reconnect(URI, additional_headers=lambda: {"X": "2"}):
            async with attempt as ws:
                assert ws.request.headers["X"] == "2"
                break


# -- What goes wrong -----------------------------------------------------------


class StatusError(Exception):
    """As HTTP clients have it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.response = Response(status, "", Headers())


@pytest.mark.parametrize("form", FORMS[:2], ids=["now", "async"])
@pytest.mark.parametrize("name", ["the URI", "additional_headers"])
@pytest.mark.parametrize(
    ("make", "again"),
    [
        (lambda: ConnectionRefusedError("token server"), True),
        (lambda: StatusError(503), True),
        (lambda: StatusError(401), False),
        (lambda: TypeError("bug"), False),
        (lambda: ValueError("bug"), False),
        (StopIteration, False),
        (StopAsyncIteration, False),
    ],
)
async def test_what_they_raise(
    make: Callable[[], Exception],
    again: bool,
    name: str,
    form: Callable[[Source], Callable[[], Any]],
    network: Network,
    autojump_clock: trio.testing.MockClock,
) -> None:
    right: Any = URI if name == "the URI" else None
    exc = make()
    asked: Any = form(Source(exc, make(), right))
    uri, headers = (asked, None) if name == "the URI" else (URI, asked)
    raised = None
    told: list[Exception] = []

    def decide(one: Exception) -> Exception | None:
        told.append(one)
        return process_exception(one)

    async with served(network):
        try:
            async for attempt in reconnect(
                uri,
                additional_headers=headers,
                reconnect_delays=no_delays,
                process_exception=decide,
            ):
                async with attempt:
                    break
            else:
                raise AssertionError("the loop ended")
        except Exception as error:  # noqa: BLE001 - looked at
            raised = error
    assert [one.__notes__ for one in told] == [[f"asking for {name}"]] * (1 + again)
    if again:
        assert raised is None
    elif isinstance(exc, StopIteration | StopAsyncIteration):
        assert isinstance(raised, RuntimeError)
        assert f"raised {type(exc).__name__}" in str(raised)
        assert raised.__cause__ is exc
    else:
        assert raised is exc


@pytest.mark.parametrize(
    ("uri", "headers", "options", "kind", "match"),
    [
        (5, None, {}, TypeError, "URI: expected a str; got int"),
        (None, None, {}, TypeError, "URI: expected a str; got NoneType"),
        ("http://h/", None, {}, InvalidURI, "scheme isn't ws or wss"),
        (URI, None, {"server_hostname": "a"}, ValueError, "server_hostname: expected"),
        (URI, 5, {}, TypeError, "additional_headers: "),
        (URI, "X: 1", {}, TypeError, "additional_headers: "),
        (URI, {"X": "a\r\nb"}, {}, ValueError, "additional_headers: "),
        (URI, {"Host": "a"}, {}, ValueError, "got host"),
    ],
)
async def test_what_they_return_is_checked(
    uri: Any,
    headers: Any,
    options: dict[str, Any],
    kind: type[Exception],
    match: str,
    network: Network,
) -> None:
    with pytest.raises(kind, match=match):
        async for _ in reconnect(
            lambda: uri, additional_headers=lambda: headers, **options
        ):
            raise AssertionError("opened")
    for stream in network.streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"")


def test_arguments_are_checked_at_once_where_they_are_known() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="URI: expected a str; got int"):
        reconnect(wrong)
    with pytest.raises(TypeError, match="additional_headers"):
        reconnect(URI, additional_headers=wrong)
    with pytest.raises(ValueError, match="got host"):
        reconnect(lambda: URI, additional_headers={"Host": "a"})
    with pytest.raises(InvalidURI):
        reconnect("http://h/", additional_headers=dict)
    with pytest.raises(TypeError, match="ssl: expected an"):
        reconnect(lambda: URI, ssl=wrong)


async def test_a_context_for_whatever_uri_comes() -> None:
    context = ssl.create_default_context()
    with pytest.raises(ValueError, match="ssl: expected a wss:// URI with it"):
        await anext(reconnect(lambda: URI, ssl=context))


async def test_open_timeout_covers_them(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    source = Source(URI)
    slow = [True]

    async def uri() -> str:
        if slow.pop():
            await trio.sleep_forever()
        return str(source.now())

    slow = [False, True]
    errors: list[Exception] = []

    def decide(exc: Exception) -> None:
        errors.append(exc)

    async with served(network):
        async for attempt in reconnect(
            uri, reconnect_delays=delays(3), open_timeout=4, process_exception=decide
        ):
            async with attempt:
                break
    assert network.times == [7]
    (error,) = errors
    assert isinstance(error, OpenTimeoutError)
    assert str(error) == (
        "connection not open after 4 s (open_timeout): asking for the URI"
    )


@pytest.mark.parametrize("name", ["uri", "headers"])
async def test_a_cancellation_while_they_are_asked(
    name: str, network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[str] = []

    async def forever() -> Any:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    uri, headers = (forever, None) if name == "uri" else (URI, forever)
    loop = reconnect(uri, additional_headers=headers)
    with trio.move_on_after(2) as scope:
        await anext(loop)
    assert scope.cancelled_caught
    assert ended == [name]
    assert network.times == []


async def test_a_function_that_a_cancellation_does_not_end(network: Network) -> None:
    """As a thread that can't be abandoned."""

    async def uri() -> str:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return URI

    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(reconnect(uri))
    assert scope.cancelled_caught
    assert network.times == []


async def test_another_origin_is_not_told_what_they_said() -> None:
    seen: list[Headers] = []

    def see(_: ServerConnection, request: Request) -> None:
        seen.append(request.headers)

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async with open_server(handler, 0, host="127.0.0.1", process_request=see) as far:

        def answer(_: ServerConnection, request: Request) -> Response:
            seen.append(request.headers)
            location = Headers({"Location": f"ws://127.0.0.1:{far.port}/"})
            return Response(302, "", location)

        async with open_server(
            handler, 0, host="127.0.0.1", process_request=answer
        ) as near:
            async for attempt in reconnect(
                lambda: f"ws://127.0.0.1:{near.port}/",
                additional_headers=lambda: {"Authorization": "a", "X": "x"},
            ):
                async with attempt:
                    break
    assert [(one.get("Authorization"), one["X"]) for one in seen] == [
        ("a", "x"),
        (None, "x"),
    ]


# -- Secrets -------------------------------------------------------------------


def raising(exc: Exception) -> Callable[[], Any]:
    def function() -> Any:
        raise exc

    return function


LEAKY: list[Callable[[], Any]] = [
    raising(OSError("GET https://u:s3cret@tokens/a?key=s3cret#s3cret: refused")),
    raising(OSError("Max retries exceeded with url: /token?key=s3cret (Caused")),
    lambda: "http://h/?sign=s3cret",
    lambda: "//h/?sign=s3cret",
    lambda: "ws://u:s3cret@h:x/?sign=s3cret",
]


async def test_no_secret_gets_into_a_log_or_an_error(
    network: Network,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level(logging.DEBUG)
    script: Iterator[Callable[[], Any]] = iter(
        [*LEAKY, lambda: "ws://h/a?sign=s3cret", lambda: "ws://h/b?sign=s3cret"]
    )

    def redirect(ws: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith("/a"):
            return None
        response = ws.respond(302, "")
        response.headers["Location"] = "http://h/c?sign=s3cret"
        return response

    raised: list[Exception] = []

    async with served(network, process_request=redirect):
        async for attempt in reconnect(
            lambda: next(script)(),
            additional_headers={"Authorization": "s3cret", "Referer": "/?a=s3cret"},
            process_exception=raised.append,
        ):
            async with attempt as ws:
                if ws.request.path.startswith("/b"):
                    break
                assert ws.request.path == "/c?sign=s3cret"
    assert len(raised) == len(LEAKY)
    assert "s3cret" not in caplog.text
    assert "GET /b?*** HTTP/1.1" in caplog.text
    assert "Location: http://h/c?***" in caplog.text
    for exc in raised:
        if isinstance(exc, InvalidURI):
            assert "s3cret" not in "".join(traceback.format_exception(exc))
            assert "s3cret" not in repr(exc)
