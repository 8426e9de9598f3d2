"""Where to connect, and with which headers: as given, or asked for each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .._connection.opener import Stage, await_user
from .._protocol.handshake.client import ClientHandshake
from .._protocol.http.headers import HeadersLike
from .._protocol.uri import WebSocketURI, parse_uri
from .options import ClientOptions, client_handshake

T = TypeVar("T")

# What arguments may be for which each attempt may have another value.
Asked = Callable[[], T | Awaitable[T]]
AskedURI = Asked[str]
AskedHeaders = Asked[HeadersLike | None]

# What stands for a URI that isn't known yet.
_ANY = WebSocketURI(True, "localhost", 443, "", "")


class Target:
    """What to connect to: the URI and the options, headers among them.

    ``headers`` is a function in place of those of the options. Raises InvalidURI,
    ValueError and TypeError for wrong arguments.
    """

    def __init__(
        self,
        uri: str | AskedURI,
        options: ClientOptions,
        headers: AskedHeaders | None = None,
    ) -> None:
        self._ask_uri = uri if callable(uri) else None
        self._ask_headers = headers
        self.options = options
        # The latest, None as long as there is none.
        self.uri = None if callable(uri) else parse_uri(uri)
        # Made before it is needed, since it raises for wrong headers; of use for one
        # connection.
        self._handshake: ClientHandshake | None = client_handshake(
            options, self.uri or _ANY
        )

    async def ask(self, stage: Stage) -> tuple[WebSocketURI, ClientOptions]:
        """Return what the next attempt is to use.

        Raises what the functions raise, and for what they return what the constructor
        would. **Cancellation**: the functions are cancelled.
        """
        uri, options = self.uri, self.options
        if self._ask_uri is not None:
            stage.name = "asking for the URI"
            self.uri = uri = parse_uri(await _call(self._ask_uri))
        if self._ask_headers is not None:
            stage.name = "asking for additional_headers"
            headers = await _call(self._ask_headers)
            options = dataclasses.replace(options, additional_headers=headers)
        assert uri is not None
        if self._ask_uri is not None or self._ask_headers is not None:
            self._handshake = client_handshake(options, uri)
        return uri, options

    def handshake(self, uri: WebSocketURI, options: ClientOptions) -> ClientHandshake:
        """Make a handshake, or return the one that was made; raise ValueError."""
        made, self._handshake = self._handshake, None
        return made or client_handshake(options, uri)


async def _call(function: Callable[[], Any]) -> Any:
    """Call a function of the user's, which may be asynchronous."""
    try:
        return await await_user(function)
    except StopAsyncIteration as exc:  # which would end the loop in silence
        raise RuntimeError(f"{function!r} raised StopAsyncIteration") from exc
