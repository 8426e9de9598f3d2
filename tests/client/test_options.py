"""The keywords that a client alone has."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws import connect
from trio_ws._client.options import ClientOptions, client_handshake
from trio_ws._protocol.extensions.deflate import ClientPerMessageDeflateFactory
from trio_ws._protocol.uri import parse_uri
from trio_ws._server.options import ServerOptions


def test_unknown_keywords() -> None:
    with pytest.raises(TypeError, match="ping_intervall"):
        connect("ws://testing/", ping_intervall=3)  # type: ignore[call-arg]


URI = parse_uri("ws://testing/")


def test_factories_that_would_be_used_up() -> None:
    once: Any = (factory for factory in [ClientPerMessageDeflateFactory()])
    with pytest.raises(TypeError, match="extensions: expected a sequence"):
        connect("ws://testing/", extensions=once)
    with pytest.raises(TypeError, match="extensions: expected a sequence"):
        ServerOptions(extensions=once)


@pytest.mark.parametrize("compression", ["deflate", None])
def test_compression_is_offered_once(compression: str | None) -> None:
    mine: list[Any] = [ClientPerMessageDeflateFactory(client_max_window_bits=9)]
    for given in (mine, None):
        options = ClientOptions(compression=compression, extensions=given)
        offer = client_handshake(options, URI).request.headers.get_all(
            "Sec-WebSocket-Extensions"
        )
        assert len(offer) == (given is not None or compression is not None)
        # One's own comes in place of the default.
        assert ("client_max_window_bits=9" in "".join(offer)) == (given is not None)


def test_headers_that_name_the_software() -> None:
    headers = client_handshake(ClientOptions(), URI).request.headers
    assert "trio_ws/" in headers["User-Agent"]
    headers = client_handshake(
        ClientOptions(user_agent_header=None), URI
    ).request.headers
    assert "User-Agent" not in headers
    headers = client_handshake(ClientOptions(origin="https://x"), URI).request.headers
    assert headers["Origin"] == "https://x"


def test_an_unknown_keyword_names_the_call_and_what_serves_instead() -> None:
    with pytest.raises(TypeError, match=r"^connect\(\) got an .* 'nothing'$"):
        connect("ws://localhost/", nothing=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^connect\(\) .*; see additional_headers$"):
        connect("ws://localhost/", extra_headers={})  # type: ignore[call-arg]
