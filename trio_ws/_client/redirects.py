"""Redirects of the opening handshake (RFC 9110, section 15.4)."""

from __future__ import annotations

import dataclasses

from .._protocol.errors import InvalidStatus, InvalidURI
from .._protocol.http.headers import Headers
from .._protocol.limits import setting
from .._protocol.uri import WebSocketURI, redirected
from .options import ClientOptions

# RFC 9110, section 15.4, without those that lead nowhere else
_STATUSES = frozenset({300, 301, 302, 303, 307, 308})

# What a request says for one origin alone.
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})


def redirect_target(
    exc: InvalidStatus, uri: WebSocketURI, followed: int, most: int, fixed: str
) -> WebSocketURI:
    """Return where the response in ``exc`` leads; raise ``exc`` if it isn't followed.

    ``followed`` is how many redirects were, of ``most`` at most, ``fixed`` the names of
    the arguments that hold for the origin of ``uri`` alone, or "".
    """
    try:
        if exc.response.status_code not in _STATUSES:
            raise exc
        locations = exc.response.headers.get_all("Location")
        if len(locations) != 1:
            raise ValueError(f"expected one Location; got {len(locations)}")
        target = redirected(uri, locations[0])
        if followed == most:
            raise ValueError(f"expected at most {most} in a row {setting('redirects')}")
        if uri.secure and not target.secure:
            raise ValueError("from wss:// to ws://")
        if fixed == "stream":
            raise ValueError("the stream is of use for one connection")
        if target.origin != uri.origin and fixed:
            raise ValueError(f"to another origin, with {fixed} given")
    except (ValueError, InvalidURI) as problem:
        exc.add_note(f"redirect not followed: {problem}")
        raise exc from None
    finally:
        del exc  # no cycle with the traceback
    return target


class Trail:
    """The redirects that were followed, for what goes wrong behind them."""

    def __init__(self) -> None:
        self._uris: list[WebSocketURI] = []
        self.withheld: list[str] = []  # from another origin

    @property
    def followed(self) -> int:
        """How many there were."""
        return max(len(self._uris) - 1, 0)

    def add(self, uri: WebSocketURI, target: WebSocketURI) -> None:
        """Add a redirect that is followed, from ``uri``."""
        self._uris = [*(self._uris or [uri]), target]

    def add_note(self, exc: Exception) -> None:
        """Tell an error of redirects, if there were any."""
        if not self.followed:
            return
        plural = "" if self.followed == 1 else "s"
        note = (
            f"after {self.followed} redirect{plural}, "
            f"from {self._uris[0]} to {self._uris[-1]}"
        )
        if self.withheld:
            note += f"; not sent to another origin: {', '.join(self.withheld)}"
        exc.add_note(note)


def credentials_in(uri: WebSocketURI, options: ClientOptions) -> list[str]:
    """Name what without_credentials() and redirected() leave out."""
    user = [] if uri.username is None else ["user information"]
    headers = Headers(options.additional_headers or ()).raw_items()
    return user + [name for name, _ in headers if name.lower() in _CREDENTIALS]


def without_credentials(options: ClientOptions) -> ClientOptions:
    """Leave out what another origin must not be told (RFC 9110, section 15.4)."""
    headers = options.additional_headers
    if headers is None:
        return options
    assert isinstance(headers, Headers)
    kept = [
        (name, value)
        for name, value in headers.raw_items()
        if name.lower() not in _CREDENTIALS
    ]
    return dataclasses.replace(options, additional_headers=kept)
