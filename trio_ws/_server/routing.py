"""route() and unix_route(): a handler for each path, by werkzeug's URL maps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast
from urllib.parse import unquote_to_bytes

import trio

from .._connection.opener import await_user
from .._connection.route import Route
from .._connection.sides import ServerConnection
from .._endpoint.options import check_function
from .._protocol.errors import InvalidURI
from .._protocol.http.messages import Request, Response
from .._protocol.uri import build_host, parse_uri
from .options import ListenOptionsDict, UnixOptionsDict
from .serve import serve, unix_serve
from .server import Server

if TYPE_CHECKING:
    from werkzeug.routing import Map, MapAdapter

Scheme = Literal["ws", "wss"]


class Router:
    """Finds a connection's handler by the path of its request.

    For servers that route() doesn't make: ``route_request`` is their
    ``process_request``, or a part of it, ``handler`` their handler. ``url_map`` is a
    werkzeug.routing.Map whose endpoints are handlers, async functions of the connection
    and, by name, of what the path has for them. Each rule that it has is taken to have
    ``websocket=True``; those that you add later have to say so. ``server_name`` is that
    of the server as clients know it, which subdomains need; ``url_scheme`` is "wss"
    where they use TLS.

    Raises TypeError or ValueError for a rule whose endpoint is no function, and for a
    ``server_name`` that is no host.
    """

    def __init__(
        self,
        url_map: Map,
        server_name: str | None = None,
        url_scheme: Scheme = "ws",
    ) -> None:
        _check_map(url_map)
        if url_scheme not in ("ws", "wss"):
            raise ValueError(f'url_scheme: expected "ws" or "wss"; got {url_scheme!r}')
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        try:
            self._name = _authority(server_name or "localhost", url_scheme)
        except InvalidURI:
            raise ValueError(
                f"server_name: expected a host, or host:port; got {server_name!r}"
            ) from None
        for rule in url_map.iter_rules():
            rule.websocket = True

    def route_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """Find the handler of a request; answer one that has none with HTTP 404.

        As one for another server than ``server_name``; one whose Host is none with
        400, and one whose rule says so with a redirect.
        """
        from werkzeug.exceptions import HTTPException
        from werkzeug.routing import RequestRedirect

        try:
            adapter = self._bind(request)
            endpoint, arguments = adapter.match()
        except RequestRedirect as exc:
            own = f"{adapter.url_scheme}://{adapter.get_host(None)}/"
            response = connection.respond(exc.code, f"See {exc.new_url}\n")
            response.headers["Location"] = _relative(exc.new_url, own)
            return response
        except HTTPException as exc:
            return connection.respond(exc.code or 500, f"{exc.name}\n")
        connection.route = Route(endpoint, arguments, adapter)
        return None

    def _bind(self, request: Request) -> MapAdapter:
        """Bind the map to a request, as Map.bind_to_environ() does, which warns.

        Of each Host that isn't the server's, with the client's words. Raises
        BadRequest for a Host that is none, NotFound for another server's.
        """
        from werkzeug.exceptions import BadRequest, NotFound

        host = self._name
        if given := request.headers.get("Host"):
            try:
                host = _authority(given, self.url_scheme)
            except InvalidURI:
                raise BadRequest from None
        name, subdomain = host, ""
        if self.server_name is not None and not self.url_map.host_matching:
            name = self._name
            if not f".{host}".endswith(f".{name}"):
                raise NotFound
            subdomain = host[: -len(name) - 1]
        path, _, query = request.path.partition("?")
        return self.url_map.bind(
            name,
            "",
            None if self.url_map.host_matching else subdomain,
            self.url_scheme,
            path_info=unquote_to_bytes(path).decode(errors="replace"),
            query_args=query,
        )

    async def handler(self, connection: ServerConnection) -> None:
        """Call the handler that was found. **Cancellation**: as of the handler."""
        route = connection.route
        if route is None:
            raise RuntimeError(
                "handler: expected route_request to have been asked before; write "
                "process_request=router.route_request"
            )
        await route.endpoint(connection, **route.arguments)


def _relative(url: str, own: str) -> str:
    """Leave out what the client knows, and maybe better, before a proxy with TLS."""
    if not url.startswith(own):
        return url
    path = url.removeprefix(own).lstrip("/")
    return f"/{path}"  # with two slashes it would begin with a host


def _authority(host: str, scheme: Scheme) -> str:
    """Return a host, with its port unless that is the scheme's. Raises InvalidURI."""
    uri = parse_uri(f"{scheme}://{host}/")
    return build_host(uri.host, uri.port, secure=uri.secure)


def _check_map(url_map: object) -> None:
    try:
        from werkzeug.routing import Map
    except ImportError as exc:
        raise ImportError(
            'url_map: routing needs werkzeug; pip install "trio_ws[routing]"'
        ) from exc
    if not isinstance(url_map, Map):
        raise TypeError(f"url_map: expected a werkzeug.routing.Map; got {url_map!r}")
    for rule in url_map.iter_rules():
        if rule.build_only or (rule.redirect_to is not None and rule.endpoint is None):
            continue
        what = f"an async function as the endpoint of {rule.rule!r}"
        if rule.endpoint is None:
            raise ValueError(f"url_map: expected {what}; got none")
        check_function("url_map", rule.endpoint, what)


def _make_router(
    url_map: Map,
    server_name: str | None,
    url_scheme: Scheme | None,
    options: ListenOptionsDict[Any] | UnixOptionsDict[Any],
) -> Router:
    """Make the router and, in the options, a hook that asks the user's before."""
    scheme: Scheme = "ws" if options.get("ssl") is None else "wss"
    router = Router(url_map, server_name, url_scheme or scheme)
    first = options.get("process_request")
    if first is None:
        options["process_request"] = router.route_request
        return router
    check_function("process_request", first, "a function")

    async def process_request(
        connection: ServerConnection, request: Request
    ) -> Response | None:
        response: Response | None = await await_user(first, connection, request)
        if response is not None:
            return response
        return router.route_request(connection, request)

    options["process_request"] = process_request
    return router


async def route(
    url_map: Map,
    port: int | None = None,
    *,
    server_name: str | None = None,
    url_scheme: Scheme | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[Any]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., ServerConnection] | None = None,
    **options: Unpack[ListenOptionsDict[Any]],
) -> None:
    """Serve with a handler for each path; otherwise as serve().

    ``url_map``, ``server_name`` and ``url_scheme`` are those of :class:`Router`; by
    default the scheme is "wss" with ``ssl``, else "ws". ``process_request`` sees a
    request first, and the router what it doesn't answer. In handlers ``ws.route``
    has the endpoint, its arguments and ``url_for()``. The other keywords are those of
    serve().

    Needs ``trio_ws[routing]``; raises ImportError without it, TypeError or ValueError
    for a map without handlers. **Cancellation** as of serve().
    """
    router = _make_router(url_map, server_name, url_scheme, options)
    await serve(
        router.handler,
        port,
        handler_nursery=handler_nursery,
        task_status=task_status,
        create_connection=cast(Any, create_connection),
        **options,
    )


async def unix_route(
    url_map: Map,
    path: str | os.PathLike[str],
    *,
    server_name: str | None = None,
    url_scheme: Scheme | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server[Any]] = trio.TASK_STATUS_IGNORED,
    create_connection: Callable[..., ServerConnection] | None = None,
    **options: Unpack[UnixOptionsDict[Any]],
) -> None:
    """Serve on a Unix socket with a handler for each path: unix_serve() and route().

    Raises what these do. **Cancellation** as of serve().
    """
    router = _make_router(url_map, server_name, url_scheme, options)
    await unix_serve(
        router.handler,
        path,
        handler_nursery=handler_nursery,
        task_status=task_status,
        create_connection=cast(Any, create_connection),
        **options,
    )
