"""accept(): the server's side on one stream."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Callable
from typing import Unpack

import trio

from ._connection import ServerConnection
from ._opening import open_server
from ._options import ServerOptions, ServerOptionsDict, make_options
from ._protocol._http import Response
from ._scope import Opener
from ._transports import Transport, check_context, transport_of


async def open_connection(
    transport: Transport,
    options: ServerOptions,
    logger: logging.Logger,
    reading: trio.CancelScope,
    refuse: Callable[[], Response | None] = lambda: None,
) -> ServerConnection:
    """Open the server's side of a connection; close the transport on failure."""
    try:
        return await open_server(
            transport, options, logger, reading=reading, refuse=refuse
        )
    except BaseException:
        await transport.aclose()
        raise


class accept(Opener[ServerConnection]):  # noqa: N801 - reads as the function that it is to its users
    """Be the server on a stream of yours: ``async with accept(stream) as ws: ...``.

    ``stream`` is any trio.abc.Stream; it is closed with the connection. ``ssl``
    puts TLS on it. ``options`` are those of
    :class:`trio_ws.ServerOptions`.

    Entering raises InvalidHandshake, after answering, if the client's request
    isn't one for a WebSocket; OSError if the stream fails; OpenTimeoutError.
    Leaving is as with connect(). **Cancellation** as with connect().
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        ssl: ssl_module.SSLContext | None = None,
        **options: Unpack[ServerOptionsDict],
    ) -> None:
        super().__init__()
        check_context(ssl)
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
        self._options = make_options(ServerOptions, "accept", options)
        self._stream = stream
        self._ssl = ssl
        self._logger = self._options.logger or logging.getLogger("trio_ws.server")

    async def _open(self) -> ServerConnection:
        with trio.move_on_after(self._options.open_seconds):
            transport = transport_of(self._stream, self._ssl, server_side=True)
            return await open_connection(
                transport, self._options, self._logger, trio.CancelScope()
            )
        raise self._options.open_timed_out()
