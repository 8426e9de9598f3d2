"""The client's side of the opening handshake."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

from ..errors import (
    InvalidHeader,
    InvalidHeaderValue,
    InvalidUpgrade,
    NegotiationError,
)
from ..escaping import escape, shortened
from ..extensions.base import ClientExtensionFactory, Extension
from ..http.headers import Headers, HeadersLike, check_header
from ..http.messages import Request, Response
from ..limits import DEFAULT_LIMITS, Limits
from ..uri import WebSocketURI, build_host
from .common import (
    OWN_HEADERS,
    accept_key,
    check_upgrade,
    checked_additional,
    parse_all,
    single,
)
from .exchange import Exchange
from .fields import (
    ExtensionHeader,
    build_authorization_basic,
    build_extensions,
    build_subprotocols,
    parse_extensions,
    parse_subprotocols,
    parse_upgrade,
    validate_subprotocols,
)


def generate_key() -> str:
    """Make a Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, 4.1)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


class ClientHandshake(Exchange):
    """The client's side: send ``request_bytes``, then ``receive`` the response.

    Raises ValueError for subprotocols and headers that can't be sent.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        subprotocols: Sequence[str] | None = None,
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = None,
        origin: str | None = None,
        extensions: Sequence[ClientExtensionFactory] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.subprotocol: str | None = None
        self.extensions: list[Extension] = []
        self._factories = extensions
        self._subprotocols = validate_subprotocols(subprotocols or ())
        self._key = generate_key()
        host = build_host(uri.host, uri.port, secure=uri.secure)
        check_header("Host", host)
        headers = Headers.from_valid(
            [
                ("Host", host),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", self._key),
                ("Sec-WebSocket-Version", "13"),
            ]
        )
        # Headers that come from elsewhere may not come twice.
        own = {*OWN_HEADERS, "host"}
        if uri.username is not None:
            own.add("authorization")
            headers["Authorization"] = build_authorization_basic(
                uri.username, uri.password or ""
            )
        if origin is not None:
            own.add("origin")
            headers["Origin"] = origin
        if extensions:
            headers["Sec-WebSocket-Extensions"] = build_extensions(
                [(one.name, list(one.get_request_params())) for one in extensions]
            )
        if self._subprotocols:
            headers["Sec-WebSocket-Protocol"] = build_subprotocols(self._subprotocols)
        if additional_headers is not None:
            headers.update(checked_additional(additional_headers, own))
        if user_agent_header is not None and "User-Agent" not in headers:
            headers["User-Agent"] = user_agent_header
        super().__init__(Request(uri.resource_name, headers), limits)

    def receive(self, data: bytes) -> Response | None:
        """Take bytes; return the response that opens the WebSocket, None before.

        RFC 6455, section 4.1. Sets ``subprotocol``. Raises InvalidStatus, with
        the whole response, if the server said no, and another InvalidHandshake
        if it said anything else.
        """
        response = super().receive(data)
        if response is not None:
            self._check(response)
        return response

    def _is_agreed(self, status_code: int) -> bool:
        return status_code == 101

    def _check(self, response: Response) -> None:
        headers = response.headers
        check_upgrade(headers)
        # A server switches to one protocol (RFC 6455, section 4.1, item 2).
        upgrade = ", ".join(headers.get_all("Upgrade"))
        if "," in upgrade and len(parse_upgrade(upgrade)) > 1:
            raise InvalidUpgrade("Upgrade", escape(upgrade))
        accept = single(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self._key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", escape(accept))
        self._check_extensions(
            parse_all(headers, "Sec-WebSocket-Extensions", parse_extensions)
        )
        if "Sec-WebSocket-Protocol" in headers:
            self.subprotocol = self._check_subprotocol(headers)

    def _check_extensions(self, answers: list[ExtensionHeader]) -> None:
        """Make the extensions that the server has chosen (section 9.1)."""
        for name, params in answers:
            problem = NegotiationError(f"expected no extension {name!r}: not offered")
            for factory in self._factories:
                if factory.name != name:
                    continue
                try:
                    self.extensions.append(
                        factory.process_response_params(params, self.extensions)
                    )
                    break
                except NegotiationError as exc:
                    problem = exc
            else:
                raise problem

    def _check_subprotocol(self, headers: Headers) -> str:
        chosen = parse_all(headers, "Sec-WebSocket-Protocol", parse_subprotocols)
        if not self._subprotocols:
            got = shortened(", ".join(chosen))
            raise NegotiationError(f"no subprotocols supported; got {got}")
        if len(chosen) > 1:
            raise InvalidHeader(
                "Sec-WebSocket-Protocol", f"multiple values: {', '.join(chosen)}"
            )
        if chosen[0] not in self._subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {chosen[0]!r}")
        return chosen[0]
