"""What connect(), accept() and serve() have in common: from an endpoint to a block."""

from __future__ import annotations

import abc
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from .._endpoint.endpoint import Endpoint
from .connection import Connection
from .groups import wrong_task
from .scope import ConnectionScope

ConnectionT = TypeVar("ConnectionT", bound=Connection)

# A connection that is open but has no scope yet: what users hold, what drives it.
Opened = tuple[ConnectionT, Endpoint]


class Stage:
    """What the opening of a connection is at, which tells why it fails."""

    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name = ""


@disable_ki_protection
def call_user(function: Callable[..., Any], *args: object) -> Any:
    """Call a function of the user's, which KeyboardInterrupt may interrupt."""
    return function(*args)


@disable_ki_protection
async def await_user(function: Callable[..., Any], *args: object) -> Any:
    """Call one that may be asynchronous."""
    try:
        result = function(*args)
        if isinstance(result, Awaitable):
            result = await result
            # A thread that can't be abandoned ends late without a Cancelled.
            await trio.lowlevel.checkpoint_if_cancelled()
    except StopIteration as exc:  # which no coroutine can raise
        raise RuntimeError(f"{function!r} raised StopIteration") from exc
    return result


def check_create_connection(
    create: Callable[..., Any] | None, kind: type[Connection]
) -> None:
    """Check the argument; what a function returns is checked when it does."""
    made: object = create
    while isinstance(made, functools.partial):
        made = made.func
    if isinstance(made, type) and not issubclass(made, kind):
        raise TypeError(
            f"create_connection: expected a subclass of {kind.__name__}, or a "
            f"functools.partial of one; got {create!r}"
        )


def make_connection(endpoint: Endpoint, default: type[ConnectionT]) -> ConnectionT:
    """Make the connection, by create_connection where the user has one.

    Raises what that raises, TypeError if it returns something else.
    """
    create = endpoint.options.create_connection or default
    connection = call_user(create, endpoint)
    if not isinstance(connection, default):
        raise TypeError(
            f"create_connection: expected it to return a {default.__name__}; "
            f"got {type(connection).__name__}"
        )
    return connection


async def make_scope(connection: Connection, endpoint: Endpoint) -> ConnectionScope:
    """Make the scope of a connection, which is closed if that fails."""
    try:
        return ConnectionScope(connection, endpoint)
    except BaseException:
        await endpoint.fail_to_enter()
        raise


class Opener(abc.ABC, Generic[ConnectionT]):
    """The base of connect() and accept(): entered, they open a scope."""

    def __init__(self) -> None:
        # The same object may be entered again, by other tasks or in its own
        # block; within a task, blocks nest.
        self._scopes: list[ConnectionScope] = []

    @abc.abstractmethod
    async def _open(self) -> Opened[ConnectionT]:
        """Open a connection: everything but its scope."""

    @enable_ki_protection
    async def __aenter__(self) -> ConnectionT:
        connection, endpoint = await self._open()
        scope = await make_scope(connection, endpoint)
        self._scopes.append(scope)
        try:
            await scope.__aenter__()
        except BaseException:
            self._scopes.remove(scope)
            raise
        return connection

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:  # bool would tell type checkers that errors end here
        try:
            if not self._scopes:
                raise wrong_task(f"{type(self).__name__}()", None) from exc
            scope = self._scope_to_leave()
            if scope.is_of_this_task():
                self._scopes.remove(scope)
            return await scope.__aexit__(exc_type, exc, traceback)
        finally:
            del exc, traceback  # no cycle with the traceback of what is raised

    def _scope_to_leave(self) -> ConnectionScope:
        """Return the latest scope of this task, or else the latest that is open."""
        for scope in reversed(self._scopes):
            if scope.is_of_this_task():
                return scope
        # Which of others' is meant nobody can tell; each is closed in the end.
        return next((s for s in reversed(self._scopes) if s.is_open), self._scopes[-1])
