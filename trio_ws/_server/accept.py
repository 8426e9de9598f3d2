"""accept(): the server's side on one stream."""

from __future__ import annotations

import logging
import ssl as ssl_module
from typing import Unpack

import trio

from .._connection.connection import ServerConnection
from .._connection.opener import Opened, Opener
from .._endpoint.identity import Identity
from .._endpoint.options import make_options
from .._transports.make import check_context
from .opening import Opening, take_accepted
from .options import OF_A_SERVER, AcceptOptionsDict, ServerOptions


async def open_on_stream(
    stream: trio.abc.Stream, ssl: ssl_module.SSLContext | None, options: ServerOptions
) -> Opened[ServerConnection]:
    """Open a connection, but for its scope; as accept() does."""
    logger = options.logger or logging.getLogger("trio_ws.server")
    reading = trio.CancelScope()  # which nobody cancels
    transport = await take_accepted(stream, ssl)
    identity = Identity(logger, transport.remote_address, transport.local_address)
    return await Opening(transport, options, identity).run(reading)


class accept(Opener[ServerConnection]):  # noqa: N801 - reads as the function that it is to its users
    """Be the server on a stream of yours: ``async with accept(stream) as ws: ...``.

    ``stream`` is any trio.abc.Stream, which is closed with the connection; a
    trio.SocketStream at once, as with connect(). ``ssl`` puts TLS on it.
    ``options`` are those of :class:`trio_ws.ServerOptions`.

    Entering raises InvalidHandshake, after answering, if the client's request
    isn't one for a WebSocket, or if a hook answers it otherwise; OSError if the
    stream fails; OpenTimeoutError.
    Leaving is as with connect(). **Cancellation** as with connect().
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        ssl: ssl_module.SSLContext | None = None,
        **options: Unpack[AcceptOptionsDict],
    ) -> None:
        super().__init__()
        check_context(ssl, server_side=True)
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
        for name in OF_A_SERVER:
            if name in options:
                raise TypeError(f"{name}: accept() is for one connection; see serve()")
        self._options = make_options(ServerOptions, "accept", options)
        self._stream = stream
        self._ssl = ssl

    async def _open(self) -> Opened[ServerConnection]:
        return await open_on_stream(self._stream, self._ssl, self._options)
