"""The server's side of the opening handshake."""

from __future__ import annotations

import dataclasses
import http
import re
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..errors import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
    RequestBodyTooLong,
    RequestLineTooLong,
    TooManyHeaders,
)
from ..escaping import escape, shortened
from ..extensions.base import Extension, ServerExtensionFactory
from ..http.headers import Headers, HeadersLike
from ..http.messages import Request, Response, http_date, plain_response
from ..limits import DEFAULT_LIMITS, Limits
from .common import (
    OWN_HEADERS,
    accept_key,
    check_upgrade,
    checked_additional,
    parse_all,
    single,
)
from .fields import (
    ExtensionHeader,
    build_extensions,
    parse_extensions,
    parse_subprotocols,
    validate_subprotocols,
)
from .request_parser import RequestParser, check_no_body

_is_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64

# The peer's own words that a rejection quotes end here.
_MAX_EXPLANATION = 500


class ServerHandshake:
    """The server's side: ``receive`` a request, ``accept`` it or make a rejection.

    If ``plain``, plain HTTP is received, too: any method, with or without a body.

    Raises ValueError for subprotocols and headers that can't be sent.
    """

    def __init__(
        self,
        *,
        plain: bool = False,
        limits: Limits = DEFAULT_LIMITS,
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
        self._additional = checked_additional(additional_headers, OWN_HEADERS)
        if server_header is not None and "Server" not in self._additional:
            self._additional["Server"] = server_header
        self._plain = plain
        self._parser = RequestParser(limits, plain=plain)
        self._checked = False  # the request's head

    @property
    def method(self) -> str:
        """That of the request, once it has come; empty before."""
        return self._parser.method

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
        head = self._parser.head
        if head is not None and not self._checked:
            _check_target(head, host_needed=not self._plain)
            self._checked = True
        return request

    @property
    def has_head(self) -> bool:
        """Whether all of the request but its body has come."""
        return self._checked

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for 100 (Continue) before it sends the body.

        Not in HTTP/1.0, where it "MUST ignore that expectation" (RFC 9110, section
        10.1.1).
        """
        head = self._parser.head
        if head is None or not self._parser.awaits_body or head.protocol == "HTTP/1.0":
            return False
        expected = ",".join(head.headers.get_all("Expect")).split(",")
        return "100-continue" in [item.strip().lower() for item in expected]

    def opens(self, request: Request) -> bool:
        """Whether a request asks for a WebSocket, or is to be refused as if it did."""
        try:
            check_upgrade(request.headers)
        except InvalidHandshake:
            return not self._plain
        return True

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
        if request.protocol != "HTTP/1.1":
            raise InvalidProtocol(request.protocol)
        if request.method != "GET":
            raise InvalidMethod(request.method)
        check_no_body(headers)
        single(headers, "Host")
        check_upgrade(headers)
        version = single(headers, "Sec-WebSocket-Version")
        if version != "13":
            raise InvalidHeaderValue("Sec-WebSocket-Version", escape(version))
        key = single(headers, "Sec-WebSocket-Key")
        if _is_key(key) is None:
            raise InvalidHeaderValue("Sec-WebSocket-Key", escape(key))
        self._check_origin(headers)
        # Offers can be declined, but "if a value [...] does not conform to the
        # ABNF, the recipient [...] MUST immediately _Fail the WebSocket
        # Connection_" (section 9.1).
        answers = self._negotiate(
            parse_all(headers, "Sec-WebSocket-Extensions", parse_extensions)
        )
        offered = parse_all(headers, "Sec-WebSocket-Protocol", parse_subprotocols)
        if select_subprotocol is None:
            self.subprotocol = self._select_subprotocol(offered)
        else:
            self.subprotocol = _selected(select_subprotocol(offered), offered)
        response = Headers.from_valid(
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_key(key)),
            ]
        )
        if answers:
            response["Sec-WebSocket-Extensions"] = build_extensions(answers)
        if self.subprotocol is not None:
            response["Sec-WebSocket-Protocol"] = self.subprotocol
        return self._completed(Response(101, "Switching Protocols", response))

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
            f"invalid subprotocol; expected one of {', '.join(self._subprotocols)}; "
            f"got {shortened(', '.join(offered))}"
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
        return self._completed(response)

    def complete(self, response: Response) -> Response:
        """Add the headers that each answer has, unless it has them: Date is one.

        To a copy, since a user may give the same response again.
        """
        headers = response.headers.copy()
        return self._completed(dataclasses.replace(response, headers=headers))

    def _completed(self, response: Response) -> Response:
        headers = response.headers
        missing = [
            (name, value)
            for name, value in self._additional.raw_items()
            if name not in headers
        ]
        for name, value in missing:
            headers[name] = value
        if "Date" not in headers:
            # "An origin server with a clock [...] MUST generate a Date header field in
            # all 2xx (Successful), 3xx (Redirection), and 4xx (Client Error)
            # responses" (RFC 9110, section 6.6.1)
            headers["Date"] = http_date(int(time.time()))
        return response

    def serialize(self, response: Response) -> bytes:
        """Return an answer as on the wire; to HEAD it has no body.

        RFC 9110, section 9.3.2. Raises ValueError if the status line isn't one.
        """
        if self.method == "HEAD":
            response = dataclasses.replace(response, body=b"")
        return response.serialize()


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
        case InvalidHeader(name="Transfer-Encoding"):
            return http.HTTPStatus.NOT_IMPLEMENTED, {}
        case RequestBodyTooLong():
            return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {}
        case RequestLineTooLong():
            return http.HTTPStatus.REQUEST_URI_TOO_LONG, {}
        case HeaderLineTooLong() | TooManyHeaders():
            return http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {}
        case _:
            return http.HTTPStatus.BAD_REQUEST, {}


# Host = uri-host [ ":" port ] (RFC 9110, section 7.2; RFC 3986, section 3.2.2)
_HOST = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Fa-fv:.]+\])(?::[0-9]*)?"


_is_host = re.compile(_HOST).fullmatch


# absolute-form (RFC 9112, section 3.2.2) of the schemes that lead here
_match_absolute = re.compile(
    rf"(?:https?|wss?)://(?P<host>{_HOST})(?P<path>/[^?]*)?(?P<query>\?.*)?",
    re.IGNORECASE,
).fullmatch


def _check_target(request: Request, *, host_needed: bool) -> None:
    """Check the request-target and Host (RFC 9112, sections 3.2 and 3.2.2).

    Health checks often come without a Host, in HTTP/1.1, too.
    """
    host = None
    if host_needed or "Host" in request.headers:
        host = single(request.headers, "Host")
        if _is_host(host) is None:
            raise InvalidHeaderValue("Host", escape(host))
    path = request.path
    if "#" in path:
        raise InvalidMessage("expected a request target without a fragment; got one")
    if request.method == "CONNECT":
        if _is_host(path) is None:
            raise InvalidMessage(
                f"expected a host and a port as target of CONNECT; got {path[:60]!r}"
            )
        return
    if path.startswith("/") or (request.method == "OPTIONS" and path == "*"):
        return
    match = _match_absolute(path)
    if match is None:
        raise InvalidMessage(
            f"expected a path or an absolute URI as request target; got {path[:60]!r}"
        )
    # The target's authority goes before Host; a client must send the same
    # there, and two different ones are an attempt to be routed twice.
    if host is not None and match["host"].lower() != host.lower():
        raise InvalidHeaderValue("Host", escape(host))
    request.path = (match["path"] or "/") + (match["query"] or "")
