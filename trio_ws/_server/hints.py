"""What may be written of serve() by mistake, and what to write instead."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, ParamSpec

_P = ParamSpec("_P")


class _Serving(Coroutine[Any, Any, None]):
    """The coroutine of a call of serve(); as a block it says how that is written."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._coroutine: Any = coroutine  # not just what every Coroutine has
        self.__name__ = name  # as trio asks where it is given in place of a function

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, None, None]:
        iterator: Generator[Any, None, None] = self._coroutine.__await__()
        return iterator

    # Where trio shows what a task is at.

    @property
    def cr_frame(self) -> Any:
        return self._coroutine.cr_frame

    @property
    def cr_await(self) -> Any:
        return self._coroutine.cr_await

    def __aenter__(self) -> NoReturn:
        self.close()  # it isn't awaited, as warned of otherwise
        instead = "async with open_server(handler, port) as server:"
        if self.__name__ == "unix_serve":
            instead = "server = await nursery.start(unix_serve, handler, path)"
        raise TypeError(
            f"{self.__name__}() runs until it is cancelled and is no block; "
            f"write: {instead}"
        )

    __aexit__ = None  # which isn't looked for without the other


def hinted(
    function: Callable[_P, Coroutine[Any, Any, None]],
) -> Callable[_P, Coroutine[Any, Any, None]]:
    """Let a coroutine function say what to write instead of what it doesn't take."""
    name = function.__name__

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Coroutine[Any, Any, None]:
        check_positional(name, args)
        return _Serving(function(*args, **kwargs), name)

    return call


def hinted_init(init: Callable[_P, None]) -> Callable[_P, None]:
    """Let the __init__ of open_server do the same."""

    @functools.wraps(init)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
        check_positional("open_server", args[1:])
        init(*args, **kwargs)

    return call


def check_positional(name: str, args: tuple[object, ...]) -> None:
    """Refuse what others take: a handler, a host and a port; a context for TLS."""
    if len(args) in (3, 4) and name != "unix_serve":
        handler, host, port, *context = args
        what = getattr(handler, "__name__", "handler")
        tls = ", ssl=..." if any(context) else ""
        raise TypeError(
            f"{name}() takes a handler and a port; the rest is named; "
            f"write: {name}({what}, {port!r}, host={host!r}{tls})"
        )
