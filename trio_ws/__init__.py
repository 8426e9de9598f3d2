"""WebSocket client and server for trio (RFC 6455)."""

from ._client.connect import connect, unix_connect
from ._client.options import ClientOptions
from ._client.reconnect import Attempt, reconnect
from ._client.retrying import backoff, process_exception
from ._connection.broadcast import broadcast
from ._connection.connection import Connection
from ._connection.message_stream import MessageStream
from ._connection.route import Route
from ._connection.sides import ClientConnection, ServerConnection
from ._endpoint.options import Options
from ._endpoint.statistics import ConnectionStatistics
from ._names import publish
from ._protocol.closing import Close, CloseCode, State
from ._protocol.frames.codec import codec
from ._protocol.http.headers import Headers, HeadersLike
from ._protocol.http.messages import Request, Response
from ._protocol.limits import Limits
from ._server.accept import accept
from ._server.auth import basic_auth
from ._server.listening import open_systemd_listeners
from ._server.options import ServerOptions
from ._server.routing import Router, route, unix_route
from ._server.serve import open_server, serve, unix_serve
from ._server.server import Server
from ._server.statistics import ServerStatistics
from ._transports.base import TLSInfo
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
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    OpenTimeoutError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    RequestBodyTooLong,
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
    "ConnectionStatistics",
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
    "InvalidProxy",
    "InvalidProxyStatus",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Limits",
    "MessageStream",
    "NegotiationError",
    "OpenTimeoutError",
    "Options",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "Request",
    "RequestBodyTooLong",
    "RequestLineTooLong",
    "Response",
    "Route",
    "Router",
    "SecurityError",
    "Server",
    "ServerConnection",
    "ServerOptions",
    "ServerStatistics",
    "State",
    "StatusLineTooLong",
    "TLSInfo",
    "TooManyHeaders",
    "WebSocketException",
    "__version__",
    "accept",
    "backoff",
    "basic_auth",
    "broadcast",
    "codec",
    "connect",
    "open_server",
    "open_systemd_listeners",
    "process_exception",
    "reconnect",
    "route",
    "serve",
    "unix_connect",
    "unix_route",
    "unix_serve",
]

publish(__name__, __all__)
