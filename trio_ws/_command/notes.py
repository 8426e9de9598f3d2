"""What the command says of itself, on stderr: notes, errors, the log."""

from __future__ import annotations

import enum
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from .. import (
    Close,
    ConnectionClosed,
    InvalidStatus,
    OpenTimeoutError,
    PayloadTooBig,
)
from .._protocol.escaping import escape

PROGRAM = "trio-ws"

Note = Callable[[str], None]


class Status(enum.IntEnum):
    """Exit codes."""

    OK = 0
    LOST = 1
    USAGE = 2  # as of argparse
    UNREACHABLE = 3
    INTERRUPTED = 128 + 2  # as a shell has it for SIGINT


class UsageError(Exception):
    """What the command line asks for can't be done; the text says what can."""


# User information, and a query, in which services have passwords, too.
_private = re.compile(r"(?<=://)(?:[^/?#\s]*@)?([^?#\s'\"]*)(?:[?#][^\s'\"]*)?")


def masked(text: str) -> str:
    """Return a text without what could be secret in its URIs."""
    return _private.sub(r"\1", text)


@contextmanager
def logged(
    name: str, note: Note, level: int, headers: Iterable[tuple[str, str]]
) -> Iterator[None]:
    """Show the log of that name by ``note`` while a block runs.

    ``headers`` are those that the user has given: whatever their names are, their
    values may be secret.
    """
    names = "|".join(re.escape(name) for name, _ in headers) or "(?!)"
    # By the name: the log may show a value escaped, or its beginning alone.
    values = re.compile(rf"(> (?:{names}): ).*", re.DOTALL | re.IGNORECASE)

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = values.sub(r"\1[secret]", self.format(record))
            for line in text.splitlines():
                note(line)

    logger, handler = logging.getLogger(name), Notes()
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def why_not_open(exc: Exception) -> str:
    """Say in a line why a connection could not be opened, and what may help."""
    # connect() notes first what it was doing.
    stage = next((f"{note}: " for note in getattr(exc, "__notes__", ())), "")
    if isinstance(exc, OpenTimeoutError):
        return str(exc).replace("open_timeout", "--timeout")
    if isinstance(exc, OSError):
        return stage + _os_error(exc)
    if isinstance(exc, InvalidStatus):
        text = exc.response.body[:200].decode(errors="replace").strip()
        return f"{exc} {exc.response.reason_phrase}" + (f": {text}" if text else "")
    return f"{stage}{exc}"


def _os_error(exc: OSError) -> str:
    if isinstance(exc.__cause__, ExceptionGroup):  # one for each address of a host
        first = exc.__cause__.exceptions[0]
        return _os_error(first) if isinstance(first, OSError) else str(exc)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"the certificate isn't trusted: {exc.verify_message}; --ca FILE trusts "
            f"another authority, --insecure any certificate"
        )
    if isinstance(exc, socket.gaierror):
        return f"no such host, or no DNS: {exc.strerror}"
    if isinstance(exc, ConnectionRefusedError):
        return "refused: no server listens there"
    if isinstance(exc, ssl.SSLError):
        return f"TLS fails: {getattr(exc, 'reason', None) or exc}"
    return exc.strerror or str(exc)


def why_closed(exc: ConnectionClosed) -> str:
    """Say in a line how a connection ended that the peer closed, or that was lost."""
    if exc.rcvd is not None and exc.rcvd_then_sent:
        return f"closed by the server: {exc.rcvd}"
    cause = exc.__cause__
    text = f"lost: {exc}"
    if cause is not None:
        text += f" ({type(cause).__name__}: {cause})"
    if isinstance(cause, PayloadTooBig):
        text += "; --max-size BYTES allows more"
    return text


def how_closed(code: int | None, reason: str | None) -> str:
    """Say in a line how a connection ended that this side closed."""
    if code is None or code == 1006:
        return "closed; the server didn't answer the close frame"
    return f"closed: {Close(code, reason or '')}"


def printable(text: str) -> str:
    """Return a text in which nothing controls a terminal."""
    return escape(text)
