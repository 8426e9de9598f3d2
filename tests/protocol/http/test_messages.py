"""Requests and responses: what is built of them."""

from __future__ import annotations

import pytest

from tests.protocol.handshake.parsing import PARSED_REQUEST, every_way
from trio_ws._protocol.handshake.request_parser import RequestParser
from trio_ws._protocol.handshake.response_parser import ResponseParser
from trio_ws._protocol.http.headers import Headers
from trio_ws._protocol.http.messages import Request, Response, http_date


def test_serialize_round_trip() -> None:
    assert every_way(RequestParser, PARSED_REQUEST.serialize()) == (PARSED_REQUEST, b"")
    answer = Response(403, "Non \xe9", Headers([("Content-Length", "2")]), b"no")
    assert answer.serialize() == (
        b"HTTP/1.1 403 Non \xe9\r\nContent-Length: 2\r\n\r\nno"
    )
    assert every_way(ResponseParser, answer.serialize()) == (answer, b"")


BREAKS = ["\r", "\n", "\0", "\r\nX: y", "\x7f", "\u0100"]


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("field", ["path", "method", "protocol"])
def test_request_injection(field: str, bad: str) -> None:
    for value in (bad, f"/{bad}", f"HTTP/1.1{bad}", ""):
        message = Request("/", Headers())
        setattr(message, field, value)
        with pytest.raises(ValueError, match=f"{field}: expected "):
            message.serialize()


@pytest.mark.parametrize("bad", BREAKS)
def test_response_injection(bad: str) -> None:
    with pytest.raises(ValueError, match="reason phrase: expected "):
        Response(200, f"OK{bad}", Headers()).serialize()


@pytest.mark.parametrize("status_code", [0, 99, 1000, -200])
def test_response_with_a_wrong_status(status_code: int) -> None:
    with pytest.raises(ValueError, match="status code: expected "):
        Response(status_code, "", Headers()).serialize()


def test_http_date() -> None:
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"  # as in the RFC
