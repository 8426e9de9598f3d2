"""The exceptions: their texts to the letter, their kin, what `except` catches."""

from __future__ import annotations

import inspect
import pickle
import traceback
from types import ModuleType

import pytest
import trio
import websockets.exceptions
import websockets.frames

import trio_ws
import trio_ws.exceptions
import trio_ws.extensions
import trio_ws.testing
from trio_ws import Close, ConnectionClosedError, ConnectionClosedOK
from trio_ws.testing import open_pair

CLOSES = [
    None,
    (1000, ""),
    (1000, "bye"),
    (1001, ""),
    (1005, ""),
    (1011, "keepalive ping timeout"),
    (1012, ""),
    (1016, "what is this"),
    (2999, ""),
    (3000, ""),
    (3999, "registered"),
    (4000, ""),
    (4999, "mine"),
]


@pytest.mark.parametrize("rcvd", CLOSES)
@pytest.mark.parametrize("sent", CLOSES)
@pytest.mark.parametrize("first", [True, False])
def test_texts_are_those_of_websockets(
    rcvd: tuple[int, str] | None, sent: tuple[int, str] | None, first: bool
) -> None:
    both = rcvd is not None and sent is not None
    theirs = websockets.exceptions.ConnectionClosedError(
        rcvd and websockets.frames.Close(*rcvd),
        sent and websockets.frames.Close(*sent),
        first if both else None,
    )
    ours = ConnectionClosedError(
        rcvd and Close(*rcvd), sent and Close(*sent), first if both else None
    )
    assert str(ours) == str(theirs)


def test_texts_by_the_letter() -> None:
    # Apart from the comparison, in case websockets changes its own.
    assert str(ConnectionClosedError(None, None)) == ("no close frame received or sent")
    assert str(ConnectionClosedError(None, Close(1011, "keepalive ping timeout"))) == (
        "sent 1011 (internal error) keepalive ping timeout; no close frame received"
    )
    assert str(ConnectionClosedOK(Close(1001), Close(1001), True)) == (
        "received 1001 (going away); then sent 1001 (going away)"
    )
    assert str(ConnectionClosedOK(Close(1000), Close(1000), False)) == (
        "sent 1000 (OK); then received 1000 (OK)"
    )


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\r\nlines", r"two\r\nlines"),
        ("\x9b2J", r"\x9b2J"),  # CSI in one character
        ("‮evil", r"\u202eevil"),  # turns the text around
    ],
)
def test_nothing_a_peer_sends_is_in_the_text_unescaped(reason: str, shown: str) -> None:
    exc = ConnectionClosedError(Close(1000, reason), Close(1000, reason), True)
    assert str(exc) == f"received 1000 (OK) {shown}; then sent 1000 (OK) {shown}"
    assert repr(exc).isprintable()
    assert exc.rcvd is not None
    assert exc.rcvd.reason == reason


@pytest.mark.parametrize(
    ("exception", "bases"),
    [
        (trio_ws.ConnectionClosed, {trio.BrokenResourceError}),
        (trio_ws.ConnectionClosedOK, {trio.BrokenResourceError, trio.EndOfChannel}),
        (trio_ws.ConnectionClosedError, {trio.BrokenResourceError}),
        (trio_ws.ConcurrencyError, {trio.BusyResourceError}),
        (trio_ws.OpenTimeoutError, {TimeoutError, trio.TooSlowError, OSError}),
    ],
)
def test_code_written_for_trio_catches_them(
    exception: type[Exception], bases: set[type[Exception]]
) -> None:
    foreign: set[type[Exception]] = {
        trio.BrokenResourceError,
        trio.EndOfChannel,
        trio.BusyResourceError,
        trio.ClosedResourceError,
        trio.TooSlowError,
        TimeoutError,
        OSError,
    }
    assert {base for base in foreign if issubclass(exception, base)} == bases
    assert issubclass(exception, trio_ws.WebSocketException)


def test_names_are_those_of_websockets() -> None:
    for name in (
        "ConcurrencyError",
        "ConnectionClosed",
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "InvalidHandshake",
        "InvalidHeader",
        "InvalidHeaderFormat",
        "InvalidHeaderValue",
        "InvalidMessage",
        "InvalidOrigin",
        "InvalidProxy",
        "InvalidProxyStatus",
        "InvalidStatus",
        "InvalidURI",
        "InvalidUpgrade",
        "NegotiationError",
        "PayloadTooBig",
        "ProtocolError",
        "ProxyError",
        "SecurityError",
        "WebSocketException",
    ):
        theirs = getattr(websockets.exceptions, name)
        ours = getattr(trio_ws, name)
        assert ours is getattr(trio_ws.exceptions, name)
        kin = {
            base.__name__
            for base in theirs.__mro__
            if base.__module__ == "websockets.exceptions"
        }
        assert kin <= {base.__name__ for base in ours.__mro__}


def test_all_names_everything_there_is() -> None:
    defined = {
        name
        for name, value in vars(trio_ws.exceptions).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(trio_ws.exceptions.__all__)
    assert defined <= set(trio_ws.__all__)


# Where they live: users see it in tracebacks, and pickles hold it


MODULES = [trio_ws, trio_ws.testing, trio_ws.extensions]

PUBLIC = [
    pytest.param(module, name, id=f"{module.__name__}.{name}")
    for module in MODULES
    for name in module.__all__
    if inspect.isclass(getattr(module, name))
    or inspect.isroutine(getattr(module, name))
]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_a_public_name_says_where_it_is_imported_from(
    module: ModuleType, name: str
) -> None:
    thing = getattr(module, name)
    assert f"{thing.__module__}.{thing.__qualname__}" == f"{module.__name__}.{name}"


# Of those whose constructors are their own; all others take a text.
MADE: list[Exception] = [
    trio_ws.ConnectionClosed(None, Close(1001, "x")),
    ConnectionClosedError(Close(1001, "x"), None),
    ConnectionClosedOK(Close(1000, "x"), Close(1000, "x"), True),
    trio_ws.InvalidHeader("X"),
    trio_ws.InvalidHeaderFormat("X", "expected a token", "a b", 1),
    trio_ws.InvalidHeaderValue("X", "y"),
    trio_ws.InvalidOrigin("https://example.com"),
    trio_ws.InvalidOrigin(None),
    trio_ws.InvalidUpgrade("Upgrade"),
    trio_ws.InvalidStatus(trio_ws.Response(404, "", trio_ws.Headers())),
    trio_ws.InvalidURI("x", "expected a host"),
    trio_ws.InvalidProxy("x", "expected a host"),
    trio_ws.InvalidProxyStatus(trio_ws.Response(407, "", trio_ws.Headers())),
]

EXCEPTIONS = MADE + [
    getattr(trio_ws, name)("x")
    for name in trio_ws.exceptions.__all__
    if getattr(trio_ws, name) not in map(type, MADE)
]


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_an_exception_can_be_pickled(exc: Exception) -> None:
    pickled = pickle.dumps(exc)
    # Where modules of the package are moved, it can still be read.
    assert b"trio_ws._" not in pickled
    copy = pickle.loads(pickled)
    assert type(copy) is type(exc)
    assert str(copy) == str(exc)
    assert vars(copy) == vars(exc)


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_a_traceback_names_it_as_users_do(exc: Exception) -> None:
    (line,) = traceback.format_exception_only(exc)
    assert line.startswith(f"trio_ws.{type(exc).__name__}: ")


def test_the_error_of_a_connection_can_be_pickled() -> None:
    # Test runners hand exceptions from one process to another.
    exc = ConnectionClosedError(Close(1001, "x"), None, None)
    copy = pickle.loads(pickle.dumps(exc))
    assert type(copy) is ConnectionClosedError
    assert (copy.rcvd, copy.sent, str(copy)) == (exc.rcvd, None, str(exc))


async def test_so_can_the_error_that_a_connection_raised() -> None:
    async with open_pair() as (client, server):
        await server.aclose()
        with pytest.raises(ConnectionClosedOK) as caught:
            await client.recv()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ConnectionClosedOK
    assert str(copy) == str(caught.value)
