"""Connecting over TCP."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import trio

_Address = tuple[int, int, int, str, Any]  # as of socket.getaddrinfo()


async def open_tcp(
    host: str, port: int, local_address: str | None
) -> trio.SocketStream | socket.socket:
    """Connect to a host, to whichever of its addresses answers first.

    Raises OSError. **Cancellation**: nothing is left open.
    """
    if local_address is None:
        address = _literal(host, port)
        if address is not None:
            return await _connect(address)
    return await trio.open_tcp_stream(host, port, local_address=local_address)


def _literal(host: str, port: int) -> _Address | None:
    """Return the address that ``host`` spells out, None if it is a name."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    host = host.removesuffix(".")  # which getaddrinfo() knows with names alone
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    except socket.gaierror:
        return None


async def _connect(address: _Address) -> socket.socket:
    """Connect to one address.

    Not trio.open_tcp_stream(), which makes ready to try several at once: that
    costs a fifth of a whole connection.
    """
    family, kind, protocol, _, name = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            sock.connect(name)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise _system_error(code) from None
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError):
            exc.add_note(f"connecting to {name}")
        raise
    return sock


def _system_error(code: int) -> OSError:
    if sys.platform == "win32":  # pragma: no cover - whose strerror() knows no socket
        import ctypes

        return ctypes.WinError(code)
    else:
        return OSError(code, os.strerror(code))
