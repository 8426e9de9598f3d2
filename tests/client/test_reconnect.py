"""reconnect(): one connection after the other, and nothing left of any."""

# ruff: noqa: PT012, PT031 - what raises is the end of a loop, which has to be there

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.client.network import (
    URI,
    Network,
    delays,
    greet,
    greet_and_close,
    no_delays,
    refusal,
    served,
)
from tests.leaks import descriptors
from trio_ws import (
    Attempt,
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    OpenTimeoutError,
    Response,
    ServerConnection,
    accept,
    open_server,
    process_exception,
    reconnect,
)
from trio_ws.testing import open_pair

# -- Leaving -------------------------------------------------------------------


async def test_break_return_and_exceptions_leave_nothing_behind(
    network: Network,
) -> None:
    async with served(network):

        async def by_return() -> str:
            async for attempt in reconnect(URI):
                async with attempt as ws:
                    return str(await ws.recv())
            raise AssertionError("the loop ended")

        assert await by_return() == "hello"
        async for attempt in reconnect(URI):
            async with attempt as ws:
                await ws.recv()
                break
        async for attempt in reconnect(URI):
            async with attempt as ws:
                await ws.recv()
            break
        error = ValueError("the user's")
        with pytest.raises(ValueError, match="the user's") as caught:
            async for attempt in reconnect(URI):
                async with attempt:
                    raise error
        assert caught.value is error
        assert error.__cause__ is None
        # None of ours between where it was raised and here.
        files = {str(entry.path) for entry in caught.traceback}
        assert files == {__file__}
        assert len(network.times) == 4


async def test_a_cancellation_passes(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    async with served(network):
        with trio.move_on_after(1) as scope:
            async for attempt in reconnect(URI):
                async with attempt:
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert len(network.times) == 1


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "closed"])
async def test_a_cancellation_between_two_attempts(
    network: Network, refused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    if refused:
        network.script = [ConnectionRefusedError()]
    loop = reconnect(URI, reconnect_delays=delays(100))
    async with served(network, greet_and_close):
        with trio.move_on_after(50) as scope:
            async for attempt in loop:
                async with attempt as ws:
                    await ws.wait_closed()
        assert scope.cancelled_caught
        assert len(network.times) == 1
        # It can go on, which is at once.
        attempt = await anext(loop)
        assert trio.current_time() == network.times[0] + 50
        async with attempt:
            pass


async def test_groups_of_the_users_pass_as_they_are(network: Network) -> None:
    async with served(network):
        with pytest.raises(ExceptionGroup) as caught:
            async for attempt in reconnect(URI):
                async with attempt:
                    raise ExceptionGroup("the user's", [ValueError("1"), KeyError("2")])
    assert caught.value.message == "the user's"


async def test_two_errors_of_the_users(network: Network) -> None:
    async def fail() -> None:
        raise KeyError("child")

    async with served(network):
        with pytest.raises(ExceptionGroup) as caught:
            async for attempt in reconnect(URI):
                async with attempt as ws:
                    ws.nursery.start_soon(fail)
                    try:
                        await trio.sleep_forever()
                    finally:
                        raise ValueError("body")
    assert {type(exc) for exc in caught.value.exceptions} == {KeyError, ValueError}


# -- What an attempt swallows --------------------------------------------------


async def test_each_block_is_a_new_connection(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """However it ends: by the iteration, by recv(), untold, by the body itself."""
    codes: list[int | None] = []
    async with served(network, greet_and_close):
        async for attempt in reconnect(URI, reconnect_delays=no_delays):
            async with attempt as ws:
                number = len(codes)
                assert await ws.recv() == "hello"
                if number == 0:
                    await ws.recv()
                elif number == 1:
                    async for _ in ws:
                        pass
                elif number == 2:
                    await trio.sleep_forever()  # until loss_grace is over
                elif number == 3:
                    ws.nursery.start_soon(ws.recv)
                    await trio.sleep_forever()
                elif number == 4:
                    pass
                elif number == 5:
                    await ws.aclose()
                    await ws.recv()
                elif number == 6:
                    await ws.wait_closed()
                    raise ExceptionGroup("", [_closed(ws), _closed(ws)])
            codes.append(ws.close_code)
            if number == 7:
                break
    assert codes[:4] == [1012] * 4
    assert len(codes) == 8


def _closed(ws: Any) -> Exception:
    with pytest.raises(ConnectionClosedError) as caught:
        ws.recv_nowait()
    return caught.value


async def test_a_close_in_good_order_means_the_next_attempt_too(
    network: Network,
) -> None:
    async def close(ws: ServerConnection) -> None:
        await ws.aclose()

    count = 0
    async with served(network, close):
        async for attempt in reconnect(URI, reconnect_delays=no_delays):
            async with attempt as ws:
                count += 1
                if count == 3:
                    break
                await ws.recv()  # raises ConnectionClosedOK
    assert len(network.times) == 3


async def test_the_loss_of_another_connection_is_not_swallowed(
    network: Network,
) -> None:
    async with open_pair() as (client, server):
        await server.aclose()
        async with served(network):
            with pytest.raises(ConnectionClosedOK):
                async for attempt in reconnect(URI):
                    async with attempt:
                        await client.recv()


async def test_the_loss_of_the_attempt_before_is_not_swallowed(
    network: Network,
) -> None:
    before = None
    async with served(network, greet_and_close):
        with pytest.raises(ConnectionClosedError):
            async for attempt in reconnect(URI, reconnect_delays=no_delays):
                async with attempt as ws:
                    if before is not None:
                        await before.recv()
                    await ws.recv()
                    await ws.wait_closed()
                    before = ws


def cut_short() -> InvalidMessage:
    error = InvalidMessage("did not receive a valid HTTP response")
    error.__cause__ = EOFError("stream ended")
    return error


TRANSIENT: list[Exception] = [
    ConnectionRefusedError("refused"),
    ConnectionResetError("reset"),
    OSError("all attempts to connect failed"),
    TimeoutError("timed out"),
    socket.gaierror(socket.EAI_AGAIN, "try again"),
    socket.gaierror(socket.EAI_NONAME, "unknown"),
    OpenTimeoutError("not open after 10 s"),
    ssl.SSLEOFError("the server went"),
    cut_short(),
    *(refusal(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    *(refusal(status) for status in (*range(520, 527), 530)),
]


PERMANENT: list[Exception] = [
    ssl.SSLCertVerificationError("certificate has expired"),
    InvalidMessage("not HTTP"),
    NegotiationError("no such extension"),
    ValueError("wrong"),
    *(refusal(status) for status in (200, 301, 400, 401, 403, 404, 426)),
    *(refusal(status) for status in (501, 505, 519, 527, 529, 531)),
]


def name_of(exc: Exception) -> str:
    return f"{type(exc).__name__}-{exc}"[-60:]


# -- Errors of opening ---------------------------------------------------------


@pytest.mark.parametrize("exc", TRANSIENT, ids=name_of)
async def test_errors_that_are_tried_again(
    network: Network, exc: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    assert process_exception(exc) is None
    network.script = [exc, exc]
    async with served(network):
        async for attempt in reconnect(URI, reconnect_delays=delays(3, 4, 5)):
            async with attempt as ws:
                assert await ws.recv() == "hello"
                break
    assert network.pauses == [3, 4]


async def test_the_end_is_the_end(network: Network) -> None:
    async with served(network):
        loop = reconnect(URI, reconnect_delays=delays())
        async with await anext(loop) as ws:
            assert await ws.recv() == "hello"
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(loop)
    assert len(network.times) == 1


@pytest.mark.parametrize("exc", PERMANENT, ids=name_of)
async def test_errors_that_are_raised(network: Network, exc: Exception) -> None:
    assert process_exception(exc) is exc
    network.script = [exc]
    with pytest.raises(type(exc)) as caught:
        async for _ in reconnect(URI):
            raise AssertionError("opened")
    assert caught.value is exc
    assert exc.__cause__ is None
    assert len(network.times) == 1


@pytest.mark.parametrize(
    ("status", "again"),
    [(500, True), (502, True), (503, True), (504, True), (401, False), (404, False)],
)
async def test_what_a_server_answers(
    network: Network, status: int, again: bool, autojump_clock: trio.testing.MockClock
) -> None:
    answers = [status, status]

    def refuse(ws: ServerConnection, _: object) -> Response | None:
        return ws.respond(answers.pop(), "no") if answers else None

    outcome: int | str | bytes = 0
    async with served(network, process_request=refuse):
        try:
            async for attempt in reconnect(URI):
                async with attempt as ws:
                    outcome = await ws.recv()
                    break
        except InvalidStatus as exc:
            outcome = exc.response.status_code
    assert outcome == ("hello" if again else status)
    assert len(network.times) == (3 if again else 1)


async def test_a_server_that_says_nothing(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    times = []

    async def handler(ws: ServerConnection) -> None:
        times.append(trio.current_time())
        await greet(ws)

    async with trio.open_nursery() as nursery:
        # Takes the first connection, and is silent.
        silent = await _silent(network)
        nursery.start_soon(silent)
        async for attempt in reconnect(URI, open_timeout=7, reconnect_delays=delays(2)):
            async with attempt as ws:
                assert await ws.recv() == "hello"
                break
    assert network.pauses == [9]
    await network.check_closed()


async def _silent(network: Network) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await network.listener.accept()
        async with open_server(greet, listeners=[network.listener]):
            await trio.sleep(20)

    return run


class Resolver(trio.abc.HostnameResolver):
    """Knows no name at first, then that 127.0.0.1 is meant."""

    def __init__(self, failures: int) -> None:
        self.asked = 0
        self._failures = failures

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.asked <= self._failures:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        number = int(port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_dns_that_fails_for_a_while() -> None:
    resolver = Resolver(2)
    trio.socket.set_custom_hostname_resolver(resolver)
    async with open_server(greet, 0, host="127.0.0.1") as server:
        uri = f"ws://no.such.host.invalid:{server.port}/"
        async for attempt in reconnect(uri, reconnect_delays=no_delays):
            async with attempt as ws:
                assert await ws.recv() == "hello"
                break
    assert resolver.asked == 3


async def test_dns_that_always_fails(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(1000)
    trio.socket.set_custom_hostname_resolver(resolver)
    with pytest.raises(socket.gaierror):
        async for _ in reconnect(
            "ws://no.such.host.invalid/", reconnect_delays=delays(1, 2)
        ):
            raise AssertionError("opened")
    assert resolver.asked == 3
    assert trio.current_time() == 3


async def test_a_port_on_which_nobody_listens() -> None:
    with socket.socket() as sock:  # bound, not listening: nobody else takes it
        sock.bind(("127.0.0.1", 0))
        uri = f"ws://127.0.0.1:{sock.getsockname()[1]}/"
        before = descriptors()
        with pytest.raises(OSError, match=r"refused|failed"):
            async for _ in reconnect(uri, reconnect_delays=delays(0, 0)):
                raise AssertionError("opened")
        assert descriptors() == before


async def test_a_certificate_that_is_wrong() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    before = descriptors()
    async with open_server(greet, 0, host="127.0.0.1", ssl=context) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async for _ in reconnect(
                f"wss://localhost:{server.port}/", host="127.0.0.1"
            ):
                raise AssertionError("opened")
    assert descriptors() == before


def test_wrong_arguments_are_raised_at_once() -> None:
    with pytest.raises(InvalidURI):
        reconnect("http://server/")
    with pytest.raises(ValueError, match="open_timeout"):
        reconnect(URI, open_timeout=-1)
    with pytest.raises(ValueError, match="ssl"):
        reconnect(URI, ssl=ssl.create_default_context())
    with pytest.raises(TypeError):
        reconnect(URI, stream=object())  # type: ignore[call-arg]


async def test_delays_in_a_list(network: Network, autojump_clock: object) -> None:
    network.script = [ConnectionRefusedError("refused")] * 3
    with pytest.raises(ConnectionRefusedError):
        async for _ in reconnect(URI, reconnect_delays=lambda: [1, 2.5]):
            raise AssertionError("opened")
    assert trio.current_time() == 3.5


async def asynchronous(_: object = None) -> Any:
    """Return nothing, but for a coroutine."""


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        (
            {"reconnect_delays": [0.1]},
            r"reconnect_delays: expected a callable that returns an iterable of "
            r"seconds; got \[0\.1\]",
        ),
        ({"reconnect_delays": iter([0.1])}, "reconnect_delays: expected a callable"),
        ({"reconnect_delays": asynchronous}, "that isn't async; got <function"),
        ({"process_exception": 1}, "process_exception: expected a function; got 1"),
        (
            {"process_exception": asynchronous},
            "process_exception: expected a function that isn't async; got <function",
        ),
    ],
)
def test_wrong_functions(keywords: dict[str, Any], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        reconnect(URI, **keywords)


async def test_what_to_write_instead(network: Network) -> None:
    block = r"async with attempt as ws:"
    with pytest.raises(TypeError, match=f"async for attempt in .*: {block}"):
        manager: Any = reconnect(URI)
        async with manager:
            raise AssertionError("entered")
    async with served(network):
        async for attempt in reconnect(URI):
            wrong: Any = attempt
            with pytest.raises(AttributeError, match=f"'recv'; a connection .*{block}"):
                await wrong.recv()
            with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
                wrong.nonsense()
            assert not hasattr(wrong, "send")
            with pytest.raises(TypeError, match=block):
                async for _ in wrong:
                    raise AssertionError("iterated")
            async with attempt:
                break


async def test_the_arguments_are_those_of_connect(network: Network) -> None:
    async with served(network, subprotocols=["chat"]):
        async for attempt in reconnect(
            URI,
            host="elsewhere",
            port=81,
            local_address="127.0.0.1",
            subprotocols=["chat"],
            origin="https://example.com",
            compression=None,
        ):
            async with attempt as ws:
                assert ws.subprotocol == "chat"
                assert ws.request.headers["Host"] == "server"
                assert ws.request.headers["Origin"] == "https://example.com"
                assert "Sec-WebSocket-Extensions" not in ws.request.headers
                break


# -- process_exception ---------------------------------------------------------


async def test_process_exception_decides(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[Exception] = []

    def decide(exc: Exception) -> Exception | None:
        asked.append(exc)
        return None if isinstance(exc, InvalidStatus) else exc

    gone = ConnectionRefusedError("no more")
    network.script = [refusal(404), refusal(404), gone]
    errors = list(network.script)
    with pytest.raises(ConnectionRefusedError) as caught:
        async for _ in reconnect(URI, process_exception=decide):
            raise AssertionError("opened")
    assert caught.value is gone
    assert asked == errors


async def test_process_exception_returns_another(network: Network) -> None:
    original = ConnectionRefusedError("refused")
    network.script = [original]
    with pytest.raises(RuntimeError, match="gave up") as caught:
        async for _ in reconnect(
            URI, process_exception=lambda exc: RuntimeError("gave up")
        ):
            raise AssertionError("opened")
    assert caught.value.__cause__ is original


@pytest.mark.parametrize("wrong", [True, "x", ValueError])
async def test_process_exception_returns_none_of_these(
    network: Network, wrong: Any
) -> None:
    network.script = [ConnectionRefusedError("refused")]
    with pytest.raises(TypeError, match=r"^process_exception: expected it to return"):
        async for _ in reconnect(URI, process_exception=lambda exc: wrong):
            raise AssertionError("connected")


async def test_what_is_not_awaited() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    for made, said in (
        (reconnect(URI), "async for attempt in reconnect"),
        (accept(stream), "async with accept"),
    ):
        with pytest.raises(TypeError, match=f"can't be awaited.* write: {said}"):
            await made


async def test_process_exception_is_not_asked_about_a_block(network: Network) -> None:
    def decide(exc: Exception) -> Exception | None:
        raise AssertionError("asked")

    async with served(network, greet_and_close):
        with pytest.raises(KeyError):
            async for attempt in reconnect(
                URI, process_exception=decide, reconnect_delays=no_delays
            ):
                async with attempt as ws:
                    await ws.wait_closed()
                    if len(network.times) == 2:
                        raise KeyError
                    await ws.aclose()
                    await ws.recv()


# -- Delays --------------------------------------------------------------------


async def test_the_error_is_raised_when_the_delays_end(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    errors = [ConnectionRefusedError(number) for number in range(3)]
    network.script = [*errors]
    with pytest.raises(ConnectionRefusedError) as caught:
        async for _ in reconnect(URI, reconnect_delays=delays(10, 20)):
            raise AssertionError("opened")
    assert caught.value is errors[2]
    assert network.pauses == [10, 20]


async def test_the_loop_ends_when_the_delays_end_after_a_connection(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = 0
    async with served(network, greet_and_close):
        async for attempt in reconnect(URI, reconnect_delays=delays()):
            async with attempt:
                blocks += 1
    assert blocks == 1


async def test_delays_go_on_after_a_connection_that_lived_no_longer(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    lives = [100.0, 10, 9.5, 2, 41, 1]
    wanted = iter(lives)
    asked = 0

    def new_delays() -> Iterator[float]:
        nonlocal asked
        asked += 1
        return iter([10, 20, 30, 40])

    async with served(network):
        async for attempt in reconnect(URI, reconnect_delays=new_delays):
            async with attempt:
                await trio.sleep(next(wanted))
            if attempt.lasted == lives[-1]:
                break
    # The second lived 10 s, no longer than the wait for it; only the fifth, for
    # which the wait was 40 s, did again.
    gaps = [pause - life for pause, life in zip(network.pauses, lives, strict=False)]
    assert gaps == [10, 20, 30, 40, 10]
    assert asked == 2


async def test_the_wait_for_a_connection_is_that_of_all_its_attempts(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    refused = ConnectionRefusedError("refused")
    network.script = [refused, refused]
    lives = [29.0, 31.0, 0.0]
    async with served(network):
        async for attempt in reconnect(
            URI, reconnect_delays=lambda: itertools.count(10, 5)
        ):
            async with attempt:
                await trio.sleep(lives.pop(0))
            if not lives:
                break
    # 10 + 15 before the first, which lived longer: anew. 10 before the second.
    assert network.pauses == [10, 15, 29 + 10, 31 + 10]


async def test_an_attempt_that_is_not_used_does_not_reset_the_delays(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    async with served(network):
        async for attempt in reconnect(URI, reconnect_delays=delays(1, 2, 3)):
            if len(network.times) == 4:
                async with attempt:
                    break
            await trio.sleep(100)
    assert network.pauses == [101, 102, 103]


# -- The log -------------------------------------------------------------------


async def test_the_log_says_why_and_when(
    network: Network,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.client")
    network.script = [ConnectionRefusedError("refused"), refusal(503)]

    async def handler(ws: ServerConnection) -> None:
        if len(network.streams) == 1:
            await ws.aclose(4000, "evil\u2028\x1b[2J")

    async with served(network, handler):
        async for attempt in reconnect(URI, reconnect_delays=delays(1.25, 2, 3, 4.26)):
            number = len(network.streams)
            if number == 2:
                continue
            async with attempt as ws:
                if number == 3:
                    break
                async for _ in ws:
                    pass
    assert [record.getMessage() for record in caplog.records] == [
        "ConnectionRefusedError: refused; choosing a proxy; next attempt in 1.2 s",
        "InvalidStatus: server rejected WebSocket connection: HTTP 503; "
        "choosing a proxy; next attempt in 2.0 s",
        "connected after 3 attempts, 3.2 s",
        "connection ended: received 4000 (private use) evil\\u2028\\x1b[2J; then "
        "sent 4000 (private use) evil\\u2028\\x1b[2J; next attempt in 3.0 s",
        "connected again after 1 attempt, 3.0 s",
        "attempt not used; next attempt in 4.3 s",
        "connected again after 1 attempt, 4.3 s",
    ]
    assert {record.name for record in caplog.records} == {"trio_ws.client"}
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def test_a_logger_of_the_users(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    network.script = [ConnectionRefusedError("refused")]
    async with served(network):
        async for attempt in reconnect(
            URI, reconnect_delays=no_delays, logger=logging.getLogger("mine")
        ):
            async with attempt:
                break
    told = [one.name for one in caplog.records if one.name != "trio_ws.server"]
    assert told == ["mine", "mine"]


# -- Attempts ------------------------------------------------------------------


async def test_an_attempt_is_entered_once(network: Network) -> None:
    async with served(network):
        async for attempt in reconnect(URI):
            async with attempt:
                with pytest.raises(RuntimeError, match="entered once"):
                    async with attempt:
                        pass
            with pytest.raises(RuntimeError, match="entered once"):
                async with attempt:
                    pass
            break


async def test_the_next_attempt_within_the_block_of_one(network: Network) -> None:
    async with served(network):
        loop = reconnect(URI, reconnect_delays=no_delays)
        attempt = await anext(loop)
        async with attempt as ws:
            with pytest.raises(RuntimeError, match="after the block"):
                await anext(loop)
            assert await ws.recv() == "hello"  # it does no harm
        async with await anext(loop) as ws:
            assert await ws.recv() == "hello"


async def test_an_attempt_that_is_not_entered_is_closed_by_the_next(
    network: Network,
) -> None:
    async with served(network):
        async for attempt in reconnect(URI, reconnect_delays=no_delays):
            if len(network.streams) < 3:
                continue
            for stream in network.streams[:2]:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(b"")
            async with attempt:
                break
        # One that is passed over can't be entered later.
        loop = reconnect(URI, reconnect_delays=no_delays)
        passed = await anext(loop)
        async with await anext(loop):
            with pytest.raises(RuntimeError, match="entered once"):
                async with passed:
                    pass


async def test_an_attempt_that_is_dropped_warns_and_is_closed() -> None:
    before = descriptors()
    async with open_server(greet, 0, host="127.0.0.1") as server:
        with pytest.warns(ResourceWarning, match="never entered") as caught:
            attempt = await anext(reconnect(f"ws://127.0.0.1:{server.port}/"))
            name = repr(attempt._connection)
            del attempt
            gc.collect()
        (warning,) = caught
        assert str(warning.message) == (
            f"{name} was opened by reconnect() and never entered"
        )
        # Its handler sees the end of the stream, and ends.
        while server.connections:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert descriptors() == before


async def test_no_warning_where_attempts_are_used() -> None:
    before = descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with open_server(greet_and_close, 0, host="127.0.0.1") as server:
            uri = f"ws://127.0.0.1:{server.port}/"
            count = 0
            async for attempt in reconnect(uri, reconnect_delays=no_delays):
                async with attempt as ws:
                    count += 1
                    await ws.recv()
                    if count == 3:
                        break
                    await ws.recv()
            with contextlib.suppress(KeyError):
                async for attempt in reconnect(uri):
                    async with attempt:
                        raise KeyError
            with trio.CancelScope() as scope:
                async for attempt in reconnect(uri):
                    async with attempt:
                        scope.cancel()
                        await trio.sleep_forever()
            del attempt
        gc.collect()
    assert caught == []
    assert descriptors() == before


async def test_facts_of_an_attempt(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    async with served(network, greet_and_close):
        async for attempt in reconnect(URI):
            assert isinstance(attempt, Attempt)
            await trio.sleep(3)
            async with attempt:
                await trio.sleep(4)
            assert attempt.lasted == 7
            break


# -- Misuse --------------------------------------------------------------------


async def test_two_tasks_wait_for_an_attempt(network: Network) -> None:
    loop = reconnect(URI)

    async def first(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with await anext(loop) as ws:
            assert await ws.recv() == "hello"

    async with served(network), trio.open_nursery() as nursery:
        await nursery.start(first)
        with pytest.raises(ConcurrencyError, match="another task"):
            await anext(loop)
    assert len(network.times) == 1


async def test_nothing_is_left_where_a_handler_of_the_log_raises(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("connected"):
            raise LookupError("of the handler")
        return True

    logger = logging.getLogger("tests.strict")
    logger.setLevel(logging.INFO)
    logger.addFilter(refuse)
    network.script = [OSError("x")]
    loop = reconnect(URI, logger=logger)
    async with served(network):
        with pytest.raises(LookupError, match="of the handler"):
            await anext(loop)
    await network.check_closed()
    assert len(network.streams) == 1


@pytest.mark.parametrize(
    ("returned", "error", "text"),
    [
        (3, TypeError, "return an iterable of seconds; got 3"),
        (None, TypeError, "return an iterable of seconds; got None"),
        ("x", TypeError, "numbers of seconds; got 'x'"),
        ([None], TypeError, "numbers of seconds; got None"),
        ([True], TypeError, "numbers of seconds; got True"),
        ([-1], ValueError, "at least 0; got -1"),
        ([float("nan")], ValueError, "finite numbers, at least 0; got nan"),
        ([float("inf")], ValueError, "finite numbers, at least 0; got inf"),
    ],
)
async def test_delays_that_are_none(
    network: Network, returned: Any, error: type[Exception], text: str
) -> None:
    network.script = [OSError("x")]
    with pytest.raises(error, match=f"^reconnect_delays: expected .*{text}$"):
        await anext(reconnect(URI, reconnect_delays=lambda: returned))
