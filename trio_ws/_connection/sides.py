"""The two sides of a connection, and the types of what create_connection makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .._protocol.http.headers import HeadersLike
from .._protocol.http.messages import Response, plain_response
from .connection import Connection
from .route import Route


class ClientConnection(Connection):
    """The client's side of a connection."""


class ServerConnection(Connection):
    """The server's side of a connection.

    ``server`` is the :class:`~trio_ws.Server` that it is one of, None with accept();
    ``username`` the user's name, if basic_auth() asks for it; ``route`` what a router
    has found for it. Of these, ``server`` is there from the beginning.
    """

    server: Any = None
    username: str | None = None
    route: Route | None = None

    def respond(
        self,
        status: int,
        body: str | bytes,
        *,
        content_type: str | None = None,
        headers: HeadersLike | None = None,
    ) -> Response:
        """Make an HTTP response, for process_request to return.

        Its Content-Type is ``content_type``, or else text/plain for a str and
        application/octet-stream for bytes. A str is sent in UTF-8. Headers and body
        can be changed later.

        ``status`` is one of 200 to 999, of which those that HTTP doesn't know go
        without a phrase.

        Raises ValueError for another status, and for headers that can't be sent;
        TypeError.
        """
        return plain_response(status, body, content_type, headers)


# What create_connection makes, by default these. Python has that default from 3.13 on;
# type checkers know it in any.
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    ClientT = TypeVarWithDefault(
        "ClientT", bound=ClientConnection, default=ClientConnection
    )
    ServerT = TypeVarWithDefault(
        "ServerT", bound=ServerConnection, default=ServerConnection
    )
else:
    ClientT = TypeVar("ClientT", bound=ClientConnection)
    ServerT = TypeVar("ServerT", bound=ServerConnection)
