"""route(), unix_route() and Router: a handler for each path."""

from __future__ import annotations

import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from werkzeug.routing import Map, Rule, Subdomain, Submount

from tests.peers.certificates import contexts
from tests.peers.in_memory import MemoryListener
from tests.platforms import needs_unix_sockets
from tests.server.serving import ask
from trio_ws import (
    ConnectionClosedError,
    InvalidStatus,
    Request,
    Response,
    Router,
    ServerConnection,
    basic_auth,
    connect,
    open_server,
    route,
    unix_connect,
    unix_route,
)


async def home(ws: ServerConnection) -> None:
    await ws.send("home")


async def chat(ws: ServerConnection, room: str, size: int = 0) -> None:
    await ws.send(f"{room!r} {size}")


async def user(ws: ServerConnection, name: uuid.UUID) -> None:
    assert ws.route is not None
    assert ws.route.endpoint is user
    assert ws.route.arguments == {"name": name}
    await ws.send(ws.route.url_for(chat, room="b c", size=3, since="é"))


async def admin(ws: ServerConnection) -> None:
    await ws.send("admin")


def urls(**options: Any) -> Map:
    return Map(
        [
            Rule("/", endpoint=home),
            Rule("/chat/<room>/", endpoint=chat),
            Rule("/chat/<room>/<int:size>", endpoint=chat),
            Submount("/users", [Rule("/<uuid:name>", endpoint=user)]),
            Rule("/old", redirect_to="/chat/new/"),
            Rule("/elsewhere", redirect_to="wss://example.com/chat"),
            Rule("/built", endpoint="built", build_only=True),
            Rule("/post", endpoint=home, methods=["POST"]),
        ],
        **options,
    )


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1".encode()


def changes(line: bytes) -> dict[str, bytes]:
    """For a request whose Host is another one."""
    return {"line": line, "without": b"Host"}


async def said(listener: MemoryListener, path: str, host: str = "testing") -> Any:
    uri = f"ws://{host}{path}"
    async with connect(uri, stream=listener.connect()) as ws:
        return await ws.recv()


@pytest.fixture
async def listener(nursery: trio.Nursery) -> MemoryListener:
    listener = MemoryListener()
    await nursery.start(partial(route, urls(), listeners=[listener]))
    return listener


UUID = uuid.UUID(int=6455)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "home"),
        ("/?query", "home"),
        ("/chat/abc/", "'abc' 0"),
        ("/chat/abc/?query", "'abc' 0"),
        ("/chat/Gr%C3%BC%C3%9Fe%20/12", "'Grüße ' 12"),
        ("/chat/%FF/", "'\ufffd' 0"),
        (f"/users/{UUID}", "ws://testing/chat/b%20c/3?since=%C3%A9"),
    ],
)
async def test_the_handler(listener: MemoryListener, path: str, message: str) -> None:
    assert await said(listener, path) == message


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/missing", 404, None),
        ("/chat/abc/x", 404, None),
        ("/users/6455", 404, None),
        ("/built", 404, None),
        ("/post", 405, None),
        ("/chat/a%20b?x=1&y", 308, "/chat/a%20b/?x=1&y"),
        ("/old?x", 308, "/chat/new/"),
        ("/elsewhere", 308, "wss://example.com/chat"),
        ("/chat//abc/", 308, "/chat/abc/"),
        ("//example.org//chat", 404, None),
    ],
)
async def test_an_answer(
    listener: MemoryListener, path: str, status: int, location: str | None
) -> None:
    answer = await ask(listener, line=get(path))
    assert (answer.status, answer.header("Location")) == (status, location)


@pytest.mark.parametrize(
    "host",
    [
        "testing",
        "testing:80",
        "TESTING:",
        "testing:8000",
        "[::1]",
        "[::1]:8000",
        "127.0.0.1",
        None,
    ],
)
async def test_a_location_is_relative(
    listener: MemoryListener, host: str | None
) -> None:
    said = () if host is None else (b"Host: " + host.encode(),)
    for path in "/chat/a", "/chat//a/", "/old":
        answer = await ask(listener, *said, **changes(get(path)))
        assert answer.status == 308
        assert (answer.header("Location") or "").startswith("/chat/")


@pytest.mark.parametrize(
    "host", ["[::::]", "[v1.x]", "x:999999", "x:0", "a,b", "a..b", "x" * 64, "(x)"]
)
@pytest.mark.parametrize("path", ["/", "/chat/a", "/old"])
async def test_a_host_that_is_none(
    listener: MemoryListener, host: str, path: str
) -> None:
    answer = await ask(listener, b"Host: " + host.encode(), **changes(get(path)))
    assert answer.status == 400


@pytest.mark.parametrize(
    "host", ["example.org", "myexample.com", "example.com.org", "example.com:81", "x"]
)
async def test_another_servers_host(nursery: trio.Nursery, host: str) -> None:
    """No warning, either, which would be an error here."""
    listener = MemoryListener()
    start = partial(route, urls(), server_name="Example.com", listeners=[listener])
    await nursery.start(start)
    assert await said(listener, "/", "example.com:80") == "home"
    answer = await ask(listener, b"Host: " + host.encode(), **changes(get("/old")))
    assert answer.status == 404


async def test_no_request_for_a_websocket(listener: MemoryListener) -> None:
    stream = listener.connect()
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: testing\r\n\r\n")
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 426 ")


async def test_a_redirect_is_followed(nursery: trio.Nursery) -> None:
    start = partial(route, urls(), 0, host="127.0.0.1")
    server = await nursery.start(start)
    async with connect(f"ws://localhost:{server.port}/old") as ws:
        assert ws.request.path == "/chat/new/"
        assert await ws.recv() == "'new' 0"


async def test_tls(nursery: trio.Nursery) -> None:
    client, server = contexts()
    running = await nursery.start(
        partial(route, urls(), 0, host="127.0.0.1", ssl=server)
    )
    uri = f"wss://localhost:{running.port}"
    async with connect(f"{uri}/users/{UUID}", ssl=client) as ws:
        assert await ws.recv() == f"{uri}/chat/b%20c/3?since=%C3%A9"


async def test_behind_tls(nursery: trio.Nursery) -> None:
    listener = MemoryListener()
    await nursery.start(partial(route, urls(), listeners=[listener], url_scheme="wss"))
    assert (await said(listener, f"/users/{UUID}")).startswith("wss://testing/chat/")
    assert (await ask(listener, line=get("/old"))).header("Location") == "/chat/new/"


async def test_subdomains(nursery: trio.Nursery) -> None:
    listener = MemoryListener()
    url_map = Map(
        [
            Rule("/", endpoint=home, subdomain=""),
            Subdomain("admin", [Rule("/", endpoint=admin)]),
        ]
    )
    start = partial(route, url_map, server_name="example.com", listeners=[listener])
    await nursery.start(start)
    assert await said(listener, "/", "example.com") == "home"
    assert await said(listener, "/", "admin.example.com") == "admin"
    with pytest.raises(InvalidStatus, match="404"):
        await said(listener, "/", "nobody.example.com")


async def test_host_matching(nursery: trio.Nursery) -> None:
    listener = MemoryListener()
    rules = [
        Rule("/", endpoint=home, host="example.com"),
        Rule("/", endpoint=admin, host="<_>.example.org:8000"),
    ]
    rules[1].endpoint = lambda ws, _: admin(ws)
    start = partial(route, Map(rules, host_matching=True), listeners=[listener])
    await nursery.start(start)
    assert await said(listener, "/", "example.com") == "home"
    assert await said(listener, "/", "x.example.org:8000") == "admin"


async def test_a_hook_comes_first(nursery: trio.Nursery) -> None:
    def hook(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/health":
            return connection.respond(200, "OK\n")
        return None

    for process_request in hook, basic_auth(credentials=("alice", "secret")):
        listener = MemoryListener()
        start = partial(
            route, urls(), listeners=[listener], process_request=process_request
        )
        await nursery.start(start)
        status = (await ask(listener, line=get("/health"))).status
        assert status == (200 if process_request is hook else 401)
        uri = "ws://alice:secret@testing/chat/x/"
        async with connect(uri, stream=listener.connect()) as ws:
            assert await ws.recv() == "'x' 0"


async def test_a_router_of_ones_own() -> None:
    seen = []

    async def seen_chat(ws: ServerConnection, room: str) -> None:
        seen.append(ws)
        await chat(ws, room)

    rules = [Rule("/", endpoint=home), Rule("/chat/<room>/", endpoint=seen_chat)]
    router, listener = Router(Map(rules)), MemoryListener()
    async with open_server(
        router.handler, listeners=[listener], process_request=router.route_request
    ) as server:
        assert await said(listener, "/") == "home"
        stream = listener.connect()
        async with connect("ws://testing/chat/x/", stream=stream) as ws:
            await ws.recv()
            (connection,) = seen
            assert connection.server is server
            assert connection.route is not None
            assert connection.route.endpoint is seen_chat
            assert "adapter" not in repr(connection.route)


async def test_a_router_that_was_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    listener = MemoryListener()
    async with open_server(Router(urls()).handler, listeners=[listener]):
        with pytest.raises(ConnectionClosedError, match="1011"):
            await said(listener, "/")
    assert "write process_request=router.route_request" in caplog.text


@needs_unix_sockets
async def test_a_unix_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await nursery.start(partial(unix_route, urls(), path))
    async with unix_connect(path, "ws://testing/chat/x/") as ws:
        assert await ws.recv() == "'x' 0"


@pytest.mark.parametrize(
    ("url_map", "error", "text"),
    [
        ({"/": home}, TypeError, r"url_map: expected a werkzeug\.routing\.Map; got {"),
        (Map([Rule("/x")]), ValueError, "endpoint of '/x'; got none"),
        (
            Map([Rule("/x", endpoint="x")]),
            TypeError,
            "url_map: expected an async function as the endpoint of '/x'; got 'x'",
        ),
    ],
)
async def test_a_wrong_map(url_map: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await route(url_map, 0)
    with pytest.raises(error, match=text):
        await unix_route(url_map, "/nowhere/socket")


async def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match='url_scheme: expected "ws" or "wss"'):
        Router(urls(), url_scheme="https")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="server_name: expected a host"):
        Router(urls(), "a b")
    with pytest.raises(TypeError, match="process_request: expected a function"):
        await route(urls(), 0, process_request="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'pings'"):
        await route(urls(), 0, pings=1)  # type: ignore[call-arg]


async def test_without_werkzeug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "werkzeug.routing", None)
    with pytest.raises(ImportError, match=r'pip install "trio_ws\[routing\]"'):
        await route(None, 0)  # type: ignore[arg-type]
