"""MemoryNetwork: an application's connect() and serve() as they are, and no network."""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.handlers import echo, stubborn, wait
from tests.leaks import open_descriptors
from tests.logs import messages
from tests.peers.certificates import contexts
from trio_ws import (
    ConnectionClosedError,
    InvalidHandshake,
    InvalidProxyStatus,
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
    serve,
)
from trio_ws._transports.network import Network, current_network
from trio_ws.testing import MemoryNetwork, open_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a socket is made, or a name looked up")

    for name in ("bind", "connect", "connect_ex", "listen"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


async def test_an_application_as_it_is(nursery: trio.Nursery) -> None:
    with MemoryNetwork() as network:
        server = await nursery.start(serve, echo, 8765)
        assert (server.port, server.sockets) == (8765, ())
        async with connect("ws://localhost:8765/chat") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
            assert ws.remote_address == ("localhost", 8765)
            (peer,) = server.connections
            assert peer.remote_address == ws.local_address
            assert peer.local_address == ws.remote_address
            assert peer.request.path == "/chat"
            (link,) = network.links
            assert link.client_address == ws.local_address
            assert (link.host, link.port) == ("localhost", 8765)
            assert repr(link) == "<MemoryLink 127.0.0.1:49152 - localhost:8765>"
            assert network.link(ws) is network.link(peer) is link
        await server.aclose()
        assert network.links == []


async def test_headers_and_subprotocols_pass() -> None:
    async def show(ws: ServerConnection) -> None:
        await ws.send(f"{ws.subprotocol} {ws.request.headers['X-A']}")

    with MemoryNetwork():
        async with open_server(show, 80, subprotocols=["b"]):
            async with connect(
                "ws://chat.example/",
                subprotocols=["a", "b"],
                additional_headers={"X-A": "1"},
                local_address="192.0.2.7",
            ) as ws:
                assert await ws.recv() == "b 1"
                assert ws.local_address[0] == "192.0.2.7"


async def test_a_refusal_of_a_hook() -> None:
    async def refuse(ws: ServerConnection, request: Request) -> Response:
        return ws.respond(403, "no")

    with MemoryNetwork() as network:
        async with open_server(echo, 80, process_request=refuse):
            with pytest.raises(InvalidStatus) as caught:
                async with connect("ws://chat.example/"):
                    raise AssertionError("entered")
            assert caught.value.response.status_code == 403
            await trio.testing.wait_all_tasks_blocked()
            assert network.links == []


async def check_refused(url: str) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        async with connect(url):
            raise AssertionError("entered")
    assert "connecting to" in caught.value.__notes__[0]


async def test_where_nobody_listens() -> None:
    with MemoryNetwork():
        await check_refused("ws://localhost:8765/")
        async with open_server(echo, 8765, host="a.example"):
            await check_refused("ws://localhost:8765/")
            await check_refused("ws://a.example:8766/")
        await check_refused("ws://a.example:8765/")


def named(name: str) -> Any:
    async def handler(ws: ServerConnection) -> None:
        await ws.send(name)

    return handler


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", "a"),
        ("A.Example.", "a"),
        ("b.example", "all"),
        ("localhost", "local"),
        ("127.0.0.1", "local"),
        ("[::1]", "local"),
    ],
)
async def test_which_server_a_name_leads_to(host: str, expected: str) -> None:
    with MemoryNetwork():
        async with (
            open_server(named("all"), 80),
            open_server(named("a"), 80, host="a.example"),
            open_server(named("local"), 80, host="127.0.0.1"),
        ):
            async with connect(f"ws://{host}/") as ws:
                assert await ws.recv() == expected


@pytest.mark.parametrize(
    "hosts", [(None, "0.0.0.0"), ("localhost", "::1"), ("a.example", "A.EXAMPLE")]
)
async def test_a_port_that_is_taken(hosts: tuple[str | None, str]) -> None:
    with MemoryNetwork():
        async with open_server(echo, 80, host=hosts[0]):
            with pytest.raises(OSError, match=r".") as caught:
                async with open_server(echo, 80, host=hosts[1]):
                    raise AssertionError("entered")
            assert caught.value.errno == errno.EADDRINUSE
        async with open_server(echo, 80, host=hosts[1]):
            pass


async def test_port_0_takes_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_ws._testing.exchange._FREE_PORTS", range(50000, 50003))
    with MemoryNetwork():
        async with open_server(echo, 50000), open_server(echo, 0) as server:
            assert server.port == 50001
            async with connect("ws://localhost:50001/") as ws:
                assert ws.local_address == ("127.0.0.1", 50002)
                with pytest.raises(OSError, match=r".") as caught:
                    async with connect("ws://localhost:50001/"):
                        raise AssertionError("entered")
                assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_redirects_lead_from_server_to_server() -> None:
    async def move(ws: ServerConnection, request: Request) -> Response:
        response = ws.respond(302, "")
        response.headers["Location"] = "ws://b.example:81/"
        return response

    with MemoryNetwork():
        async with (
            open_server(echo, 80, host="a.example", process_request=move),
            open_server(named("b"), 81, host="b.example"),
            connect("ws://a.example/") as ws,
        ):
            assert await ws.recv() == "b"


async def test_proxies_of_the_environment_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    with MemoryNetwork():
        async with open_server(named("direct"), 80):
            async with connect("ws://a.example/") as ws:
                assert await ws.recv() == "direct"
            with pytest.raises(ConnectionRefusedError) as caught:
                async with connect("ws://a/", proxy="http://proxy.example:3128"):
                    raise AssertionError("entered")
            assert caught.value.__notes__ == ["connecting to proxy proxy.example:3128"]


async def test_a_proxy_that_is_named_is_in_the_network() -> None:
    """One that refuses: to a server of ours CONNECT is no method."""
    with MemoryNetwork():
        async with open_server(echo, 3128, host="proxy.example"):
            with pytest.raises(InvalidProxyStatus, match="HTTP 405"):
                async with connect("ws://a/", proxy="http://proxy.example:3128"):
                    raise AssertionError("entered")


async def test_tls() -> None:
    client, server = contexts()
    with MemoryNetwork() as network:
        async with open_server(echo, 443, ssl=server):
            async with connect("wss://localhost/", ssl=client) as ws:
                for message in ("x", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.close_code == 1000
            async with connect("wss://localhost/", ssl=client) as ws:
                network.link(ws).reset()
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert network.links == []


async def test_each_connection_has_its_link() -> None:
    with MemoryNetwork() as network:
        async with open_server(wait, 80):
            async with connect("ws://a/") as one, connect("ws://b/") as other:
                assert [network.link(ws) for ws in (one, other)] == network.links
                assert [link.host for link in network.links] == ["a", "b"]


async def test_what_a_server_cannot_take_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise OSError("no")

    with MemoryNetwork() as network:
        async with open_server(echo, 80):
            monkeypatch.setattr("trio_ws._server.opening.transport_of", fail)
            await check_lost("ws://a/")
            assert network.links == []


# Back-pressure


@pytest.mark.parametrize("buffer_size", [1, 1000, 2**16])
async def test_a_sender_waits_for_who_does_not_read(
    autojump_clock: MockClock, buffer_size: int
) -> None:
    sent = 0
    with MemoryNetwork(buffer_size=buffer_size):
        async with open_server(stubborn, 80, max_queue=1, ping_interval=None) as server:
            async with connect(
                "ws://a/", ping_interval=None, write_limit=1000, compression=None
            ) as ws:
                with trio.move_on_after(5) as scope:
                    while True:
                        await ws.send(b"x" * 100)
                        sent += 1
                assert scope.cancelled_caught
                # What one read brought is parsed, whatever max_queue says. A frame has
                # 106 bytes.
                assert buffer_size <= sent * 106 < 2 * buffer_size + 2000
                # And goes on as soon as there is room.
                (peer,) = server.connections
                with trio.fail_after(5):
                    for _ in range(sent):
                        await peer.recv()
                    await ws.send("more")
                    assert await peer.recv() == "more"
                await ws.aclose()
                await server.aclose(timeout=0)


# Latency


async def test_latency(autojump_clock: MockClock) -> None:
    with MemoryNetwork(latency=0.1):
        async with open_server(echo, 80):
            async with connect("ws://a/") as ws:
                assert trio.current_time() == pytest.approx(0.4)  # TCP, then HTTP
                assert await ws.ping() == pytest.approx(0.2)
                await ws.send("x" * 200_000)  # more than is under way at a time
                assert len(await ws.recv()) == 200_000
                before = trio.current_time()
            assert trio.current_time() - before == pytest.approx(0.2)


# The end of the network


async def test_what_is_open_at_the_end_is_reset(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        with MemoryNetwork() as network:
            handlers = await nursery.start(open_nursery)
            server = await nursery.start(run_server, handlers)
            manager = connect("ws://localhost:8765/")
            ws = await manager.__aenter__()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        await manager.__aexit__(None, None, None)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        await trio.testing.wait_all_tasks_blocked()
        assert network.links == []
        assert server.connections == set()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0
    assert open_descriptors() == before
    assert messages(caplog) == ["listening on ('127.0.0.1', 8765)"]


async def open_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


async def run_server(handlers: trio.Nursery, task_status: trio.TaskStatus[Any]) -> None:
    with pytest.raises(
        trio.ClosedResourceError, match=r"listens at 127\.0\.0\.1:8765:"
    ):
        await serve(
            wait,
            8765,
            host="127.0.0.1",
            handler_nursery=handlers,
            task_status=task_status,
        )


@pytest.mark.parametrize("first", ["network", "nursery"])
async def test_it_ends_together_with_who_uses_it(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fixtures that don't depend on each other are torn down at the same time."""

    async def be_connected(task_status: trio.TaskStatus[None]) -> None:
        async with connect("ws://localhost:8765/") as ws:
            task_status.started()
            await ws.recv()

    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        network.__enter__()
        await nursery.start(serve, stubborn, 8765)
        await nursery.start(be_connected)
        if first == "network":
            network.__exit__(None, None, None)
        nursery.cancel_scope.cancel()
        if first == "nursery":
            network.__exit__(None, None, None)
    assert network.links == []
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_who_connects_at_the_end_is_told() -> None:
    async def connecting() -> None:
        with pytest.raises(OSError, match=r".") as caught:
            async with connect("ws://localhost:8765/"):
                raise AssertionError("entered")
        assert caught.value.errno == errno.ENETDOWN

    async with trio.open_nursery() as nursery:
        with MemoryNetwork() as network:
            network.freeze()
            nursery.start_soon(connecting)
            await trio.testing.wait_all_tasks_blocked()


def network_of_this_run() -> Network:
    network = current_network()
    assert network is not None
    return network


async def check_lost(url: str) -> None:
    with pytest.raises((OSError, InvalidHandshake)):
        async with connect(url):
            raise AssertionError("entered")


async def test_who_was_not_accepted_finds_the_listener_closed() -> None:
    with MemoryNetwork() as network:
        listener = network_of_this_run().listen(None, 80)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_lost, "ws://a/")
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
            await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        assert network.links == []


async def test_networks_nest() -> None:
    with MemoryNetwork():
        async with open_server(named("outer"), 80):
            with MemoryNetwork():
                await check_refused("ws://a/")
                async with open_server(named("inner"), 80):
                    async with connect("ws://a/") as ws:
                        assert await ws.recv() == "inner"
            async with connect("ws://a/") as ws:
                assert await ws.recv() == "outer"


def test_a_network_is_of_one_trio_run() -> None:
    async def main() -> None:
        with MemoryNetwork():
            async with open_server(echo, 80):
                async with connect("ws://a/"):
                    pass

    async def another() -> None:
        with pytest.raises(AssertionError, match="a socket is made"):
            async with open_server(echo, 80):
                pass

    trio.run(main)
    trio.run(another)


# Wrong uses


@pytest.mark.parametrize("error", [None, ValueError("the user's")])
async def test_networks_that_are_left_out_of_order(error: Exception | None) -> None:
    with MemoryNetwork():
        async with open_server(named("outer"), 80):
            first, second = MemoryNetwork(), MemoryNetwork()
            first.__enter__()
            second.__enter__()
            if error is None:
                with pytest.raises(RuntimeError, match="entered later goes on"):
                    first.__exit__(None, None, None)
            else:
                first.__exit__(type(error), error, None)
            async with open_server(named("inner"), 80):
                async with connect("ws://a/") as ws:
                    assert await ws.recv() == "inner"
            second.__exit__(None, None, None)
            async with connect("ws://a/") as ws:
                assert await ws.recv() == "outer"


async def test_what_is_said_of_a_place_again_is_not_kept() -> None:
    with MemoryNetwork() as network:
        async with open_server(echo, 80):
            for _ in range(100):
                network.freeze("a")
                network.freeze("a", 80)
                network.thaw()
                network.freeze("b", 80)
                network.thaw("b")
            assert len(network._exchange._frozen) == 2
            async with connect("ws://a/"), connect("ws://b/"):
                pass


def test_outside_of_trio() -> None:
    with pytest.raises(RuntimeError, match="needs a trio run"):
        with MemoryNetwork():
            pass


async def test_it_is_entered_once() -> None:
    network = MemoryNetwork()
    with network:
        with pytest.raises(RuntimeError, match="entered once"):
            network.__enter__()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"latency": -1}, "latency: expected a finite number of seconds, at least 0"),
        ({"latency": None}, "latency: expected a finite number"),
        ({"latency": float("inf")}, "latency: expected a finite number"),
        ({"buffer_size": 0}, "buffer_size: expected at least 1"),
    ],
)
def test_wrong_values(arguments: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        MemoryNetwork(**arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"latency": "1"}, "latency: expected a finite number of seconds"),
        ({"buffer_size": None}, "buffer_size: expected an int"),
        ({"on_connect": 1}, "on_connect: expected a function"),
        ({"on_connect": stubborn}, "on_connect: expected a function that isn't async"),
    ],
)
def test_wrong_types(arguments: Any, expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        MemoryNetwork(**arguments)


async def test_a_connection_of_elsewhere_has_no_link() -> None:
    with MemoryNetwork() as network:
        async with open_pair() as (client, _):
            with pytest.raises(ValueError, match="expected one of this network"):
                network.link(client)
