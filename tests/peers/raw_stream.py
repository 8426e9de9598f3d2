"""A socket as trio's stream, with or without TLS, that leaves no reference cycle.

trio.SSLStream is in one with itself, so that what is left of it hides what is left
of the other end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from tests.peers import sockets

T = TypeVar("T")


class RawStream(trio.abc.Stream):
    """A stream over a connected socket of the test's."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    async def over_tls(
        cls, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None
    ) -> RawStream:
        """Do the TLS handshake; a server's has no ``server_hostname``."""
        sock.setblocking(False)
        stream = cls(
            context.wrap_socket(
                sock,
                server_side=server_hostname is None,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
            )
        )
        assert isinstance(stream._sock, ssl.SSLSocket)
        await stream._do(stream._sock.do_handshake)
        return stream

    async def _do(self, call: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                return call(*args)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._sock)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # A test's few bytes, for which there is always room.
        assert await self._do(self._sock.send, data) == len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._do(self._sock.recv, max_bytes or 65536)

    def send_below_tls(self, data: bytes) -> None:
        """Send bytes that TLS doesn't know of."""
        assert socket.socket.send(self._sock, data) == len(data)

    def reset(self) -> None:
        """Close with a reset in place of the end of the stream."""
        sockets.reset(self._sock)

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()
