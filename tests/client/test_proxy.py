"""connect() and reconnect() through proxies that do what a test says."""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.contract.moments import Moments, sweep
from tests.handlers import echo
from tests.peers.certificates import contexts
from tests.platforms import needs_resets
from trio_ws import (
    Headers,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    OpenTimeoutError,
    ProxyError,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
    reconnect,
)
from trio_ws._protocol.uri import parse_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

HOST = "127.0.0.1"
AGREED = b"HTTP/1.1 200 Connection established\r\n\r\n"
Play = Callable[[trio.abc.Stream], Awaitable[None]]


class Proxy:
    """Plays a part to each who connects, and keeps what they said first."""

    def __init__(self, play: Callable[[Proxy, trio.abc.Stream], Awaitable[None]]):
        self._play = play
        self.port = 0
        self.heads: list[bytes] = []
        self.ends = 0  # of connections that the client has closed

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            await self._play(self, stream)

    def url(self, scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user}{HOST}:{self.port}"

    async def head(self, stream: trio.abc.Stream) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await some(stream)
        self.heads.append(head)
        return head


async def some(stream: trio.abc.Stream) -> bytes:
    data = bytes(await stream.receive_some(65536))
    assert data
    return data


async def to_end(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


@asynccontextmanager
async def proxying(
    play: Callable[[Proxy, trio.abc.Stream], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Proxy]:
    proxy = Proxy(play)

    async def serve(stream: trio.SocketStream) -> None:
        if context is None:
            await proxy.serve(stream)
        else:
            await proxy.serve(trio.SSLStream(stream, context, server_side=True))

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        proxy.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


async def relay(stream: trio.abc.Stream, port: int, piece: int = 65536) -> None:
    """Let both sides talk, in pieces, until either ends."""
    async with await trio.open_tcp_stream(HOST, port) as server:

        async def pump(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
            try:
                while data := await one.receive_some(piece):
                    await other.send_all(data)
            except trio.BrokenResourceError:
                pass
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, server)
            nursery.start_soon(pump, server, stream)


async def tunnel(proxy: Proxy, stream: trio.abc.Stream) -> None:
    head = await proxy.head(stream)
    port = int(head.split()[1].rpartition(b":")[2])
    await stream.send_all(AGREED)
    await relay(stream, port)


def answering(answer: bytes) -> Callable[[Proxy, trio.abc.Stream], Awaitable[None]]:
    """Answer a request, and close the connection."""

    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        await proxy.head(stream)
        await stream.send_all(answer)

    return play


async def fail(proxy: str, uri: str = "ws://server.test/", **options: Any) -> None:
    async with connect(uri, proxy=proxy, **options):
        raise AssertionError("entered")


# Through one


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http", "https"])
async def test_messages(tls: bool, proxy_tls: bool) -> None:
    client, server = contexts()
    scheme = "https" if proxy_tls else "http"
    message = bytes(range(256)) * 4096
    async with (
        proxying(tunnel, server if proxy_tls else None) as proxy,
        open_server(echo, 0, host=HOST, ssl=server if tls else None) as target,
        connect(
            f"{'wss' if tls else 'ws'}://localhost:{target.port}/",
            proxy=proxy.url(scheme).replace(HOST, "localhost"),
            proxy_ssl=client if proxy_tls else None,
            ssl=client if tls else None,
        ) as ws,
    ):
        for size in 0, 1, 125, 70000, len(message):
            await ws.send(message[:size])
            assert await ws.recv() == message[:size]
        assert len(proxy.heads) == 1


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_a_proxys_tls_is_not_the_websockets(secure: bool) -> None:
    to_proxy, of_proxy = contexts()
    ours, theirs = contexts(ssl.TLSVersion.TLSv1_2)
    async with (
        open_server(echo, 0, host=HOST, ssl=theirs if secure else None) as target,
        proxying(tunnel, of_proxy) as proxy,
        connect(
            f"{'wss' if secure else 'ws'}://localhost:{target.port}/",
            proxy=f"https://localhost:{proxy.port}",
            proxy_ssl=to_proxy,
            ssl=ours if secure else None,
        ) as ws,
    ):
        if secure:
            assert ws.ssl_object is not None
            assert ws.ssl_object.version() == "TLSv1.2"
        else:
            assert ws.ssl_object is None
        assert ws.socket is not None
        assert ws.socket.getpeername()[1] == proxy.port


@pytest.mark.parametrize("piece", [1, 4, 1000])
async def test_tls_in_tls_however_it_is_cut(piece: int) -> None:
    client, server = contexts()

    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        await proxy.head(stream)
        await stream.send_all(AGREED)
        await relay(stream, target.port, piece)

    message = bytes(range(256)) * piece
    async with (
        open_server(echo, 0, host=HOST, ssl=server) as target,
        proxying(play, server) as proxy,
        connect(
            f"wss://localhost:{target.port}/",
            proxy=f"https://localhost:{proxy.port}",
            proxy_ssl=client,
            ssl=client,
            compression=None,
        ) as ws,
    ):
        for _ in range(3):
            await ws.send(message)
            assert await ws.recv() == message


async def test_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with proxying(tunnel) as proxy, open_server(echo, 0, host=HOST) as target:
        async with connect(
            f"ws://{HOST}:{target.port}/",
            proxy=proxy.url(user="us%65r:s%65cret@"),
            user_agent_header="me",
        ):
            pass
        async with connect(
            "ws://[fe80::1%251]/",
            host=HOST,
            port=target.port,
            proxy=proxy.url(),
            user_agent_header=None,
        ):
            pass
    credentials = base64.b64encode(b"user:secret")
    authority = f"{HOST}:{target.port}".encode()
    assert proxy.heads == [
        b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n"
        b"User-Agent: me\r\nProxy-Authorization: Basic " + credentials + b"\r\n\r\n",
        b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n",
    ]
    assert "> Proxy-Authorization: [secret]" in caplog.text
    for secret in "s%65cret", "secret@", credentials.decode():
        assert secret not in caplog.text
    shown = repr(parse_proxy("http://us%65r:secret@x"))
    assert "secret" not in shown
    assert "user" not in shown.replace("username", "")


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_one_id_in_the_log(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws.client")
    async with open_server(echo, 0, host=HOST) as target:
        play = tunnel if scheme == "http" else Socks(target.port).play
        async with proxying(play) as proxy:
            uri = f"ws://{HOST}:{target.port}/"
            async with connect(uri, proxy=proxy.url(scheme, "me:hunter2@")) as ws:
                pass
    lines = [one for one in caplog.records if one.name == "trio_ws.client"]
    assert {getattr(one, "connection_id", None) for one in lines} == {ws.id}
    assert {getattr(one, "remote_address", None) for one in lines} == {
        (HOST, proxy.port)
    }
    first = "CONNECT" if scheme == "http" else "socks5h to"
    assert f"> {first} {HOST}:{target.port}" in lines[0].getMessage()
    assert "hunter2" not in caplog.text


async def test_an_ipv6_address_has_its_brackets_and_no_zone() -> None:
    async with proxying(answering(b"HTTP/1.1 403 No\r\n\r\n")) as proxy:
        with pytest.raises(InvalidProxyStatus):
            await fail(proxy.url(), "ws://[fe80::1%25lo]/")
    assert proxy.heads[0].startswith(b"CONNECT [fe80::1]:80 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n",
        b"HTTP/1.1 201 \r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + AGREED,
    ],
)
async def test_what_agrees(answer: bytes) -> None:
    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        await proxy.head(stream)
        await stream.send_all(answer)
        await relay(stream, target.port)

    async with open_server(echo, 0, host=HOST) as target, proxying(play) as proxy:
        async with connect("ws://server.test/", proxy=proxy.url()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http", "https"])
async def test_bytes_behind_the_answer_are_the_servers(proxy_tls: bool) -> None:
    client, server = contexts()
    early = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate"
    async with proxying(
        answering(AGREED + early), server if proxy_tls else None
    ) as proxy:
        url = proxy.url("https" if proxy_tls else "http").replace(HOST, "localhost")
        with pytest.raises(InvalidStatus, match="HTTP 503") as caught:
            await fail(url, proxy_ssl=client if proxy_tls else None)
    assert caught.value.response.body == b"late"


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http", "https"])
async def test_so_they_are_in_tls(proxy_tls: bool) -> None:
    client, server = contexts()
    alert = bytes.fromhex("15 0303 0002 0228")  # handshake_failure
    async with proxying(
        answering(AGREED + alert), server if proxy_tls else None
    ) as proxy:
        url = proxy.url("https" if proxy_tls else "http").replace(HOST, "localhost")
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            await fail(
                url,
                "wss://x.test/",
                proxy_ssl=client if proxy_tls else None,
                ssl=client,
            )


async def test_redirects_go_through_it() -> None:
    def away(_: ServerConnection, request: Request) -> Response | None:
        if request.path == "/":
            return Response(302, "", Headers({"Location": "/there"}))
        return None

    async with (
        proxying(tunnel) as proxy,
        open_server(echo, 0, host=HOST, process_request=away) as target,
        connect(f"ws://{HOST}:{target.port}/", proxy=proxy.url()) as ws,
    ):
        assert ws.request.path == "/there"
        assert len(proxy.heads) == 2


# Refusals, garbage, silence


async def test_a_refusal() -> None:
    answer = (
        b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nwho"
    )
    async with proxying(answering(answer)) as proxy:
        with pytest.raises(
            InvalidProxyStatus, match=r"(?m)^proxy rejected connection: HTTP 407$"
        ) as caught:
            await fail(proxy.url(user="user:secret@"))
    response = caught.value.response
    assert (response.status_code, response.body) == (407, b"who")
    assert response.headers["Proxy-Authenticate"] == "Basic"
    through = f"through {HOST}:{proxy.port}"
    assert caught.value.__notes__ == [f"CONNECT to server.test:80 {through}"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-x\r\n", r"proxy: expected a status line; got 'SSH-2.0-x', .* SSH$"),
        (b"\x15\x03\x03\0\x02\x02\x28", "TLS; this port speaks https://, not http://$"),
        (b"\x05\xff\0\0\0\0", "^proxy: expected text; got the control character 0x05"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "expected HTTP/1.1; got HTTP/2.0"),
        (b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n", "expected a colon .*'nothing'$"),
        (b"HTTP/1.1 200 " + b"x" * 9000, "expected at most 8192 bytes of status line"),
        (b"HTTP/1.1 100 \r\n\r\n" * 9, "at most 8 interim responses"),
    ],
)
async def test_garbage(answer: bytes, text: str) -> None:
    async with proxying(answering(answer)) as proxy:
        with pytest.raises(ProxyError, match=f"(?m){text}"):
            await fail(proxy.url())


@pytest.mark.parametrize("size", range(len(AGREED)))
async def test_an_end_at_each_byte(size: int) -> None:
    async with proxying(answering(AGREED[:size])) as proxy:
        with pytest.raises(ProxyError, match=r"^proxy: connection closed") as caught:
            await fail(proxy.url())
    assert isinstance(caught.value.__cause__, EOFError)


@needs_resets
async def test_a_reset() -> None:
    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        await proxy.head(stream)
        assert isinstance(stream, trio.SocketStream)
        linger = b"\1\0\0\0\0\0\0\0"
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with proxying(play) as proxy:
        with pytest.raises(ProxyError, match=r"^connection to the proxy") as caught:
            await fail(proxy.url())
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize(
    ("scheme", "sent", "stage"),
    [
        ("http", b"", "CONNECT to server.test:80 through "),
        ("http", AGREED[:-1], "CONNECT to server.test:80 through "),
        ("http", AGREED, "opening handshake with server.test:80 through "),
        ("https", b"", "TLS handshake with proxy "),
        ("socks5h", b"", "SOCKS to server.test:80 through "),
        ("socks5h", b"\5\0", "SOCKS to server.test:80 through "),
    ],
)
@pytest.mark.parametrize("ends", ["timeout", "cancellation"])
async def test_silence(
    scheme: str, sent: bytes, stage: str, ends: str, mock_clock: MockClock
) -> None:
    waits, closed = trio.Event(), trio.Event()

    async def play(_: Proxy, stream: trio.abc.Stream) -> None:
        await some(stream)
        await stream.send_all(sent)
        waits.set()
        await to_end(stream)
        closed.set()

    client, _ = contexts()
    async with proxying(play) as proxy, trio.open_nursery() as nursery:

        async def run() -> None:
            options: dict[str, Any] = {"proxy_ssl": client} if scheme == "https" else {}
            if ends == "timeout":
                with pytest.raises(OpenTimeoutError) as caught:
                    await fail(proxy.url(scheme), open_timeout=5, **options)
                assert f"{stage}{HOST}:{proxy.port}" in str(caught.value)
            else:
                await fail(proxy.url(scheme), **options)

        nursery.start_soon(run)
        await waits.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        if ends == "timeout":
            mock_clock.jump(5)
        else:
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await closed.wait()


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        port = bound.getsockname()[1]
        with pytest.raises(OSError, match="refused") as caught:
            await fail(f"http://user:secret@{HOST}:{port}")
    assert caught.value.__notes__ == [f"connecting to proxy {HOST}:{port}"]


async def test_a_certificate_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_ws._client.tls._context", ssl.create_default_context())
    _, server = contexts()

    async def play(_: Proxy, stream: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    async with proxying(play, server) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await fail(proxy.url("https"))
    assert caught.value.__notes__[0].startswith("TLS handshake with proxy ")


class FullContext(ssl.SSLContext):
    """One that OpenSSL makes no connection of."""

    def wrap_bio(self, *_: Any, **__: Any) -> Any:
        raise MemoryError


async def test_no_room_for_tls_behind_it() -> None:
    closed = trio.Event()

    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        await proxy.head(stream)
        await stream.send_all(AGREED)
        await to_end(stream)
        closed.set()

    context = FullContext(ssl.PROTOCOL_TLS_CLIENT)
    async with proxying(play) as proxy:
        with pytest.raises(MemoryError):
            await fail(proxy.url(), "wss://server.test/", ssl=context)
        await closed.wait()


# reconnect()


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", True),
        (b"HTTP/1.1 407 Who\r\n\r\n", False),
        (b"HTTP/1.1 2", True),
        (b"garbage\r\n", False),
    ],
)
async def test_what_reconnect_tries_again(answer: bytes, again: bool) -> None:
    async def play(proxy: Proxy, stream: trio.abc.Stream) -> None:
        if proxy.heads:
            await tunnel(proxy, stream)
        else:
            await answering(answer)(proxy, stream)

    async with open_server(echo, 0, host=HOST) as target, proxying(play) as proxy:

        async def run() -> None:
            async for attempt in reconnect(
                f"ws://{HOST}:{target.port}/",
                proxy=proxy.url(),
                reconnect_delays=lambda: iter([0.0]),
            ):
                async with attempt:
                    pass
                break

        if again:
            await run()
        else:
            with pytest.raises(ProxyError):
                await run()
    assert len(proxy.heads) == 1 + again


# SOCKS


class Socks:
    """A server of SOCKS by the letter: versions 4, 4a and 5, for a port of ours."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[object] = []

    async def play(self, proxy: Proxy, stream: trio.abc.Stream) -> None:
        said = await some(stream)
        if said[0] == 4:
            self.asked.append(said)
            await stream.send_all(b"\0\x5a\0\0\0\0\0\0")
        else:
            method = said[-1]
            await stream.send_all(bytes([5, method]))
            if method == 2:
                self.asked.append(await some(stream))
                await stream.send_all(b"\1\0")
            self.asked.append(await some(stream))
            await stream.send_all(b"\5\0\0\1\0\0\0\0\0\0")
        await relay(stream, self.port)


@pytest.mark.parametrize(
    ("scheme", "user", "asked"),
    [
        ("socks4", "", [b"\4\1PO\x7f\0\0\1\0"]),
        ("socks4", "me@", [b"\4\1PO\x7f\0\0\1me\0"]),
        ("socks4a", "m%65:@", [b"\4\1PO\0\0\0\1me\0localhost\0"]),
        ("socks4", "me:x@", [b"\4\1PO\x7f\0\0\1me\0"]),
        ("socks4a", "", [b"\4\1PO\0\0\0\1\0localhost\0"]),
        ("socks5", "", [b"\5\1\0\1\x7f\0\0\1PO"]),
        ("socks5h", "", [b"\5\1\0\3\x09localhostPO"]),
        ("socks5h", "me:x%79@", [b"\1\2me\2xy", b"\5\1\0\3\x09localhostPO"]),
    ],
)
async def test_socks(
    scheme: str, user: str, asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, 0))

    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, *_: Any, **__: Any) -> Any:
            assert host == b"localhost"
            return [found]

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Names())
    client, server = contexts()
    async with open_server(echo, 0, host=HOST, ssl=server) as target:
        socks = Socks(target.port)
        async with proxying(socks.play) as proxy:
            async with connect(
                f"wss://localhost:{target.port}/",
                proxy=proxy.url(scheme, user),
                ssl=client,
            ) as ws:
                await ws.send("x" * 100_000)
                assert await ws.recv() == "x" * 100_000
    port = target.port.to_bytes(2, "big")
    assert socks.asked == [one.replace(b"PO", port) for one in asked]


@pytest.mark.parametrize(
    ("scheme", "answers", "text", "again"),
    [
        ("socks5", [b"\5\xff"], "proxy: No acceptable .*; got 05 ff$", False),
        ("socks5", [b"HTTP/1.1 400 \r\n"], "proxy: .*; got 48 54$", False),
        ("socks5", [b"\5\0", b"\5\5\0"], "refused .*; got 05 00 05 05 00$", True),
        ("socks5", [b"\5\0", b"\5\2\0"], "not allowed", False),
        ("socks5", [b"\5\0", b"\5\0\0\3\1\xff\0\0"], "proxy: ", False),
        ("socks5", [b""], "^proxy: connection closed before the end", True),
        ("socks5", [b"\5"], "closed before the end of its answer; got 05$", True),
        ("socks4", [b"\0\x5b\0\0\0\0\0\0"], "rejected or failed", True),
        ("socks4", [b"\0\x5d\0\0\0\0\0\0"], "user-ids", False),
    ],
)
async def test_what_socks_proxies_refuse(
    scheme: str, answers: list[bytes], text: str, again: bool
) -> None:
    async def play(_: Proxy, stream: trio.abc.Stream) -> None:
        for answer in answers:
            await some(stream)
            await stream.send_all(answer)

    async with proxying(play) as proxy:
        with pytest.raises(ProxyError, match=f"(?m){text}") as caught:
            await fail(proxy.url(scheme), "ws://10.0.0.1/")
    assert isinstance(caught.value.__cause__, OSError | EOFError) is again


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
async def test_a_name_that_isnt_found(scheme: str) -> None:
    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Names())
    async with proxying(lambda _, stream: to_end(stream)) as proxy:
        with pytest.raises(socket.gaierror) as caught:
            await fail(proxy.url(scheme))
    through = f"SOCKS to server.test:80 through {HOST}:{proxy.port}"
    assert caught.value.__notes__ == [f"looking up server.test:80, for {through}"]


async def test_socks_4_and_ipv6() -> None:
    async with proxying(lambda _, stream: to_end(stream)) as proxy:
        with pytest.raises(ProxyError, match="SOCKS 4 has no IPv6"):
            await fail(proxy.url("socks4a"), "ws://[::1]/")


@pytest.mark.sweep
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_cancellation_at_each_moment_leaves_nothing_open(scheme: str) -> None:
    async def scenario(moments: Moments) -> None:
        async with open_server(echo, 0, host=HOST) as target:
            play = tunnel if scheme == "http" else Socks(target.port).play

            async def until_closed(proxy: Proxy, stream: trio.abc.Stream) -> None:
                with suppress(AssertionError, trio.BrokenResourceError):
                    await play(proxy, stream)

            async with proxying(until_closed) as proxy:
                uri = f"ws://{HOST}:{target.port}/"
                with trio.CancelScope() as scope, moments.watch(scope.cancel):
                    async with connect(uri, proxy=proxy.url(scheme)):
                        pass

    assert sweep(scenario, mock_clock=False) > 10


@pytest.mark.parametrize("call", [connect, reconnect])
def test_without_the_extra(
    call: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r'pip install "trio_ws\[socks\]"$'):
        call("ws://x/", proxy="socks5://x")


# Arguments


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("proxy:80", "proxy:80 isn't a valid proxy: expected a host, after one of"),
        ("ftp://x", "ftp://x isn't a valid proxy"),
        ("http://user:secret@", "http://.*@ isn't .* hostname isn't provided"),
        ("http://user@x", "username provided without password"),
        ("http://x/path", "expected nothing after the host and the port"),
        ("http://x?", None),
        ("http://x#a", "expected nothing after"),
        ("http://x:70000", "expected a port from 1 to 65535"),
        ("http://x y", "expected no spaces"),
        ("socks5://user@x", "username provided without password"),
        ("socks4://us%C3%A9r@x", "expected ASCII"),
        ("socks5://user:@x", "1 to 255 characters each"),
        ("socks5://us%C3%A9r:secret@x", "expected ASCII"),
        ("socks5://user:" + "secret" * 50 + "@x", "1 to 255"),
    ],
)
def test_urls_that_are_wrong(url: str, text: str | None) -> None:
    if text is None:
        connect("ws://x/", proxy=url)
        return
    with pytest.raises(InvalidProxy, match=text) as caught:
        connect("ws://x/", proxy=url)
    assert "secret" not in str(caught.value) + repr(caught.value)
    assert caught.value.__context__ is None


async def test_arguments_that_contradict_each_other() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    client, _ = contexts()
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("proxy: expected no stream", {"proxy": "http://x", "stream": stream}),
        ("proxy_ssl: expected no stream", {"proxy_ssl": client, "stream": stream}),
        ("proxy_ssl: .* https://", {"proxy": "http://x", "proxy_ssl": client}),
        ("proxy_ssl: .* https://", {"proxy": None, "proxy_ssl": client}),
    ]
    for text, arguments in wrong:
        with pytest.raises(ValueError, match=f"^{text}"):
            connect("ws://x/", **arguments)
    for value in False, 1, b"http://x":
        with pytest.raises(TypeError, match=r"^proxy: expected a URL, True or None"):
            connect("ws://x/", proxy=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^proxy_ssl: expected an ssl\.SSLContext"):
        connect("ws://x/", proxy_ssl=True)  # type: ignore[arg-type]
