"""trio-ws serve: an echo or a room, and a folder beside it."""

from __future__ import annotations

import argparse
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from .. import ConnectionClosed, Server, ServerConnection, broadcast, serve
from .._protocol.uri import host_port
from .._server.signals import STOP_SIGNALS
from .client import load_cert
from .folder import Folder
from .notes import Note, Status, logged

Start = Callable[..., Awaitable[None]]

# Seconds that clients have to answer the close frame.
_GOODBYE = 5.0


async def run_serve(arguments: argparse.Namespace, note: Note) -> Status:
    """Run ``trio-ws serve``; return its exit code.

    Raises UsageError. **Cancellation** as of serve().
    """
    handler = _Room().handle if arguments.broadcast else _echo
    folder = None if arguments.directory is None else Folder(arguments.directory)
    start = partial(
        serve,
        handler,
        arguments.port,
        host=arguments.host,
        ssl=_context(arguments),
        process_request=None if folder is None else folder.process_request,
    )
    scheme = "ws" if arguments.tls is None else "wss"
    return await serve_until_signal(start, arguments, note, f"listening at {scheme}")


async def serve_until_signal(
    start: Start, arguments: argparse.Namespace, note: Note, where: str
) -> Status:
    """Run ``start``, a call of serve(); close it on a signal; return an exit code.

    ``where`` is said with each address behind it. **Cancellation** as of serve().
    """
    level = logging.DEBUG if arguments.verbose else logging.WARNING
    with (
        logged("trio_ws.server", note, level, ()),
        trio.open_signal_receiver(*STOP_SIGNALS) as signals,
    ):
        async with trio.open_nursery() as nursery:
            try:
                server: Server = await nursery.start(start)
            except (OSError, ValueError) as exc:
                note(f"can't listen: {_why(exc, arguments)}")
                return Status.UNREACHABLE if isinstance(exc, OSError) else Status.USAGE
            for address in _addresses(server):
                note(f"{where}://{address}/")
            await signals.__anext__()
            note("closing; another signal ends it at once")
            nursery.start_soon(_cancel_on_next, signals, nursery.cancel_scope)
            await server.aclose(timeout=_GOODBYE)
            nursery.cancel_scope.cancel()
    return Status.OK


async def _cancel_on_next(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await signals.__anext__()
    scope.cancel()


async def _echo(ws: ServerConnection) -> None:
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass  # with -v the log tells


class _Room:
    """What one says goes to all others."""

    def __init__(self) -> None:
        self._connections: set[ServerConnection] = set()

    async def handle(self, ws: ServerConnection) -> None:
        self._connections.add(ws)
        try:
            async for message in ws:
                # A message that is left out in silence would mislead.
                broadcast(self._connections - {ws}, message, slow="close")
        except ConnectionClosed:
            pass
        finally:
            self._connections.discard(ws)


def _context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_cert(context, "--tls", *arguments.tls)
    return context


def _addresses(server: Server) -> list[str]:
    return [host_port(*sock.getsockname()[:2]) for sock in server.sockets]


def _why(exc: OSError | ValueError, arguments: argparse.Namespace) -> str:
    where = f"{arguments.host} port {arguments.port}"
    if isinstance(exc, socket.gaierror):
        return (
            f"no such host: {arguments.host}; --host takes an address of this machine"
        )
    if not isinstance(exc, OSError):
        return str(exc)
    if exc.errno == errno.EADDRINUSE:
        return f"{where} is taken; give another, or 0 for one that is free"
    if exc.errno == errno.EACCES:
        return f"{where} isn't allowed; ports below 1024 are for root"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"{arguments.host} is no address of this machine"
    return f"{where}: {exc.strerror or exc}"
