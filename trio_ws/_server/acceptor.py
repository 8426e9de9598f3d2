"""Accepts connections from listeners, until it is told to stop."""

from __future__ import annotations

import errno
import logging
import socket
import ssl as ssl_module
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import collapse, leave_nursery, raise_as_is
from .._endpoint.log import log_or_print
from .._transports.base import Transport
from .._transports.make import make_transport, transport_of

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

# With anything else where the process or the machine is short of something, as
# of descriptors. Connections that end will give it back.
_SHORTAGE_SLEEP = 0.1

# So many connections are accepted in a row before others have their turn.
_BATCH = 64

AnyListener = trio.abc.Listener[Any]
OnAccept = Callable[[Callable[[], Transport]], None]


class Acceptor:
    """Listeners, and what goes on while they accept."""

    def __init__(
        self,
        listeners: Sequence[AnyListener],
        context: ssl_module.SSLContext | None,
        logger: logging.Logger,
    ) -> None:
        self._listeners = listeners
        self._context = context
        self._logger = logger
        self._scope = trio.CancelScope()
        self._short = False  # accept() failed for want of something
        self.stopped = trio.Event()  # nothing is accepted any more

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets among the listeners."""
        return tuple(
            listener.socket
            for listener in self._listeners
            if isinstance(listener, trio.SocketListener)
        )

    def stop(self) -> None:
        """Accept nothing more."""
        self._scope.cancel()

    @enable_ki_protection
    async def run(self, on_accept: OnAccept, on_start: Callable[[], None]) -> None:
        """Accept until stopped; close the listeners then.

        ``on_accept`` is called with a function that makes the transport of a
        connection: that may fail, and harm no other. ``on_start`` is called once all
        listeners are waited for.

        **Cancellation**: the listeners are closed.
        """
        try:
            with self._scope:
                await self._accept_all(on_accept, on_start)
        finally:
            self.stopped.set()
            with trio.CancelScope(shield=True):
                for listener in self._listeners:
                    await listener.aclose()

    async def _accept_all(
        self, on_accept: OnAccept, on_start: Callable[[], None]
    ) -> None:
        manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await manager.__aenter__()
        error: BaseException | None = None
        try:
            for listener in self._listeners:
                if isinstance(listener, trio.SocketListener):
                    nursery.start_soon(self._accept_sockets, listener, on_accept)
                else:
                    nursery.start_soon(self._accept_streams, listener, on_accept)
            for sock in self.sockets:
                self._logger.info("listening on %s", sock.getsockname())
            on_start()
        except BaseException as exc:  # noqa: BLE001 # pragma: no cover - raised below
            error = exc
        outcome = await leave_nursery(manager, nursery, error)
        try:
            if outcome is not None:
                # One exception where one is enough, as of a KeyboardInterrupt.
                raise_as_is(collapse(outcome, error))
        finally:
            del outcome, error  # no cycle with the traceback

    @enable_ki_protection
    async def _accept_sockets(
        self, listener: trio.SocketListener, on_accept: OnAccept
    ) -> None:
        # A descriptor of our own for the same socket: trio's accept() takes a
        # turn of the loop for every connection, and the user's stays usable.
        with socket.socket(fileno=listener.socket.dup().detach()) as sock:
            sock.setblocking(False)
            while True:
                await trio.lowlevel.wait_readable(sock)
                if not self._accept_batch(sock, on_accept):
                    await trio.sleep(_SHORTAGE_SLEEP)

    @enable_ki_protection
    def _accept_batch(self, sock: socket.socket, on_accept: OnAccept) -> bool:
        """Accept what is there; return False if there is a shortage."""
        for _ in range(_BATCH):
            try:
                accepted, _address = sock.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _GONE:
                    continue
                self._log_shortage(exc)
                return False
            on_accept(
                partial(make_transport, accepted, self._context, server_side=True)
            )
        self._short = False
        return True

    @enable_ki_protection
    async def _accept_streams(self, listener: AnyListener, on_accept: OnAccept) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _GONE:
                    self._log_shortage(exc)
                    await trio.sleep(_SHORTAGE_SLEEP)
                continue
            self._short = False
            on_accept(partial(transport_of, stream, self._context, server_side=True))

    def _log_shortage(self, exc: OSError) -> None:
        """Log a shortage, once for as long as it lasts."""
        if not self._short:
            self._short = True
            log_or_print(
                self._logger,
                logging.ERROR,
                "accepting no connections for now: %s",
                exc,
            )
