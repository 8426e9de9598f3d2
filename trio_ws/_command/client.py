"""trio-ws connect: the options of connect(), one connection or several, the end."""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from .. import (
    ClientConnection,
    ConnectionClosedError,
    InvalidHandshake,
    InvalidProxy,
    InvalidURI,
    connect,
    process_exception,
    reconnect,
)
from .conversation import Conversation, Manner
from .notes import (
    Status,
    UsageError,
    how_closed,
    logged,
    masked,
    why_closed,
    why_not_open,
)
from .sinks import Sink
from .source import Source

_WRONG = (InvalidURI, InvalidProxy, ImportError, TypeError, ValueError)
_NOT_OPEN = (OSError, InvalidHandshake, InvalidProxy, InvalidURI, ImportError)


async def run_connect(
    arguments: argparse.Namespace, source: Source, sink: Sink
) -> Status:
    """Run ``trio-ws connect``; return its exit code.

    Raises UsageError. **Cancellation**: the connection is closed at once, with 1001.
    SIGINT does that, too; another is Python's KeyboardInterrupt again.
    """
    client = _Client(arguments, source, sink)
    level = logging.INFO if arguments.reconnect else logging.WARNING
    if arguments.verbose:
        level = logging.DEBUG
    status = Status.INTERRUPTED
    with logged("trio_ws.client", sink.note, level, arguments.header):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.run)
            nursery.start_soon(_cancel_on_interrupt, nursery.cancel_scope)
            status = await client.run()
            nursery.cancel_scope.cancel()
    return status


async def _cancel_on_interrupt(scope: trio.CancelScope) -> None:
    # KeyboardInterrupt may come between any two steps of a block's end.
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        await anext(signals)
    scope.cancel()


class _Client:
    def __init__(
        self, arguments: argparse.Namespace, source: Source, sink: Sink
    ) -> None:
        self._source = source
        self._sink = sink
        self._manner = Manner(
            binary=arguments.binary, one=arguments.one_message, wait=arguments.wait
        )
        options = _options(arguments)
        self._opening: connect | reconnect
        try:
            if arguments.reconnect:
                options["process_exception"] = self._process_exception
                self._opening = reconnect(arguments.uri, **options)
            else:
                self._opening = connect(arguments.uri, **options)
        except _WRONG as exc:
            raise UsageError(masked(str(exc))) from None

    def _process_exception(self, exc: Exception) -> Exception | None:
        """Decide as reconnect() does, but not to go on for nothing."""
        return exc if self._source.used_up else process_exception(exc)

    async def run(self) -> Status:
        try:
            if isinstance(self._opening, connect):
                return self._status_of(await self._converse(self._opening))
            while True:
                conversation = await self._converse(await anext(self._opening))
                if conversation.over or self._source.ended:
                    return self._status_of(conversation)
        except _NOT_OPEN as exc:
            self._sink.note(f"can't connect: {masked(why_not_open(exc))}")
            return Status.UNREACHABLE

    async def _converse(
        self, opening: AbstractAsyncContextManager[ClientConnection]
    ) -> Conversation:
        try:
            async with opening as ws:
                conversation = Conversation(ws, self._source, self._sink, self._manner)
                if self._sink.interactive:
                    self._sink.note("connected; Ctrl-D closes, /ping measures latency")
                await conversation.run()
        except ConnectionClosedError as exc:  # on closing: data was lost with it
            conversation.closed = exc
        self._say_how(conversation, ws)
        return conversation

    def _say_how(self, conversation: Conversation, ws: ClientConnection) -> None:
        """Note how a connection ended; in a pipe only what is wrong."""
        if conversation.over or isinstance(self._opening, connect):
            self._sink.end()
        if conversation.fault is not None:
            self._sink.note(conversation.fault[0])
        closed = conversation.closed
        if isinstance(closed, ConnectionClosedError) or (
            closed is not None and self._sink.interactive
        ):
            self._sink.note(why_closed(closed))
        elif self._sink.interactive:
            self._sink.note(how_closed(ws.close_code, ws.close_reason))

    def _status_of(self, conversation: Conversation) -> Status:
        if conversation.fault is not None:
            return conversation.fault[1]
        lost = isinstance(conversation.closed, ConnectionClosedError)
        return Status.LOST if lost else Status.OK


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of connect() that the command line comes to."""
    return {
        "additional_headers": arguments.header,
        "subprotocols": arguments.subprotocol,
        "origin": arguments.origin,
        "proxy": arguments.proxy,
        "ssl": _context(arguments),
        "open_timeout": arguments.timeout,
        "ping_interval": arguments.ping_interval,
        "max_size": arguments.max_size,
        # What has come is shown, however long that takes.
        "loss_grace": None,
    }


def _context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the context for TLS; None if nothing is said of it."""
    if arguments.key is not None and arguments.cert is None:
        raise UsageError("--key needs --cert FILE with it")
    if not (arguments.insecure or arguments.ca or arguments.cert):
        return None
    if not arguments.uri.lower().startswith("wss:"):
        raise UsageError(
            "--insecure, --ca and --cert need a URI that begins with wss://"
        )
    try:
        context = ssl.create_default_context(cafile=arguments.ca)
    except OSError as exc:
        raise UsageError(f"--ca: no certificates there: {exc.strerror}") from None
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if arguments.cert is not None:
        load_cert(context, "--cert", arguments.cert, arguments.key)
    return context


def load_cert(context: ssl.SSLContext, option: str, cert: str, key: str | None) -> None:
    """Load a certificate and its key; raise UsageError, which names the option."""
    try:
        context.load_cert_chain(cert, key)
    except OSError as exc:
        raise UsageError(
            f"{option}: no certificate with its key there: {exc.strerror or exc}"
        ) from None
