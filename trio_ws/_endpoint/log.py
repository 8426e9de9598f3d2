"""The debug log of a connection, which reads like a story."""

from __future__ import annotations

import codecs
import logging

from .._protocol.closing import CLOSE_DONE, FINAL, Close
from .._protocol.engine import Engine
from .._protocol.escaping import escape, shortened
from .._protocol.http.headers import Headers
from .._protocol.http.messages import Request, Response
from .._protocol.opcodes import CLOSE, CONT, OPCODE_NAMES
from .._protocol.uri import without_secrets
from .identity import AnyLogger, ConnectionLogger, Identity

# Headers whose values are nobody's business.
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})

_WITH_URIS = frozenset({"location", "referer"})  # whose query may be a secret


def log_request(identity: Identity, sign: str, request: Request) -> None:
    """Log a request of the opening handshake."""
    if identity.logger.isEnabledFor(logging.DEBUG):
        logger = identity.log
        path = shortened(without_secrets(request.path))
        logger.debug("%s %s %s %s", sign, request.method, path, request.protocol)
        _log_headers(logger, sign, request.headers)


def log_response(identity: Identity, sign: str, response: Response) -> None:
    """Log a response of the opening handshake."""
    if identity.logger.isEnabledFor(logging.DEBUG):
        logger = identity.log
        logger.debug("%s HTTP/1.1 %d", sign, response.status_code)
        _log_headers(logger, sign, response.headers)


def _log_headers(logger: AnyLogger, sign: str, headers: Headers) -> None:
    for name, value in headers.raw_items():
        shown = "[secret]" if name.lower() in _SECRET else escape(value)
        if name.lower() in _WITH_URIS:
            shown = without_secrets(shown)
        shown = shortened(shown)
        logger.debug("%s %s: %s", sign, name, shown)


def log_or_print(
    logger: AnyLogger,
    level: int,
    message: str,
    *args: object,
    exc_info: Exception | None = None,
) -> None:
    """Log where no caller could be told that a handler of the logger's raises.

    What it raises is shown on stderr, as what logging's own handlers meet with is:
    unless logging.raiseExceptions is False.
    """
    try:
        logger.log(level, message, *args, exc_info=exc_info, stacklevel=2)
    except Exception:  # noqa: BLE001 - shown
        if isinstance(logger, logging.LoggerAdapter):
            message, _ = logger.process(message, {})
        record = logging.LogRecord(logger.name, level, "", 0, message, args, None)
        logging.Handler().handleError(record)


class FrameLog:
    """Logs each frame, each latency, and how the connection ended.

    Made only where the logger wants it. Nothing of the peer's gets into a log
    unescaped.
    """

    def __init__(self, logger: ConnectionLogger) -> None:
        self._logger = logger

    def received(self, opcode: int, payload: bytes, size: int, fin: bool) -> None:
        """Log a frame of the peer's."""
        frame = describe(opcode, payload, size, fin)
        self._logger.debug("< %s", frame)

    def sent(self, opcode: int, payload: bytes, size: int, fin: bool) -> None:
        """Log a frame of ours."""
        frame = describe(opcode, payload, size, fin)
        self._logger.debug("> %s", frame)

    def latency(self, seconds: float) -> None:
        """Log how long a pong took."""
        self._logger.debug("latency %.1f ms", seconds * 1000)

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
        # What follows is to be said and done, whatever a handler raises.
        log_or_print(self._logger, logging.DEBUG, "%s", what)


_SHOWN = 60  # bytes of a payload that a log line shows

_Decoder = codecs.getincrementaldecoder("utf-8")


def describe(opcode: int, payload: bytes, size: int, fin: bool) -> str:
    """Describe a frame for a log: opcode, the start of its payload, its size."""
    if opcode == CLOSE and len(payload) >= 2:
        code = int.from_bytes(payload[:2], "big")
        shown = str(Close(code, payload[2:].decode(errors="backslashreplace")))
    elif opcode == CLOSE and payload:
        shown = payload.hex()  # half a code
    else:
        shown = _shown(payload[:_SHOWN], size, head=opcode == CONT, tail=not fin)
        shown += "..." if size > _SHOWN else ""
    plural = "" if size == 1 else "s"
    more = "" if fin else ", continued"
    return f"{OPCODE_NAMES[opcode]} {shown} [{size} byte{plural}{more}]"


def _shown(start: bytes, size: int, *, head: bool, tail: bool) -> str:
    """Show what is UTF-8 as text, its control characters escaped, the rest in hex.

    ``head`` and ``tail`` say that a fragment may begin and end within a character
    (RFC 6455, section 5.6), whose bytes stand in hex beside the text.
    """
    begin = 0
    while head and begin < min(len(start), 3) and start[begin] & 0xC0 == 0x80:
        begin += 1
    decoder = _Decoder()
    try:
        text = decoder.decode(start[begin:])
    except UnicodeDecodeError:
        return start.hex(" ")
    rest = decoder.getstate()[0]
    if size > _SHOWN:
        rest = b""  # cut off here, not by the peer
    elif rest and not tail:
        return start.hex(" ")
    parts = [start[:begin].hex(" "), repr(text), rest.hex(" ")]
    if not text and (parts[0] or parts[2]):
        del parts[1]
    return " ".join(filter(None, parts))
