"""The keywords of a client's connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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


class ReconnectOptionsDict(OptionsDict, total=False):
    """Keywords of reconnect(); see ``ClientOptions``."""

    extensions: Sequence[ClientExtensionFactory] | None
    origin: str | None
    user_agent_header: str | None


class ClientOptionsDict(ReconnectOptionsDict, total=False):
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

    def handshake(self, uri: WebSocketURI) -> ClientHandshake:
        """Make a handshake; raise ValueError for headers that can't be sent."""
        return ClientHandshake(
            uri,
            subprotocols=self.subprotocols,
            additional_headers=self.additional_headers,
            user_agent_header=self.user_agent_header,
            origin=self.origin,
            extensions=factories_of(self.extensions, self.compression, _CLIENT_DEFLATE),
            limits=self.limits,
        )
