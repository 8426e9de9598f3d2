"""What carries the bytes; see ``_base`` for the interface."""

from ._base import READ_SIZE, STEP_SIZE, WRITE_SIZE, Transport
from ._make import check_context, make_transport, transport_of
from ._socket import SocketTransport, take_socket
from ._stream import StreamTransport
from ._tls import TLSTransport

__all__ = [
    "READ_SIZE",
    "STEP_SIZE",
    "WRITE_SIZE",
    "SocketTransport",
    "StreamTransport",
    "TLSTransport",
    "Transport",
    "check_context",
    "make_transport",
    "take_socket",
    "transport_of",
]
