"""What both sides of the opening handshake share: keys, headers of users."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.protocol.handshake.handshakes import ACCEPT, KEY, URI
from trio_ws._protocol.handshake.client import ClientHandshake, generate_key
from trio_ws._protocol.handshake.common import accept_key
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.uri import WebSocketURI, parse_uri


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accept_key(KEY) == ACCEPT
    assert re.fullmatch(r"[A-Za-z0-9+/]{22}==", generate_key())
    assert generate_key() != generate_key()
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])
    assert generate_key() == KEY


BREAKS = ["\r", "\n", "\0", "\r\nX: y", "\x7f", "\u0100"]


# Nothing is built of what would break out of its place


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("template", ["{}", "a{}", "{}b"])
def test_injection(template: str, bad: str) -> None:
    value = template.format(bad)
    client_options: list[dict[str, Any]] = [
        {"subprotocols": [value]},
        {"user_agent_header": value},
        {"origin": value},
        {"additional_headers": {value: "x"}},
        {"additional_headers": {"X": value}},
        {"additional_headers": [("A", "b"), ("X", value)]},
    ]
    for options in client_options:
        with pytest.raises(ValueError, match="expected "):
            ClientHandshake(URI, **options)
    server_options: list[dict[str, Any]] = [
        {"subprotocols": [value]},
        {"server_header": value},
        {"additional_headers": {value: "x"}},
        {"additional_headers": {"X": value}},
    ]
    for options in server_options:
        with pytest.raises(ValueError, match="expected "):
            ServerHandshake(**options)
    for uri in (
        WebSocketURI(False, value, 80, "/", ""),
        WebSocketURI(False, "h", 80, f"/{value}", ""),
        WebSocketURI(False, "h", 80, "/", value),
    ):
        with pytest.raises(ValueError, match="expected "):
            ClientHandshake(uri)


OWN = [
    *["Upgrade", "connection", "SEC-WEBSOCKET-KEY", "Sec-WebSocket-Extensions"],
    *["Sec-WebSocket-Anything", "Content-Length", "transfer-encoding"],
]


@pytest.mark.parametrize("name", OWN)
def test_headers_that_may_not_be_added(name: str) -> None:
    error = f"expected no header that the handshake makes itself; got {name.lower()}"
    with pytest.raises(ValueError, match=error):
        ServerHandshake(additional_headers={name: "x"})
    with pytest.raises(ValueError, match=error):
        ClientHandshake(URI, additional_headers={name: "x"})


def test_headers_that_a_client_may_not_add() -> None:
    with pytest.raises(ValueError, match="got host"):
        ClientHandshake(URI, additional_headers={"Host": "x"})
    with pytest.raises(ValueError, match="got origin"):
        ClientHandshake(URI, additional_headers={"Origin": "x"}, origin="y")
    with pytest.raises(ValueError, match="got authorization"):
        ClientHandshake(
            parse_uri("ws://u:p@h"), additional_headers={"Authorization": "x"}
        )
    added = {"Origin": "x", "Authorization": "y"}
    assert (
        ClientHandshake(URI, additional_headers=added).request.headers["Origin"] == "x"
    )
