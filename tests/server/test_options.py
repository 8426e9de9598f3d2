"""The keywords that a server alone has."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from trio_ws import ClientConnection
from trio_ws._server.options import ServerOptions
from trio_ws.extensions import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)


class AsyncCall:
    """Called, it returns a coroutine."""

    async def __call__(self, *_: object) -> None: ...


async def waiting(*_: object) -> None:
    """Return nothing, but for a coroutine."""


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"process_request": "x"}, TypeError, "process_request: expected a function"),
        ({"process_response": 1}, TypeError, "process_response: expected a function"),
        ({"select_subprotocol": ()}, TypeError, "select_subprotocol: expected a func"),
        (
            {"select_subprotocol": waiting},
            TypeError,
            "select_subprotocol: expected a function that isn't async; got <function",
        ),
        ({"create_connection": waiting}, TypeError, "isn't async; got <function"),
        ({"additional_headers": "x"}, TypeError, "a mapping or pairs of str; got 'x'"),
        (
            {"additional_headers": ["X: secret"]},
            TypeError,
            r"additional_headers: expected a mapping or pairs of str; got 'X: \.\.\.'",
        ),
        ({"additional_headers": ["ab"]}, TypeError, "pairs of str; got 'ab'"),
        ({"additional_headers": [("a", "b", "c")]}, TypeError, "pairs of str; got"),
        ({"origins": "http://x"}, TypeError, "origins: expected a sequence of origins"),
        ({"origins": {"http://x"}}, TypeError, "origins: expected a sequence"),
        ({"origins": [b"x"]}, TypeError, "origins: expected str, compiled patterns"),
        ({"origins": [re.compile(b"x")]}, TypeError, "patterns of str, and None; got"),
        *(
            ({"origins": [None, origin]}, ValueError, re.escape(f"got {origin!r}"))
            for origin in (
                "*",
                "",
                "example.com",
                "https://example.com/",
                "https://example.com/path",
                "https://Example.com",
                "HTTPS://example.com",
                "https://user@example.com",
                "https://example.com?a",
                "https://b\xfccher.example",
                "https://*.example.com",
                r"https://[a-z]+\.example\.com",  # a str is no pattern
                "https://",
                "app://x/",
                "http://x:99999",
                "http://x:0080",
                "http://x:080",
                "http://x:0",
                "app://x:080",
                "ws://x:80",
                "wss://x:443",
                "file:///",
            )
        ),
        (
            {"origins": ["https://example.com:443"]},
            ValueError,
            "default port, which browsers leave out: 'https://example.com'; got",
        ),
        (
            {"origins": ["https://b\xfccher.example:81"]},
            ValueError,
            r"browsers write it 'https://xn--bcher-kva\.example:81'$",
        ),
        ({"origins": ["https://\u2603.test"]}, ValueError, r"got 'https://\S*'$"),
        ({"create_connection": int}, TypeError, "a subclass of ServerConnection"),
        ({"create_connection": ClientConnection}, TypeError, "got <class '.*Client"),
        (
            {"create_connection": functools.partial(ClientConnection)},
            TypeError,
            r"got functools\.partial\(",
        ),
        ({"create_connection": AsyncCall()}, TypeError, "isn't async"),
        ({"select_subprotocol": AsyncCall()}, TypeError, "isn't async"),
        (
            {"select_subprotocol": functools.partial(AsyncCall(), 1)},
            TypeError,
            "isn't async",
        ),
        ({"extensions": [5]}, TypeError, "instances of ServerExtensionFactory; got 5"),
        (
            {"extensions": [ServerPerMessageDeflateFactory]},
            TypeError,
            "instances of ServerExtensionFactory; got <class",
        ),
        (
            {"extensions": [ClientPerMessageDeflateFactory()]},
            TypeError,
            "instances of ServerExtensionFactory; got <.*ClientPerMessageDeflate",
        ),
        ({"origins": ["http://[::1]:80"]}, ValueError, r"out: 'http://\[::1\]'; got"),
        ({"compression": "gzip"}, ValueError, 'compression: expected "deflate" or'),
        ({"additional_headers": {"Upgrade": "x"}}, ValueError, "additional_headers"),
        ({"server_header": "a\nb"}, ValueError, "header Server: expected no control"),
    ],
)
def test_wrong_options_of_a_server(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ServerOptions(**keywords)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "file://",
        "https://xn--bcher-kva.example",
        "https://example.com.",
        "http://localhost:3000",
        "https://example.com:80",
        "http://[::1]:8080",
        "chrome-extension://abcdefghijklmnop",
        "moz-extension://1d9e-77",
        "tauri://localhost",
    ],
)
def test_origins_that_somebody_can_have(origin: str) -> None:
    assert ServerOptions(origins=[origin]).origins == [origin]


def test_right_options_of_a_server() -> None:
    pattern = re.compile("https://.*")
    options = ServerOptions(
        origins=["https://x", pattern, None],
        process_request=lambda ws, request: None,
        compression="deflate",
    )
    assert options.origins == ["https://x", pattern, None]
