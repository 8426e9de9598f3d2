"""Who a connection is with, and which it is: for logs and exceptions."""

from __future__ import annotations

import logging
import uuid
import weakref
from collections.abc import MutableMapping
from typing import Any, TypeAlias

from .._protocol.escaping import escape
from .._protocol.uri import host_port

AnyLogger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


class Identity:
    """A connection, from before its opening handshake on."""

    __slots__ = ("_connection", "_id", "local_address", "logger", "remote_address")

    def __init__(
        self,
        logger: AnyLogger,
        remote_address: Any = None,
        local_address: Any = None,
    ) -> None:
        self.logger = logger
        # As the transport has them, or a proxy before us.
        self.remote_address = remote_address
        self.local_address = local_address
        self._id: uuid.UUID | None = None
        # Weak, since a connection refers to this.
        self._connection: weakref.ref[Any] | None = None

    def is_between(self, remote_address: Any, local_address: Any) -> None:
        """Say which addresses it has, once they are known."""
        self.remote_address = remote_address
        self.local_address = local_address

    def belongs_to(self, connection: object) -> None:
        """Say which connection this is, once there is what users hold."""
        self._connection = weakref.ref(connection)

    @property
    def connection(self) -> Any:
        """What users hold, or None."""
        return self._connection and self._connection()

    @property
    def id(self) -> uuid.UUID:
        """A unique name, made when first needed."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def log(self) -> ConnectionLogger:
        """Make the logger of the connection, which an idle one doesn't keep."""
        return ConnectionLogger(self.logger, self)

    def __str__(self) -> str:
        name = self.id.hex[:8]  # tells connections apart that share a log
        address = self.remote_address
        if not isinstance(address, tuple):  # a Unix socket, or no socket
            return name
        host, port, *_ = address
        return f"{name} {host_port(host.partition('%')[0], port)}"


def shown(address: Any) -> Any:
    """Return an address as a log or a repr can show it.

    A Unix socket's is a path, in which its owner may have put any character.
    """
    return escape(address) if isinstance(address, str) else address


class PlainLogger(logging.LoggerAdapter[Any]):
    """Gives records the attributes that those of connections have, as None.

    So that one format does for all lines. Adapters of the user's do what they do to
    messages and to ``extra``; most would drop what is in there already.
    """

    logger: logging.Logger
    adapters: list[logging.LoggerAdapter[Any]]  # the outermost first

    def __init__(self, logger: AnyLogger) -> None:
        adapters: list[logging.LoggerAdapter[Any]] = []
        while isinstance(logger, logging.LoggerAdapter):
            if isinstance(logger, PlainLogger):
                adapters += logger.adapters
            else:
                adapters.append(logger)
            logger = logger.logger
        super().__init__(logger, None)
        self.adapters = adapters

    def _attributes(self) -> dict[str, Any]:
        return dict.fromkeys(("websocket", "connection_id", "remote_address"))

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the attributes."""
        extra = kwargs["extra"] = self._attributes() | dict(kwargs.get("extra") or {})
        for adapter in self.adapters:
            msg, kwargs = adapter.process(msg, kwargs)
            extra = kwargs["extra"] = extra | dict(kwargs.get("extra") or {})
        return msg, kwargs


class ConnectionLogger(PlainLogger):
    """Begins each line with the connection's id and the address of its peer.

    Records have the attributes ``websocket``, the connection or None before there is
    one, ``connection_id`` and ``remote_address``, as a log can show it.
    """

    def __init__(self, logger: AnyLogger, identity: Identity) -> None:
        super().__init__(logger)
        self._identity = identity

    def _attributes(self) -> dict[str, Any]:
        identity = self._identity
        return {
            "websocket": identity.connection,
            "connection_id": identity.id,
            "remote_address": shown(identity.remote_address),
        }

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the prefix and the attributes."""
        return super().process(f"{self._identity} {msg}", kwargs)

    def child(self, name: str) -> ConnectionLogger:
        """Return that of a child of the logger, or this where it can't have any."""
        child = self.logger.getChild(name)
        if child.parent is not self.logger:  # no other logger knows of it
            return self
        logger = ConnectionLogger(child, self._identity)
        logger.adapters = self.adapters
        return logger
