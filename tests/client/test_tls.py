"""TLS of clients: the context that they share, and what they call the server."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from tests.handlers import echo
from trio_ws import connect, open_server, reconnect

if TYPE_CHECKING:
    from trio_ws import Server

CA = trustme.CA()


class Maker:
    """In place of ssl.create_default_context(), whose roots are those of CA."""

    def __init__(self) -> None:
        self.original = ssl.create_default_context
        self.made: list[ssl.SSLContext] = []
        self.threads: list[threading.Thread] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self) -> ssl.SSLContext:
        self.threads.append(threading.current_thread())
        assert self.may_end.wait(60)
        context = self.original()
        CA.configure_trust(context)
        self.made.append(context)
        return context


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    maker = Maker()
    monkeypatch.setattr(ssl, "create_default_context", maker)
    monkeypatch.setattr("trio_ws._client.tls._context", None)
    return maker


def open_echo(*names: str) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*names or ["localhost", "127.0.0.1"]).configure_cert(context)
    return open_server(echo, 0, host="127.0.0.1", ssl=context)


def url(server: Server) -> str:
    return f"wss://127.0.0.1:{server.port}/"


async def check_echo(manager: Any) -> None:
    async with manager as ws:
        await ws.send("x")
        assert await ws.recv() == "x"


# The context


async def test_connections_share_one_context(maker: Maker) -> None:
    async with open_echo() as server:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(check_echo, connect(url(server)))
        await check_echo(connect(url(server)))
        async for attempt in reconnect(url(server)):
            await check_echo(attempt)
            break
    assert len(maker.made) == 1


def test_runs_share_one_context(maker: Maker) -> None:
    async def main() -> None:
        async with open_echo() as server:
            await check_echo(connect(url(server)))

    trio.run(main)
    trio.run(main)
    assert len(maker.made) == 1


async def test_a_context_of_the_users_is_the_one_that_is_used(maker: Maker) -> None:
    context = maker()
    async with open_echo() as server:
        await check_echo(connect(url(server), ssl=context))
    assert maker.made == [context]


async def test_the_loop_goes_on_while_a_context_is_made(maker: Maker) -> None:
    maker.may_end.clear()
    async with open_echo() as server, trio.open_nursery() as nursery:
        nursery.start_soon(check_echo, connect(url(server)))
        while not maker.threads:
            await trio.lowlevel.checkpoint()
        maker.may_end.set()
    assert maker.threads != [threading.current_thread()]


async def test_cancelled_while_a_context_is_made(maker: Maker) -> None:
    maker.may_end.clear()
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_echo() as server:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check_echo, connect("wss://h/", stream=ours))
                while not maker.threads:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert maker.made == []  # nobody waited for it
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        maker.may_end.set()
        await check_echo(connect(url(server)))
    await theirs.aclose()
    assert len(maker.made) == 1


async def test_a_context_that_cannot_be_made(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> ssl.SSLContext:
        raise MemoryError

    async with open_echo() as server:
        with monkeypatch.context() as patch:
            patch.setattr(ssl, "create_default_context", fail)
            with pytest.raises(MemoryError):
                await check_echo(connect(url(server)))
        await check_echo(connect(url(server)))
    assert len(maker.made) == 1


# The server's name


@pytest.mark.parametrize(
    ("host", "given", "sni", "certified"),
    [
        ("good.example", {}, "good.example", "good.example"),
        ("good.example.", {}, "good.example", "good.example"),
        ("stra\xdfe.example", {}, "xn--strae-oqa.example", "xn--strae-oqa.example"),
        ("127.0.0.1", {}, None, "127.0.0.1"),
        ("127.1", {}, None, "127.0.0.1"),
        ("127.0.0.1.", {}, None, "127.0.0.1"),
        ("[::1]", {}, None, "::1"),
        ("[fe80::1%25eth0]", {}, None, "fe80::1"),
        ("h", {"server_hostname": "good.example."}, "good.example", "good.example"),
        ("h", {"server_hostname": "127.0.0.1"}, None, "127.0.0.1"),
        ("h", {"server_hostname": "::1"}, None, "::1"),
        ("h", {"server_hostname": "[::1]"}, None, "::1"),
    ],
)
async def test_what_tls_calls_the_server(
    host: str, given: dict[str, Any], sni: str | None, certified: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(certified).configure_cert(context)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    client = ssl.create_default_context()
    CA.configure_trust(client)
    async with open_server(echo, 0, host="127.0.0.1", ssl=context) as server:
        async with connect(
            f"wss://{host}/", host="127.0.0.1", port=server.port, ssl=client, **given
        ) as ws:
            header = ws.request.headers["Host"]
    assert names == [sni]
    # With the dot, as browsers and curl say it.
    assert header.endswith(".") == host.endswith(".")


@pytest.mark.parametrize("name", ["host", "server_hostname"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", ValueError),
        (".bad", ValueError),
        ("a" * 64 + ".example", ValueError),
        ("a." * 127 + "a", ValueError),
        ("\u2603.example", ValueError),
        ("[::g]", ValueError),
        ("a/b", ValueError),
        (b"h", TypeError),
    ],
)
def test_a_host_that_cannot_be_one(
    name: str, value: Any, error: type[Exception]
) -> None:
    options: Any = {name: value}
    with pytest.raises(error, match=f"{name}: "):
        connect("wss://good.example/", **options)
    with pytest.raises(error, match=f"{name}: "):
        reconnect("wss://good.example/", **options)
