"""The keywords that connections have in common, checked in one place."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import NoneType
from typing import Any, TypedDict, TypeVar

from .._protocol.extensions.base import ClientExtensionFactory, ServerExtensionFactory
from .._protocol.extensions.deflate import NAME as DEFLATE
from .._protocol.handshake.fields import validate_subprotocols
from .._protocol.http.headers import Headers, HeadersLike
from .._protocol.limits import DEFAULT_LIMITS, Limits
from .._protocol.uri import parse_host
from .._version import __version__
from .elsewhere import KEYWORDS
from .errors import OpenTimeoutError

USER_AGENT = "Python/{}.{} trio_ws/{}".format(*sys.version_info[:2], __version__)


# R8: how long a peer may take nothing of what waits for it where the keepalive
# that would tell is off.
STALL_TIMEOUT = 40.0


# As much as C counts, with room for sums.
_MOST = sys.maxsize // 2

# R10: how many bytes of messages may wait where messages may have any size.
_MAX_WAITING = 2**20

# R10: how many messages may wait where any number of them may, but not of bytes.
_MAX_MESSAGES = 2**16


class OptionsDict(TypedDict, total=False):
    """Keywords that clients and servers have in common; see ``Options``."""

    subprotocols: Sequence[str] | None
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    loss_grace: float | None
    close_grace: float | None
    max_size: int | None
    max_queue: int | None
    write_limit: int
    compression: str | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be said of a connection.

    Times are in seconds, sizes in bytes; None means no limit.

    * ``subprotocols``: in order of preference.
    * ``additional_headers``: for the request of a client, each response
      of a server.
    * ``open_timeout``: for DNS, TCP, proxy, TLS, opening handshake and redirects
      together; of a server, for TLS, the request and its hooks.
    * ``ping_interval``: between two pings of the keepalive; None turns it off.
    * ``ping_timeout``: without any byte of the peer for so long after a ping,
      the connection is lost.
    * ``close_timeout``: for the closing handshake, what still waits to be
      written included; 0 doesn't wait for the peer.
    * ``loss_grace``: after a loss, so long may the body and the tasks in
      ``ws.nursery`` go on before they are cancelled.
    * ``close_grace``: the same after the peer closed in good order.
    * ``max_size``: of a message that is received.
    * ``max_queue``: messages that may wait to be received before reading
      pauses; None leaves it to their size (``max_size``), up to 65,536.
    * ``write_limit``: send() waits while so many bytes wait for the socket.
    * ``compression``: "deflate" negotiates permessage-deflate (RFC 7692), None
      doesn't.
    * ``logger``: a Logger, or a LoggerAdapter, in place of ``trio_ws.client`` or
      ``trio_ws.server``.
    * ``create_connection``: a subclass of ClientConnection or
      ServerConnection, or a ``functools.partial`` of one.
    * ``limits``: a :class:`Limits`, of what is rarely in need of another.
    """

    subprotocols: Sequence[str] | None = None
    additional_headers: HeadersLike | None = None
    open_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float | None = 10
    loss_grace: float | None = 10
    close_grace: float | None = None
    max_size: int | None = 2**20
    max_queue: int | None = 16
    write_limit: int = 2**16
    compression: str | None = "deflate"
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None
    create_connection: Callable[..., Any] | None = None
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name in ("open_timeout", "ping_interval", "ping_timeout"):
            check_seconds(name, getattr(self, name), zero=False)
        for name in ("close_timeout", "loss_grace", "close_grace"):
            check_seconds(name, getattr(self, name), zero=True)
        check_size("max_size", self.max_size, least=0, none=True)
        check_size("max_queue", self.max_queue, least=0, none=True)
        check_size("write_limit", self.write_limit, least=1, none=False)
        if self.compression not in ("deflate", None):
            raise ValueError(
                f'compression: expected "deflate" or None; got {self.compression!r}'
            )
        if not isinstance(self.limits, Limits):
            raise TypeError(f"limits: expected a trio_ws.Limits; got {self.limits!r}")
        if self.subprotocols is not None:
            validate_subprotocols(self.subprotocols)
        if self.additional_headers is not None:
            # A copy: a server sends them many times, an iterator ends.
            headers = _checked_headers(self.additional_headers)
            object.__setattr__(self, "additional_headers", headers)
        if not isinstance(
            self.logger, (logging.Logger, logging.LoggerAdapter, NoneType)
        ):
            raise TypeError(f"logger: expected a logging.Logger; got {self.logger!r}")
        if self.create_connection is not None:
            check_function(
                "create_connection",
                self.create_connection,
                "a connection class or a functools.partial of one",
                sync=True,
            )

    @property
    def open_seconds(self) -> float:
        """How long opening may take: ``open_timeout``, or for ever."""
        return inf if self.open_timeout is None else self.open_timeout

    @property
    def close_seconds(self) -> float:
        """How long closing may take: ``close_timeout``, or for ever."""
        return inf if self.close_timeout is None else self.close_timeout

    def open_timed_out(self, stage: str) -> OpenTimeoutError:
        """Make the error for a connection that took longer, with what it was at."""
        return OpenTimeoutError(
            f"connection not open after {self.open_timeout} s (open_timeout): {stage}"
        )

    @property
    def max_waiting(self) -> int | None:
        """How many bytes of messages may wait to be received (R10)."""
        if self.max_size is None and self.max_queue is not None:
            return _MAX_WAITING
        return self.max_size

    @property
    def max_messages(self) -> float:
        """How many messages may wait to be received (R10).

        Where bytes alone are limited, empty messages are, too.
        """
        if self.max_queue is None:
            return inf if self.max_size is None else _MAX_MESSAGES
        return self.max_queue

    @property
    def stall_timeout(self) -> float:
        """How long the peer may take nothing of what waits (R8)."""
        if self.ping_interval is None or self.ping_timeout is None:
            return STALL_TIMEOUT
        return self.ping_interval + self.ping_timeout


_FactoryT = TypeVar("_FactoryT", ClientExtensionFactory, ServerExtensionFactory)


def factories_of(
    extensions: Sequence[_FactoryT] | None, compression: str | None, deflate: _FactoryT
) -> list[_FactoryT]:
    """Return the factories to use: those given, and that of compression."""
    # An iterator would be used up by the first connection.
    if not isinstance(extensions, (Sequence, NoneType)):
        raise TypeError(
            f"extensions: expected a sequence of factories; got {extensions!r}"
        )
    factories = list(extensions or ())
    for one in factories:
        _check_factory(one, client=isinstance(deflate, ClientExtensionFactory))
    if compression is not None and all(one.name != DEFLATE for one in factories):
        factories.append(deflate)
    return factories


def _check_factory(factory: object, *, client: bool) -> None:
    """Check for the methods: one of the user's need not derive from the class."""
    kind: type = ClientExtensionFactory if client else ServerExtensionFactory
    wanted = ("name", *getattr(kind, "__abstractmethods__", ()))
    if isinstance(factory, type) or not all(hasattr(factory, one) for one in wanted):
        raise TypeError(
            f"extensions: expected instances of {kind.__name__}; got {factory!r}"
        )


def _checked_headers(value: HeadersLike) -> Headers:
    try:
        return Headers(value)
    except AttributeError:
        raise TypeError(
            f"additional_headers: expected a mapping or pairs of str; got {value!r}"
        ) from None
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"additional_headers: {exc}") from None


def check_seconds(name: str, value: object, *, zero: bool) -> None:
    """Check a time: a number of seconds, or None."""
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number of seconds or None; got {value!r}")
    if not (value >= 0 if zero else value > 0):  # also refuses NaN
        least = "at least 0" if zero else "more than 0"
        raise ValueError(f"{name}: expected {least} seconds or None; got {value!r}")


def check_finite(name: str, value: object) -> None:
    """Check a time that can't be without end: a finite number of seconds, 0 or more."""
    wanted = f"{name}: expected a finite number of seconds, at least 0; got {value!r}"
    if value is None:  # as for inf, which it stands for elsewhere
        raise ValueError(wanted)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(wanted)
    if not 0 <= value < inf:  # also refuses NaN
        raise ValueError(wanted)


def check_port(port: object, *, least: int) -> None:
    """Check an argument that is to be a port."""
    if not isinstance(port, int) or isinstance(port, bool):
        hint = ""
        if isinstance(port, str) and not port.isdigit():
            hint = f"; a host is a keyword: host={port!r}"
        raise TypeError(f"port: expected an int; got {port!r}{hint}")
    if not least <= port <= 65535:
        raise ValueError(f"port: expected {least} to 65535; got {port}")


def checked_host(name: str, value: object) -> str | None:
    """Return an argument that is to be a host, or None, in ASCII."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str or None; got {value!r}")
    try:
        return parse_host(value)
    except ValueError as exc:
        said = str(exc)
        if "://" in value:
            said = "expected a host, without scheme, port and path"
        elif re.fullmatch(r"(?:[^:\[\]]*|\[.*\]):[0-9]*", value):
            said = "expected a host, without a port"
            if name == "host":
                said += f", which is a keyword: port={value.rpartition(':')[2]}"
        raise ValueError(f"{name}: {said}; got {value!r}") from None


def check_function(name: str, value: object, what: str, *, sync: bool = False) -> None:
    """Check an argument that is to be a function."""
    if not callable(value):
        raise TypeError(f"{name}: expected {what}; got {value!r}")
    function: object = value
    while isinstance(function, functools.partial):
        function = function.func
    # What calls an object is a method of its class.
    called = getattr(type(function), "__call__", None)  # noqa: B004
    if sync and (
        inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
    ):
        raise TypeError(f"{name}: expected {what} that isn't async; got {value!r}")


def check_size(name: str, value: object, *, least: int, none: bool) -> None:
    """Check an argument that is to be an int, or None."""
    if value is None and none:
        return
    kind = "an int or None" if none else "an int"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected {kind}; got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}; got {value}")
    if value > _MOST:
        raise ValueError(f"{name}: expected at most {_MOST}; got {value}")


_OptionsT = TypeVar("_OptionsT", bound=Options)

# Of calls without keywords, which share them: they are frozen.
_made: dict[type[Options], Any] = {}


def make_options(
    kind: type[_OptionsT], call: str, keywords: Mapping[str, Any]
) -> _OptionsT:
    """Make the options of a call; raise TypeError for a keyword it doesn't have."""
    if not keywords:
        made: _OptionsT = _made.get(kind) or kind()
        _made[kind] = made
        return made
    try:
        return kind(**keywords)
    except TypeError:
        names = [field.name for field in dataclasses.fields(kind)]
        for name in keywords:
            if name not in names:
                hint = f"; {KEYWORDS[name]}" if name in KEYWORDS else ""
                raise TypeError(
                    f"{call}() got an unexpected keyword argument {name!r}{hint}"
                ) from None
        raise
