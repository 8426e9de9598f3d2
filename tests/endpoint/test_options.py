"""The keywords of both sides: each checked where it is written, by name."""

from __future__ import annotations

import inspect
import logging
import math
import sys
from functools import partial
from typing import Any

import pytest

from trio_ws import ClientConnection, Options
from trio_ws._client.options import ClientOptions, ClientOptionsDict
from trio_ws._server.options import OF_A_SERVER, ServerOptions, ServerOptionsDict
from trio_ws.testing import open_pair

SECONDS = [
    "open_timeout",
    "ping_interval",
    "ping_timeout",
    "close_timeout",
    "loss_grace",
    "close_grace",
]
SIZES = ["max_size", "max_queue", "write_limit"]


def test_defaults() -> None:
    options = Options()
    assert {name: getattr(options, name) for name in SECONDS + SIZES} == {
        "open_timeout": 10,
        "ping_interval": 20,
        "ping_timeout": 20,
        "close_timeout": 10,
        "loss_grace": 10,
        "close_grace": None,
        "max_size": 2**20,
        "max_queue": 16,
        "write_limit": 2**16,
    }


@pytest.mark.parametrize(
    ("typed", "options", "others"),
    [
        (ClientOptionsDict, ClientOptions, ()),
        (ServerOptionsDict, ServerOptions, OF_A_SERVER),  # which accept() doesn't have
    ],
)
def test_the_typed_keywords_are_those_that_exist(
    typed: type, options: type, others: tuple[str, ...]
) -> None:
    # Those of the base class included.
    parameters = set(inspect.signature(options).parameters)
    assert set(typed.__annotations__) == parameters - set(others)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [None, 1, 0.5, 1e9, math.inf])
def test_seconds_that_are_right(name: str, value: float | None) -> None:
    assert getattr(_options(name, value), name) == value


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["10", True, b"", [1], 1j])
def test_seconds_of_a_wrong_type(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a number of seconds"):
        _options(name, value)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
def test_seconds_of_a_wrong_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*; got {value!r}$"):
        _options(name, value)


@pytest.mark.parametrize("name", SECONDS)
def test_no_seconds_at_all(name: str) -> None:
    if name.endswith("_grace") or name == "close_timeout":
        assert getattr(_options(name, 0), name) == 0
    else:
        with pytest.raises(ValueError, match=f"^{name}: expected more than 0"):
            _options(name, 0)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", ["10", True, 1.0])
def test_sizes_of_a_wrong_type(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected an int"):
        _options(name, value)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("max_size", -1, 0), ("max_queue", -1, 0), ("write_limit", 0, 1)],
)
def test_sizes_of_a_wrong_value(name: str, value: int, least: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name}: expected at least {least}; got {value}$"
    ):
        _options(name, value)
    assert getattr(_options(name, least), name) == least


@pytest.mark.parametrize("name", SIZES)
async def test_sizes_are_such_that_c_can_count(name: str) -> None:
    most = sys.maxsize // 2
    for value in (most + 1, 10**20):
        with pytest.raises(ValueError, match=f"^{name}: expected at most {most}; got"):
            _options(name, value)
    options: Any = {name: most}
    async with open_pair(options, options) as (client, server):
        for message in "x" * 10_000, ["y"] * 3:
            await client.send(message)
            assert await server.recv() == "".join(message)


def test_sizes_without_a_limit() -> None:
    assert Options(max_size=None, max_queue=None).max_size is None
    with pytest.raises(TypeError, match=r"^write_limit: expected an int; got None"):
        _options("write_limit", None)


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        ("chat", TypeError, "subprotocols: expected a list of str; got str"),
        ([1], TypeError, "subprotocol: expected a str; got int"),
        (["a b"], ValueError, "subprotocol: expected a token; got 'a b'"),
        (["a\r\nX: y"], ValueError, "subprotocol: expected a token"),
        ([""], ValueError, "subprotocol: expected a token"),
        (["a", "a"], ValueError, "subprotocols: expected no duplicates"),
    ],
)
def test_wrong_subprotocols(value: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        _options("subprotocols", value)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"X": "a\r\nY: b"}, ValueError),
        ({"X": "a\0"}, ValueError),
        ({"X\n": "a"}, ValueError),
        ({"": "a"}, ValueError),
        ({"X": "\u20ac"}, ValueError),
        ({"X": 1}, TypeError),
        (5, TypeError),
    ],
)
def test_wrong_headers(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        _options("additional_headers", value)


def test_headers_are_taken_once() -> None:
    # A server uses them for each connection, whatever became of the original.
    original = {"X-A": "1"}
    for source in (original, iter(original.items())):
        options = _options("additional_headers", source)
        assert options.additional_headers is not None
        assert dict(options.additional_headers) == {"x-a": "1"}
        assert dict(options.additional_headers) == {"x-a": "1"}
    options = Options(additional_headers=original)
    original["X-B"] = "2"
    assert options.additional_headers is not None
    assert dict(options.additional_headers) == {"x-a": "1"}


def test_create_connection() -> None:
    for right in (ClientConnection, partial(ClientConnection)):
        assert Options(create_connection=right).create_connection is right
    with pytest.raises(TypeError, match=r"^create_connection: expected .*; got 'x'"):
        _options("create_connection", "x")


def test_logger() -> None:
    logger = logging.getLogger("x")
    assert Options(logger=logger).logger is logger
    adapter = logging.LoggerAdapter(logger, {})
    assert _options("logger", adapter).logger is adapter
    with pytest.raises(TypeError, match=r"^logger: expected a logging\.Logger"):
        _options("logger", "x")


@pytest.mark.parametrize(
    ("interval", "timeout", "seconds"),
    [(20, 20, 40), (1, 2, 3), (None, 5, 40), (5, None, 40), (None, None, 40)],
)
def test_how_long_a_peer_may_take_nothing(
    interval: float | None, timeout: float | None, seconds: float
) -> None:
    options = Options(ping_interval=interval, ping_timeout=timeout)
    assert options.stall_timeout == seconds


def _options(name: str, value: object) -> Options:
    keywords: dict[str, Any] = {name: value}
    return Options(**keywords)
