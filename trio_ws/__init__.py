"""WebSocket client and server for trio (RFC 6455)."""

from ._accept import accept
from ._broadcast import broadcast
from ._client import connect, unix_connect
from ._connection import (
    ClientConnection,
    Connection,
    ServerConnection,
)
from ._listening import open_systemd_listeners
from ._options import ClientOptions, Options, ServerOptions
from ._protocol._codec import codec
from ._protocol._frames import Close, CloseCode
from ._protocol._headers import Headers, HeadersLike
from ._protocol._http import Request, Response
from ._protocol._state import State
from ._reconnect import Attempt, reconnect
from ._serve import open_server, serve, unix_serve
from ._server import Server
from ._streaming import MessageStream
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
    "Attempt",
    "ClientConnection",
    "ClientOptions",
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
    "ServerOptions",
    "State",
    "StatusLineTooLong",
    "TooManyHeaders",
    "WebSocketException",
    "__version__",
    "accept",
    "broadcast",
    "codec",
    "connect",
    "open_server",
    "open_systemd_listeners",
    "reconnect",
    "serve",
    "unix_connect",
    "unix_serve",
]
