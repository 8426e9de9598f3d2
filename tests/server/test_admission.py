"""How many connections a server takes, and what the others are told."""

from __future__ import annotations

import logging
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests import logs
from tests.handlers import wait
from tests.peers import raw_http
from tests.peers.certificates import contexts
from tests.peers.in_memory import MemoryListener
from tests.peers.sockets import reset
from tests.peers.stream_peer import server_peer
from tests.server.serving import ask, records, serving
from trio_ws import (
    InvalidStatus,
    Request,
    Server,
    ServerConnection,
    ServerOptions,
    accept,
    connect,
    open_server,
)
from trio_ws._server.admission import Admission, Ticket
from trio_ws.testing import MemoryNetwork

LOCAL = "127.0.0.1"


def admission(server: Server) -> Admission:
    return server._sessions.admission


async def connected(stack: AsyncExitStack, port: int, host: str = LOCAL) -> Any:
    uri = f"ws://localhost:{port}"
    return await stack.enter_async_context(connect(uri, host=host))


def header(address: str) -> bytes:
    version = 6 if ":" in address else 4
    return f"PROXY TCP{version} {address} {address} 1 2\r\n".encode()


@pytest.mark.parametrize(
    ("limit", "status"), [("max_connections", 503), ("max_connections_per_ip", 429)]
)
async def test_more_are_refused(limit: str, status: int) -> None:
    limits: dict[str, Any] = {limit: 2}
    async with open_server(wait, 0, host=LOCAL, **limits) as server:
        async with AsyncExitStack() as stack:
            first = await connected(stack, server.port)
            await connected(stack, server.port)
            for _ in range(3):
                with pytest.raises(InvalidStatus) as caught:
                    await connected(stack, server.port)
                response = caught.value.response
                assert response.status_code == status
                assert response.headers["Retry-After"] == "10"
            await first.aclose()
            await wait_all_tasks_blocked()
            await connected(stack, server.port)
            with pytest.raises(InvalidStatus):
                await connected(stack, server.port)
        await wait_all_tasks_blocked()
        counts = admission(server)
        assert (counts.connections, counts.handshakes) == (0, 0)
        assert counts.by_source == {}


async def test_those_that_are_not_open_yet_count() -> None:
    async with open_server(wait, 0, host=LOCAL, max_connections=1) as server:
        stream = await trio.open_tcp_stream(LOCAL, server.port)
        await wait_all_tasks_blocked()
        async with AsyncExitStack() as stack:
            with pytest.raises(InvalidStatus, match="503"):
                await connected(stack, server.port)
            await stream.aclose()
            await wait_all_tasks_blocked()
            await connected(stack, server.port)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_connections": 1},
        {"max_connections_per_ip": 1},
        {"max_connections": 1, "max_connections_per_ip": 1},
    ],
)
async def test_who_is_refused_and_says_nothing_is_soon_closed(
    limits: dict[str, Any], autojump_clock: MockClock
) -> None:
    listener = MemoryListener()
    async with open_server(
        wait, listeners=[listener], proxy_protocol=True, max_handshakes=2, **limits
    ) as server:
        first, *silent = [listener.connect() for _ in range(6)]
        await first.send_all(header("192.0.2.1") + raw_http.request())
        await raw_http.read_switch(first)
        for stream in silent:  # which take no place of a handshake, either
            await stream.send_all(header("192.0.2.1"))
        await wait_all_tasks_blocked()
        assert admission(server).handshakes == 0
        assert server.statistics().handshakes == 5
        last = listener.connect()
        await last.send_all(header("192.0.2.1") + raw_http.request())
        answer = await raw_http.read_answer(last)
        assert answer.status in (429, 503)
        await last.aclose()
        assert trio.current_time() == 0
        for stream in silent:
            assert (await raw_http.read_answer(stream)).status == answer.status
        assert trio.current_time() == 1
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        counts = admission(server)
        assert (counts.under_way, counts.connections) == (0, 1)
        await first.aclose()


async def test_who_is_refused_has_a_moment_to_ask(autojump_clock: MockClock) -> None:
    async with serving(wait, max_connections=1) as listener:
        async with connect("ws://testing/", stream=listener.connect()):
            stream = listener.connect()
            await trio.sleep(0.9)
            await stream.send_all(raw_http.request())
            assert (await raw_http.read_answer(stream)).status == 503
            assert trio.current_time() == 0.9


async def test_who_is_refused_and_takes_no_answer_is_soon_closed(
    autojump_clock: MockClock,
) -> None:
    listener, peer = MemoryListener(), server_peer()
    peer.takes = 0
    async with open_server(wait, listeners=[listener], max_connections=1) as server:
        async with connect("ws://testing/", stream=listener.connect()):
            listener.add(peer)
            await trio.sleep(3)
            assert server.statistics().refused == {"HTTP 503": 1}
            assert peer.closed


async def test_of_a_crowd_that_is_refused_some_get_an_answer(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.server")
    monkeypatch.setattr("trio_ws._server.admission._MAX_REFUSED", 3)
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener], max_connections=1) as server:
        async with connect("ws://testing/", stream=listener.connect()):
            heard = []
            for _ in range(3):
                heard.append(listener.connect())
                await wait_all_tasks_blocked()
            for _ in range(10):
                assert await listener.connect().receive_some() == b""
            assert trio.current_time() == 0
            for stream in heard:
                await stream.send_all(raw_http.request())
                assert (await raw_http.read_answer(stream)).status == 503
                await stream.aclose()
            await wait_all_tasks_blocked()
            refused = server.statistics().refused
            assert refused == {"HTTP 503": 3, "Unanswered": 10}
            lines = [logs.plain(record) for record in logs.told(caplog)]
            assert lines.count("connection rejected: HTTP 503") == 3
            failed = (
                "opening handshake failed: Unanswered: HTTP 503, to too many at a time"
            )
            assert lines.count(failed) == 10
            assert (await ask(listener)).status == 503


async def test_who_asks_and_resets_leaves_nothing_counted() -> None:
    async with open_server(
        wait, 0, host=LOCAL, max_connections=40, max_connections_per_ip=40
    ) as server:
        for said in raw_http.request(), raw_http.request()[:20], b"":
            for _ in range(30):
                sock = socket.create_connection((LOCAL, server.port))
                sock.sendall(said)
                reset(sock)
        await wait_all_tasks_blocked()
        counts = admission(server)
        while counts.connections:  # what the kernel tells of may be late
            await wait_all_tasks_blocked()
        assert counts.handshakes == 0
        assert counts.by_source == {}


@pytest.mark.parametrize(
    ("others", "status"),
    [
        (["192.0.2.1"], 429),
        (["192.0.2.2"], 101),
        (["::ffff:192.0.2.1"], 429),
        (["2001:db8::1"], 101),
        (["2001:db8::1", "2001:db8::ffff:2"], 429),
        (["2001:db8::1", "2001:db8:0:1::1"], 101),
    ],
)
async def test_by_the_address_that_a_proxy_tells(
    others: list[str], status: int, autojump_clock: MockClock
) -> None:
    async with serving(wait, proxy_protocol=True, max_connections_per_ip=1) as listener:
        for address in ["192.0.2.1", *others[:-1]]:
            stream = listener.connect()
            await stream.send_all(header(address) + raw_http.request())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        stream = listener.connect()
        await stream.send_all(header(others[-1]) + raw_http.request())
        assert (await stream.receive_some()).startswith(f"HTTP/1.1 {status} ".encode())


async def test_who_asks_too_often_takes_no_place(autojump_clock: MockClock) -> None:
    async with serving(
        wait, proxy_protocol=True, max_connections=2, max_connections_per_ip=1
    ) as listener:
        for address, status in (
            ("192.0.2.1", b"101"),
            ("192.0.2.1", b"429"),
            ("192.0.2.1", b"429"),
            ("192.0.2.2", b"101"),
            ("192.0.2.3", b"503"),
        ):
            stream = listener.connect()
            await stream.send_all(header(address) + raw_http.request())
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 " + status)


async def test_those_without_an_address_are_not_counted_by_it() -> None:
    async with serving(wait, max_connections_per_ip=1) as listener:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                stream = listener.connect()
                await stack.enter_async_context(connect("ws://testing/", stream=stream))


@pytest.mark.parametrize("address", [(2, 1024), (b"\0\1", 5)])
async def test_those_whose_address_is_no_host_are_not_counted_by_it(
    address: tuple[object, ...],
) -> None:
    """Of AF_VSOCK and the like: a number of a machine, say."""
    counts = Admission(ServerOptions(max_connections_per_ip=1))
    for _ in range(3):
        ticket = Ticket(counts)
        ticket.accepted()
        ticket.arrived(address)
        assert ticket.refusal(opens=True) is None
    assert counts.by_source == {}


async def test_those_of_a_memory_network_may_have_names() -> None:
    with MemoryNetwork():
        async with open_server(wait, 8765, max_connections_per_ip=1) as server:
            uri = "ws://localhost:8765/"
            async with connect(uri, local_address="alice"):
                with pytest.raises(InvalidStatus, match="429"):
                    async with connect(uri, local_address="alice"):
                        raise AssertionError("unreachable")
                async with connect(uri, local_address="bob"):
                    assert server.statistics().connections == 2


async def test_handshakes_wait_for_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(wait, 0, host=LOCAL, max_handshakes=3) as server:
        slow = [await trio.open_tcp_stream(LOCAL, server.port) for _ in range(5)]
        await wait_all_tasks_blocked()
        assert admission(server).handshakes == 3
        async with trio.open_nursery() as nursery:

            async def opened() -> None:
                async with connect(f"ws://{LOCAL}:{server.port}") as ws:
                    nursery.cancel_scope.cancel()
                    assert ws.close_code is None

            nursery.start_soon(opened)
            await wait_all_tasks_blocked()
            assert len(server.connections) == 0
            for stream in slow:
                await stream.aclose()
        await wait_all_tasks_blocked()
        assert admission(server).handshakes == 0
    (record,) = records(caplog, logging.ERROR)
    expected = "accepting no connections for now: 3 handshakes are under way"
    assert record.getMessage() == f"{expected} (max_handshakes)"


async def test_streams_wait_for_others() -> None:
    listener = MemoryListener()
    async with open_server(wait, listeners=[listener], max_handshakes=1) as server:
        slow = listener.connect()
        await wait_all_tasks_blocked()
        waits = listener.connect()
        await waits.send_all(raw_http.request())
        await wait_all_tasks_blocked()
        assert len(server.connections) == 0
        await slow.aclose()
        await wait_all_tasks_blocked()
        assert len(server.connections) == 1
        await trio.aclose_forcefully(waits)


async def test_a_server_that_waits_closes(autojump_clock: MockClock) -> None:
    async with open_server(wait, 0, host=LOCAL, max_handshakes=1) as server:
        async with await trio.open_tcp_stream(LOCAL, server.port):
            await wait_all_tasks_blocked()
            await server.aclose()


async def test_streams_of_several_listeners_wait_for_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listeners = [MemoryListener() for _ in range(3)]
    async with open_server(wait, listeners=listeners, max_handshakes=1) as server:
        await wait_all_tasks_blocked()  # each accepts
        streams = [listener.connect() for listener in listeners]
        await wait_all_tasks_blocked()
        assert server.statistics().handshakes == 1
        for stream in streams:  # in whatever order they have their turn
            await stream.send_all(raw_http.request())
        for stream in streams:
            await raw_http.read_switch(stream)
        assert len(server.connections) == 3
        for stream in streams:
            await trio.aclose_forcefully(stream)
    assert len(records(caplog, logging.ERROR)) == 1


async def test_a_stream_that_waits_is_closed_with_the_server() -> None:
    listeners = [MemoryListener() for _ in range(2)]
    async with open_server(wait, listeners=listeners, max_handshakes=1) as server:
        await wait_all_tasks_blocked()
        streams = [listener.connect() for listener in listeners]
        await wait_all_tasks_blocked()
        await server.aclose(timeout=0)
        for stream in streams:
            await trio.aclose_forcefully(stream)


HEALTH = b"GET /health HTTP/1.1"


class Hook:
    """Answers plain HTTP, and what else it is told to."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.calls = 0

    async def __call__(self, ws: ServerConnection, request: Request) -> Any:
        self.calls += 1
        await trio.sleep(self.seconds)
        return ws.respond(200, "OK\n") if request.path == "/health" else None


@pytest.mark.parametrize("seconds", [0, 5])
async def test_health_checks_need_no_place(
    seconds: float, autojump_clock: MockClock
) -> None:
    hook = Hook(seconds)
    listener = MemoryListener()
    async with open_server(
        wait, listeners=[listener], max_connections=1, process_request=hook
    ) as server:
        stream = listener.connect()
        async with connect("ws://testing/", stream=stream):
            hook.calls = 0
            refused = await ask(listener)
            assert (refused.status, refused.header("Retry-After")) == (503, "10")
            assert hook.calls == 0
            answer = await ask(listener, line=HEALTH, without=b"Upgrade")
            assert (answer.status, answer.rest) == (200, b"OK\n")
            # As where there is room, one that no hook answers is told what is wrong.
            assert (await ask(listener, without=b"Upgrade")).status == 426
            assert server.statistics().places_taken == 1
        await wait_all_tasks_blocked()
        now = server.statistics()
        assert (now.answered, now.places_taken) == (1, 0)
        assert now.refused == {"HTTP 503": 1, "InvalidUpgrade": 1}


async def test_without_a_hook_all_need_a_place(autojump_clock: MockClock) -> None:
    async with serving(wait, max_connections=1) as listener:
        async with connect("ws://testing/", stream=listener.connect()):
            assert (await ask(listener, without=b"Upgrade")).status == 503


async def test_no_hook_makes_a_websocket_of_plain_http_where_there_is_no_room(
    autojump_clock: MockClock,
) -> None:
    def hook(ws: ServerConnection, request: Request) -> None:
        if "Upgrade" not in request.headers:
            request.headers["Upgrade"] = "websocket"

    async with serving(wait, max_connections=1, process_request=hook) as listener:
        stream = listener.connect()
        await stream.send_all(raw_http.request(without=b"Upgrade"))
        await raw_http.read_switch(stream)
        assert (await ask(listener, without=b"Upgrade")).status == 503
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("tls", [False, True])
async def test_health_checks_by_way_of_a_proxy(tls: bool) -> None:
    for_client, for_server = contexts()
    context = for_server if tls else None
    options: dict[str, Any] = {"max_connections": 3, "max_connections_per_ip": 2}
    async with open_server(
        wait,
        0,
        host=LOCAL,
        ssl=context,
        proxy_protocol=True,
        process_request=Hook(),
        **options,
    ) as server:

        async def dial(address: str) -> trio.abc.Stream:
            stream: trio.abc.Stream = await trio.open_tcp_stream(LOCAL, server.port)
            await stream.send_all(header(address))
            if tls:
                stream = trio.SSLStream(
                    stream,
                    for_client,
                    server_hostname="localhost",
                    https_compatible=True,
                )
            return stream

        async def status(address: str) -> int:
            stream = await dial(address)
            await stream.send_all(raw_http.request(line=HEALTH, without=b"Upgrade"))
            answer = await raw_http.read_answer(stream)
            await stream.aclose()
            return answer.status

        streams = []
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            streams.append(await dial(address))
            await streams[-1].send_all(raw_http.request())
            await raw_http.read_switch(streams[-1])
        for _ in range(3):  # and take no place of the address, either
            assert await status("192.0.2.2") == 200
        assert await status("192.0.2.1") == 429
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def test_who_is_refused_takes_no_place_of_its_address(
    autojump_clock: MockClock,
) -> None:
    listener = MemoryListener()
    async with open_server(
        wait,
        listeners=[listener],
        proxy_protocol=True,
        max_connections=1,
        max_connections_per_ip=2,
    ) as server:

        async def dial(address: str, request: bytes) -> trio.abc.Stream:
            stream = listener.connect()
            await stream.send_all(header(address) + request)
            await wait_all_tasks_blocked()
            return stream

        other = await dial("192.0.2.2", raw_http.request())
        refused = [await dial("192.0.2.1", b"") for _ in range(2)]
        assert len(admission(server).by_source) == 1
        await trio.aclose_forcefully(other)
        await wait_all_tasks_blocked()
        stream = await dial("192.0.2.1", raw_http.request())
        await raw_http.read_switch(stream)
        for one in [*refused, stream]:
            await trio.aclose_forcefully(one)
        await wait_all_tasks_blocked()
        assert admission(server).by_source == {}


LIMITS = ["max_connections", "max_connections_per_ip", "max_handshakes"]


@pytest.mark.parametrize("name", LIMITS)
async def test_wrong_arguments(name: str) -> None:
    wrong: list[tuple[object, type[Exception], str]] = [
        (0, ValueError, "expected at least 1; got 0"),
        ("1", TypeError, "expected an int or None; got '1'"),
        (True, TypeError, "got True"),
    ]
    for value, error, text in wrong:
        arguments: dict[str, Any] = {name: value}
        with pytest.raises(error, match=f"{name}: .*{text}"):
            open_server(wait, 0, **arguments)
    stream, _ = trio.testing.memory_stream_pair()
    arguments = {name: 1}
    with pytest.raises(TypeError, match=f"{name}: accept.. is for one connection"):
        accept(stream, **arguments)
