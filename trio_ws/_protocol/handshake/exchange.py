"""A client's request and the answer to it, of a server or of a proxy before it."""

from __future__ import annotations

import abc
from typing import NoReturn

from ..errors import InvalidStatus, SecurityError
from ..http.messages import Request, Response
from ..limits import DEFAULT_LIMITS, Limits
from .response_parser import ResponseParser

# RFC 9110, section 15.2: a client must take interim responses it didn't ask for.
# Each costs the peer some twenty bytes; more than a few make no sense.
_MAX_INTERIM_RESPONSES = 8


class Exchange(abc.ABC):
    """Send ``request_bytes``, then ``receive`` the response."""

    def __init__(self, request: Request, limits: Limits = DEFAULT_LIMITS) -> None:
        self.request = request
        self._limits = limits
        self.request_bytes = request.serialize()
        self._new_parser()
        self._interim_responses = 0

    def _new_parser(self) -> None:
        tunnels = self.request.method == "CONNECT"
        self._parser = ResponseParser(self._limits, tunnels=tunnels)

    @abc.abstractmethod
    def _is_agreed(self, status_code: int) -> bool:
        """Tell whether the answer is yes."""

    @property
    def leftover(self) -> bytes:
        """The bytes after the response, once it is complete."""
        return self._parser.leftover

    @property
    def most(self) -> int | None:
        """How many bytes may be read at once; None if that doesn't matter."""
        return None

    def receive(self, data: bytes) -> Response | None:
        """Take bytes; return the response that agrees, None before it is complete.

        Raises InvalidStatus, with the whole response, if it says no, and another
        InvalidHandshake if it says anything else.
        """
        response = self._parser.receive(data)
        while response is not None and not self._is_agreed(response.status_code):
            if response.status_code >= 200:
                raise InvalidStatus(response)
            self._interim_responses += 1
            if self._interim_responses > _MAX_INTERIM_RESPONSES:
                raise SecurityError(
                    f"expected at most {_MAX_INTERIM_RESPONSES} interim responses; "
                    f"got more"
                )
            data = self._parser.leftover
            self._new_parser()
            response = self._parser.receive(data)
        return response

    @property
    def is_refused(self) -> bool:
        """Whether the answer is no, of which the body is still to come."""
        status_code = self._parser.status_code
        return (
            self._parser.head_complete
            and status_code >= 200
            and not self._is_agreed(status_code)
        )

    @property
    def is_redirected(self) -> bool:
        """Whether the answer is to go elsewhere, which needs no explanation."""
        return self.is_refused and 300 <= self._parser.status_code < 400

    def receive_eof(self) -> NoReturn:
        """Take the end of the stream, or of patience with a body.

        Raises InvalidStatus, with what came of the body, if the answer is no;
        InvalidMessage, whose cause is an EOFError, otherwise.
        """
        raise InvalidStatus(self._parser.receive_eof())
