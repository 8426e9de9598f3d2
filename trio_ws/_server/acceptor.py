"""Accepts connections from listeners, until it is told to stop."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import run_in_nursery
from .._endpoint.identity import AnyLogger
from .._endpoint.log import log_or_print
from .._transports.make import AnyStream, close_any
from .._transports.network import NetworkListener
from .admission import Admission

# accept() fails with these for a connection that is gone before it is accepted;
# accept(2) lists them.
_GONE = {
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",  # of Windows
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
}

# And with these where somebody else has closed the listener's descriptor.
_CLOSED = {errno.EBADF, errno.ENOTSOCK}

# With anything else where the process or the machine is short of something, as
# of descriptors or memory. Connections that end will give it back.
_SHORTAGE_SLEEP = 0.1

# So many connections are accepted in a row before others have their turn.
_BATCH = 64

AnyListener = trio.abc.Listener[Any]
OnAccept = Callable[[AnyStream], None]


class Acceptor:
    """Listeners, and what goes on while they accept."""

    def __init__(
        self,
        listeners: Sequence[AnyListener],
        logger: AnyLogger,
        admission: Admission,
    ) -> None:
        self._listeners = listeners
        self._admission = admission
        self._logger = logger
        self._scope = trio.CancelScope()
        self._short = False  # of something that accepting takes
        self.stopped = trio.Event()  # nothing is accepted any more

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets among the listeners."""
        return tuple(
            listener.socket
            for listener in self._listeners
            if isinstance(listener, trio.SocketListener)
        )

    @property
    def addresses(self) -> list[Any]:
        """Where the listeners listen, as far as they tell."""
        return [
            listener.socket.getsockname()
            if isinstance(listener, trio.SocketListener)
            else listener.address
            for listener in self._listeners
            if isinstance(listener, (trio.SocketListener, NetworkListener))
        ]

    def stop(self) -> None:
        """Accept nothing more."""
        self._scope.cancel()

    @enable_ki_protection
    async def run(self, on_accept: OnAccept, on_start: Callable[[], None]) -> None:
        """Accept until stopped; close the listeners then.

        ``on_accept`` is called with what is accepted, which is closed if it raises;
        a MemoryError ends nothing else. ``on_start`` is called once nothing is wanting
        to accept.

        Raises OSError if somebody else closes a listener's descriptor, or if there is
        none to begin with. **Cancellation**: the listeners are closed.
        """

        async def start(nursery: trio.Nursery) -> None:
            for listener in self._listeners:
                if isinstance(listener, trio.SocketListener):
                    ours = own.enter_context(_duplicate(listener))
                    nursery.start_soon(self._accept_sockets, ours, on_accept)
                else:
                    nursery.start_soon(self._accept_streams, listener, on_accept)
            for address in self.addresses:
                self._logger.info("listening on %s", address)
            on_start()

        try:
            with contextlib.ExitStack() as own, self._scope:
                await run_in_nursery(start)
        finally:
            self.stopped.set()
            await close_listeners(self._listeners)

    @enable_ki_protection
    async def _accept_sockets(self, sock: socket.socket, on_accept: OnAccept) -> None:
        while True:
            try:
                await self._wait_for_room()
                await trio.lowlevel.wait_readable(sock)
                self._accept_batch(sock, on_accept)
            except (OSError, MemoryError) as exc:
                if _is_closed(exc):
                    sock.detach()  # by now, the descriptor may be another's
                    raise
                self._log_shortage(exc)
                await trio.sleep(_SHORTAGE_SLEEP)

    @enable_ki_protection
    def _accept_batch(self, sock: socket.socket, on_accept: OnAccept) -> None:
        """Accept what is there. Raises OSError, MemoryError."""
        for _ in range(_BATCH):
            if not self._admission.has_room:
                return
            try:
                accepted, _address = sock.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _GONE:
                    continue
                raise
            try:
                on_accept(accepted)
            except BaseException:
                accepted.close()
                raise
        self._short = False

    @enable_ki_protection
    async def _accept_streams(self, listener: AnyListener, on_accept: OnAccept) -> None:
        while True:
            try:
                await self._wait_for_room()
                stream = await listener.accept()
                try:
                    # Other listeners may have accepted meanwhile.
                    await self._wait_for_room()
                    on_accept(stream)
                except BaseException:
                    await close_any(stream)
                    raise
                if self._admission.has_room:
                    self._short = False
            except (OSError, MemoryError) as exc:
                if isinstance(exc, OSError) and exc.errno in _GONE:
                    continue
                if _is_closed(exc):
                    raise
                self._log_shortage(exc)
                await trio.sleep(_SHORTAGE_SLEEP)

    async def _wait_for_room(self) -> None:
        """Wait while so many handshakes are under way that no other may begin."""
        if not self._admission.has_room:
            count = self._admission.handshakes
            self._log_shortage(f"{count} handshakes are under way (max_handshakes)")
            await self._admission.wait_for_room()

    def _log_shortage(self, what: object) -> None:
        """Log a shortage, once for as long as it lasts."""
        if not self._short:
            self._short = True
            log_or_print(
                self._logger,
                logging.ERROR,
                "accepting no connections for now: %s",
                str(what) or repr(what),
            )


def _duplicate(listener: trio.SocketListener) -> socket.socket:
    """Make a descriptor of our own for a listener.

    trio's accept() takes a turn of the loop for every connection, and so the user's
    stays usable.
    """
    sock = socket.socket(fileno=listener.socket.dup().detach())
    sock.setblocking(False)
    return sock


def _is_closed(exc: Exception) -> bool:
    """Tell a descriptor that somebody else has closed from a shortage."""
    if isinstance(exc, OSError) and exc.errno in _CLOSED:
        exc.add_note("a listener's descriptor was closed, not by its own aclose()")
        return True
    return False


async def close_listeners(listeners: Sequence[AnyListener]) -> None:
    """Close listeners, each whatever others raise. **Cancellation**: none."""
    with trio.CancelScope(shield=True):
        async with AsyncExitStack() as stack:
            for listener in listeners:
                stack.push_async_callback(listener.aclose)
