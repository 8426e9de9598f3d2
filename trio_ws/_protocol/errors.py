"""Errors of the protocol and of the opening handshake.

They live here, below everything that does I/O, and are re-exported by
:mod:`trio_ws.exceptions`, which adds those that derive from trio's.
"""

from __future__ import annotations

from typing import Any

from .http.messages import Response


class WebSocketException(Exception):
    """Base class of the exceptions that trio_ws defines."""


class InvalidURI(WebSocketException):
    """The URI is not a valid WebSocket URI (RFC 6455, section 3).

    ``msg`` says what is wrong with ``uri``.
    """

    def __init__(self, uri: str, msg: str) -> None:
        self.uri = uri
        self.msg = msg
        super().__init__(uri, msg)

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.msg}"


class InvalidProxy(WebSocketException):
    """The URL of a proxy isn't one, or not of a kind that trio_ws knows.

    ``msg`` says what is wrong with ``proxy``.
    """

    def __init__(self, proxy: str, msg: str) -> None:
        self.proxy = proxy
        self.msg = msg
        super().__init__(proxy, msg)

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


class InvalidHandshake(WebSocketException):
    """Base class of what can go wrong in the opening handshake."""


class SecurityError(InvalidHandshake):
    """A handshake message exceeds a limit that protects memory and time."""


class RequestLineTooLong(SecurityError):
    """The request line of a handshake request is too long."""


class RequestBodyTooLong(SecurityError):
    """The body of an HTTP request is too long."""


class StatusLineTooLong(SecurityError):
    """The status line of a handshake response is too long."""


class HeaderLineTooLong(SecurityError):
    """A header line of a handshake message is too long."""


class TooManyHeaders(SecurityError):
    """A handshake message has too many headers, or too much of them in all."""


class ProxyError(InvalidHandshake):
    """A proxy refuses to connect to the server, or answers otherwise than it should.

    ``__cause__`` says what it met with: an OSError, an EOFError, or what the answer
    is not.
    """


class InvalidProxyStatus(ProxyError):
    """An HTTP proxy refuses to connect to the server: another status than 2xx.

    ``response`` is its answer, with as much of the body as InvalidStatus has.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response)

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMessage(InvalidHandshake):
    """A handshake message is not well-formed HTTP/1.1."""


class InvalidMethod(InvalidHandshake):
    """A request that no hook answered uses a ``method`` other than GET."""

    def __init__(self, method: str) -> None:
        self.method = method
        super().__init__(method)

    def __str__(self) -> str:
        return f"unsupported HTTP method; expected GET; got {self.method}"


class InvalidProtocol(InvalidHandshake):
    """A handshake message uses a version of HTTP other than 1.1.

    ``protocol`` is what it uses, such as "HTTP/1.0".
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        super().__init__(protocol)

    def __str__(self) -> str:
        hint = ""
        if self.protocol == "HTTP/2.0":
            hint = ", with which nobody is to begin here (RFC 9113, section 3.3)"
        return f"unsupported HTTP version; expected HTTP/1.1; got {self.protocol}{hint}"


class InvalidStatus(InvalidHandshake):
    """The server answered the handshake with a status other than 101.

    ``response`` is its answer, with what came of the body within a second, and
    at most its first 64 KiB (``Limits.response_body``); a note has a text that is
    short. Of accept(), it is what a hook has answered, and ``__cause__`` what the
    hook raised, if it did.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response)

    def __str__(self) -> str:
        return (
            f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"
        )


class InvalidHeader(InvalidHandshake):
    """A header of the handshake is missing or doesn't say what it should.

    ``name`` is the header's, ``value`` what it says, None if it is missing.
    """

    def __init__(self, name: str, value: str | None = None) -> None:
        self.name = name
        self.value = value
        super().__init__(name, value)

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


class InvalidHeaderFormat(InvalidHeader):
    """A header of the handshake doesn't follow its grammar."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"""{error} at {pos} in {header or "''"}""")
        self.args: tuple[Any, ...]  # to be copied and pickled
        self.args = (name, error, header, pos)


class InvalidHeaderValue(InvalidHeader):
    """A header of the handshake is well-formed and has a wrong value."""


class InvalidOrigin(InvalidHeader):
    """The Origin of a request isn't among those allowed."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)
        self.args: tuple[Any, ...] = (origin,)


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or the Connection header doesn't ask for a WebSocket."""


class NegotiationError(InvalidHandshake):
    """The two sides can't agree on an extension or a subprotocol."""


class ProtocolError(WebSocketException):
    """A frame breaks the protocol: the cause of a connection that failed.

    ``close_code`` is the code that RFC 6455, section 7.4.1, has for it.
    """

    def __init__(self, msg: str, close_code: int = 1002) -> None:
        self.close_code = close_code
        super().__init__(msg)


class PayloadTooBig(ProtocolError):
    """A message exceeds ``max_size``: the cause of a close with 1009."""
