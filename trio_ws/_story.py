"""The debug log of a connection, which reads like a story."""

from __future__ import annotations

import logging
import uuid

from ._protocol._engine import Engine
from ._protocol._frames import describe, escape
from ._protocol._headers import Headers
from ._protocol._http import Request, Response
from ._protocol._state import CLOSE_DONE, FINAL

# Headers whose values are nobody's business.
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})


def log_request(logger: logging.Logger, sign: str, request: Request) -> None:
    """Log a request of the opening handshake."""
    logger.debug("%s %s %s HTTP/1.1", sign, request.method, request.path)
    _log_headers(logger, sign, request.headers)


def log_response(logger: logging.Logger, sign: str, response: Response) -> None:
    """Log a response of the opening handshake."""
    logger.debug("%s HTTP/1.1 %d", sign, response.status_code)
    _log_headers(logger, sign, response.headers)


def _log_headers(logger: logging.Logger, sign: str, headers: Headers) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        for name, value in headers.raw_items():
            shown = "[secret]" if name.lower() in _SECRET else escape(value)
            logger.debug("%s %s: %s", sign, name, shown)


class Story:
    """Logs each frame, each latency, and how the connection ended.

    Made only where the logger wants it. Nothing of the peer's gets into a log
    unescaped.
    """

    def __init__(self, logger: logging.Logger, id: uuid.UUID) -> None:
        self._logger = logger
        self._name = id.hex[:8]  # tells connections apart that share a log

    def received(self, opcode: int, payload: bytes, size: int, fin: bool) -> None:
        """Log a frame of the peer's."""
        frame = describe(opcode, payload, size, fin)
        self._logger.debug("%s < %s", self._name, frame)

    def sent(self, opcode: int, payload: bytes, size: int, fin: bool) -> None:
        """Log a frame of ours."""
        frame = describe(opcode, payload, size, fin)
        self._logger.debug("%s > %s", self._name, frame)

    def latency(self, seconds: float) -> None:
        """Log how long a pong took."""
        self._logger.debug("%s latency %.1f ms", self._name, seconds * 1000)

    def ended(self, engine: Engine) -> None:
        """Log who ended the connection, with what, and why."""
        if engine.phase is CLOSE_DONE:
            what = f"closed by the peer: {engine.rcvd}"
        elif engine.phase not in FINAL:
            what = f"closed by this side: {engine.sent}"
        elif engine.cause is None:
            what = f"failed by this side: {engine.sent}"
        else:
            what = f"lost: {type(engine.cause).__name__}: {engine.cause}"
        self._logger.debug("%s %s", self._name, what)
