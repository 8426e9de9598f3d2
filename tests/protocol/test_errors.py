"""What the exceptions say and what they are."""

from __future__ import annotations

import pytest

from trio_ws._protocol import errors as errors
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Response


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (errors.InvalidURI("ws:", "no host"), "ws: isn't a valid URI: no host"),
        (
            errors.InvalidMethod("POST"),
            "unsupported HTTP method; expected GET; got POST",
        ),
        (
            errors.InvalidProtocol("HTTP/1.0"),
            "unsupported HTTP version; expected HTTP/1.1; got HTTP/1.0",
        ),
        (
            errors.InvalidStatus(Response(404, "Not Found", Headers())),
            "server rejected WebSocket connection: HTTP 404",
        ),
        (errors.InvalidHeader("Upgrade"), "missing Upgrade header"),
        (errors.InvalidHeader("Upgrade", ""), "empty Upgrade header"),
        (errors.InvalidUpgrade("Upgrade", "h2c"), "invalid Upgrade header: h2c"),
        (
            errors.InvalidHeaderFormat("Connection", "expected token", "(", 0),
            "invalid Connection header: expected token at 0 in (",
        ),
        (errors.InvalidOrigin("null"), "invalid Origin header: null"),
        (errors.InvalidOrigin(None), "missing Origin header"),
        (errors.ProtocolError("the rule"), "the rule"),
    ],
)
def test_texts(exc: errors.WebSocketException, text: str) -> None:
    assert str(exc) == text


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("InvalidURI", "WebSocketException"),
        ("InvalidHandshake", "WebSocketException"),
        ("SecurityError", "InvalidHandshake"),
        ("RequestBodyTooLong", "SecurityError"),
        ("RequestLineTooLong", "SecurityError"),
        ("StatusLineTooLong", "SecurityError"),
        ("HeaderLineTooLong", "SecurityError"),
        ("TooManyHeaders", "SecurityError"),
        ("InvalidMessage", "InvalidHandshake"),
        ("InvalidMethod", "InvalidHandshake"),
        ("InvalidProtocol", "InvalidHandshake"),
        ("InvalidStatus", "InvalidHandshake"),
        ("InvalidHeader", "InvalidHandshake"),
        ("InvalidHeaderFormat", "InvalidHeader"),
        ("InvalidHeaderValue", "InvalidHeader"),
        ("InvalidOrigin", "InvalidHeader"),
        ("InvalidUpgrade", "InvalidHeader"),
        ("NegotiationError", "InvalidHandshake"),
        ("ProtocolError", "WebSocketException"),
        ("PayloadTooBig", "ProtocolError"),
    ],
)
def test_what_catches_what(name: str, base: str) -> None:
    assert getattr(errors, name).__bases__ == (getattr(errors, base),)


def test_close_codes() -> None:
    assert errors.ProtocolError("the rule").close_code == 1002
    assert errors.ProtocolError("the rule", 1007).close_code == 1007
    assert errors.PayloadTooBig("the limit", 1009).close_code == 1009
