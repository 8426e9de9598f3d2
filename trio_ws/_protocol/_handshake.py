"""The opening handshake of both sides (RFC 6455, section 4), without I/O.

A handshake takes the bytes that came and returns the message once it is
complete and right, or raises an InvalidHandshake, after which it is of no use.
What came behind the message stays in ``leftover``, for the frame decoder.
"""

from __future__ import annotations

import base64
import hashlib
import http
import os
import re
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ._errors import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
    TooManyHeaders,
)
from ._extensions import (
    ClientExtensionFactory,
    Extension,
    ServerExtensionFactory,
)
from ._frames import escape
from ._headers import (
    ExtensionHeader,
    Headers,
    HeadersLike,
    build_authorization_basic,
    build_extensions,
    build_host,
    build_subprotocols,
    parse_connection,
    parse_extensions,
    parse_subprotocols,
    parse_upgrade,
    validate_subprotocols,
)
from ._http import Request, RequestParser, Response, ResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._uri import WebSocketURI

_T = TypeVar("_T")

# RFC 6455, section 1.3
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# RFC 9110, section 15.2: a client must take interim responses it didn't ask for.
# Each costs the peer some twenty bytes; more than a few make no sense.
_MAX_INTERIM_RESPONSES = 8

# The peer's own words that a rejection quotes end here.
_MAX_EXPLANATION = 500


def generate_key() -> str:
    """Make a Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, 4.1)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def accept_key(key: str) -> str:
    """Make the Sec-WebSocket-Accept that answers a key (RFC 6455, 4.2.2)."""
    # It proves that the server read the request and is no matter of security;
    # without the flag, SHA-1 is refused where FIPS rules are enforced.
    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False)
    return base64.b64encode(digest.digest()).decode("ascii")


class ServerHandshake:
    """The server's side: ``receive`` a request, ``accept`` it or make a rejection.

    Raises ValueError for subprotocols and headers that can't be sent.
    """

    def __init__(
        self,
        *,
        subprotocols: Sequence[str] | None = None,
        additional_headers: HeadersLike | None = None,
        server_header: str | None = None,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] = (),
    ) -> None:
        self.subprotocol: str | None = None
        self.extensions: list[Extension] = []
        self._factories = extensions
        self._origins = origins
        self._subprotocols = validate_subprotocols(subprotocols or ())
        self._additional = _additional_headers(additional_headers, _OWN_HEADERS)
        if server_header is not None and "Server" not in self._additional:
            self._additional["Server"] = server_header
        self._parser = RequestParser()

    @property
    def leftover(self) -> bytes:
        """The bytes after the request, once it is complete."""
        return self._parser.leftover

    def receive(self, data: bytes) -> Request | None:
        """Take bytes; return the request once complete, None before.

        What is checked here makes it an HTTP request that can be answered (RFC
        9112, sections 3 and 6); whether it asks for a WebSocket is up to
        :meth:`accept`. An absolute request-target becomes its path and query.

        Raises InvalidHandshake, to be answered by :meth:`rejection`.
        """
        request = self._parser.receive(data)
        if request is not None:
            _check_no_body(request.headers)
            _check_target(request)
        return request

    def receive_eof(self) -> NoReturn:
        """Take the end of the stream before the request was complete.

        Raises InvalidMessage, whose cause is an EOFError.
        """
        raise self._parser.eof_error()

    def accept(
        self,
        request: Request,
        select_subprotocol: Callable[[Sequence[str]], str | None] | None = None,
    ) -> Response:
        """Check that a request opens a WebSocket, and make the 101 response.

        RFC 6455, section 4.2. Sets ``subprotocol``, which
        ``select_subprotocol`` chooses among those offered. Raises
        InvalidHandshake, to be answered by :meth:`rejection`.
        """
        headers = request.headers
        _check_upgrade(headers)
        version = _single(headers, "Sec-WebSocket-Version")
        if version != "13":
            raise InvalidHeaderValue("Sec-WebSocket-Version", escape(version))
        key = _single(headers, "Sec-WebSocket-Key")
        # 16 bytes in base64
        if re.fullmatch(r"[A-Za-z0-9+/]{22}==", key) is None:
            raise InvalidHeaderValue("Sec-WebSocket-Key", escape(key))
        self._check_origin(headers)
        # Offers can be declined, but "if a value [...] does not conform to the
        # ABNF, the recipient [...] MUST immediately _Fail the WebSocket
        # Connection_" (section 9.1).
        answers = self._negotiate(
            _parse_all(headers, "Sec-WebSocket-Extensions", parse_extensions)
        )
        offered = _parse_all(headers, "Sec-WebSocket-Protocol", parse_subprotocols)
        if select_subprotocol is None:
            self.subprotocol = self._select_subprotocol(offered)
        else:
            self.subprotocol = _selected(select_subprotocol(offered), offered)
        response = Headers()
        response["Upgrade"] = "websocket"
        response["Connection"] = "Upgrade"
        response["Sec-WebSocket-Accept"] = accept_key(key)
        if answers:
            response["Sec-WebSocket-Extensions"] = build_extensions(answers)
        if self.subprotocol is not None:
            response["Sec-WebSocket-Protocol"] = self.subprotocol
        response.update(self._additional)
        return Response(101, "Switching Protocols", response)

    def _negotiate(self, offers: list[ExtensionHeader]) -> list[ExtensionHeader]:
        """Choose among the offers, which come in order of preference (section 9.1)."""
        self.extensions = []
        answers: list[ExtensionHeader] = []
        for name, params in offers:
            for factory in self._factories:
                if factory.name != name:
                    continue
                try:
                    answer, extension = factory.process_request_params(
                        params, self.extensions
                    )
                except NegotiationError:
                    continue  # declined
                answers.append((name, list(answer)))
                self.extensions.append(extension)
                break
        return answers

    def _check_origin(self, headers: Headers) -> None:
        # RFC 6455, section 4.2.2, item 4, and section 10.2.
        if self._origins is None:
            return
        values = headers.get_all("Origin")
        if len(values) > 1:
            raise InvalidHeader("Origin", "multiple values")
        origin = values[0] if values else None
        for allowed in self._origins:
            if isinstance(allowed, re.Pattern):
                if origin is not None and allowed.fullmatch(origin):
                    return
            elif origin == allowed:
                return
        raise InvalidOrigin(None if origin is None else escape(origin))

    def _select_subprotocol(self, offered: list[str]) -> str | None:
        # RFC 6455, section 4.2.2, would let the server go on without one. But a
        # server that was given subprotocols knows no other language.
        if not self._subprotocols:
            return None
        if not offered:
            raise NegotiationError("missing subprotocol")
        for subprotocol in self._subprotocols:
            if subprotocol in offered:
                return subprotocol
        raise NegotiationError(
            f"invalid subprotocol; expected one of {', '.join(self._subprotocols)}"
        )

    def rejection(self, exc: InvalidHandshake) -> Response:
        """Make the response to a request over which ``exc`` was raised."""
        status, extra = _status_of(exc)
        # Plain text and ASCII: a browser has nothing to interpret.
        explanation = escape(str(exc)).encode("ascii", "backslashreplace").decode()
        if len(explanation) > _MAX_EXPLANATION:
            explanation = explanation[:_MAX_EXPLANATION] + "..."
        text = f"Failed to open a WebSocket connection: {explanation}.\n"
        if isinstance(exc, InvalidUpgrade):
            text += (
                "\nThis is a WebSocket server: a browser can't show it, "
                "a WebSocket client can connect to it.\n"
            )
        response = plain_response(status, text)
        if "Upgrade" in extra:
            # An option of the connection (RFC 9110, section 7.8).
            del response.headers["Connection"]
            response.headers["Connection"] = "close, Upgrade"
        response.headers.update(extra)
        return response


def plain_response(status: int, text: str) -> Response:
    """Make an HTTP response of plain text, after which the connection closes.

    Raises ValueError for a status that HTTP doesn't know.
    """
    known = http.HTTPStatus(status)
    body = text.encode()
    headers = Headers(
        {
            "Connection": "close",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
        }
    )
    return Response(known.value, known.phrase, headers, body)


def _selected(subprotocol: object, offered: Sequence[str]) -> str | None:
    """Check what a user's function selected."""
    if subprotocol is None:
        return None
    if not isinstance(subprotocol, str) or subprotocol not in offered:
        raise ValueError(
            f"select_subprotocol: expected None or one of {list(offered)!r}; "
            f"got {subprotocol!r}"
        )
    return subprotocol


def _status_of(exc: InvalidHandshake) -> tuple[http.HTTPStatus, dict[str, str]]:
    """Map an error to the status that says so and the headers it demands."""
    match exc:
        case InvalidMethod():
            return http.HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET"}
        case InvalidProtocol():
            return http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, {}
        case InvalidUpgrade():
            return http.HTTPStatus.UPGRADE_REQUIRED, {"Upgrade": "websocket"}
        case InvalidOrigin():
            return http.HTTPStatus.FORBIDDEN, {}
        case InvalidHeader(name="Sec-WebSocket-Version"):
            # RFC 6455, section 4.4, and for Upgrade RFC 9110, section 15.5.22.
            return http.HTTPStatus.UPGRADE_REQUIRED, {
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
            }
        case RequestLineTooLong():
            return http.HTTPStatus.REQUEST_URI_TOO_LONG, {}
        case HeaderLineTooLong() | TooManyHeaders():
            return http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {}
        case _:
            return http.HTTPStatus.BAD_REQUEST, {}


class ClientHandshake:
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
    ) -> None:
        self.subprotocol: str | None = None
        self.extensions: list[Extension] = []
        self._factories = extensions
        self._subprotocols = validate_subprotocols(subprotocols or ())
        self._key = generate_key()
        headers = Headers()
        headers["Host"] = build_host(uri.host, uri.port, secure=uri.secure)
        # Headers that come from elsewhere may not come twice.
        own = set(_OWN_HEADERS)
        own.add("host")
        if uri.username is not None:
            own.add("authorization")
            headers["Authorization"] = build_authorization_basic(
                uri.username, uri.password or ""
            )
        if origin is not None:
            own.add("origin")
            headers["Origin"] = origin
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Key"] = self._key
        headers["Sec-WebSocket-Version"] = "13"
        if extensions:
            headers["Sec-WebSocket-Extensions"] = build_extensions(
                [(one.name, list(one.get_request_params())) for one in extensions]
            )
        if self._subprotocols:
            headers["Sec-WebSocket-Protocol"] = build_subprotocols(self._subprotocols)
        headers.update(_additional_headers(additional_headers, own))
        if user_agent_header is not None and "User-Agent" not in headers:
            headers["User-Agent"] = user_agent_header
        self.request = Request(uri.resource_name, headers)
        self.request_bytes = self.request.serialize()
        self._parser = ResponseParser()
        self._interim_responses = 0

    @property
    def leftover(self) -> bytes:
        """The bytes after the response, once it is complete."""
        return self._parser.leftover

    def receive(self, data: bytes) -> Response | None:
        """Take bytes; return the response that opens the WebSocket, None before.

        RFC 6455, section 4.1. Sets ``subprotocol``. Raises InvalidStatus, with
        the whole response, if the server said no, and another InvalidHandshake
        if it said anything else.
        """
        response = self._parser.receive(data)
        while response is not None and response.status_code < 200:
            if response.status_code == 101:
                self._check(response)
                return response
            self._interim_responses += 1
            if self._interim_responses > _MAX_INTERIM_RESPONSES:
                raise SecurityError(
                    f"expected at most {_MAX_INTERIM_RESPONSES} interim responses; "
                    f"got more"
                )
            data = self._parser.leftover
            self._parser = ResponseParser()
            response = self._parser.receive(data)
        if response is not None:
            raise InvalidStatus(response)
        return None

    def receive_eof(self) -> NoReturn:
        """Take the end of the stream before the response was complete.

        Raises InvalidStatus if it completes the response, InvalidMessage, whose
        cause is an EOFError, otherwise.
        """
        raise InvalidStatus(self._parser.receive_eof())

    def _check(self, response: Response) -> None:
        headers = response.headers
        _check_upgrade(headers)
        # A server switches to one protocol (RFC 6455, section 4.1, item 2).
        upgrade = ", ".join(headers.get_all("Upgrade"))
        if len(parse_upgrade(upgrade)) > 1:
            raise InvalidUpgrade("Upgrade", escape(upgrade))
        accept = _single(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self._key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", escape(accept))
        self._check_extensions(
            _parse_all(headers, "Sec-WebSocket-Extensions", parse_extensions)
        )
        if "Sec-WebSocket-Protocol" in headers:
            self.subprotocol = self._check_subprotocol(headers)

    def _check_extensions(self, answers: list[ExtensionHeader]) -> None:
        """Make the extensions that the server has chosen (section 9.1)."""
        for name, params in answers:
            problem = NegotiationError(f"expected no extension {name}: not offered")
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
        if not self._subprotocols:
            raise NegotiationError("no subprotocols supported")
        chosen = _parse_all(headers, "Sec-WebSocket-Protocol", parse_subprotocols)
        if len(chosen) > 1:
            raise InvalidHeader(
                "Sec-WebSocket-Protocol", f"multiple values: {', '.join(chosen)}"
            )
        if chosen[0] not in self._subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {chosen[0]}")
        return chosen[0]


# Headers that say what the handshake is, or where its message ends.
_OWN_HEADERS = frozenset(
    {"connection", "content-length", "transfer-encoding", "upgrade"}
)


def _additional_headers(
    additional: HeadersLike | None, own: frozenset[str] | set[str]
) -> Headers:
    """Check the headers that a user adds.

    Raises ValueError for one that the handshake makes itself: twice, or with
    another value, it would break the handshake or mean different things to
    different readers.
    """
    headers = Headers() if additional is None else Headers(additional)
    for name in headers:
        if name in own or name.startswith("sec-websocket-"):
            raise ValueError(
                f"additional_headers: expected no header that the handshake makes "
                f"itself; got {name}"
            )
    return headers


def _single(headers: Headers, name: str) -> str:
    """Return the value of a header that must come once."""
    values = headers.get_all(name)
    if not values:
        raise InvalidHeader(name)
    if len(values) > 1:
        raise InvalidHeader(name, "multiple values")
    return values[0]


def _parse_all(
    headers: Headers, name: str, parse: Callable[[str], list[_T]]
) -> list[_T]:
    """Parse a list header; several are one (RFC 9110, section 5.3)."""
    values = headers.get_all(name)
    return parse(", ".join(values)) if values else []


def _check_upgrade(headers: Headers) -> None:
    """Check that Connection and Upgrade ask for a WebSocket.

    RFC 6455, section 4.2.1, items 3 and 4; the client's rule for Upgrade is
    stricter.
    """
    for name, parse, wanted in (
        ("Connection", parse_connection, "upgrade"),
        ("Upgrade", parse_upgrade, "websocket"),
    ):
        values = headers.get_all(name)
        if not values:
            raise InvalidUpgrade(name)
        joined = ", ".join(values)
        try:
            items = parse(joined)
        except InvalidHeader as exc:
            raise InvalidUpgrade(name, escape(joined)) from exc
        if wanted not in [item.lower() for item in items]:
            raise InvalidUpgrade(name, escape(joined))


def _check_no_body(headers: Headers) -> None:
    """Refuse a request with a body (RFC 9112, section 6.3).

    Where it ends could be read in two ways, and what stands in it be taken for
    frames.
    """
    if "Transfer-Encoding" in headers:
        raise InvalidMessage("expected a request without a body; got Transfer-Encoding")
    for value in headers.get_all("Content-Length"):
        if value != "0":
            raise InvalidMessage(
                f"expected a request without a body; got Content-Length: "
                f"{escape(value)}"
            )


# Host = uri-host [ ":" port ] (RFC 9110, section 7.2; RFC 3986, section 3.2.2)
_HOST = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Fa-fv:.]+\])(?::[0-9]*)?"
_is_host = re.compile(_HOST).fullmatch

# absolute-form (RFC 9112, section 3.2.2) of the schemes that lead here
_match_absolute = re.compile(
    rf"(?:https?|wss?)://(?P<host>{_HOST})(?P<path>/[^?]*)?(?P<query>\?.*)?",
    re.IGNORECASE,
).fullmatch


def _check_target(request: Request) -> None:
    """Check the request-target and Host (RFC 9112, sections 3.2 and 3.2.2)."""
    host = _single(request.headers, "Host")
    if _is_host(host) is None:
        raise InvalidHeaderValue("Host", escape(host))
    path = request.path
    if "#" in path:
        raise InvalidMessage("expected a request target without a fragment; got one")
    if path.startswith("/"):
        return
    match = _match_absolute(path)
    if match is None:
        raise InvalidMessage(
            f"expected a path or an absolute URI as request target; got {path[:60]!r}"
        )
    # The target's authority goes before Host; a client must send the same
    # there, and two different ones are an attempt to be routed twice.
    if match["host"].lower() != host.lower():
        raise InvalidHeaderValue("Host", escape(host))
    request.path = (match["path"] or "/") + (match["query"] or "")
