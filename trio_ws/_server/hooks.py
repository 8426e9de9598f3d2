"""Hooks: functions of the user's that take part in a server's opening handshake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .._connection.opener import Stage, await_user, call_user
from .._connection.sides import ServerConnection
from .._protocol.errors import InvalidHandshake, InvalidStatus
from .._protocol.handshake.server import ServerHandshake
from .._protocol.http.messages import Response, plain_response
from .options import SelectSubprotocol, ServerOptions

# RFC 9110, sections 15.3.5 and 15.4.5
_WITHOUT_BODY = (204, 304)

# How long the connection lasts is not a hook's to say: it closes.
_PERSISTENCE = ("", "close", "keep-alive")


# The bodies of answers where the server's own code failed, or something took too long.
FAILED = "Failed to open a WebSocket connection: see the server's log.\n"
NO_TLS = "Failed to open a WebSocket connection: expected TLS (wss://, not ws://).\n"
SLOW_HOOK = "Failed to open a WebSocket connection: the server took too long.\n"
SLOW_REQUEST = "Failed to open a WebSocket connection: the request took too long.\n"


async def answer(
    connection: ServerConnection,
    handshake: ServerHandshake,
    options: ServerOptions,
    stage: Stage,
) -> tuple[Response, InvalidHandshake | None]:
    """Make the response to a request: by the hooks, by the RFC.

    Return it with what is wrong with the request, if it is refused for that.
    ``stage`` is told which of them runs.
    """
    request = connection.request
    problem: InvalidHandshake | None = None
    accepted = False
    try:
        stage.name = "process_request"
        response = await _call_hook(options.process_request, connection, request)
        if response is not None:
            response = handshake.complete(response)
            _check_response(response, handshake.method, accepted)
        else:
            stage.name = "opening handshake"
            select: Callable[[Sequence[str]], str | None] | None = None
            if options.select_subprotocol is not None:
                select = partial(_choose, stage, options.select_subprotocol, connection)
            try:
                response = handshake.accept(request, select)
                accepted = True
            except InvalidHandshake as exc:
                response, problem = handshake.rejection(exc), exc
        if options.process_response is not None:
            stage.name = "process_response"
            changed = await _call_hook(
                options.process_response, connection, request, response
            )
            if changed is not None and changed is not response:
                response = handshake.complete(changed)
            _check_response(response, handshake.method, accepted)
    except Exception as exc:
        connection.logger.exception("%s failed", stage.name)
        response = handshake.complete(plain_response(500, FAILED))
        problem = InvalidStatus(response)
        problem.__cause__ = exc
    try:
        return response, problem
    finally:
        del problem  # no cycle with its traceback


def _choose(
    stage: Stage,
    select: SelectSubprotocol,
    connection: ServerConnection,
    offered: Sequence[str],
) -> Any:
    """Have the user choose a subprotocol, after all else is negotiated."""
    stage.name = "select_subprotocol"
    return call_user(select, connection, offered)


def _check_response(response: Response, method: str, accepted: bool) -> None:
    """Check that a user's response can be sent, before any of it is.

    A body that a hook has changed gets its length. Raises ValueError, TypeError or
    AttributeError.
    """
    response.serialize()
    if "Transfer-Encoding" in response.headers:
        raise ValueError(
            "header Transfer-Encoding: expected none, as the body is sent as it is; "
            f"got {response.headers.get_all('Transfer-Encoding')}"
        )
    given = response.headers.get_all("Connection")
    if response.status_code != 101 and given not in ([], ["close"]):
        options = [one.strip() for one in ",".join(given).split(",")]
        kept = [one for one in options if one.lower() not in _PERSISTENCE]
        del response.headers["Connection"]
        response.headers["Connection"] = ", ".join(["close", *kept])
    length = [str(len(response.body))]
    # "A server MUST NOT send any Transfer-Encoding or Content-Length header fields in
    # a 2xx (Successful) response to CONNECT" (RFC 9110, section 9.3.6).
    tunnels = method == "CONNECT" and 200 <= response.status_code < 300
    if response.status_code in _WITHOUT_BODY or tunnels:
        response.body, length = b"", []
    elif method == "HEAD" and not response.body:
        # It may tell how long the answer to GET would be.
        length = response.headers.get_all("Content-Length")
    if response.headers.get_all("Content-Length") not in ([], length):
        del response.headers["Content-Length"]
        response.headers.update(("Content-Length", value) for value in length)
    if response.status_code < 200 and not (accepted and response.status_code == 101):
        # Only handshake.accept() knows the Sec-WebSocket-Accept of a 101, and
        # behind another of these a client waits for the final response.
        raise ValueError(
            f"status code: expected at least 200; got {response.status_code}"
        )


async def _call_hook(
    hook: Callable[..., object] | None, *args: object
) -> Response | None:
    """Call a hook, which may be asynchronous; check what it returns."""
    if hook is None:
        return None
    result = await await_user(hook, *args)
    if result is not None and not isinstance(result, Response):
        raise TypeError(f"expected a trio_ws.Response or None; got {result!r}")
    return result
