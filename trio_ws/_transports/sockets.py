"""TCP and Unix sockets: non-blocking system calls, and trio to wait."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from .base import READ_SIZE, STEP_SIZE, WRITE_SIZE, Buffer, Transport, bounded

_IOV_MAX = 16  # buffers in one system call: as many as POSIX guarantees


# How much the kernel may hold of what the peer has no window for. trio sets 16 KiB, for
# senders that wait until all is written; ours would be switched to the flusher every
# 16 KiB. Without a limit, of megabytes, a pong waits behind all of that.
_UNSENT = 768 * 1024

_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # While an application has paused reading, this finds dead peers. Not
    # TCP_USER_TIMEOUT: it kills live ones with a closed window.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
if hasattr(socket, "TCP_NOTSENT_LOWAT"):
    _OPTIONS.append((socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT))


@functools.lru_cache(maxsize=64)
def _shared(address: Any) -> Any:
    """Return one of equal addresses: those of a server's connections are, mostly."""
    return address


class SocketTransport(Transport):
    """A connected, non-blocking stream socket of our own."""

    __slots__ = ("_sock", "local_address", "remote_address", "unsent")

    callers_read = True

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.unsent = 0
        self.local_address = _shared(name_of(sock.getsockname))
        self.remote_address = name_of(sock.getpeername)
        for option in _OPTIONS:
            try:
                sock.setsockopt(*option)
            except OSError:
                pass  # it isn't TCP

    @property
    def trio_socket(self) -> trio.socket.SocketType | None:
        if self._sock.fileno() < 0:
            return None
        return trio.socket.from_stdlib_socket(self._sock)

    def read(self, size: int = READ_SIZE) -> bytes | None:
        try:
            return self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return None

    def read_into(self, target: memoryview) -> int | None:
        try:
            return self._sock.recv_into(target)
        except (BlockingIOError, InterruptedError):
            return None

    def wait_readable(self) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(self._sock)  # noqa: ASYNC105

    def fileno(self) -> int:
        return self._sock.fileno()

    def wake(self) -> None:
        trio.lowlevel.notify_closing(self._sock)

    def write(self, buffers: Sequence[Buffer]) -> int:
        try:
            if len(buffers) == 1 and len(buffers[0]) <= STEP_SIZE:
                return self._sock.send(buffers[0])
            size = sum(map(len, buffers))
            if size <= WRITE_SIZE:
                return self._sock.send(b"".join(buffers))
            if size > STEP_SIZE:
                buffers = bounded(buffers, STEP_SIZE)
            return _send_several(self._sock, buffers)
        except (BlockingIOError, InterruptedError):
            return 0

    def write_one(self, buffer: bytes) -> int:
        try:
            return self._sock.send(buffer)
        except (BlockingIOError, InterruptedError):
            return 0

    async def wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except trio.ClosedResourceError:
            return

    def shutdown(self) -> bool:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return True

    def discard(self) -> None:
        try:
            self._sock.close()
        except OSError:
            pass  # somebody may have closed the descriptor

    async def aclose(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self.discard()


def _send_several(sock: socket.socket, buffers: Sequence[Buffer]) -> int:
    """Send buffers that are too large to be copied, as many as one call takes."""
    if sys.platform != "win32" and hasattr(sock, "sendmsg"):
        return sock.sendmsg(buffers[:_IOV_MAX])
    # Of a large one nothing is copied. A small one, such as a header, isn't sent by
    # itself, which would be a packet: a part of what follows is copied behind it.
    if len(buffers[0]) >= WRITE_SIZE:
        return sock.send(buffers[0])
    return sock.send(b"".join(bounded(buffers, WRITE_SIZE)))


def name_of(ask: Callable[[], Any]) -> Any:
    """Return an address of a socket, None if its peer is gone already.

    Linux then forgets the peer's address, macOS and the BSDs our own, too.
    """
    try:
        return ask()
    except OSError:
        return None


def unix_family(keyword: str) -> int:
    """Return the family of Unix sockets; raise RuntimeError where there are none."""
    if sys.platform != "win32" and hasattr(socket, "AF_UNIX"):
        return socket.AF_UNIX
    raise RuntimeError(f"{keyword}: Python has no Unix sockets on {sys.platform}")


def checked_path(given: object) -> str:
    """Return the path of a Unix socket, which may be an abstract name (unix(7))."""
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str):
        raise TypeError(f"path: expected a str or a path; got {given!r}")
    if not path:
        raise ValueError("path: expected a path; got ''")
    if is_abstract(path):
        if sys.platform != "linux":
            raise ValueError(f"path: abstract names are Linux's alone; got {path!r}")
    elif "\0" in path:
        raise ValueError(f"path: expected no NUL in it; got {path!r}")
    return path


def is_abstract(path: str) -> bool:
    """Tell an abstract name, which has no file, from a path."""
    return path.startswith("\0")


def take_socket(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of a trio stream, which is closed by that.

    Whoever waits on the stream gets a trio.ClosedResourceError, as by its aclose().

    Raises trio.ClosedResourceError if it was closed before.
    """
    if stream.socket.fileno() < 0:
        raise trio.ClosedResourceError("stream: expected one that is open")
    trio.lowlevel.notify_closing(stream.socket)
    return socket.socket(fileno=stream.socket.detach())
