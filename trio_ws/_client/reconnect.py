"""reconnect(): one connection after the other, with pauses in between.

The iterator yields attempts, not connections: an attempt holds an open socket,
and only its own block opens a scope. So no nursery is ever held across a yield,
and break, return, exceptions and cancellation are as safe as in any loop.
"""

from __future__ import annotations

import ssl as ssl_module
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self, Unpack, cast

import trio
from trio.lowlevel import enable_ki_protection

from .._connection.groups import aexit, finish_aexit, wrong_task
from .._connection.scope import ConnectionScope
from .._connection.sides import ClientConnection, ClientT
from .._endpoint.elsewhere import CONNECTION
from .._endpoint.endpoint import Endpoint
from .._endpoint.errors import ConcurrencyError, ConnectionClosed
from .._endpoint.options import check_function, make_options
from .._protocol.http.headers import HeadersLike
from .._protocol.uri import host_port
from .asking import AskedHeaders, AskedURI
from .dialer import Dialer
from .options import ClientOptions, ReconnectOptionsDict
from .retrying import (
    Outage,
    backoff,
    check_delay,
    delays_of,
    process_exception,
    told,
    with_retry_after,
)


class Attempt(Generic[ClientT]):
    """An open connection that has no scope yet: ``async with attempt as ws: ...``.

    Leaving the block swallows this connection's ConnectionClosed, told to the
    block or not, and nothing else; otherwise it is that of connect().

    **Cancellation** as with connect().
    """

    def __init__(self, connection: ClientT, endpoint: Any) -> None:
        self._connection = connection
        self._endpoint = cast("Endpoint", endpoint)
        self._scope: ConnectionScope | None = None
        self._opened_at = trio.current_time()
        self._done = False
        self.lasted: float = 0.0  # seconds
        self.why: str = "attempt not used"  # it ended

    @enable_ki_protection
    async def __aenter__(self) -> ClientT:
        if self._scope is not None or self._done:
            raise RuntimeError("an attempt can be entered once")
        self._scope = ConnectionScope(self._connection, self._endpoint)
        await self._scope.__aenter__()
        return self._connection

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        outcome = None
        try:
            if self._scope is None:
                raise wrong_task("the attempt", None) from exc
            outcome = await aexit(self._scope, exc)
            self._done = True
            self.lasted = trio.current_time() - self._opened_at
            self.why = f"connection ended: {self._endpoint.ending.error()}"
            if (
                isinstance(outcome, ConnectionClosed)
                and outcome.connection is self._connection
                and not isinstance(exc, GeneratorExit)  # which must pass
            ):
                return True
            return finish_aexit(outcome, exc)
        finally:
            del outcome, exc, traceback  # no cycle with the traceback

    async def _close(self) -> None:
        """Close an attempt that was never entered; refuse one still in use."""
        if self._done:
            return
        if self._scope is not None:
            raise RuntimeError("the next attempt begins after the block of this one")
        self._done = True
        await self._endpoint.abort()

    # What users of websockets may write: async for ws in ..., without the block.

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            hint = ""
            if hasattr(ClientConnection, name) or name in CONNECTION:
                hint = "; a connection does, in: async with attempt as ws:"
            raise AttributeError(
                f"Attempt has no attribute {name!r}{hint}", name=name, obj=self
            )

    def __aiter__(self) -> NoReturn:
        raise TypeError(
            "an attempt can't be iterated over; write: async with attempt as ws:"
        )

    def __del__(self) -> None:
        if not self._done and self._scope is None:
            warnings.warn(
                f"{self._connection!r} was opened by reconnect() and never entered",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
            self._endpoint.discard()


class reconnect(Generic[ClientT]):  # noqa: N801 - reads as the function that it is to its users
    """Connect, and connect again: ``async for attempt in reconnect(uri): ...``.

    ::

        async for attempt in reconnect(uri):
            async with attempt as ws:
                async for message in ws:
                    ...

    Whenever the block of an attempt ends, however quietly, the next attempt is
    made: leave the loop to stop. The arguments are those of connect() but
    ``stream``, and:

    * ``uri``, ``additional_headers``: each may be a function, also an async one, that
      is called for each attempt and returns what the argument would be, such as a URI
      that is signed or a token that is fresh. ``open_timeout`` covers it. What it
      raises, and what is wrong with what it returns, is an error of opening.
    * ``reconnect_delays``: a callable that returns an iterable of seconds to
      wait before each attempt but the first; by default :func:`backoff`.
      It is asked anew after a connection that lasted longer
      than the wait for it. Where the seconds end, the loop does, or the error
      of the last attempt is raised. A server that says Retry-After (RFC 9110, section
      10.2.3) is left alone for as long, up to 5 minutes, and a random time of up to
      half of that, if that is longer.
    * ``process_exception``: a callable that decides on each error of opening,
      None to try again, an exception to raise; by default
      :func:`trio_ws.process_exception`.

    Raises what ``process_exception`` returns; TypeError or ValueError for what
    ``reconnect_delays`` returns and is no iterable of finite numbers, 0 or more. Wrong
    arguments raise as with connect(), at once. Of two tasks that wait for an attempt,
    the second gets ConcurrencyError.

    **Cancellation**: nothing is left open.
    """

    def __init__(
        self,
        uri: str | AskedURI,
        *,
        host: str | None = None,
        port: int | None = None,
        local_address: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        reconnect_delays: Callable[[], Iterable[float]] = backoff,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        additional_headers: HeadersLike | AskedHeaders | None = None,
        **options: Unpack[ReconnectOptionsDict[ClientT]],
    ) -> None:
        asked = additional_headers if callable(additional_headers) else None
        given = None if callable(additional_headers) else additional_headers
        keywords = {**options, "additional_headers": given}
        self._dialer: Dialer[ClientT] = Dialer(
            uri,
            make_options(ClientOptions, "reconnect", keywords),
            ask_headers=asked,
            host=host,
            port=port,
            local_address=local_address,
            ssl=ssl,
            server_hostname=server_hostname,
            proxy=proxy,
            proxy_ssl=proxy_ssl,
        )
        check_function(
            "reconnect_delays",
            reconnect_delays,
            "a callable that returns an iterable of seconds",
            sync=True,
        )
        check_function("process_exception", process_exception, "a function", sync=True)
        self._new_delays = reconnect_delays
        self._process_exception = process_exception
        self._delays: Iterator[float] | None = None
        self._waited = 0.0  # for the current attempt
        self._attempt: Attempt[ClientT] | None = None
        self._over = self._busy = False
        self._outage = Outage(self._dialer.logger)

    def __aiter__(self) -> Self:
        return self

    def __await__(self) -> NoReturn:
        raise TypeError(
            "reconnect() can't be awaited; "
            "write: async for attempt in reconnect(...): async with attempt as ws:"
        )

    def __aenter__(self) -> NoReturn:
        raise TypeError(
            "reconnect() is no block; "
            "write: async for attempt in reconnect(...): async with attempt as ws:"
        )

    __aexit__ = None  # which isn't looked for without the other

    @enable_ki_protection
    async def __anext__(self) -> Attempt[ClientT]:
        """Open the next connection.

        Raises ConcurrencyError while another task does. **Cancellation**: nothing is
        left open.
        """
        if self._busy:
            raise ConcurrencyError("another task is already waiting for an attempt")
        self._busy = True
        try:
            return await self._next()
        finally:
            self._busy = False

    async def _next(self) -> Attempt[ClientT]:
        if self._over:
            raise StopAsyncIteration
        if self._attempt is not None:
            await self._attempt._close()
            if self._attempt.lasted > self._waited:
                self._delays = None
            self._waited = 0.0
            why, self._attempt = self._attempt.why, None
            if not await self._wait(why):
                self._over = True
                raise StopAsyncIteration
        while True:
            self._outage.attempt()
            try:
                opened = await self._dialer.open()
            except Exception as exc:
                raised = self._process_exception(exc)
                if not isinstance(raised, (BaseException, NoneType)):
                    raise TypeError(
                        f"process_exception: expected it to return an exception or "
                        f"None; got {raised!r}"
                    ) from exc
                try:
                    if raised is exc:
                        raise
                    if raised is not None:
                        raise raised from exc
                finally:
                    del raised  # no cycle with its traceback
                if not await self._wait(told(exc), exc):
                    raise
            else:
                attempt = Attempt(*opened)
                try:
                    self._outage.over()
                except BaseException:  # a handler of the logger's raises
                    await attempt._close()
                    raise
                self._attempt = attempt
                return attempt

    async def _wait(self, why: str, exc: Exception | None = None) -> bool:
        """Wait before the next attempt; return False if there is to be none."""
        if self._delays is None:
            self._delays = delays_of(self._new_delays())
        try:
            delay = next(self._delays)
        except StopIteration:
            return False
        check_delay(delay)
        if exc is not None:
            delay = with_retry_after(delay, exc)
        self._waited += delay
        uri = self._dialer.uri
        where = None if uri is None else host_port(uri.host, uri.port)
        self._outage.wait(why, delay, where)
        await trio.sleep(delay)
        return True
