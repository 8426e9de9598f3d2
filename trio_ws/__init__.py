"""WebSocket client and server for trio (RFC 6455)."""

from ._client import connect
from ._connection import (
    ClientConnection,
    Connection,
    MessageStream,
    ServerConnection,
)
from ._options import Options
from ._protocol._frames import Close, CloseCode
from ._protocol._headers import Headers, HeadersLike
from ._protocol._http import Request, Response
from ._protocol._state import State
from ._server import Server, accept, open_server, serve
from ._version import __version__
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    OpenTimeoutError,
    PayloadTooBig,
    ProtocolError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
    WebSocketException,
)

__all__ = [
    "ClientConnection",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HeaderLineTooLong",
    "Headers",
    "HeadersLike",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidProtocol",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "MessageStream",
    "NegotiationError",
    "OpenTimeoutError",
    "Options",
    "PayloadTooBig",
    "ProtocolError",
    "Request",
    "RequestLineTooLong",
    "Response",
    "SecurityError",
    "Server",
    "ServerConnection",
    "State",
    "StatusLineTooLong",
    "TooManyHeaders",
    "WebSocketException",
    "__version__",
    "accept",
    "connect",
    "open_server",
    "serve",
]
