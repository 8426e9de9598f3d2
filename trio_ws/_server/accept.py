"""accept(): the server's side on one stream."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Callable
from typing import Any, NoReturn, Unpack, cast, overload

import trio

from .._connection.opener import Opened, Opener
from .._connection.sides import ServerConnection, ServerT
from .._endpoint.identity import Identity
from .._protocol.http.headers import Headers
from .._protocol.http.messages import Request
from .._transports.make import check_context
from .opening import Opening, take_accepted
from .options import AcceptOptionsDict, ServerOptions, accept_options


async def open_on_stream(
    stream: trio.abc.Stream,
    ssl: ssl_module.SSLContext | None,
    options: ServerOptions,
    received: bytes = b"",
) -> Opened[ServerConnection]:
    """Open a connection, but for its scope; as accept() does.

    ``received`` is what came over the stream already.
    """
    logger = options.logger or logging.getLogger("trio_ws.server")
    reading = trio.CancelScope()  # which nobody cancels
    transport = await take_accepted(stream, ssl)
    identity = Identity(logger, transport.remote_address, transport.local_address)
    return await Opening(transport, options, identity, received=received).run(reading)


def _bytes_of(
    request: Request | None, leftover: bytes, ssl: ssl_module.SSLContext | None
) -> bytes:
    """Return what another server has read, as it was, to be read once more.

    So it is held to all that holds for other requests. Raises TypeError, ValueError.
    """
    if not isinstance(leftover, bytes):
        raise TypeError(f"leftover: expected bytes; got {leftover!r}")
    if request is None:
        if leftover:
            raise ValueError("leftover: expected a request with it; got none")
        return b""
    if not isinstance(request, Request):
        raise TypeError(f"request: expected a trio_ws.Request; got {request!r}")
    if not isinstance(request.headers, Headers):
        raise TypeError(
            f"request: expected trio_ws.Headers in it; got {request.headers!r}"
        )
    if ssl is not None:
        raise ValueError("ssl: expected none with a request, which came in TLS or not")
    for name in ("path", "method", "protocol"):
        value = getattr(request, name)
        if not isinstance(value, str):
            raise TypeError(f"request: expected a str as its {name}; got {value!r}")
    _check_body(request)
    try:
        return request.serialize() + leftover
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"request: {exc}") from None


def _check_body(request: Request) -> None:
    """Check that the headers account for the body: the rest would be read as frames.

    A part of it may still be to come. Raises TypeError, ValueError.
    """
    body, headers = request.body, request.headers
    if not isinstance(body, bytes):
        raise TypeError(f"request: expected bytes as its body; got {body!r}")
    lengths = headers.get_all("Content-Length")
    if "Transfer-Encoding" in headers or any(not one.isdecimal() for one in lengths):
        return  # it is refused for that, before any of its body is read
    said = int(lengths[0]) if lengths else 0
    if len(body) > said:
        raise ValueError(
            f"request: expected at most {said} bytes of body, by its Content-Length; "
            f"got {len(body)}"
        )


class accept(Opener[ServerT]):  # noqa: N801 - reads as the function that it is to its users
    """Be the server on a stream of yours: ``async with accept(stream) as ws: ...``.

    ``stream`` is any trio.abc.Stream, which is closed with the connection; a
    trio.SocketStream at once, as with connect(). ``ssl`` puts TLS on it.
    ``request`` is one that somebody else has read off the stream, and ``leftover`` what
    they have read behind it; without them, the request is read here.
    ``options`` are those of :class:`trio_ws.ServerOptions`.

    Entering raises InvalidHandshake, after answering, if the client's request
    isn't one for a WebSocket, InvalidStatus, which is one, if a hook answers it
    otherwise; OSError if the stream fails; OpenTimeoutError.
    Leaving is as with connect(). **Cancellation** as with connect().
    """

    @overload
    def __init__(
        self: accept[ServerConnection],
        stream: trio.abc.Stream,
        *,
        ssl: ssl_module.SSLContext | None = None,
        request: Request | None = None,
        leftover: bytes = b"",
        create_connection: None = None,
        **options: Unpack[AcceptOptionsDict[ServerConnection]],
    ) -> None: ...

    @overload
    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        ssl: ssl_module.SSLContext | None = None,
        request: Request | None = None,
        leftover: bytes = b"",
        create_connection: Callable[..., ServerT],
        **options: Unpack[AcceptOptionsDict[ServerT]],
    ) -> None: ...

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        ssl: ssl_module.SSLContext | None = None,
        request: Request | None = None,
        leftover: bytes = b"",
        create_connection: Callable[..., Any] | None = None,
        **options: Unpack[AcceptOptionsDict[Any]],
    ) -> None:
        super().__init__()
        check_context(ssl, server_side=True)
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream: expected a trio.abc.Stream; got {stream!r}")
        self._received = _bytes_of(request, leftover, ssl)
        keywords = {**options, "create_connection": create_connection}
        self._options = accept_options(keywords)
        if request is not None and self._options.proxy_protocol:
            raise ValueError("proxy_protocol: expected none with a request")
        self._stream = stream
        self._ssl = ssl

    def __await__(self) -> NoReturn:
        raise TypeError(
            "accept() can't be awaited: its tasks need a block to live in; "
            "write: async with accept(...) as ws:"
        )

    async def _open(self) -> Opened[ServerT]:
        opened = await open_on_stream(
            self._stream, self._ssl, self._options, self._received
        )
        return cast("Opened[ServerT]", opened)  # as create_connection makes them
