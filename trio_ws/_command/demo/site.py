"""What the demo answers over HTTP: the page, to browsers that are on this machine's."""

from __future__ import annotations

import ipaddress
import re
from http import HTTPStatus
from importlib import resources

from ... import Request, Response, ServerConnection
from ..folder import asks_for_websocket, not_allowed

# No page needs more; see Content Security Policy Level 3. "'self'" alone doesn't mean
# WebSockets to each browser.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self' ws://{host}; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_split_host = re.compile(r"(\[[^\[\]%]+\]|[^:\[\]]+)(?::[0-9]+)?").fullmatch


class Site:
    """Answers requests for the page; refuses WebSockets of others.

    ``host`` is the name that the demo listens at.
    """

    def __init__(self, host: str) -> None:
        self._names = {"localhost", host.lower()}
        self._page = resources.files(__package__).joinpath("page.html").read_bytes()

    def process_request(
        self, ws: ServerConnection, request: Request
    ) -> Response | None:
        """Answer a request, unless it asks for a WebSocket and may."""
        hosts = request.headers.get_all("Host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._is_ours(host):
            return ws.respond(
                HTTPStatus.FORBIDDEN,
                "Expected an address, or localhost, as the host.\n",
            )
        origins = request.headers.get_all("Origin")
        if origins not in ([], [f"http://{host}"]):
            # Its buttons are no other page's to press (RFC 6455, section 10.2).
            return ws.respond(HTTPStatus.FORBIDDEN, "Here is one's own page alone.\n")
        if asks_for_websocket(request):
            return None
        if request.method not in ("GET", "HEAD"):
            return not_allowed(ws)
        if request.path.partition("?")[0] != "/":
            return ws.respond(HTTPStatus.NOT_FOUND, "There is a page at / alone.\n")
        response = ws.respond(
            HTTPStatus.OK,
            self._page,
            content_type="text/html; charset=utf-8",
            headers={
                "Cache-Control": "no-cache",
                "Content-Security-Policy": _POLICY.format(host=host),
                "X-Content-Type-Options": "nosniff",
            },
        )
        if request.method == "HEAD":
            response.body = b""  # its length stays
        return response

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header can't be the name of somebody else's.

        Who has a name can let it stand for this machine (DNS rebinding), and have a
        page of the same origin; nobody can so with an address.
        """
        match = _split_host(host)
        if match is None:
            return False
        name = match[1].lower()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True
