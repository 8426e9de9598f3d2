from __future__ import annotations

import errno
import logging
import os
import socket
import ssl

import pytest

from trio_ws import (
    Close,
    ConnectionClosedError,
    Headers,
    InvalidStatus,
    OpenTimeoutError,
    PayloadTooBig,
    Response,
)
from trio_ws._command.notes import how_closed, logged, masked, why_closed, why_not_open


def test_masked() -> None:
    text = "'wss://user:pw@host:1/path?token#x' and http://a?b, or ws://c/d?e=@f"
    assert masked(text) == "'wss://host:1/path' and http://a or ws://c/d"


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_logged(level: int) -> None:
    notes: list[str] = []
    logger = logging.getLogger("trio_ws.client")
    with logged("trio_ws", notes.append, level, [("X-Key", "abc"), ("A", "1\t2")]):
        for line in "> x-key: a... [3 characters]", "< A: 1", "> A: 1\\t2", "> AB: 1":
            logger.debug("id %s", line)
        logger.warning("two\nlines")
    logger.warning("not here")
    shown = ["id > x-key: [secret]", "id < A: 1", "id > A: [secret]", "id > AB: 1"]
    assert notes == [*(shown if level == logging.DEBUG else []), "two", "lines"]


def refusal() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def distrust() -> ssl.SSLCertVerificationError:
    exc = ssl.SSLCertVerificationError()
    exc.verify_message = "it has expired"
    return exc


def of_all(*errors: Exception) -> OSError:
    exc = OSError("all attempts failed")
    exc.__cause__ = ExceptionGroup("", errors)
    return exc


def status(code: int, phrase: str, body: bytes) -> InvalidStatus:
    return InvalidStatus(Response(code, phrase, Headers(), body))


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (refusal(), "at it: refused: no server listens there"),
        (of_all(refusal(), OSError()), "at it: refused: no server listens there"),
        (of_all(ValueError()), "at it: all attempts failed"),
        (distrust(), "at it: the certificate isn't trusted: it has expired; --ca FILE"),
        (ssl.SSLError(1, "what"), "at it: TLS fails: "),
        (socket.gaierror(1, "unknown"), "at it: no such host, or no DNS: unknown"),
        (
            OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
            f"at it: {os.strerror(errno.ENETUNREACH)}",
        ),
        (OSError("nothing"), "at it: nothing"),
        (
            OpenTimeoutError("not open after 3 s (open_timeout): at it"),
            "not open after 3 s (--timeout): at it",
        ),
        (status(404, "Not Found", b""), "HTTP 404 Not Found"),
        (
            status(403, "Forbidden", b" why \xff\n" + b"x" * 300),
            "Forbidden: why \ufffd",
        ),
        (ImportError("this needs that"), "at it: this needs that"),
    ],
)
def test_why_not_open(exc: Exception, text: str) -> None:
    exc.add_note("at it")
    said = why_not_open(exc)
    assert text in said
    assert len(said) < 300


def test_how_it_ended() -> None:
    by_peer = ConnectionClosedError(Close(1011, "\x1b"), Close(1011), True)
    assert why_closed(by_peer) == ("closed by the server: 1011 (internal error) \\x1b")
    lost = ConnectionClosedError(None, None)
    assert why_closed(lost) == "lost: no close frame received or sent"
    lost.__cause__ = EOFError("the end")
    assert why_closed(lost).endswith("sent (EOFError: the end)")
    too_big = ConnectionClosedError(None, Close(1009))
    too_big.__cause__ = PayloadTooBig("too big", 1009)
    assert why_closed(too_big).endswith("too big); --max-size BYTES allows more")
    assert how_closed(1000, "bye") == "closed: 1000 (OK) bye"
    assert how_closed(None, None) == how_closed(1006, "")
