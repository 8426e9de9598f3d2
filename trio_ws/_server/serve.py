"""serve(), unix_serve() and open_server(): the ways to run a server."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, NoReturn, Unpack, overload

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import collapse, finish_aexit, leave_nursery, wrong_task
from .._connection.sides import ServerConnection, ServerT
from .._endpoint.options import make_options
from .._transports.sockets import checked_path
from .acceptor import AnyListener
from .hints import hinted, hinted_init
from .listening import ListenSpec, open_unix, remove_unix
from .options import (
    Handler,
    ListenOptionsDict,
    ServeOptionsDict,
    ServerOptions,
    UnixOptionsDict,
)
from .server import Server, check_server, run_server


@overload
async def serve(
    handler: Handler[ServerConnection],
    port: int | None = None,
    *,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    create_connection: None = None,
    **options: Unpack[ListenOptionsDict[ServerConnection]],
) -> None: ...


@overload
async def serve(
    handler: Handler[ServerT],
    port: int | None = None,
    *,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[ServerT]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., ServerT],
    **options: Unpack[ListenOptionsDict[ServerT]],
) -> None: ...


@hinted
@enable_ki_protection
async def serve(
    handler: Handler[Any],
    port: int | None = None,
    *,
    host: str | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    listeners: Iterable[AnyListener | socket.socket] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[Any]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., Any] | None = None,
    **options: Unpack[ServeOptionsDict[Any]],
) -> None:
    """Serve WebSocket connections until cancelled or closed.

    For each connection ``handler`` is called with its ServerConnection, in a
    task and a scope of its own; when it returns, the connection is closed.
    What it raises is logged and closes that connection alone, with 1011.

    ``port`` and ``host`` say where to listen: port 0 takes one that is free for
    all addresses of the host, host None means all interfaces. An address that this
    machine doesn't have is passed over where there is another. With
    ``reuse_port`` several processes can listen on one port (SO_REUSEPORT, which
    Windows lacks). ``listeners`` are trio listeners, or listening sockets, to use
    instead; they are closed in the end. ``backlog`` is how many clients may wait to
    be accepted, by default trio's. ``ssl`` is the context for TLS.
    ``handler_nursery`` is where handlers run, by default a nursery of serve()
    itself. ``options`` are those of :class:`trio_ws.ServerOptions`.

    ``await nursery.start(serve, handler, 8765)`` returns the Server once it
    listens.

    Raises OSError if it can't listen; ValueError and TypeError for wrong
    arguments. **Cancellation**: the listeners close, each connection is closed
    with 1001 without waiting; those of a ``handler_nursery`` go on.
    """
    check_server(handler, ssl, handler_nursery)
    spec = ListenSpec(port, host, backlog, reuse_port, listeners)
    keywords = {**options, "create_connection": create_connection}
    made = make_options(ServerOptions, "serve", keywords)
    await run_server(handler, spec, ssl, made, handler_nursery, task_status)


@overload
async def unix_serve(
    handler: Handler[ServerConnection],
    path: str | os.PathLike[str],
    *,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    create_connection: None = None,
    **options: Unpack[UnixOptionsDict[ServerConnection]],
) -> None: ...


@overload
async def unix_serve(
    handler: Handler[ServerT],
    path: str | os.PathLike[str],
    *,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[ServerT]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., ServerT],
    **options: Unpack[UnixOptionsDict[ServerT]],
) -> None: ...


@hinted
@enable_ki_protection
async def unix_serve(
    handler: Handler[Any],
    path: str | os.PathLike[str],
    *,
    mode: int | None = None,
    backlog: int | None = None,
    ssl: ssl_module.SSLContext | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[Any]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., Any] | None = None,
    **options: Unpack[ServeOptionsDict[Any]],
) -> None:
    """Serve on a Unix socket; otherwise as serve().

    ``path`` may be an abstract name, which begins with NUL (Linux, unix(7)).
    ``mode`` is that of the socket's file, such as 0o660. A file that is there
    is replaced if it is a socket of this user's on which nobody listens, as a
    process that was killed leaves it; the file is removed in the end.

    Raises OSError: FileExistsError for any other file, EADDRINUSE for a socket
    in use; RuntimeError on Windows, where Python has no Unix sockets.
    **Cancellation** as of serve().
    """
    check_server(handler, ssl, handler_nursery)
    keywords = {**options, "create_connection": create_connection}
    made = make_options(ServerOptions, "unix_serve", keywords)
    path = checked_path(path)
    # Wherever the process goes.
    absolute = os.path.abspath(path)  # noqa: ASYNC240 - it doesn't look at the disk
    listener, known = await open_unix(path, mode, backlog)
    try:
        spec = ListenSpec(listeners=[listener])
        await run_server(handler, spec, ssl, made, handler_nursery, task_status)
    finally:
        listener.socket.close()
        if known is not None:
            remove_unix(absolute, known)


class open_server(Generic[ServerT]):  # noqa: N801 - reads as the function that it is to its users
    """Serve while a block runs: ``async with open_server(handler, 8765) as server:``.

    The arguments, and what they raise, are those of serve(), but for
    ``handler_nursery``. Leaving the block normally is Server.aclose(); leaving it
    by an exception cancels the handlers.

    **Cancellation**: as of serve().
    """

    @overload
    def __init__(
        self: open_server[ServerConnection],
        handler: Handler[ServerConnection],
        port: int | None = None,
        *,
        create_connection: None = None,
        **options: Unpack[ListenOptionsDict[ServerConnection]],
    ) -> None: ...

    @overload
    def __init__(
        self,
        handler: Handler[ServerT],
        port: int | None = None,
        *,
        create_connection: Callable[..., ServerT],
        **options: Unpack[ListenOptionsDict[ServerT]],
    ) -> None: ...

    @hinted_init
    def __init__(
        self,
        handler: Handler[Any],
        port: int | None = None,
        *,
        host: str | None = None,
        backlog: int | None = None,
        reuse_port: bool = False,
        listeners: Iterable[AnyListener | socket.socket] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        create_connection: Callable[..., Any] | None = None,
        **options: Unpack[ServeOptionsDict[Any]],
    ) -> None:
        check_server(handler, ssl)
        spec = ListenSpec(port, host, backlog, reuse_port, listeners)
        keywords = {**options, "create_connection": create_connection}
        made = make_options(ServerOptions, "open_server", keywords)
        self._arguments = (handler, spec, ssl, made)
        self._entered = False
        self._scope = trio.CancelScope()  # of the server, not of the block
        self._task: trio.lowlevel.Task | None = None  # of the block, while it is in it

    def __await__(self) -> NoReturn:
        raise TypeError(
            "open_server() can't be awaited: it is a block; "
            "write: async with open_server(...) as server: or await serve(...)"
        )

    @enable_ki_protection
    async def __aenter__(self) -> Server[ServerT]:
        if self._entered:
            raise RuntimeError("open_server() can be entered once; call it again")
        self._entered = True
        task = trio.lowlevel.current_task()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery = await self._manager.__aenter__()
        try:
            server: Server[ServerT] = await self._nursery.start(self._serve)
        except BaseException as exc:
            await leave_nursery(self._manager, self._nursery, exc)
            raise
        self._server = server
        self._task = task
        return server

    async def _serve(self, task_status: trio.TaskStatus[Server[Any]]) -> None:
        with self._scope:
            await run_server(*self._arguments, task_status=task_status)

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        outcome = error = None
        try:
            if trio.lowlevel.current_task() is not self._task:
                if self._task is not None:
                    self._scope.cancel()
                raise wrong_task("the block of open_server()", self._task) from exc
            self._task = None
            outcome = exc
            if exc is None:
                try:
                    await self._server.aclose()
                except BaseException as closing:  # noqa: BLE001 - becomes the outcome
                    outcome = closing
            error = await leave_nursery(self._manager, self._nursery, outcome)
            return finish_aexit(error and collapse(error, outcome), exc)
        finally:
            del outcome, error, exc, traceback  # no cycle with the traceback
