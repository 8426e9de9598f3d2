"""The keywords of a client's connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic

from .._connection.opener import check_create_connection
from .._connection.sides import ClientConnection, ClientT
from .._endpoint.options import USER_AGENT, Options, OptionsDict, factories_of
from .._protocol.extensions.base import ClientExtensionFactory
from .._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
)
from .._protocol.handshake.client import ClientHandshake
from .._protocol.http.headers import HeadersLike
from .._protocol.uri import WebSocketURI

# A factory has no state: one is enough for all connections.
_CLIENT_DEFLATE = ClientPerMessageDeflateFactory()


class ReconnectOptionsDict(OptionsDict, Generic[ClientT], total=False):
    """Keywords of reconnect(); see ``ClientOptions``."""

    create_connection: Callable[..., ClientT] | None
    extensions: Sequence[ClientExtensionFactory] | None
    origin: str | None
    user_agent_header: str | None


class ClientOptionsDict(ReconnectOptionsDict[ClientT], total=False):
    """Keywords of connect() and unix_connect(); see ``ClientOptions``."""

    additional_headers: HeadersLike | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions(Options):
    """What can be said of a client's connection, besides :class:`Options`.

    * ``extensions``: factories of extensions to offer, in this order, before
      compression.
    * ``origin``: the Origin header, for servers that require one.
    * ``user_agent_header``: None leaves the header out.
    """

    extensions: Sequence[ClientExtensionFactory] | None = None
    origin: str | None = None
    user_agent_header: str | None = USER_AGENT

    def __post_init__(self) -> None:
        # Not super(): with slots, the class is not the one of its own methods.
        Options.__post_init__(self)
        check_create_connection(self.create_connection, ClientConnection)


def client_handshake(options: ClientOptions, uri: WebSocketURI) -> ClientHandshake:
    """Make a handshake; raise ValueError for headers that can't be sent."""
    return ClientHandshake(
        uri,
        subprotocols=options.subprotocols,
        additional_headers=options.additional_headers,
        user_agent_header=options.user_agent_header,
        origin=options.origin,
        extensions=factories_of(
            options.extensions, options.compression, _CLIENT_DEFLATE
        ),
        limits=options.limits,
    )
