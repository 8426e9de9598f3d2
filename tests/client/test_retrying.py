"""After which errors, after how long, and what the log says of it."""

# ruff: noqa: PT012 - what raises is the end of a loop, which has to be there

from __future__ import annotations

import email.message
import functools
import itertools
import logging
import math
import random
import ssl
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.client.network import URI, Network, delays, no_delays, refusal, served
from trio_ws import (
    Headers,
    InvalidProxyStatus,
    Response,
    ServerConnection,
    backoff,
    process_exception,
    reconnect,
)
from trio_ws._client import retrying
from trio_ws._client.retrying import retry_after
from trio_ws._protocol.http.messages import http_date

# -- backoff -------------------------------------------------------------------


def limits(*numbers: float, **named: float) -> list[float]:
    return [*itertools.islice(backoff(*numbers, **named), 4)]


def test_backoff_of_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: most - least)
    assert limits(1, factor=10, longest=50) == [1, 10, 50, 50]
    assert limits(9, 1.0, 4.0) == [4] * 4
    assert limits(1e308, 1e308, 1e308) == [1e308] * 4  # no overflow


@pytest.mark.parametrize(
    ("numbers", "kind", "match"),
    [
        ({"first": 0}, ValueError, "first: expected more than 0, and finite; got 0"),
        ({"first": -1.0}, ValueError, "first"),
        ({"first": math.nan}, ValueError, "first"),
        ({"first": math.inf}, ValueError, "first"),
        ({"first": "1"}, TypeError, "first: expected a number; got '1'"),
        ({"factor": 0.9}, ValueError, "factor: expected at least 1, and finite; got"),
        ({"factor": True}, TypeError, "factor"),
        ({"longest": 0}, ValueError, "longest"),
        ({"longest": math.inf}, ValueError, "longest"),
        ({"longest": None}, TypeError, "longest"),
    ],
)
def test_wrong_numbers(
    numbers: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):  # at the call
        backoff(**numbers)


async def test_backoff_as_a_building_block(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    network.script = [refusal(503)] * 5
    async with served(network):
        async for attempt in reconnect(
            URI, reconnect_delays=functools.partial(backoff, 1000, longest=1000)
        ):
            async with attempt:
                break
    assert max(network.pauses) > 30


# -- process_exception ---------------------------------------------------------


class Failed(Exception):
    """What somebody else raises; what it has is as HTTP clients have it."""

    def __init__(self, text: str = "", **facts: Any) -> None:
        super().__init__(text)
        for name, value in facts.items():
            setattr(self, name, value)


class Falsy(Response):
    """As requests has it."""

    def __bool__(self) -> bool:
        return False


def caused(*chain: BaseException) -> Exception:
    for outer, inner in itertools.pairwise(chain):
        outer.__cause__ = inner
    first = chain[0]
    assert isinstance(first, Exception)
    return first


def by_urllib(status: int) -> Exception:
    message = email.message.Message()
    return urllib.error.HTTPError("http://h/", status, "", message, None)


def by_proxy(status: int) -> Exception:
    return InvalidProxyStatus(Response(status, "", Headers()))


@pytest.mark.parametrize(
    ("exc", "again"),
    [
        (EOFError(), True),
        (trio.TooSlowError(), True),
        (trio.BrokenResourceError(), False),
        (caused(trio.BrokenResourceError(), ConnectionResetError()), True),
        (caused(Failed("token"), Failed("pool"), TimeoutError()), True),
        (caused(Failed("token"), KeyError()), False),
        (caused(Failed("token"), OSError(), ssl.SSLCertVerificationError()), False),
        (caused(Failed("token"), refusal(503)), True),
        (caused(Failed("token"), refusal(401), OSError()), False),
        (Failed(response=Falsy(503, "", Headers())), True),
        (Failed(response=Falsy(403, "", Headers())), False),
        (Failed(response=None), False),
        (Failed(status=503), True),
        (Failed(status=0), False),
        (Failed(status="503"), False),
        (by_urllib(503), True),
        (by_urllib(401), False),
        *((by_proxy(status), True) for status in (408, 429, 500, 502, 503, 504)),
        *((by_proxy(status), False) for status in (403, 407, 425, 520, 530)),
    ],
)
def test_errors_of_others(exc: Exception, again: bool) -> None:
    assert process_exception(exc) is (None if again else exc)


def test_causes_that_go_in_a_circle() -> None:
    one, two = Failed(), Failed()
    one.__cause__, two.__cause__ = two, one
    assert process_exception(one) is one
    assert retry_after(one) == 0


# -- Retry-After ---------------------------------------------------------------

NOON = "Sun, 06 Nov 1994 12:00:00 GMT"


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("007", 7),
        ("  7 ", 7),
        ("300", 300),
        ("301", 300),
        ("999999999", 300),
        ("Sun, 06 Nov 1994 12:00:09 GMT", 9),
        ("Sunday, 06-Nov-94 12:00:09 GMT", 9),
        ("Sun Nov  6 12:00:09 1994", 9),
        ("Mon, 07 Nov 1994 12:00:00 GMT", 300),
        ("Sun, 06 Nov 1994 11:59:59 GMT", 0),
        # Garbage
        ("", 0),
        ("-7", 0),
        ("7.5", 0),
        ("+7", 0),
        ("1e2", 0),
        ("9" * 5000, 0),
        ("soon", 0),
        ("\xb2", 0),
        ("7, 8", 0),
        ("Sun, 06 Nov 1994", 0),
        ("Sun, 99 Nov 1994 12:00:09 GMT", 0),
        ("Sun, 06 Nov 99999999999999 12:00:09 GMT", 0),
    ],
)
def test_retry_after(after: str, seconds: float) -> None:
    # The server's clock is years away from ours.
    assert retry_after(refusal(503, Retry_After=after, Date=NOON)) == seconds
    headers = {"retry-after": after, "date": NOON}
    bare = Failed(response=Failed(status_code=503, headers=_Insensitive(headers)))
    assert retry_after(caused(Failed(), bare)) == seconds


class _Insensitive(dict[str, str]):
    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


def test_retry_after_of_a_server_that_tells_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    for date in ("", "now"):
        headers = {"Date": date} if date else {}
        after = http_date(1e9 + 20)
        assert retry_after(refusal(503, Retry_After=after, **headers)) == 20


def test_no_retry_after() -> None:
    twice = Response(503, "", Headers([("Retry-After", "7"), ("Retry-After", "8")]))
    assert retry_after(Failed(response=twice)) == 0
    assert retry_after(refusal(503)) == 0
    assert retry_after(OSError()) == 0
    assert retry_after(Failed(status=503)) == 0
    assert retry_after(Failed(status=503, headers=object())) == 0
    assert retry_after(by_urllib(503)) == 0


@given(st.text() | st.text("0123456789 :,-SunNovGMT"), st.text())
def test_any_retry_after_is_bounded(after: str, date: str) -> None:
    response = Failed(status_code=503, headers={"Retry-After": after, "Date": date})
    assert 0 <= retry_after(Failed(response=response)) <= 300


def four_and_more() -> Iterator[float]:
    return itertools.count(4)


def tens() -> Iterator[float]:
    return itertools.repeat(10)


async def test_a_server_is_left_alone_for_as_long_as_it_asks(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    answers = [(429, "100"), (503, "100"), (503, "100000"), (503, "1"), (503, "x")]

    def refuse(ws: ServerConnection, _: object) -> Response | None:
        if not answers:
            return None
        status, after = answers.pop(0)
        response = ws.respond(status, "")
        response.headers["Retry-After"] = after
        return response

    async with served(network, process_request=refuse):
        async for attempt in reconnect(
            URI, reconnect_delays=lambda: itertools.count(4)
        ):
            async with attempt:
                break
    first, second, third, *rest = network.pauses
    assert 100 <= first <= 150
    assert 100 <= second <= 150
    assert first != second
    assert 300 <= third <= 450
    assert rest == [7, 8]  # no shorter than without


async def test_the_end_of_the_delays_is_the_end_whatever_a_server_asks(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    network.script = [refusal(503, Retry_After="9")] * 2
    with pytest.raises(Exception, match="HTTP 503"):
        async for _ in reconnect(URI, reconnect_delays=delays(1)):
            raise AssertionError("opened")
    assert len(network.times) == 2


async def test_a_cancellation_while_a_server_is_left_alone(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    network.script = [refusal(503, Retry_After="100")]
    with trio.move_on_after(99) as scope:
        await anext(reconnect(URI, reconnect_delays=no_delays))
    assert scope.cancelled_caught
    assert len(network.times) == 1


async def test_clients_do_not_come_back_together(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "random", random.Random(1))
    network.script = [refusal(503, Retry_After="60") for _ in range(100)]

    async def client() -> None:
        attempt = await anext(reconnect(URI))
        async with attempt:
            pass

    async with served(network):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(client)
    back = sorted(network.times[100:])
    assert back[0] >= 60
    assert back[-1] <= 90
    assert max(sum(1 for at in back if s <= at < s + 3) for s in range(60, 90)) < 25


# -- The log -------------------------------------------------------------------


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == level]


async def test_an_outage_that_lasts_is_a_warning(
    network: Network,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.client")
    attempts = 8 * 360  # eight hours
    network.script = [None, *(OSError("no route") for _ in range(attempts))]
    async with served(network):
        async for attempt in reconnect(
            "ws://u:s3cret@server/?s3cret",
            reconnect_delays=lambda: itertools.repeat(10),
        ):
            async with attempt:
                pass
            if not network.script:
                break
    warnings = messages(caplog, logging.WARNING)
    assert warnings[0] == (
        "no connection to server:80 for 60 s, after 6 attempts: OSError: no route; "
        "choosing a proxy; "
        "next attempt in 10.0 s"
    )
    minutes = [int(one.split(" s, ")[0].rpartition(" ")[2]) / 60 for one in warnings]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 124, 184, 244, 304, 364, 424]
    infos = messages(caplog, logging.INFO)
    assert infos[-1] == f"connected again after {attempts + 1} attempts, 28810.0 s"
    # Each wait is told once: that after the connection, and those of the outage.
    assert len(warnings) + len(infos) == 1 + attempts + 1


async def test_a_wait_in_which_an_outage_comes_to_last_is_a_warning(
    network: Network,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    network.script = [OSError("x"), refusal(503, Retry_After="300")]
    async with served(network):
        with trio.move_on_after(50) as scope:
            await anext(reconnect(URI, reconnect_delays=delays(40, 40)))
    assert scope.cancelled_caught
    assert [one.split(":80")[1][:29] for one in messages(caplog, logging.WARNING)] == [
        " for 40 s, after 2 attempts: "
    ]


async def test_the_next_outage_is_one_of_its_own(
    network: Network,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.client")
    outage = [OSError("x")] * 3
    network.script = [*outage, None, *outage]
    async with served(network):
        async for attempt in reconnect(
            URI, reconnect_delays=lambda: itertools.repeat(30)
        ):
            async with attempt:
                await trio.sleep(1000)
            if not network.script:
                break
    assert [one[:30] for one in messages(caplog, logging.WARNING)] == [
        "no connection to server:80 for",
        "no connection to server:80 for",
    ]
    told = [
        one for one in messages(caplog, logging.INFO) if one.startswith("connected")
    ]
    assert told == [
        "connected after 4 attempts, 90.0 s",
        "connected again after 4 attempts, 120.0 s",
    ]


async def test_an_outage_of_what_tells_the_uri(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    def uri() -> str:
        raise OSError("no\ntoken")

    def sixties() -> Iterator[float]:
        return iter([60.0, 60.0])

    with pytest.raises(OSError, match="token"):
        await anext(reconnect(uri, reconnect_delays=sixties))
    assert messages(caplog, logging.WARNING) == [
        "no connection for 60 s, after 2 attempts: OSError: no\\ntoken; "
        "asking for the URI; next attempt in 60.0 s"
    ]
