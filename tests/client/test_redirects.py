"""connect(): where redirects lead, and where they don't."""

from __future__ import annotations

import functools
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from tests.peers.in_memory import RawPeer
from tests.platforms import needs_unix_sockets
from trio_ws import (
    ClientConnection,
    Headers,
    InvalidStatus,
    Limits,
    OpenTimeoutError,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
    reconnect,
    unix_connect,
    unix_serve,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock


class Site:
    """A server that redirects from some paths, and remembers what it was asked."""

    def __init__(self) -> None:
        self.locations: dict[str, str] = {}
        self.status = 302
        self.seen: list[Request] = []
        self.port = 0

    def answer(self, _: ServerConnection, request: Request) -> Response | None:
        self.seen.append(request)
        location = self.locations.get(request.path)
        if location is None:
            return None
        location = location.replace("PORT", str(self.port))
        return Response(self.status, "Elsewhere", Headers({"Location": location}))

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


async def greet(ws: ServerConnection) -> None:
    await ws.send(f"welcome to {ws.request.path}")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Site]:
    site = Site()
    async with open_server(
        greet, 0, host="127.0.0.1", process_request=site.answer, **options
    ) as server:
        site.port = server.port
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


async def greeting(manager: connect) -> str | bytes:
    async with manager as ws:
        return await ws.recv()


async def refused(manager: connect, why: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        await greeting(manager)
    assert caught.value.__notes__[0] == f"redirect not followed: {why}"
    assert caught.value.__suppress_context__
    return caught.value


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/there", "/there"),
        ("there?a=b", "/a/there?a=b"),
        ("../there", "/there"),
        ("?a=b", "/a/here?a=b"),
        ("//127.0.0.1:PORT/there#part", "/there"),
        ("ws://127.0.0.1:PORT", "/"),
        ("HTTP://127.0.0.1:PORT/there", "/there"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
    ],
)
async def test_followed(site: Site, status: int, location: str, path: str) -> None:
    site.status = status
    site.locations = {"/a/here": location}
    assert await greeting(connect(f"{site.uri}/a/here")) == f"welcome to {path}"
    assert site.paths == ["/a/here", path]


async def test_by_each_attempt_of_reconnect(site: Site) -> None:
    site.locations = {"/here": "/there"}
    async for attempt in reconnect(
        f"{site.uri}/here", reconnect_delays=lambda: iter([0])
    ):
        async with attempt as ws:
            assert await ws.recv() == "welcome to /there"
        if len(site.seen) == 4:
            break
    assert site.paths == ["/here", "/there"] * 2


async def test_what_is_no_redirect(site: Site) -> None:
    site.locations = {"/here": "/there"}
    site.status = 304
    with pytest.raises(InvalidStatus, match="HTTP 304") as caught:
        await greeting(connect(f"{site.uri}/here"))
    assert caught.value.__notes__ == [f"opening handshake with 127.0.0.1:{site.port}"]


async def test_ten_in_a_row(site: Site) -> None:
    site.locations = {f"/{i}": f"/{i + 1}" for i in range(20)}
    assert await greeting(connect(f"{site.uri}/10")) == "welcome to /20"
    site.seen.clear()
    more = "(limits=Limits(redirects=...))"
    await refused(connect(f"{site.uri}/9"), f"expected at most 10 in a row {more}")
    assert site.paths == [f"/{i}" for i in range(9, 20)]


@pytest.mark.parametrize("most", [0, 1, 12])
async def test_as_many_in_a_row_as_is_said(site: Site, most: int) -> None:
    site.locations = {f"/{i}": f"/{i + 1}" for i in range(20)}
    limits = Limits(redirects=most)
    last = 20 - most
    assert await greeting(connect(f"{site.uri}/{last}", limits=limits)) == (
        "welcome to /20"
    )
    more = "(limits=Limits(redirects=...))"
    await refused(
        connect(f"{site.uri}/{last - 1}", limits=limits),
        f"expected at most {most} in a row {more}",
    )


@pytest.mark.parametrize(
    ("locations", "why"),
    [
        ([], "expected one Location; got 0"),
        (["/a", "/b"], "expected one Location; got 2"),
        (["ftp://user:secret@example.com/"], "***@example.com/ isn't a valid URI"),
        (["ws://user:secret@exa mple.com/"], "expected no spaces"),
        (["ws://[::1/"], "expected host"),
        (["ws://example.com:0/"], "expected a port"),
    ],
)
async def test_locations_that_are_none(locations: list[str], why: str) -> None:
    def answer(_: ServerConnection, __: Request) -> Response:
        return Response(302, "", Headers([("Location", value) for value in locations]))

    async with open_server(
        greet, 0, host="127.0.0.1", process_request=answer
    ) as server:
        with pytest.raises(InvalidStatus) as caught:
            await greeting(connect(f"ws://127.0.0.1:{server.port}/"))
    note, _ = caught.value.__notes__
    assert note.startswith("redirect not followed: ")
    assert why in note
    assert "secret" not in note


HEADERS = {
    "Authorization": "Bearer x",
    "cookie": "a=b",
    "Proxy-Authorization": "Basic x",
    "X-Mine": "1",
}


async def test_credentials_stay_within_their_origin(site: Site) -> None:
    async with serving() as other:
        site.locations = {"/a": "/b", "/b": f"{other.uri}/c"}
        other.locations = {"/c": f"{site.uri}/d"}
        assert await greeting(connect(f"{site.uri}/a", additional_headers=HEADERS))
    told = [
        [name for name in HEADERS if name in request.headers]
        for request in (*site.seen[:2], *other.seen, *site.seen[2:])
    ]
    # Back at the first origin: who sent us there isn't trusted with them either.
    assert told == [list(HEADERS)] * 2 + [["X-Mine"]] * 2


async def test_user_information_stays_within_its_origin(site: Site) -> None:
    async with serving() as other:
        site.locations = {"/a": f"{site.uri}/b", "/b": f"{other.uri}/c"}
        uri = site.uri.replace("//", "//user:secret@")
        assert await greeting(connect(f"{uri}/a")) == "welcome to /c"
    assert ["Authorization" in one.headers for one in site.seen] == [True, True]
    assert "Authorization" not in other.seen[0].headers


async def test_other_than_the_location_says(site: Site) -> None:
    site.locations = {
        "/a": "ws://testing/b",
        "/b": "/c",
        "/elsewhere": f"{site.uri}/c",
    }
    to_us = functools.partial(connect, host="127.0.0.1", port=site.port)
    assert await greeting(to_us("ws://testing/a")) == "welcome to /c"
    await refused(
        to_us("ws://testing/elsewhere"),
        "to another origin, with host and port given",
    )


@needs_unix_sockets
async def test_over_unix_sockets(tmp_path: Path, nursery: trio.Nursery) -> None:
    path, site = tmp_path / "socket", Site()
    site.locations = {"/a": "b", "/c": "ws://example.com/"}
    await nursery.start(
        functools.partial(unix_serve, greet, path, process_request=site.answer)
    )
    assert await greeting(unix_connect(path, "ws://x/a")) == "welcome to /b"
    await refused(
        unix_connect(path, "ws://x/c"), "to another origin, with a Unix socket given"
    )
    nursery.cancel_scope.cancel()


async def test_a_stream_of_the_users() -> None:
    peer = RawPeer(client=False)
    await peer.stream.send_all(b"HTTP/1.1 301 x\r\nLocation: /\r\n\r\n")
    await peer.end()
    await refused(
        connect("ws://testing/", stream=peer.theirs),
        "the stream is of use for one connection",
    )


async def test_tls(site: Site) -> None:
    ca = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(theirs)
    context = ssl.create_default_context()
    ca.configure_trust(context)
    async with serving(ssl=theirs) as secure:
        uri = f"wss://127.0.0.1:{secure.port}"
        secure.locations = {"/a": "/b", "/c": f"{site.uri}/"}
        assert await greeting(connect(f"{uri}/a", ssl=context)) == "welcome to /b"
        await refused(connect(f"{uri}/c", ssl=context), "from wss:// to ws://")
        secure.locations = {"/d": f"wss://localhost:{secure.port}/e"}
        await refused(
            connect(f"{uri}/d", ssl=context, server_hostname="127.0.0.1"),
            "to another origin, with server_hostname given",
        )
        # Upwards, with the system's roots, which don't have that of this test.
        site.locations = {"/a": f"https://127.0.0.1:{secure.port}/b"}
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(connect(f"{site.uri}/a"))


@pytest.mark.parametrize(
    ("status", "error", "first"),
    [
        (403, InvalidStatus, "opening handshake with 127.0.0.1:PORT\n"),
        (0, OSError, "connecting to 127.0.0.1:PORT\n"),
    ],
)
@pytest.mark.parametrize(
    ("user", "headers", "withheld"),
    [
        ("", {}, ""),
        (
            "user:secret@",
            {"cookie": "a=b", "X": "y"},
            "; not sent to another origin: user information, cookie",
        ),
    ],
)
async def test_an_error_behind_a_redirect_tells_of_it(
    site: Site,
    status: int,
    error: type[Exception],
    first: str,
    user: str,
    headers: dict[str, str],
    withheld: str,
) -> None:
    async with open_server(
        greet,
        0,
        host="127.0.0.1",
        process_request=lambda ws, request: Response(status, "", Headers()),
    ) as other:
        port = other.port
        site.locations = {
            "/a": "/b",
            "/b": f"ws://127.0.0.1:{port}/there?token=secret",
        }
        if not status:
            await other.aclose()
        with pytest.raises(error) as caught:
            await greeting(
                connect(
                    f"ws://{user}127.0.0.1:{site.port}/a", additional_headers=headers
                )
            )
    told = "\n".join(caught.value.__notes__)
    assert told == (
        first.replace("PORT", str(port))
        + f"after 2 redirects, from {site.uri}/a to ws://127.0.0.1:{port}/there"
        + withheld
    )


async def test_one_timeout_for_all(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    peers: list[RawPeer] = []

    async def redirect(peer: RawPeer) -> None:
        await trio.sleep(3)
        await peer.stream.send_all(b"HTTP/1.1 301 x\r\nLocation: /\r\n")
        await peer.stream.send_all(b"Content-Length: 0\r\n\r\n")

    async def open_stream(*_: object) -> trio.abc.Stream:
        peers.append(RawPeer(client=False))
        nursery.start_soon(redirect, peers[-1])
        return peers[-1].theirs

    monkeypatch.setattr("trio_ws._client.dialer.open_tcp", open_stream)
    with pytest.raises(OpenTimeoutError, match=": opening handshake with") as caught:
        await greeting(connect("ws://testing/", open_timeout=10))
    assert caught.value.__notes__ == [
        "after 3 redirects, from ws://testing/ to ws://testing/"
    ]
    assert (trio.current_time(), len(peers)) == (10, 4)
    for peer in peers:
        with pytest.raises(trio.ClosedResourceError):
            await peer.theirs.send_all(b"x")
    nursery.cancel_scope.cancel()


async def test_a_body_without_end_costs_no_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    peers: list[RawPeer] = []

    async def redirect(peer: RawPeer) -> None:
        # Neither a length nor an end of the stream.
        await peer.stream.send_all(b"HTTP/1.1 301 x\r\nLocation: /\r\n\r\nmoved")

    async def open_stream(*_: object) -> trio.abc.Stream:
        peers.append(RawPeer(client=False))
        nursery.start_soon(redirect, peers[-1])
        return peers[-1].theirs

    monkeypatch.setattr("trio_ws._client.dialer.open_tcp", open_stream)
    with pytest.raises(InvalidStatus, match="HTTP 301"):
        await greeting(connect("ws://testing/"))
    assert (trio.current_time(), len(peers)) == (0, 11)


async def test_options_hold_for_each(site: Site) -> None:
    class Mine(ClientConnection):
        pass

    site.locations = {"/a": f"http://localhost:{site.port}/b"}
    async with connect(
        f"{site.uri}/a", create_connection=Mine, user_agent_header="mine", origin="me"
    ) as ws:
        assert isinstance(ws, Mine)
        assert ws.request.path == "/b"
        assert ws.request.headers["Host"] == f"localhost:{site.port}"
    for request in site.seen:
        assert request.headers["User-Agent"] == "mine"
        assert request.headers["Origin"] == "me"
